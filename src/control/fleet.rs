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
            Step::Nothing if told.as_ref() == stored.backend() => {
                let before = view.clone();
                return Ok(Done { before, after: view, is_kept: true, is_followed: true });
            }
            Step::Nothing => Some(stored.mark()),
            Step::Put(backend) => stored.swap(Some(&backend)).await?,
            Step::Delete => stored.swap(None).await?,
        };
        let Some(mark) = swapped else {
            // Whoever names no revision wants it done to whatever there is.
            if write.expected.is_none() && begun.elapsed() < RETRY_TIME_MAX {
                continue;
            }
            return Err(Refusal::Overtaken(name.to_string()));
        };
        let is_in_force = handle.wait_for(mark).await;
        let after = handle.backend(&name.pool, &name.authority).await.ok();
        // What was put there and is not shown here was removed again meanwhile.
        let is_followed = is_in_force && (after.is_some() || write.what == What::Remove);
        return Ok(Done { before: view, after, is_kept: true, is_followed });
    }
}

/// What a write makes of a backend that etcd has so, where it had told of it so.
fn step(
    write: &Write,
    told: Option<&BackendConfig>,
    stored: Option<&BackendConfig>,
) -> Result<Step, Refusal> {
    let id = || write.name.to_string();
    match (&write.what, stored) {
        (What::Add(_), Some(_)) => Err(Refusal::Exists(id())),
        (What::Add(backend), None) => Ok(Step::Put(backend.clone())),
        (What::Reset, _) => Ok(Step::Nothing),
        (_, None) if told.is_some() => Err(Refusal::NotInEtcd(id())),
        (_, None) => Err(Refusal::UnknownBackend(id())),
        _ if write.expected.is_some() && told != stored => Err(Refusal::Overtaken(id())),
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
        let gone = || Err(Refusal::NotInEtcd(id.clone()));
        for (what, expected, told, stored, result) in [
            (What::Add(old.clone()), None, None, None, Ok(Step::Put(old.clone()))),
            (What::Add(old.clone()), None, None, Some(&new), Err(Refusal::Exists(id.clone()))),
            (What::Add(new.clone()), None, Some(&old), None, Ok(Step::Put(new.clone()))),
            (patch(Mode::Drain), None, Some(&old), Some(&old), Ok(Step::Put(new.clone()))),
            (patch(Mode::Drain), None, Some(&old), Some(&new), Ok(Step::Nothing)),
            (patch(Mode::Ready), None, Some(&old), Some(&new), Ok(Step::Put(old.clone()))),
            (patch(Mode::Ready), None, Some(&old), None, gone()),
            (patch(Mode::Ready), None, None, None, Err(Refusal::UnknownBackend(id.clone()))),
            (patch(Mode::Ready), Some(1), Some(&old), Some(&new), overtaken()),
            (patch(Mode::Ready), Some(1), Some(&old), None, gone()),
            (patch(Mode::Drain), Some(1), Some(&old), Some(&old), Ok(Step::Put(new.clone()))),
            (What::Remove, None, Some(&old), Some(&new), Ok(Step::Delete)),
            (What::Remove, Some(1), Some(&old), Some(&new), overtaken()),
            (What::Remove, None, Some(&old), None, gone()),
        ] {
            let case = format!("{what:?} {expected:?} {told:?} {stored:?}");
            let write = Write { name: name(), what, expected: expected.map(Revision) };
            assert_eq!(step(&write, told, stored), result, "{case}");
        }
    }
}
