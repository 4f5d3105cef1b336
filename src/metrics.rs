//! The counters: one lane a worker, written by it alone, summed by whoever reads.
//!
//! A worker adds with a relaxed load and a relaxed store, never a read-modify-write, so a lane's
//! cache lines are written by one core only. In-flight counts per endpoint live here too, so that
//! balancing sees the whole process and not one worker.

mod histogram;
mod method;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::error::Cause;
use histogram::Histogram;
pub use histogram::{Distribution, Latency};
pub use method::Method;

/// What a worker counts, besides the causes of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Counter {
    /// Client connections taken up, by the worker that serves them.
    Accepted,
    /// Client connections open now (a gauge).
    ClientsOpen,
    /// Requests whose head was parsed.
    Requests,
    /// Answers of backends that were relayed whole.
    Relayed,
    /// Attempts on another endpoint after a failed one.
    Retries,
    /// Connections made to backends.
    Connects,
    /// Requests that went over a pooled connection.
    Reuses,
    /// Pooled connections found dead or talking at checkout.
    PoolStale,
    /// Times that accepting paused for want of file descriptors or memory.
    AcceptPauses,
    /// Connections that became tunnels.
    Tunnels,
    /// Sweeps over the deadlines.
    Sweeps,
    /// Failures that the control thread was not told of, its channel being full.
    OutcomesDropped,
    /// Retries that the budget did not allow.
    RetriesDenied,
    /// Requests that waited for a place on an endpoint.
    Queued,
    /// Client connections handed to another worker, by the one that accepted them.
    HandedOver,
}

impl Counter {
    const COUNT: usize = Counter::HandedOver as usize + 1;
}

/// One worker's counters.
#[derive(Debug)]
pub struct Lane {
    counters: [AtomicU64; Counter::COUNT],
    causes: [AtomicU64; Cause::ALL.len()],
    latencies: [Histogram; Latency::ALL.len()],
    in_flight: Box<[AtomicU32]>,
    in_flight_total: AtomicU32,
    outcomes: Box<[Outcomes]>,
    /// The kernel's number of the thread that writes this lane, or `NO_THREAD` or `CHANGING`,
    thread: AtomicU32,
    /// and the processor time of those before it, in nanoseconds.
    busy_before: AtomicU64,
}

/// How requests fared on one endpoint.
#[derive(Debug, Default)]
struct Outcomes {
    succeeded: AtomicU32,
    failed: AtomicU32,
}

