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
    /// Requests that wait for any endpoint, by worker,
    waiting: Vec<CachePadded<AtomicU32>>,
    /// those that wait for one endpoint alone, which `Limits` counts too,
    waiting_alone: Vec<CachePadded<AtomicU32>>,
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
    /// The limits of the only endpoint that will do.
    alone: Option<Arc<Limits>>,
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
        let none = || mailboxes.iter().map(|_| CachePadded::default()).collect();
        let (waiting, waiting_alone, turn) = (none(), none(), AtomicUsize::new(0));
        let requests = Limit::new(requests_max);
        Arc::new(Waitlist { mailboxes, waiting, waiting_alone, requests, turn })
    }

    /// Takes a place for a connection to the endpoint with these limits; `None` when there is none.
    #[must_use]
    pub fn take_place(list: &Arc<Waitlist>, limits: &Arc<Limits>) -> Option<Place> {
        let is_taken = limits.conns.as_deref().is_some_and(Limit::take);
        is_taken.then(|| Place { limits: limits.clone(), list: list.clone() })
    }

    /// Enters a request of this worker, which may wait for the endpoint with these limits alone;
    /// `None` when too many wait. Whoever enters looks for a
    /// place once more before it waits: one given back earlier was offered to nobody.
    #[must_use]
    pub fn enter(list: &Arc<Waitlist>, worker: usize, alone: Option<Arc<Limits>>) -> Option<Entry> {
        if !list.requests.take() {
            return None;
        }
        match &alone {
            None => list.waiting[worker].fetch_add(1, Ordering::SeqCst),
            Some(limits) => {
                list.waiting_alone[worker].fetch_add(1, Ordering::SeqCst);
                limits.waiting_alone.fetch_add(1, Ordering::SeqCst)
            }
        };
        fence(Ordering::SeqCst);
        Some(Entry { list: list.clone(), worker, alone })
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

    /// Whether a connection that this worker could keep for itself, to the endpoint with these
    /// limits, is another one's turn to have.
    pub fn is_anothers_turn(&self, worker: usize, limits: &Limits) -> bool {
        if self.requests.taken() == 0 {
            return false;
        }
        if self.waiting_alone_for(limits).any(|other| other != worker) {
            return true;
        }
        let next = self.next(self.turn.load(Ordering::Relaxed));
        let is_own = next == Some(worker);
        if is_own {
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
        next.is_some() && !is_own
    }

    /// Tells the next worker that waits that a place on the endpoint with these limits is free, and
    /// those that may have requests for it alone.
    fn offer(&self, limits: &Limits) {
        fence(Ordering::SeqCst);
        if self.requests.taken() == 0 {
            return;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let next = self.next(turn);
        let alone = self.waiting_alone_for(limits).filter(|worker| Some(*worker) != next);
        next.into_iter().chain(alone).for_each(|worker| self.tell(worker));
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.taken() == 0
    }

    /// Tells the next worker but this one, if one waits, that a place is free which this one has no
    /// use for.
    pub fn tell_another(&self, worker: usize) {
        let turn = self.turn.load(Ordering::Relaxed);
        let workers = self.waiting.len();
        let mut in_turn = (0..workers).map(|step| turn.wrapping_add(step) % workers);
        let waits = |it: &usize| self.waiting[*it].load(Ordering::SeqCst) > 0;
        if let Some(other) = in_turn.find(|it| *it != worker && waits(it)) {
            self.tell(other);
        }
    }

    fn tell(&self, worker: usize) {
        if self.mailboxes[worker].post(Message::PlaceFreed).is_err() {
            // Its sweep looks for places too.
            tracing::debug!(worker, "a worker was not told of a free place");
        }
    }

    /// The workers that have requests for one endpoint alone, if any are for this one.
    fn waiting_alone_for(&self, limits: &Limits) -> impl Iterator<Item = usize> {
        let is_one = limits.waiting_alone.load(Ordering::SeqCst) > 0;
        let workers = self.waiting_alone.iter().enumerate().filter(move |_| is_one);
        workers.filter(|(_, count)| count.load(Ordering::SeqCst) > 0).map(|(worker, _)| worker)
    }

    /// The first worker that waits, from this turn on.
    fn next(&self, turn: usize) -> Option<usize> {
        let workers = self.waiting.len();
        let in_turn = (0..workers).map(|step| turn.wrapping_add(step) % workers);
        in_turn.into_iter().find(|worker| self.waiting[*worker].load(Ordering::SeqCst) > 0)
    }
}

impl Place {
    /// The limits of its endpoint.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match &self.alone {
            None => self.list.waiting[self.worker].fetch_sub(1, Ordering::SeqCst),
            Some(limits) => {
                limits.waiting_alone.fetch_sub(1, Ordering::SeqCst);
                self.list.waiting_alone[self.worker].fetch_sub(1, Ordering::SeqCst)
            }
        };
        self.list.requests.give();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(conns) = &self.limits.conns {
            conns.give();
            self.list.offer(&self.limits);
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
        list.mailboxes.iter().map(|mailbox| mailbox.places_freed() as usize).collect()
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
        let _entries = [0, 2].map(|worker| Waitlist::enter(&list, worker, None));
        drop(places);
        let told = told(&list);
        assert_eq!((told[0] + told[2], told[1]), (3, 0));
        assert!(told[0] > 0 && told[2] > 0, "{told:?}");
    }

    #[test]
    fn no_more_requests_wait_than_may() {
        let list = list_of(2, 2);
        let entries: Vec<_> = (0..3).map(|n| Waitlist::enter(&list, n % 2, None)).collect();
        assert_eq!(entries.iter().flatten().count(), 2);
        drop(entries);
        assert!(Waitlist::enter(&list, 1, None).is_some());
    }

    #[test]
    fn a_worker_keeps_its_connection_unless_another_is_next() {
        let (list, limits) = (list_of(2, 9), limits(1));
        assert!(!list.is_anothers_turn(0, &limits), "nobody waits");
        let _other = Waitlist::enter(&list, 1, None);
        assert!(list.is_anothers_turn(0, &limits) && !list.is_anothers_turn(1, &limits));
        let _own = Waitlist::enter(&list, 0, None);
        let turns: Vec<_> = (0..4)
            .map(|_| {
                let is_anothers = list.is_anothers_turn(0, &limits);
                if is_anothers {
                    list.offer(&limits);
                }
                is_anothers
            })
            .collect();
        assert!(turns.contains(&true) && turns.contains(&false), "{turns:?}");
    }

    #[test]
    fn a_place_goes_to_those_who_wait_for_its_endpoint() {
        let (list, wanted, other) = (list_of(3, 9), limits(1), limits(1));
        let places = [&wanted, &other].map(|limits| Waitlist::take_place(&list, limits));
        let _alone = Waitlist::enter(&list, 2, Some(wanted.clone()));
        let is_anothers = [&wanted, &other].map(|limits| list.is_anothers_turn(0, limits));
        assert_eq!(is_anothers, [true, false]);
        assert!(!list.is_anothers_turn(2, &wanted));
        let [wanted, other] = places;
        drop(other);
        assert_eq!(told(&list), [0, 0, 0]);
        let _any = Waitlist::enter(&list, 1, None);
        drop(wanted);
        assert_eq!(told(&list), [0, 1, 1]);
    }
}
