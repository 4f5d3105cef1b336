//! Which workers have requests that wait for a place on an endpoint, and who gets a freed one.
//!
//! Shared by all workers, and touched only by endpoints with `max-conns`: when a place is given
//! back while somebody waits, and when a request joins a queue. A freed place is offered to the
//! workers that wait for its pool in turn, through their mailboxes; to no other, for those would
//! pass it on to one another for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crossbeam::utils::CachePadded;

use crate::upstream::limit::{Limit, Limits};
use crate::upstream::snapshot::{POOLS_MAX, PoolId};
use crate::worker::mailbox::{Mailbox, Message};

/// The workers that wait.
#[derive(Debug)]
pub struct Waitlist {
    mailboxes: Vec<Arc<Mailbox>>,
    /// Requests that wait for any endpoint of a pool, by pool and then by worker,
    waiting: Box<[AtomicU32]>,
    /// those that wait for one endpoint alone, which `Limits` counts too, by worker,
    waiting_alone: Vec<CachePadded<AtomicU32>>,
    /// and over all, up to `--queue-max`.
    requests: Limit,
    /// Whose turn is next, by pool.
    turns: Box<[AtomicU32]>,
}

/// A request's entry in the list, until it is dropped.
#[derive(Debug)]
pub struct Entry {
    list: Arc<Waitlist>,
    worker: usize,
    pool: PoolId,
    /// The limits of the only endpoint that will do.
    alone: Option<Arc<Limits>>,
}

/// A place for a connection to an endpoint; given back, and offered, when it is dropped. In a box,
/// since every connection has room for one.
#[derive(Debug)]
pub struct Place {
    /// The pool of its endpoint.
    pub pool: PoolId,
    /// What it counts in.
    pub limits: Arc<Limits>,
    list: Arc<Waitlist>,
}

impl Waitlist {
    /// A list on which nobody waits, for the workers with these mailboxes.
    #[must_use]
    pub fn new(mailboxes: Vec<Arc<Mailbox>>, requests_max: u32) -> Arc<Waitlist> {
        let none = |count| (0..count).map(|_| AtomicU32::new(0)).collect();
        let (waiting, turns) = (none(POOLS_MAX * mailboxes.len()), none(POOLS_MAX));
        let waiting_alone = mailboxes.iter().map(|_| CachePadded::default()).collect();
        let requests = Limit::new(requests_max);
        Arc::new(Waitlist { mailboxes, waiting, waiting_alone, requests, turns })
    }

    /// Takes a place for a connection to the endpoint of this pool with these limits; `None` when
    /// there is none.
    #[must_use]
    pub fn take_place(
        list: &Arc<Waitlist>,
        pool: PoolId,
        limits: &Arc<Limits>,
    ) -> Option<Box<Place>> {
        let is_taken = limits.conns.as_deref().is_some_and(Limit::take);
        is_taken.then(|| Place { pool, limits: limits.clone(), list: list.clone() }.into())
    }

