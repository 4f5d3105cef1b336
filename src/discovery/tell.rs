//! Tells a source's sets, without a gap between those that go and those that come.
//!
//! Backends that come take requests only after their first check. So where some come and others go
//! at once, all are told first, and the new set a little later. Runs beside each source.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::config::{BACKENDS_MAX, Source};
use crate::discovery::{Found, Set, Update};

/// What a source is called, and whom it tells.
pub(super) struct Teller {
    /// What kind of source it is.
    pub(super) source: Source,
    /// Which of its kind.
    pub(super) origin: String,
    /// Where its sets go.
    pub(super) updates: mpsc::Sender<Update>,
}

impl Teller {
    /// Tells each set that comes, until nobody sends or receives.
    pub(super) async fn run(self, mut sets: mpsc::Receiver<Set>) {
        let mut last = Set::default();
        let mut later: Option<(Instant, Set)> = None;
        loop {
            let time = later.as_ref().map(|(time, _)| *time);
            let set = tokio::select! {
                set = sets.recv() => {
                    let Some(set) = set else { return };
                    match overlap(&last.backends, &set.backends) {
                        Some(backends) => {
                            later = Some((Instant::now() + OVERLAP, set));
                            // What goes is not gone yet.
                            Set { backends, ..last }
                        }
                        None => {
                            later = None;
                            set
                        }
                    }
                }
                () = sleep_until(time.unwrap_or_else(Instant::now)), if time.is_some() => {
                    let Some((_, set)) = later.take() else { continue };
                    set
                }
                () = self.updates.closed() => return,
            };
            last.clone_from(&set);
            let Set { backends, mark, told } = set;
            let (source, origin) = (self.source, self.origin.clone());
            if self.updates.send(Update { source, origin, backends, mark, told }).await.is_err() {
                return;
            }
        }
    }
}

/// The new set and what it no longer names, if some come and others go and there is room for all.
fn overlap(before: &[Found], now: &[Found]) -> Option<Vec<Found>> {
    let places_before: BTreeSet<_> = before.iter().map(Found::place).collect();
    let places: BTreeSet<_> = now.iter().map(Found::place).collect();
    let is_coming = !places.is_subset(&places_before);
    let going = before.iter().filter(|found| !places.contains(&found.place()));
    let both: Vec<Found> = now.iter().chain(going).cloned().collect();
    let is_going = both.len() > now.len();
    (is_coming && is_going && both.len() <= BACKENDS_MAX).then_some(both)
}

/// How long those that go stay beside those that come.
const OVERLAP: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{Mark, SavedBackend};

    fn set(ports: &[u16]) -> Vec<Found> {
        let found = |port| {
            let text = format!(r#"{{"pool":"p","backend":{{"url":"http://a:{port}"}}}}"#);
            serde_json::from_str::<SavedBackend>(&text).unwrap().found().unwrap()
        };
        ports.iter().map(found).collect()
    }

    #[test]
    fn only_sets_in_which_some_come_and_others_go_overlap() {
        for (before, now, expected) in [
            (&[][..], &[1][..], None),
            (&[1], &[1, 2], None),
            (&[1, 2], &[1], None),
            (&[1], &[], None),
            (&[1], &[2], Some(set(&[2, 1]))),
            (&[1, 2], &[2, 3], Some(set(&[2, 3, 1]))),
        ] {
            assert_eq!(overlap(&set(before), &set(now)), expected, "{before:?} {now:?}");
        }
        let many: Vec<u16> = (1..=u16::try_from(BACKENDS_MAX).unwrap()).collect();
        assert_eq!(overlap(&set(&many), &set(&[2000])), None, "no room for all");
    }

    #[test]
    fn those_that_go_are_told_a_little_longer() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (updates, mut told) = mpsc::channel(8);
            let (sets, from) = mpsc::channel(1);
            let teller = Teller { source: Source::Dns, origin: "o".to_owned(), updates };
            let task = tokio::spawn(teller.run(from));
            let start = Instant::now();
            let mark = |revision| Some(Mark { cluster_id: 1, revision });
            for (ports, revision) in [(&[1], 5), (&[2], 6)] {
                let (backends, kept) = (set(ports), mark(revision + 100));
                let set = Set { backends, mark: kept, told: mark(revision) };
                sets.send(set).await.unwrap();
            }
            for (ports, revision) in [(&[1][..], 5), (&[2, 1], 5), (&[2], 6)] {
                let update = told.recv().await.unwrap();
                assert_eq!(update.backends, set(ports));
                assert_eq!((update.mark, update.told), (mark(revision + 100), mark(revision)));
            }
            assert!(start.elapsed() >= OVERLAP);
            drop(told);
            task.await.unwrap();
        });
    }
}
