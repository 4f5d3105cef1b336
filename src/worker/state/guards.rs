//! Guards that count what is open on a worker, so that nothing is counted twice or for ever.

use std::net::IpAddr;
use std::rc::Rc;

use crate::metrics::Counter;
use crate::upstream::endpoint::Slot;
use crate::worker::state::Worker;

/// An open client connection, counted until this is dropped.
#[derive(Debug)]
pub struct Admission {
    pub(super) worker: Rc<Worker>,
    /// The address that it is counted for.
    pub(super) counted: Option<IpAddr>,
    /// Counts the connections of this worker from one.
    pub number: usize,
    /// Whether its address has no more connections than it may.
    pub is_within_limit: bool,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(addr) = self.counted {
            self.worker.places.leave(self.worker.id, addr);
        }
        self.worker.places.give();
        self.worker.clients.set(self.worker.clients.get() - 1);
        self.worker.lane().subtract(Counter::ClientsOpen);
        self.worker.end_if_drained();
    }
}

/// A request in flight on an endpoint, counted until this is dropped.
#[derive(Debug)]
pub struct InFlight<'w> {
    worker: &'w Worker,
    slot: Slot,
}

impl<'w> InFlight<'w> {
    /// Counts a request in.
    #[must_use]
    pub fn new(worker: &'w Worker, slot: Slot) -> InFlight<'w> {
        worker.lane().begin(slot.number);
        InFlight { worker, slot }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.worker.lane().end(self.slot.number);
    }
}