    /// Enters a request of this worker for this pool, which may wait for the endpoint with these
    /// limits alone; `None` when too many wait. Whoever enters looks for a place once more before
    /// it waits: one given back earlier was offered to nobody.
    #[must_use]
    pub fn enter(
        list: &Arc<Waitlist>,
        worker: usize,
        pool: PoolId,
        alone: Option<Arc<Limits>>,
    ) -> Option<Entry> {
        if !list.requests.take() {
            return None;
        }
        match &alone {
            None => list.waiting(pool)[worker].fetch_add(1, Ordering::SeqCst),
            Some(limits) => {
                list.waiting_alone[worker].fetch_add(1, Ordering::SeqCst);
                limits.waiting_alone.fetch_add(1, Ordering::SeqCst)
            }
        };
        fence(Ordering::SeqCst);
        Some(Entry { list: list.clone(), worker, pool, alone })
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

    /// Whether a connection that this worker could keep for itself, which has this place, is another
    /// one's turn to have.
    pub fn is_anothers_turn(&self, worker: usize, place: &Place) -> bool {
        if self.is_empty() {
            return false;
        }
        if self.waiting_alone_for(&place.limits).any(|other| other != worker) {
            return true;
        }
        let next = self.next(place.pool, |_| true);
        let is_own = next == Some(worker);
        if is_own {
            self.turns[place.pool.0].fetch_add(1, Ordering::Relaxed);
        }
        next.is_some() && !is_own
    }

    /// Tells the next worker that waits for this pool that a place on its endpoint with these limits
    /// is free, and those that may have requests for it alone.
    fn offer(&self, pool: PoolId, limits: &Limits) {
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        let next = self.next(pool, |_| true);
        self.turns[pool.0].fetch_add(1, Ordering::Relaxed);
        let alone = self.waiting_alone_for(limits).filter(|worker| Some(*worker) != next);
        next.into_iter().chain(alone).for_each(|worker| self.tell(worker));
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.taken() == 0
    }

    /// The next worker but this one that waits for this pool.
    #[must_use]
    pub fn another(&self, worker: usize, pool: PoolId) -> Option<usize> {
        self.next(pool, |other| other != worker)
    }

    /// Tells a worker that a place is free.
    pub fn tell(&self, worker: usize) {
        if self.mailboxes[worker].post(Message::PlacesFreed).is_err() {
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

    /// The first worker that may have it and waits for this pool, from the pool's turn on.
    fn next(&self, pool: PoolId, may: impl Fn(usize) -> bool) -> Option<usize> {
        let (waiting, workers) = (self.waiting(pool), self.mailboxes.len());
        let first = self.turns[pool.0].load(Ordering::Relaxed) as usize;
        let mut in_turn = (0..workers).map(|step| (first + step) % workers);
        in_turn.find(|worker| may(*worker) && waiting[*worker].load(Ordering::SeqCst) > 0)
    }

    /// The requests that wait for any endpoint of this pool, by worker.
    fn waiting(&self, pool: PoolId) -> &[AtomicU32] {
        let workers = self.mailboxes.len();
        &self.waiting[pool.0 * workers..][..workers]
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match &self.alone {
            None => self.list.waiting(self.pool)[self.worker].fetch_sub(1, Ordering::SeqCst),
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
            self.list.offer(self.pool, &self.limits);
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

    /// The workers that were told since the last call.
    fn told(list: &Waitlist) -> Vec<usize> {
        let workers = list.mailboxes.iter().enumerate();
        workers
            .filter(|(_, mailbox)| mailbox.take_places_freed())
            .map(|(worker, _)| worker)
            .collect()
    }

    fn take(list: &Arc<Waitlist>, pool: PoolId, limits: &Arc<Limits>) -> Box<Place> {
        Waitlist::take_place(list, pool, limits).unwrap()
    }

    #[test]
    fn freed_places_are_offered_to_the_workers_that_wait_in_turn() {
        let (list, limits) = (list_of(3, 9), limits(4));
        let mut places: Vec<_> = (0..4).map(|_| take(&list, POOL, &limits)).collect();
        assert!(Waitlist::take_place(&list, POOL, &limits).is_none());
        places.pop();
        assert!(told(&list).is_empty(), "nobody waits");
        let _entries = [0, 2].map(|worker| Waitlist::enter(&list, worker, POOL, None));
        let mut all: Vec<_> = (0..3)
            .map(|_| {
                places.pop();
                told(&list)
            })
            .collect();
        all.sort();
        all.dedup();
        assert_eq!(all, [[0], [2]]);
    }

    #[test]
    fn a_place_is_offered_to_nobody_who_waits_for_another_pool() {
        let (list, limits) = (list_of(2, 9), limits(1));
        let _other = [0, 1].map(|worker| Waitlist::enter(&list, worker, OTHER, None));
        let place = take(&list, POOL, &limits);
        assert!(!list.is_anothers_turn(0, &place) && !list.is_anothers_turn(1, &place));
        drop(place);
        assert!(told(&list).is_empty());
        assert_eq!([0, 1].map(|worker| list.another(worker, POOL)), [None, None]);
        assert_eq!([0, 1].map(|worker| list.another(worker, OTHER)), [Some(1), Some(0)]);
        let _own = Waitlist::enter(&list, 1, POOL, None);
        drop(take(&list, POOL, &limits));
        assert_eq!(told(&list), [1]);
        assert_eq!([0, 1].map(|worker| list.another(worker, POOL)), [Some(1), None]);
    }

    #[test]
    fn each_pool_has_turns_of_its_own() {
        let (list, limits) = (list_of(2, 9), limits(1));
        let pools = [POOL, OTHER];
        let _entries =
            pools.map(|pool| [0, 1].map(|worker| Waitlist::enter(&list, worker, pool, None)));
        let mut told_of = pools.map(|_| Vec::new());
        for _ in 0..2 {
            for (pool, told_of) in pools.iter().zip(&mut told_of) {
                drop(take(&list, *pool, &limits));
                told_of.extend(told(&list));
            }
        }
        told_of.iter_mut().for_each(|workers| workers.sort());
        assert_eq!(told_of, [[0, 1], [0, 1]]);
    }

    #[test]
    fn no_more_requests_wait_than_may() {
        let list = list_of(2, 2);
        let entries: Vec<_> =
            (0..3).map(|n| Waitlist::enter(&list, n % 2, PoolId(n), None)).collect();
        assert_eq!(entries.iter().flatten().count(), 2);
        drop(entries);
        assert!(Waitlist::enter(&list, 1, POOL, None).is_some());
    }

    #[test]
    fn a_worker_keeps_its_connection_unless_another_is_next() {
        let (list, limits) = (list_of(2, 9), limits(1));
        let place = take(&list, POOL, &limits);
        assert!(!list.is_anothers_turn(0, &place), "nobody waits");
        let _other = Waitlist::enter(&list, 1, POOL, None);
        assert!(list.is_anothers_turn(0, &place) && !list.is_anothers_turn(1, &place));
        let _own = Waitlist::enter(&list, 0, POOL, None);
        let turns: Vec<_> = (0..4)
            .map(|_| {
                let is_anothers = list.is_anothers_turn(0, &place);
                if is_anothers {
                    list.offer(POOL, &limits);
                }
                is_anothers
            })
            .collect();
        assert!(turns.contains(&true) && turns.contains(&false), "{turns:?}");
    }

    #[test]
    fn a_place_goes_to_those_who_wait_for_its_endpoint() {
        let (list, wanted, other) = (list_of(3, 9), limits(1), limits(1));
        let [wanted_place, other_place] = [&wanted, &other].map(|limits| take(&list, POOL, limits));
        let _alone = Waitlist::enter(&list, 2, POOL, Some(wanted));
        assert!(list.is_anothers_turn(0, &wanted_place) && !list.is_anothers_turn(0, &other_place));
        assert!(!list.is_anothers_turn(2, &wanted_place));
        drop(other_place);
        assert!(told(&list).is_empty());
        let _any = Waitlist::enter(&list, 1, POOL, None);
        drop(wanted_place);
        assert_eq!(told(&list), [1, 2]);
    }

    const POOL: PoolId = PoolId(0);
    const OTHER: PoolId = PoolId(POOLS_MAX - 1);
}
