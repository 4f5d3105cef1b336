//! Places on endpoints between those who have them and those who wait: calls the worker's own
//! requests, tells other workers, asks them, and gives unused connections up when they ask.

use crate::upstream::endpoint::{Endpoint, Slot};
use crate::upstream::limit::Limit;
use crate::upstream::snapshot::{Pool, PoolId};
use crate::worker::state::Worker;

impl Worker {
    /// Places on endpoints may be free: calls who waits for them here.
    pub fn call_waiting(&self) {
        if self.waitlist.is_empty() {
            return;
        }
        for (index, pool) in self.snapshot().pools.iter().enumerate() {
            if !self.queue.is_empty(PoolId(index)) {
                self.call_for(PoolId(index), pool);
            }
        }
    }

    /// Places of this pool may be free: calls who waits for them, or lets another worker know.
    pub fn call_waiting_for(&self, id: PoolId) {
        if !self.waitlist.is_empty() {
            self.call_for(id, self.snapshot().pool(id));
        }
    }

    fn call_for(&self, id: PoolId, pool: &Pool) {
        let mut is_left = false;
        for endpoint in &pool.endpoints {
            let is_free = endpoint.limits.conns.as_deref().is_some_and(Limit::has_room);
            if is_free || self.idle.borrow().has(endpoint.slot) {
                let is_taken = self.queue.call(id, endpoint);
                is_left |= is_free && !is_taken && endpoint.is_eligible();
            }
        }
        if is_left && let Some(other) = self.waitlist.another(self.id, id) {
            self.waitlist.tell(other);
        }
    }

    /// Asks the other workers again for the unused connections that requests here wait for.
    pub fn ask_again(&self) {
        for message in self.queue.wants() {
            self.waitlist.ask(message, self.id);
        }
    }

    /// Another worker wants a place on this endpoint: gives up an unused connection to it, if there
    /// is one.
    pub fn give_up_idle_to(&self, slot: Slot) -> bool {
        self.idle.borrow_mut().evict_from(slot)
    }

    /// Another worker wants a place on any endpoint of this pool: gives up one unused connection.
    pub fn give_up_idle_of(&self, pool: PoolId) {
        let snapshot = self.snapshot();
        let is_full = |it: &Endpoint| it.limits.conns.as_ref().is_some_and(|it| !it.has_room());
        let mut endpoints = snapshot.pool(pool).endpoints.iter();
        let given_up =
            endpoints.find(|it| it.is_eligible() && is_full(it) && self.give_up_idle_to(it.slot));
        if let Some(endpoint) = given_up {
            tracing::debug!(worker = self.id, backend = endpoint.id, "gave up a connection");
        }
    }

    /// Closes unused pipes and some unused connections to backends, since descriptors are wanted.
    /// Whether there were any.
    pub fn give_up_idle(&self) -> bool {
        self.pipes.give_up() | self.idle.borrow_mut().evict(EVICTED_AT_ONCE)
    }
}

/// How many unused connections are closed when descriptors are wanted.
const EVICTED_AT_ONCE: usize = 16;
