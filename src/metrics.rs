//! The counters: one lane a worker, written by it alone, summed by whoever reads.
//!
//! A worker adds with a relaxed load and a relaxed store, never a read-modify-write, so a lane's
//! cache lines are written by one core only. In-flight counts per endpoint live here too, so that
//! balancing sees the whole process and not one worker.

mod answers;
mod counter;
mod histogram;
mod lane;
mod method;
mod tables;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::utils::CachePadded;

use crate::error::Cause;
use answers::counts_of;
use lane::Outcomes;

pub use answers::{By, Finished, StatusClass};
pub use counter::{BackendCounter, Counter};
pub use histogram::{Distribution, Histogram, Latency};
pub use lane::{Lane, POOLS_COUNTED, Raised};
pub use method::Method;
pub use tables::{BackendTotals, FirstBytes};

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
    /// What had been counted for a slot when it was given to the endpoint that has it now. Only
    /// the control thread and those that read totals take this lock, never a worker.
    bases: Arc<Mutex<HashMap<u32, BackendTotals>>>,
    /// Lines of the access log that could not be written; its writer alone adds to it.
    access_log_lost: Arc<AtomicU64>,
}

impl Lanes {
    /// Lanes for `workers` workers and `slots` endpoint slots.
    #[must_use]
    pub fn new(workers: usize, slots: usize) -> Lanes {
        let lanes = (0..workers).map(|_| CachePadded::new(Lane::new(slots))).collect();
        Lanes { lanes, bases: Arc::default(), access_log_lost: Arc::default() }
    }

    /// Counts lines of the access log that could not be written; only its writer calls this.
    pub fn add_access_log_lost(&self, lines: u64) {
        step(&self.access_log_lost, lines);
    }

    /// Lines of the access log that could not be written so far.
    #[must_use]
    pub fn access_log_lost(&self) -> u64 {
        self.access_log_lost.load(Ordering::Relaxed)
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

    /// Attempts that ended for one cause and that another followed, over all workers.
    #[must_use]
    pub fn sum_retries(&self, cause: Cause) -> u64 {
        self.lanes.iter().map(|lane| lane.get_retries(cause)).sum()
    }

    /// The requests that went to the pool of this index, and the attempts for them that others
    /// followed, over all workers.
    #[must_use]
    pub fn retries_of_pool(&self, pool: usize) -> [u64; 2] {
        let mut sums = [0; 2];
        self.lanes.iter().for_each(|lane| lane.retries_by_pool.add_to(pool, &mut sums));
        sums
    }

    /// Requests that are over and whose status is of one class, over all workers.
    #[must_use]
    pub fn sum_status(&self, class: StatusClass) -> u64 {
        self.lanes.iter().map(|lane| lane.get_status(class)).sum()
    }

    /// Requests that no backend answered, of the pool of this index or of none; without those
    /// that there were none of.
    #[must_use]
    pub fn unanswered(&self, pool: Option<usize>) -> Vec<(Method, StatusClass, u64)> {
        let row = pool.map_or(POOLS_COUNTED, |pool| pool.min(POOLS_COUNTED));
        let mut cells = [0; answers::CELLS];
        self.lanes.iter().for_each(|lane| lane.pools.add_to(row, &mut cells));
        counts_of(&cells).collect()
    }

    /// What was counted for the endpoint that has this slot, over all workers.
    #[must_use]
    pub fn backend(&self, slot: u32) -> BackendTotals {
        let totals = self.sum_backend(slot);
        let bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        match bases.get(&slot) {
            Some(base) => totals.less(base),
            None => totals,
        }
    }

    /// How long the endpoints that had this slot took until an answer's head had come, over all
    /// workers, since the start.
    #[must_use]
    pub fn first_bytes(&self, slot: u32) -> FirstBytes {
        let mut times = FirstBytes::default();
        self.lanes.iter().for_each(|lane| lane.backends.add_first_bytes_to(slot, &mut times));
        times
    }

    /// Another endpoint gets this slot: what is counted for it begins with nothing. The control
    /// thread calls this before any request can go there.
    pub fn begin_anew(&self, slot: u32) {
        let totals = self.sum_backend(slot);
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.insert(slot, totals);
    }

    fn sum_backend(&self, slot: u32) -> BackendTotals {
        let mut totals = BackendTotals::zero();
        self.lanes.iter().for_each(|lane| lane.backends.add_to(slot as usize, &mut totals.0));
        totals
    }

    /// Unused connections to the endpoint of this slot that are kept, over all workers.
    #[must_use]
    pub fn idle(&self, slot: u32) -> u32 {
        self.lanes.iter().map(|lane| lane.idle(slot)).fold(0, u32::wrapping_add)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    fn answered(by: By, status: u16) -> Finished {
        Finished { method: Method::Get, status, by, received: 10, sent: 20 }
    }

    #[test]
    fn a_request_is_counted_where_it_was_answered() {
        let lanes = Lanes::new(2, 2);
        for by in [By::Endpoint(1), By::Pool(3), By::Pool(POOLS_COUNTED), By::None] {
            lanes.lane(0).finish(&answered(by, 200));
            lanes.lane(1).finish(&answered(by, 503));
        }
        let both = |count| {
            vec![
                (Method::Get, StatusClass::Successful, count),
                (Method::Get, StatusClass::ServerError, count),
            ]
        };
        assert_eq!(lanes.backend(1).answers().collect::<Vec<_>>(), both(1));
        assert_eq!(lanes.unanswered(Some(3)), both(1));
        assert_eq!(lanes.unanswered(None), both(2));
        assert_eq!(lanes.unanswered(Some(0)), []);
        assert_eq!(lanes.sum_status(StatusClass::ServerError), 4);
        assert_eq!([Counter::FromClients, Counter::ToClients].map(|it| lanes.sum(it)), [80, 160]);
    }

    #[test]
    fn a_backend_in_a_slot_that_another_had_begins_with_nothing() {
        let lanes = Lanes::new(2, 1);
        (0..2).for_each(|worker| lanes.lane(worker).finish(&answered(By::Endpoint(0), 200)));
        lanes.begin_anew(0);
        assert_eq!(lanes.backend(0).requests(), 0);
        lanes.lane(1).finish(&answered(By::Endpoint(0), 200));
        assert_eq!(lanes.clone().backend(0).requests(), 1);
    }

    #[test]
    fn latencies_are_merged_over_the_lanes_and_kept_apart_by_kind() {
        let lanes = Lanes::new(2, 0);
        lanes.lane(0).record(Latency::Total, Duration::from_millis(1));
        lanes.lane(1).record(Latency::Total, Duration::from_secs(1));
        lanes.lane(1).record(Latency::Upstream, Duration::from_secs(1));
        assert_eq!(Latency::ALL.map(|latency| lanes.distribution(latency).count()), [2, 1, 0, 0]);
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
        lane.add(Counter::Waiting);
        lane.keep_idle(0);
        lane.begin(0);
        lane.reset_gauges();
        assert_eq!(lanes.sum(Counter::Requests), 1);
        assert_eq!((lanes.sum(Counter::ClientsOpen), lanes.in_flight_total()), (0, 0));
        assert_eq!((lanes.sum(Counter::Waiting), lanes.idle(0)), (0, 0));
    }
}
