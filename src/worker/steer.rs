//! Which worker serves a new connection: the one that accepted it, unless that one has clearly
//! more than its share of those open.
//!
//! The kernel spreads connections over the workers' sockets by a hash, so a few long-lived ones
//! fall unevenly, and a worker with twice the connections of another is busy while that one idles.
//! Decided once, when a connection is accepted; nothing of it is on a request's way.

use std::net::TcpStream;
use std::sync::Arc;

use crate::config::Steer;
use crate::metrics::{Counter, Lanes};
use crate::worker::handover::{Claim, Handed, Inlet, Origin, UnderWay};
use crate::worker::mailbox::{Mailbox, Message};
use crate::worker::places::Places;
use crate::worker::state::Shared;

/// Decides for one worker, and is its way in for what others decide.
#[derive(Debug)]
pub struct Steering {
    id: usize,
    is_on: bool,
    lanes: Lanes,
    places: Arc<Places>,
    mailboxes: Vec<Arc<Mailbox>>,
}

/// The reserved way of one connection to another worker.
#[derive(Debug)]
pub struct Passage<'s> {
    mailbox: &'s Mailbox,
    places: &'s Arc<Places>,
    under_way: UnderWay,
}

impl Steering {
    /// For the worker that this is shared with.
    #[must_use]
    pub fn new(shared: &Shared) -> Steering {
        let Shared { id, lanes, places, mailboxes, config, .. } = shared;
        Steering {
            id: *id,
            is_on: config.workers.steer == Steer::Least && mailboxes.len() > 1,
            lanes: lanes.clone(),
            places: places.clone(),
            mailboxes: mailboxes.clone(),
        }
    }

    /// This worker's own way in.
    #[must_use]
    pub fn inlet(&self) -> &Inlet {
        &self.mailboxes[self.id].inlet
    }

    /// The way of a connection to another worker, if it is to go there; a place was taken for it,
    /// and nobody counts it yet.
    #[must_use]
    pub fn passage(&self) -> Option<Passage<'_>> {
        if !self.is_on {
            return None;
        }
        let own = self.load(self.id)?;
        // One counter that was just written spares a look at all lanes, which others write.
        if !is_heavy(own, self.places.taken(), self.mailboxes.len()) {
            return None;
        }
        let loads = (0..self.mailboxes.len()).filter_map(|id| Some((id, self.load(id)?)));
        let mailbox = &*self.mailboxes[lightest(own, loads)?];
        let under_way = mailbox.inlet.reserve()?;
        Some(Passage { mailbox, places: &self.places, under_way })
    }

    /// The connections that a worker has or gets; `None` if it takes none over.
    fn load(&self, worker: usize) -> Option<usize> {
        let under_way = self.mailboxes[worker].inlet.load()?;
        let open = self.lanes.lane(worker).get(Counter::ClientsOpen);
        Some(under_way + usize::try_from(open).unwrap_or(usize::MAX / 2))
    }
}

impl Passage<'_> {
    /// Sends the connection.
    pub fn send(self, socket: TcpStream, origin: Origin) {
        let Passage { mailbox, places, under_way } = self;
        let claim = Claim::new(places.clone());
        mailbox.inlet.put(Handed { socket, origin, claim, under_way });
        if mailbox.post(Message::TakeOver).is_err() {
            tracing::error!("a worker was not told of a connection");
        }
    }
}

/// Whether a worker with `own` connections has clearly more than its share once it takes a new one,
/// with which `total` are open on all `workers`.
fn is_heavy(own: usize, total: usize, workers: usize) -> bool {
    (own + 1) * workers > total + total / SLACK_SHARE + workers * SLACK
}

/// The worker with the fewest connections of those that have fewer than `own`.
fn lightest(own: usize, loads: impl Iterator<Item = (usize, usize)>) -> Option<usize> {
    loads.filter(|(_, load)| *load < own).min_by_key(|(_, load)| *load).map(|(worker, _)| worker)
}

/// How many connections above the mean are no reason to hand one over: so many, and such a part of
/// the mean. Less would hand over more of the short-lived ones, which even out by themselves.
const SLACK: usize = 1;
const SLACK_SHARE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many connections each worker has, when so many come to the workers that `falls_to` names
    /// and nobody leaves.
    fn spread(
        workers: usize,
        conns: usize,
        mut falls_to: impl FnMut(usize) -> usize,
    ) -> Vec<usize> {
        let mut loads = vec![0; workers];
        for conn in 0..conns {
            let accepted_by = falls_to(conn);
            let own = loads[accepted_by];
            let other = is_heavy(own, conn + 1, workers)
                .then(|| lightest(own, loads.iter().copied().enumerate()));
            loads[other.flatten().unwrap_or(accepted_by)] += 1;
        }
        loads
    }

    #[test]
    fn connections_that_all_fall_to_one_worker_are_shared() {
        for (workers, conns, max) in [(1, 9, 9), (2, 4, 3), (2, 32, 18), (8, 64, 9), (64, 64, 2)] {
            let loads = spread(workers, conns, |_| 0);
            assert!(loads.iter().all(|load| *load <= max), "{loads:?}");
            assert_eq!(loads.iter().sum::<usize>(), conns);
        }
    }

    #[test]
    fn however_they_fall_no_worker_is_left_with_much_more_than_its_share() {
        let mut random = fastrand::Rng::with_seed(7);
        for workers in [2, 3, 8, 40] {
            for conns in [16, 100, 3000] {
                let loads = spread(workers, conns, |_| random.usize(..workers));
                let max = conns / workers + conns / workers / SLACK_SHARE + SLACK + 1;
                assert!(loads.iter().all(|load| *load <= max), "{workers}: {loads:?}");
            }
        }
    }

    #[test]
    fn what_falls_evenly_stays_where_it_is() {
        assert_eq!(spread(4, 400, |conn| conn % 4), [100; 4]);
        assert!(!is_heavy(8, 16, 2) && !is_heavy(17, 33, 2) && is_heavy(19, 33, 2));
    }

    #[test]
    fn nothing_is_handed_to_a_worker_that_has_as_many() {
        let loads = |loads: &'static [usize]| loads.iter().copied().enumerate();
        assert_eq!(lightest(5, loads(&[5, 5, 6])), None);
        assert_eq!(lightest(5, loads(&[5, 4, 3, 3])), Some(2));
    }
}
