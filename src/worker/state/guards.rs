//! Guards that count what is open on a worker, so that nothing is counted twice or for ever.

use std::net::IpAddr;
use std::rc::Rc;

use crate::metrics::{Counter, Lanes};
use crate::upstream::endpoint::Slot;
use crate::worker::record::Record;
use crate::worker::state::Worker;
use crate::worker::stream::Stream;

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
pub struct InFlight<'r> {
    record: &'r Record<'r>,
    slot: Slot,
}

impl<'r> InFlight<'r> {
    /// Counts a request in; what its record counts of bytes from now on is this attempt's.
    #[must_use]
    pub fn new(record: &'r Record<'r>, slot: Slot) -> InFlight<'r> {
        record.worker.lane().begin(slot.number);
        let facts = record.facts();
        facts.bytes_before.set(facts.backend_bytes());
        InFlight { record, slot }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let (lane, slot) = (self.record.worker.lane(), self.slot.number);
        let facts = self.record.facts();
        let (before, now) = (facts.bytes_before.get(), facts.backend_bytes());
        lane.add_bytes(slot, now[0] - before[0], now[1] - before[1]);
        lane.end(slot);
    }
}

/// An unused connection to an endpoint, counted until it is taken out or closed.
#[derive(Debug)]
pub struct Kept {
    /// The connection.
    pub stream: Stream,
    _count: IdleCount,
}

impl Kept {
    /// Counts a connection in.
    #[must_use]
    pub fn new(worker: &Worker, slot: Slot, stream: Stream) -> Kept {
        worker.lane().keep_idle(slot.number);
        let (lanes, worker) = (worker.lanes_held.clone(), worker.id);
        Kept { stream, _count: IdleCount { lanes, worker, slot: slot.number } }
    }
}

/// Apart from the connection, so that this can be moved out.
#[derive(Debug)]
struct IdleCount {
    lanes: Rc<Lanes>,
    worker: usize,
    slot: u32,
}

impl Drop for IdleCount {
    fn drop(&mut self) {
        self.lanes.lane(self.worker).lose_idle(self.slot);
    }
}
