//! One worker's counters, which it alone writes.
//!
//! A method that adds is for the lane's worker only; anyone may read. No method waits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::error::Cause;
use crate::metrics::answers::{By, Finished, StatusClass};
use crate::metrics::histogram::Histogram;
use crate::metrics::tables::{BackendTable, PoolTable, RetryTable};
use crate::metrics::{BackendCounter, Counter, Latency, step, step32};

/// One worker's counters.
#[derive(Debug)]
pub struct Lane {
    counters: [AtomicU64; Counter::COUNT],
    causes: [AtomicU64; Cause::ALL.len()],
    retries: [AtomicU64; Cause::ALL.len()],
    /// Requests that are over, by the class of their status.
    statuses: [AtomicU64; StatusClass::ALL.len()],
    pub(super) latencies: [Histogram; Latency::ALL.len()],
    pub(super) backends: BackendTable,
    /// Requests that no backend answered, by pool; the last row is of none.
    pub(super) pools: PoolTable,
    pub(super) retries_by_pool: RetryTable,
    /// Unused connections that are kept, by slot.
    idle: Box<[AtomicU32]>,
    pub(super) in_flight: Box<[AtomicU32]>,
    in_flight_total: AtomicU32,
    pub(super) outcomes: Box<[Outcomes]>,
    /// The kernel's number of the thread that writes this lane, or `NO_THREAD` or `CHANGING`,
    thread: AtomicU32,
    /// and the processor time of those before it, in nanoseconds.
    busy_before: AtomicU64,
}

/// How requests fared on one endpoint.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) succeeded: AtomicU32,
    pub(super) failed: AtomicU32,
}

impl Lane {
    pub(super) fn new(slots: usize) -> Lane {
        let gauges = || (0..slots).map(|_| AtomicU32::new(0)).collect();
        Lane {
            counters: [const { AtomicU64::new(0) }; Counter::COUNT],
            causes: [const { AtomicU64::new(0) }; Cause::ALL.len()],
            retries: [const { AtomicU64::new(0) }; Cause::ALL.len()],
            statuses: [const { AtomicU64::new(0) }; StatusClass::ALL.len()],
            latencies: Latency::ALL.map(|_| Histogram::new()),
            backends: BackendTable::new(slots),
            pools: PoolTable::new(POOLS_COUNTED + 1),
            retries_by_pool: RetryTable::new(POOLS_COUNTED),
            idle: gauges(),
            in_flight: gauges(),
            in_flight_total: AtomicU32::new(0),
            outcomes: (0..slots).map(|_| Outcomes::default()).collect(),
            thread: AtomicU32::new(NO_THREAD),
            busy_before: AtomicU64::new(0),
        }
    }

    /// From now on the thread of this number, which calls this, writes the lane.
    pub fn take_up(&self, thread: u32) {
        self.thread.store(thread, Ordering::Release);
    }

