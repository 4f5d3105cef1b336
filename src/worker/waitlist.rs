//! Which workers have requests that wait for a place on an endpoint, and who gets a freed one.
//!
//! Shared by all workers, and touched only by endpoints with `max-conns`: when a place is given
//! back while somebody waits, and when a request joins a queue. A freed place is offered to the
//! workers in turn, through their mailboxes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use crossbeam::utils::CachePadded;

use crate::upstream::limit::{Limit, Limits};
use crate::worker::mailbox::{Mailbox, Message};

/// The workers that wait.
#[derive(Debug)]
pub struct Waitlist {
    mailboxes: Vec<Arc<Mailbox>>,
    /// Requests that wait, by worker,
    waiting: Vec<CachePadded<AtomicU32>>,
    /// and over all, up to `--queue-max`.
    requests: Limit,
    /// Whose turn is next.
    turn: AtomicUsize,
}

/// A request's entry in the list, until it is dropped.
#[derive(Debug)]
pub struct Entry {
    list: Arc<Waitlist>,
    worker: usize,
}

/// A place for a connection to an endpoint; given back, and offered, when it is dropped.
#[derive(Debug)]
pub struct Place {
    limits: Arc<Limits>,
    list: Arc<Waitlist>,
}

impl Waitlist {
    /// A list on which nobody waits, for the workers with these mailboxes.
    #[must_use]
    pub fn new(mailboxes: Vec<Arc<Mailbox>>, requests_max: u32) -> Arc<Waitlist> {
        let waiting = mailboxes.iter().map(|_| CachePadded::default()).collect();
        let requests = Limit::new(requests_max);
        Arc::new(Waitlist { mailboxes, waiting, requests, turn: AtomicUsize::new(0) })
    }

    /// Takes a place for a connection to the endpoint with these limits; `None` when there is none.
    #[must_use]
    pub fn take_place(list: &Arc<Waitlist>, limits: &Arc<Limits>) -> Option<Place> {
        let is_taken = limits.conns.as_ref().is_some_and(Limit::take);
        is_taken.then(|| Place { limits: limits.clone(), list: list.clone() })
    }

    /// Enters a request of this worker; `None` when too many wait. Whoever enters looks for a
    /// place once more before it waits: one given back earlier was offered to nobody.
    #[must_use]
    pub fn enter(list: &Arc<Waitlist>, worker: usize) -> Option<Entry> {
        if !list.requests.take() {
            return None;
        }
        list.waiting[worker].fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Some(Entry { list: list.clone(), worker })
    }

    /// Asks the other workers to close an unused connection, whose place this one wants.
    pub fn ask(&self, message: Message, worker: usize) {
        let others = self.mailboxes.iter().enumerate().filter(|(other, _)| *other != worker);
        for (_, mailbox) in others {
            if mailbox.post(message).is_err() {
                tracing::debug!("a worker was not asked for an unused connection");
            }
        }
    }

    /// Whether a connection that this worker could keep for itself is another one's turn to have.
    pub fn is_anothers_turn(&self, worker: usize) -> bool {
        if self.requests.taken() == 0 {
            return false;
        }
        let next = self.next(self.turn.load(Ordering::Relaxed));
        let is_own = next == Some(worker);
        if is_own {
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
        next.is_some() && !is_own
    }

    /// Tells the next worker that waits that a place is free.
    fn offer(&self) {
        fence(Ordering::SeqCst);
        if self.requests.taken() == 0 {
            return;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(worker) = self.next(turn) else { return };
        if self.mailboxes[worker].post(Message::PlaceFreed).is_err() {
            // Its sweep looks for places too.
            tracing::debug!(worker, "a worker was not told of a free place");
        }
    }

    /// The first worker that waits, from this turn on.
    fn next(&self, turn: usize) -> Option<usize> {
        let workers = self.waiting.len();
        let in_turn = (0..workers).map(|step| turn.wrapping_add(step) % workers);
        in_turn.into_iter().find(|worker| self.waiting[*worker].load(Ordering::SeqCst) > 0)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.list.waiting[self.worker].fetch_sub(1, Ordering::SeqCst);
        self.list.requests.give();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(conns) = &self.limits.conns {
            conns.give();
            self.list.offer();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn list_of(workers: usize, requests_max: u32) -> Arc<Waitlist> {
        let mailboxes = (0..workers).map(|_| Mailbox::new().unwrap().0).collect();
        Waitlist::new(mailboxes, requests_max)
    }

    fn limits(conns: u32) -> Arc<Limits> {
        Arc::new(Limits::new(NonZeroU32::new(conns), None, None))
    }

    fn told(list: &Waitlist) -> Vec<usize> {
        list.mailboxes.iter().map(|mailbox| mailbox.len()).collect()
    }

    #[test]
    fn freed_places_are_offered_to_the_workers_that_wait_in_turn() {
        let (list, limits) = (list_of(3, 9), limits(4));
        let mut places: Vec<_> = (0..4).map(|_| Waitlist::take_place(&list, &limits)).collect();
        assert!(
            places.iter().all(Option::is_some) && Waitlist::take_place(&list, &limits).is_none()
        );
        places.pop();
        assert_eq!(told(&list), [0, 0, 0], "nobody waits");
        let _entries = [0, 2].map(|worker| Waitlist::enter(&list, worker));
        drop(places);
        let told = told(&list);
        assert_eq!((told[0] + told[2], told[1]), (3, 0));
        assert!(told[0] > 0 && told[2] > 0, "{told:?}");
    }

    #[test]
    fn no_more_requests_wait_than_may() {
        let list = list_of(2, 2);
        let entries: Vec<_> = (0..3).map(|n| Waitlist::enter(&list, n % 2)).collect();
        assert_eq!(entries.iter().flatten().count(), 2);
        drop(entries);
        assert!(Waitlist::enter(&list, 1).is_some());
    }

    #[test]
    fn a_worker_keeps_its_connection_unless_another_is_next() {
        let list = list_of(2, 9);
        assert!(!list.is_anothers_turn(0), "nobody waits");
        let _other = Waitlist::enter(&list, 1);
        assert!(list.is_anothers_turn(0) && !list.is_anothers_turn(1));
        let _own = Waitlist::enter(&list, 0);
        let turns: Vec<_> = (0..4)
            .map(|_| {
                let is_anothers = list.is_anothers_turn(0);
                if is_anothers {
                    list.offer();
                }
                is_anothers
            })
            .collect();
        assert!(turns.contains(&true) && turns.contains(&false), "{turns:?}");
    }
}
