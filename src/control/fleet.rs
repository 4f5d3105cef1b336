//! Changes that go to etcd, from where they come back to every process of the fleet by its watch.
//!
//! A change is made of what etcd has at that moment, not of what this process knows; a writer that
//! names a revision is refused where the two differ. Runs beside the publisher, on the control
//! thread; `handle` calls it.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::BackendConfig;
use crate::control::handle::{Command, Done, Handle, Plan, What, Write};
use crate::control::refusal::Refusal;
use crate::control::registry::patched;
use crate::discovery::Writer;

/// What is to be done in etcd.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is as it should be.
    Nothing,
    Put(BackendConfig),
    Delete,
}

/// Has etcd do what is asked, and answers once this process follows, or etcd's watch is slow.
pub(super) async fn write(handle: &Handle, etcd: &Writer, write: Write) -> Result<Done, Refusal> {
    let begun = Instant::now();
    let name = &write.name;
    loop {
        let Plan { told, view } = handle.ask(|reply| Command::Plan(write.clone(), reply)).await??;
        let stored = etcd.read(&name.pool, &name.authority).await?;
        let swapped = match step(&write, told.as_ref(), stored.backend())? {
            Step::Nothing => Some(stored.revision()),
            Step::Put(backend) => stored.swap(Some(&backend)).await?,
            Step::Delete => stored.swap(None).await?,
        };
        let Some(revision) = swapped else {
            // Whoever names no revision wants it done to whatever there is.
            if write.expected.is_none() && begun.elapsed() < RETRY_TIME_MAX {
                continue;
            }
            return Err(Refusal::Overtaken(name.to_string()));
        };
        handle.wait_for(revision).await;
        let after = handle.backend(&name.pool, &name.authority).await.ok();
        return Ok(Done { before: view, after, is_kept: true });
    }
}

/// What a write makes of a backend that etcd has so, where it had told of it so.
fn step(
    write: &Write,
    told: Option<&BackendConfig>,
    stored: Option<&BackendConfig>,
) -> Result<Step, Refusal> {
    if write.expected.is_some() && told != stored {
        return Err(Refusal::Overtaken(write.name.to_string()));
    }
    match (&write.what, stored) {
        (What::Add(_), Some(_)) => Err(Refusal::Exists(write.name.to_string())),
        (What::Add(backend), None) => Ok(Step::Put(backend.clone())),
        (What::Reset, _) => Ok(Step::Nothing),
        (_, None) => Err(Refusal::UnknownBackend(write.name.to_string())),
        (What::Patch(patch), Some(before)) => match patched(before, patch)? {
            backend if backend == *before => Ok(Step::Nothing),
            backend => Ok(Step::Put(backend)),
        },
        (What::Remove, Some(_)) => Ok(Step::Delete),
    }
}

/// How long a change that others overtake is begun again.
const RETRY_TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::control::Revision;
    use crate::control::handle::{Name, Patch};
    use crate::control::tests::backend;

    #[test]
    fn a_change_is_made_of_what_etcd_has_unless_its_writer_has_seen_something_else() {
        let [old, new] = [Mode::Ready, Mode::Drain].map(|mode| backend("h", 1, mode));
        let name = || Name { pool: "p".to_owned(), authority: "h:1".to_owned() };
        let (id, patch) = ("p/h:1".to_owned(), |mode| {
            What::Patch(Patch { mode: Some(mode), ..Patch::default() })
        });
        let overtaken = || Err(Refusal::Overtaken(id.clone()));
        let unknown = || Err(Refusal::UnknownBackend(id.clone()));
        for (what, expected, told, stored, result) in [
            (What::Add(old.clone()), None, None, None, Ok(Step::Put(old.clone()))),
            (What::Add(old.clone()), None, None, Some(&new), Err(Refusal::Exists(id.clone()))),
            (patch(Mode::Drain), None, Some(&old), Some(&old), Ok(Step::Put(new.clone()))),
            (patch(Mode::Drain), None, Some(&old), Some(&new), Ok(Step::Nothing)),
            (patch(Mode::Ready), None, Some(&old), Some(&new), Ok(Step::Put(old.clone()))),
            (patch(Mode::Ready), None, Some(&old), None, unknown()),
            (patch(Mode::Ready), Some(1), Some(&old), Some(&new), overtaken()),
            (patch(Mode::Ready), Some(1), Some(&old), None, overtaken()),
            (patch(Mode::Drain), Some(1), Some(&old), Some(&old), Ok(Step::Put(new.clone()))),
            (What::Remove, None, Some(&old), Some(&new), Ok(Step::Delete)),
            (What::Remove, Some(1), Some(&old), Some(&new), overtaken()),
            (What::Remove, None, Some(&old), None, unknown()),
        ] {
            let case = format!("{what:?} {expected:?} {told:?} {stored:?}");
            let write = Write { name: name(), what, expected: expected.map(Revision) };
            assert_eq!(step(&write, told, stored), result, "{case}");
        }
    }
}