impl Lane {
    fn new(slots: usize) -> Lane {
        Lane {
            counters: [const { AtomicU64::new(0) }; Counter::COUNT],
            causes: [const { AtomicU64::new(0) }; Cause::ALL.len()],
            latencies: Latency::ALL.map(|_| Histogram::new()),
            in_flight: (0..slots).map(|_| AtomicU32::new(0)).collect(),
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

    /// Counts one more; only the lane's worker calls this.
    pub fn add(&self, counter: Counter) {
        step(&self.counters[counter as usize], 1);
    }

    /// Lowers a gauge by one; only the lane's worker calls this.
    pub fn subtract(&self, counter: Counter) {
        step(&self.counters[counter as usize], u64::MAX);
    }

    /// Counts one more failure by its cause; only the lane's worker calls this.
    pub fn add_cause(&self, cause: Cause) {
        step(&self.causes[cause as usize], 1);
    }

    /// Counts how long a request took; only the lane's worker calls this.
    pub fn record(&self, latency: Latency, time: Duration) {
        self.latencies[latency as usize].record(time);
    }

    /// Takes a request on the endpoint of this slot up; only the lane's worker calls this.
    pub fn begin(&self, slot: u32) {
        if let Some(count) = self.in_flight.get(slot as usize) {
            step32(count, 1);
            step32(&self.in_flight_total, 1);
        }
    }

    /// Puts a request on the endpoint of this slot down; only the lane's worker calls this.
    pub fn end(&self, slot: u32) {
        if let Some(count) = self.in_flight.get(slot as usize) {
            step32(count, u32::MAX);
            step32(&self.in_flight_total, u32::MAX);
        }
    }

    /// Counts a request that succeeded on the endpoint of this slot; only the lane's worker calls
    /// this.
    pub fn add_success(&self, slot: u32) {
        if let Some(outcomes) = self.outcomes.get(slot as usize) {
            step32(&outcomes.succeeded, 1);
        }
    }

    /// Counts a request that failed on the endpoint of this slot; only the lane's worker calls
    /// this.
    pub fn add_failure(&self, slot: u32) {
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
        self.counters[Counter::ClientsOpen as usize].store(0, Ordering::Relaxed);
        for count in self.in_flight.iter().chain([&self.in_flight_total]) {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// A single writer's addition: no locked instruction.
fn step(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

fn step32(counter: &AtomicU32, by: u32) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// All workers' lanes.
#[derive(Clone, Debug)]
pub struct Lanes {
    lanes: Arc<[CachePadded<Lane>]>,
}

impl Lanes {
    /// Lanes for `workers` workers and `slots` endpoint slots.
    #[must_use]
    pub fn new(workers: usize, slots: usize) -> Lanes {
        Lanes { lanes: (0..workers).map(|_| CachePadded::new(Lane::new(slots))).collect() }
    }

    /// How many workers there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always a worker")]
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// The lane of one worker.
    ///
    /// # Panics
    /// When there is no such worker.
    #[must_use]
    pub fn lane(&self, worker: usize) -> &Lane {
        &self.lanes[worker]
    }

    /// One counter, summed over the workers.
    #[must_use]
    pub fn sum(&self, counter: Counter) -> u64 {
        self.lanes.iter().map(|lane| lane.get(counter)).fold(0, u64::wrapping_add)
    }

    /// How unevenly one counter is spread over the workers: the greatest lane's over the mean. 1 is
    /// even, the number of workers is all on one; where nothing was counted it is 1.
    #[must_use]
    pub fn imbalance(&self, counter: Counter) -> f64 {
        let counts = || self.lanes.iter().map(|lane| lane.get(counter));
        match counts().sum::<u64>() {
            0 => 1.0,
            sum => counts().max().unwrap_or(0) as f64 * self.lanes.len() as f64 / sum as f64,
        }
    }

    /// One cause, summed over the workers.
    #[must_use]
    pub fn sum_cause(&self, cause: Cause) -> u64 {
        self.lanes.iter().map(|lane| lane.get_cause(cause)).sum()
    }

    /// How long requests took, over all workers.
    #[must_use]
    pub fn distribution(&self, latency: Latency) -> Distribution {
        Distribution::of(self.lanes.iter().map(|lane| &lane.latencies[latency as usize]))
    }

    /// Requests in flight on one endpoint, over all workers.
    #[must_use]
    pub fn in_flight(&self, slot: u32) -> u32 {
        self.lanes.iter().map(|lane| lane.in_flight(slot)).fold(0, u32::wrapping_add)
    }

    /// Adds to each of `sums` the requests in flight on the endpoint of its slot, over all workers.
    pub fn add_in_flight(&self, slots: impl Iterator<Item = u32> + Clone, sums: &mut [u32]) {
        for lane in self.lanes.iter() {
            let counts = &lane.in_flight[..];
            for (slot, sum) in slots.clone().zip(sums.iter_mut()) {
                let count = counts.get(slot as usize);
                *sum = sum.wrapping_add(count.map_or(0, |count| count.load(Ordering::Relaxed)));
            }
        }
    }

    /// Requests in flight on all endpoints, over all workers.
    #[must_use]
    pub fn in_flight_total(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.in_flight_total()).fold(0, u32::wrapping_add)
    }

    /// Requests that succeeded on one endpoint so far, over all workers; the count wraps.
    #[must_use]
    pub fn succeeded(&self, slot: u32) -> u32 {
        self.sum_outcomes(slot, |outcomes| &outcomes.succeeded)
    }

    /// Requests that failed on one endpoint so far, over all workers; the count wraps.
    #[must_use]
    pub fn failed(&self, slot: u32) -> u32 {
        self.sum_outcomes(slot, |outcomes| &outcomes.failed)
    }

    fn sum_outcomes(&self, slot: u32, which: impl Fn(&Outcomes) -> &AtomicU32) -> u32 {
        let outcomes = self.lanes.iter().filter_map(|lane| lane.outcomes.get(slot as usize));
        outcomes.map(|it| which(it).load(Ordering::Relaxed)).fold(0, u32::wrapping_add)
    }
}

/// The number of no thread: none writes the lane,
const NO_THREAD: u32 = 0;
/// and one that follows another has yet to come.
const CHANGING: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_flight_counts_are_summed_over_the_lanes() {
        let lanes = Lanes::new(3, 4);
        lanes.lane(0).begin(2);
        lanes.lane(1).begin(2);
        lanes.lane(2).begin(3);
        lanes.lane(1).end(2);
        assert_eq!((lanes.in_flight(2), lanes.in_flight(3), lanes.in_flight_total()), (1, 1, 2));
        let mut sums = [0; 3];
        lanes.add_in_flight([3, 0, 2].into_iter(), &mut sums);
        assert_eq!(sums, [1, 0, 1]);
    }

    #[test]
    fn latencies_are_merged_over_the_lanes_and_kept_apart_by_kind() {
        let lanes = Lanes::new(2, 0);
        lanes.lane(0).record(Latency::Total, Duration::from_millis(1));
        lanes.lane(1).record(Latency::Total, Duration::from_secs(1));
        lanes.lane(1).record(Latency::Upstream, Duration::from_secs(1));
        assert_eq!(Latency::ALL.map(|latency| lanes.distribution(latency).count()), [2, 1]);
    }

    #[test]
    fn imbalance_is_the_greatest_share_over_the_mean() {
        let lanes = Lanes::new(2, 0);
        assert_eq!(lanes.imbalance(Counter::ClientsOpen), 1.0);
        (0..3).for_each(|_| lanes.lane(0).add(Counter::ClientsOpen));
        assert_eq!(lanes.imbalance(Counter::ClientsOpen), 2.0);
        lanes.lane(1).add(Counter::ClientsOpen);
        assert_eq!(lanes.imbalance(Counter::ClientsOpen), 1.5);
    }

    #[test]
    fn the_time_of_a_thread_that_ended_is_kept() {
        let lanes = Lanes::new(1, 0);
        let (lane, seconds) = (lanes.lane(0), Duration::from_secs);
        let time = |at_7: u64| lane.busy_time(|thread| (thread == 7).then_some(seconds(at_7)));
        assert_eq!(time(3), Some(seconds(0)), "there is no thread");
        lane.take_up(7);
        assert_eq!(time(3), Some(seconds(3)));
        lane.put_down(seconds(4));
        assert_eq!(time(9), Some(seconds(4)));
        lane.take_up(7);
        assert_eq!(time(2), Some(seconds(6)));
        lane.take_up(8);
        assert_eq!(time(2), None, "the kernel does not know the thread");
    }

    #[test]
    fn a_lane_taken_over_keeps_its_counters_and_loses_its_gauges() {
        let lanes = Lanes::new(1, 1);
        let lane = lanes.lane(0);
        lane.add(Counter::Requests);
        lane.add(Counter::ClientsOpen);
        lane.begin(0);
        lane.reset_gauges();
        assert_eq!(lanes.sum(Counter::Requests), 1);
        assert_eq!((lanes.sum(Counter::ClientsOpen), lanes.in_flight_total()), (0, 0));
    }
}