    /// The thread that writes the lane, which calls this, ends, having used this processor time.
    pub fn put_down(&self, busy: Duration) {
        self.thread.store(CHANGING, Ordering::Relaxed);
        fence(Ordering::Release);
        step(&self.busy_before, u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX));
        self.thread.store(NO_THREAD, Ordering::Release);
    }

    /// The processor time of the threads that have written this lane, as `time_of` tells it of the
    /// one that does now; `None` where it does not, or while one thread follows another.
    pub fn busy_time(&self, time_of: impl FnOnce(u32) -> Option<Duration>) -> Option<Duration> {
        let thread = self.thread.load(Ordering::Acquire);
        let before = Duration::from_nanos(self.busy_before.load(Ordering::Relaxed));
        let now = match thread {
            CHANGING => return None,
            NO_THREAD => Duration::ZERO,
            thread => time_of(thread)?,
        };
        fence(Ordering::Acquire);
        let is_same = self.thread.load(Ordering::Relaxed) == thread;
        is_same.then_some(before + now)
    }

    /// Counts one more.
    pub fn add(&self, counter: Counter) {
        self.add_many(counter, 1);
    }

    /// Counts so many more.
    pub fn add_many(&self, counter: Counter, by: u64) {
        step(&self.counters[counter as usize], by);
    }

    /// One more of what a gauge counts, until what this returns is dropped.
    pub fn raise(&self, gauge: Counter) -> Raised<'_> {
        self.add(gauge);
        Raised { lane: self, gauge }
    }

    /// Lowers a gauge by one.
    pub fn subtract(&self, counter: Counter) {
        step(&self.counters[counter as usize], u64::MAX);
    }

    /// Counts one more failure by its cause.
    pub fn add_cause(&self, cause: Cause) {
        step(&self.causes[cause as usize], 1);
    }

    /// Counts how long a request took.
    pub fn record(&self, latency: Latency, time: Duration) {
        self.latencies[latency as usize].record(time);
    }

    /// Counts a request that goes to the pool of this index,
    pub fn add_to_pool(&self, pool: usize) {
        self.retries_by_pool.add_request(pool);
    }

    /// and an attempt for one that another follows.
    pub fn add_retry_in_pool(&self, pool: usize) {
        self.retries_by_pool.add_retry(pool);
    }

    /// Counts an attempt that ended so and that another follows, on the endpoint of this slot if
    /// that is still known.
    pub fn add_retry(&self, cause: Cause, slot: Option<u32>) {
        self.add(Counter::Retries);
        step(&self.retries[cause as usize], 1);
        if let Some(slot) = slot {
            self.backends.count(slot, BackendCounter::Retries, 1);
        }
    }

    /// Counts a connection made to the endpoint of this slot, and how long that took.
    pub fn add_connect(&self, slot: u32, time: Duration) {
        self.add(Counter::Connects);
        self.backends.count(slot, BackendCounter::Connects, 1);
        self.record(Latency::Connect, time);
    }

    /// Counts an attempt that goes over a kept connection to the endpoint of this slot.
    pub fn add_reuse(&self, slot: u32) {
        self.add(Counter::Reuses);
        self.backends.count(slot, BackendCounter::Reuses, 1);
    }

    /// Counts the bytes of an attempt on the endpoint of this slot.
    pub fn add_bytes(&self, slot: u32, sent: u64, received: u64) {
        self.backends.count(slot, BackendCounter::Sent, sent);
        self.backends.count(slot, BackendCounter::Received, received);
    }

    /// Counts how long the endpoint of this slot took until its answer's head had come.
    pub fn record_first_byte(&self, slot: u32, time: Duration) {
        self.record(Latency::Upstream, time);
        self.backends.record(slot, time);
    }

    /// Counts a request that is over.
    pub fn finish(&self, request: &Finished) {
        let class = StatusClass::of(request.status);
        step(&self.statuses[class as usize], 1);
        self.add_many(Counter::FromClients, request.received);
        self.add_many(Counter::ToClients, request.sent);
        let is_counted = match request.by {
            By::Endpoint(slot) => {
                self.backends.finish(slot, request.method, class);
                true
            }
            By::Pool(pool) if pool < POOLS_COUNTED => {
                self.pools.finish(pool, request.method, class)
            }
            By::Pool(_) | By::None => false,
        };
        if !is_counted {
            self.pools.finish(POOLS_COUNTED, request.method, class);
        }
    }

    /// An unused connection to the endpoint of this slot is kept from now on,
    pub fn keep_idle(&self, slot: u32) {
        if let Some(idle) = self.idle.get(slot as usize) {
            step32(idle, 1);
        }
    }

    /// and one that was is no more.
    pub fn lose_idle(&self, slot: u32) {
        if let Some(idle) = self.idle.get(slot as usize) {
            step32(idle, u32::MAX);
        }
    }

    /// Takes a request on the endpoint of this slot up.
    pub fn begin(&self, slot: u32) {
        if let Some(count) = self.in_flight.get(slot as usize) {
            step32(count, 1);
            step32(&self.in_flight_total, 1);
        }
    }

    /// Puts a request on the endpoint of this slot down.
    pub fn end(&self, slot: u32) {
        if let Some(count) = self.in_flight.get(slot as usize) {
            step32(count, u32::MAX);
            step32(&self.in_flight_total, u32::MAX);
        }
    }

    /// Counts a request that succeeded on the endpoint of this slot.
    pub fn add_success(&self, slot: u32) {
        if let Some(outcomes) = self.outcomes.get(slot as usize) {
            step32(&outcomes.succeeded, 1);
        }
    }

    /// Counts a request that failed on the endpoint of this slot.
    pub fn add_failure(&self, slot: u32) {
        self.backends.count(slot, BackendCounter::Failures, 1);
        if let Some(outcomes) = self.outcomes.get(slot as usize) {
            step32(&outcomes.failed, 1);
        }
    }

    /// The value of one counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// The count of one cause.
    #[must_use]
    pub fn get_cause(&self, cause: Cause) -> u64 {
        self.causes[cause as usize].load(Ordering::Relaxed)
    }

    /// The attempts that ended for one cause, and that another followed.
    #[must_use]
    pub fn get_retries(&self, cause: Cause) -> u64 {
        self.retries[cause as usize].load(Ordering::Relaxed)
    }

    /// The requests that are over and whose status is of one class.
    #[must_use]
    pub fn get_status(&self, class: StatusClass) -> u64 {
        self.statuses[class as usize].load(Ordering::Relaxed)
    }

    /// The unused connections to the endpoint of this slot that this worker keeps.
    #[must_use]
    pub fn idle(&self, slot: u32) -> u32 {
        self.idle.get(slot as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Requests in flight on one endpoint through this worker.
    #[must_use]
    pub fn in_flight(&self, slot: u32) -> u32 {
        self.in_flight.get(slot as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Requests in flight on all endpoints through this worker.
    #[must_use]
    pub fn in_flight_total(&self) -> u32 {
        self.in_flight_total.load(Ordering::Relaxed)
    }

    /// Sets the gauges to zero: a worker that takes over the lane of a dead one has nothing open.
    pub fn reset_gauges(&self) {
        for gauge in Counter::GAUGES {
            self.counters[gauge as usize].store(0, Ordering::Relaxed);
        }
        for count in self.in_flight.iter().chain(&self.idle).chain([&self.in_flight_total]) {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// One of what a gauge counts.
#[derive(Debug)]
pub struct Raised<'l> {
    lane: &'l Lane,
    gauge: Counter,
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.lane.subtract(self.gauge);
    }
}

/// The number of no thread: none writes the lane,
const NO_THREAD: u32 = 0;
/// and one that follows another has yet to come.
const CHANGING: u32 = u32::MAX;
/// The most pools whose requests are counted apart; those of others count as of no pool.
pub const POOLS_COUNTED: usize = 1024;
