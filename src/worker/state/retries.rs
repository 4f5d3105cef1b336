//! What else may be tried: the retry budgets of the pools, and the requests that are taken from
//! endpoints which are down or gone.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::RetryConfig;
use crate::metrics::{Counter, Lanes};
use crate::upstream::endpoint::{Endpoint, Slot};
use crate::upstream::limit::Limits;
use crate::upstream::snapshot::PoolId;
use crate::worker::budget::{Budget, Counts, MARK_INTERVAL};
use crate::worker::state::Worker;

impl Worker {
    /// Whether the retries of all workers in this pool leave room for one more; counts it if not.
    pub fn affords_retry(&self, pool: PoolId, config: &RetryConfig) -> bool {
        let is_affordable = self.with_budget(pool, |budget, now| budget.allows(now, config));
        if !is_affordable {
            self.lane().add(Counter::RetriesDenied);
        }
        is_affordable
    }

    /// Lets requests that wait know of endpoints that came and went: looks for a place are taken
    /// up, and the waits for answers of endpoints that are down ended, if there is one that is not.
    /// Closes unused connections to endpoints that are gone, and those beyond a limit that has come.
    pub fn heed_snapshot(&self) {
        let snapshot = self.snapshot();
        if self.heeded.replace(snapshot.epoch) != snapshot.epoch {
            self.queue.call_all();
            let endpoints = snapshot.pools.iter().flat_map(|pool| &pool.endpoints);
            let limits: HashMap<Slot, &Limits> =
                endpoints.map(|it| (it.slot, &*it.limits)).collect();
            self.idle.borrow_mut().retain(|slot, kept| {
                limits.get(&slot).is_some_and(|limits| limits.admits(kept.stream.counted_in()))
            });
        }
        for (index, pool) in snapshot.pools.iter().enumerate() {
            let is_sick = |it: &&Endpoint| it.is_sick;
            let sick: Vec<Slot> = pool.endpoints.iter().filter(is_sick).map(|it| it.slot).collect();
            if !sick.is_empty() && pool.endpoints.iter().any(Endpoint::is_eligible) {
                // What the budget does not cover is better left waiting than refused.
                let config = &pool.config.retry;
                let retries_max =
                    self.with_budget(PoolId(index), |budget, now| budget.left(now, config));
                self.deadlines.leave(retries_max, |slot| sick.contains(&slot));
            }
        }
    }

    /// Moves the windows of the retry budgets on by the time that has passed.
    pub fn mark_budgets(&self, passed: Duration) {
        let intervals = passed.as_millis() / MARK_INTERVAL.as_millis();
        let intervals = usize::try_from(intervals).unwrap_or(usize::MAX);
        for pool in 0..self.snapshot().pools.len() {
            self.with_budget(PoolId(pool), |budget, now| budget.mark(now, intervals));
        }
    }

    fn with_budget<T>(&self, pool: PoolId, with: impl FnOnce(&mut Budget, Counts) -> T) -> T {
        let mut budgets = self.budgets.borrow_mut();
        while budgets.len() <= pool.0 {
            // The pool has come since this worker started.
            budgets.push(Budget::new(Counts::default()));
        }
        with(&mut budgets[pool.0], counts_of(&self.lanes, pool))
    }
}

/// The budgets of so many pools from now on.
pub(super) fn budgets(lanes: &Lanes, pools: usize) -> Vec<Budget> {
    (0..pools).map(|pool| Budget::new(counts_of(lanes, PoolId(pool)))).collect()
}

fn counts_of(lanes: &Lanes, pool: PoolId) -> Counts {
    let [requests, retries] = lanes.retries_of_pool(pool.0);
    Counts { requests, retries }
}
