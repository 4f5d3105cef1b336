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
    /// Who had the last turn, by pool.
    turns: Box<[AtomicU32]>,
}

/// A request's entry in the list, until it is dropped.
#[derive(Debug)]
pub struct Entry {
    list: Arc<Waitlist>,
    worker: usize,
    /// The pool that it waits for.
    pub pool: PoolId,
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
        let entry = Entry { list: list.clone(), worker, pool, alone };
        entry.count();
        Some(entry)
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
            self.had_turn(place.pool, worker);
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
        if let Some(worker) = next {
            self.had_turn(pool, worker);
        }
        let alone = self.waiting_alone_for(limits).filter(|worker| Some(*worker) != next);
        next.into_iter().chain(alone).for_each(|worker| self.tell(worker));
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.taken() == 0
    }

    /// Who is told next of a place that this worker has no use for. From one that waits for the pool
    /// too, but for other endpoints, it goes only as far as the turns go round once: two such would
    /// tell each other of it for ever.
    #[must_use]
    pub fn another(&self, worker: usize, pool: PoolId) -> Option<usize> {
        let last = self.turns[pool.0].load(Ordering::Relaxed) as usize;
        let workers = self.mailboxes.len();
        let steps_to = |other: usize| (other + workers - last) % workers;
        let waits_too = self.waiting(pool)[worker].load(Ordering::SeqCst) > 0;
        let may = |other| other != worker && (!waits_too || steps_to(other) > steps_to(worker));
        self.next(pool, may)
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

    fn had_turn(&self, pool: PoolId, worker: usize) {
        self.turns[pool.0].store(worker as u32, Ordering::Relaxed);
    }

    /// The first worker that may have it and waits for this pool, from the one after the last turn's
    /// on.
    fn next(&self, pool: PoolId, may: impl Fn(usize) -> bool) -> Option<usize> {
        let (waiting, workers) = (self.waiting(pool), self.mailboxes.len());
        let last = self.turns[pool.0].load(Ordering::Relaxed) as usize;
        let mut in_turn = (1..=workers).map(|step| (last + step) % workers);
        in_turn.find(|worker| may(*worker) && waiting[*worker].load(Ordering::SeqCst) > 0)
    }

    /// The requests that wait for any endpoint of this pool, by worker.
    fn waiting(&self, pool: PoolId) -> &[AtomicU32] {
        let workers = self.mailboxes.len();
        &self.waiting[pool.0 * workers..][..workers]
    }
}

impl Entry {
    /// From now on it waits for the endpoint with these limits alone, or for any; as after `enter`,
    /// it looks once more before it waits.
    pub fn change(&mut self, alone: Option<Arc<Limits>>) {
        self.discount();
        self.alone = alone;
        self.count();
    }

    fn count(&self) {
        match &self.alone {
            None => self.list.waiting(self.pool)[self.worker].fetch_add(1, Ordering::SeqCst),
            Some(limits) => {
                self.list.waiting_alone[self.worker].fetch_add(1, Ordering::SeqCst);
                limits.waiting_alone.fetch_add(1, Ordering::SeqCst)
            }
        };
        fence(Ordering::SeqCst);
    }

    fn discount(&self) {
        match &self.alone {
            None => self.list.waiting(self.pool)[self.worker].fetch_sub(1, Ordering::SeqCst),
            Some(limits) => {
                limits.waiting_alone.fetch_sub(1, Ordering::SeqCst);
                self.list.waiting_alone[self.worker].fetch_sub(1, Ordering::SeqCst)
            }
        };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.discount();
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
mod tests;
