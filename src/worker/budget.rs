//! How many retries a pool's requests may have, so that they do not double the load of backends in
//! need.
//!
//! Counts the pool's requests and retries of all workers over the last `WINDOW`. Pure: the counts
//! are arguments. Asked only when an attempt has failed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::RetryConfig;

/// What all workers have counted for a pool so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests.
    pub requests: u64,
    /// Retries.
    pub retries: u64,
}

/// The counts at the marks of the window, the oldest at the front.
#[derive(Debug)]
pub struct Budget {
    marks: VecDeque<Counts>,
}

impl Budget {
    /// A budget that starts at these counts.
    #[must_use]
    pub fn new(now: Counts) -> Budget {
        // A window's room at once: marks are made while requests are served.
        let mut marks = VecDeque::with_capacity(MARKS);
        marks.push_back(now);
        Budget { marks }
    }

    /// Moves the window on, after so many times `MARK_INTERVAL`: more than one when the worker had
    /// nothing to look after.
    pub fn mark(&mut self, now: Counts, intervals: usize) {
        let marks = &mut self.marks;
        for _ in 0..intervals.min(MARKS) {
            if marks.len() >= MARKS {
                marks.pop_front();
            }
            marks.push_back(now);
        }
    }

    /// Whether one more retry is within the budget.
    #[must_use]
    pub fn allows(&self, now: Counts, config: &RetryConfig) -> bool {
        self.left(now, config) > 0
    }

    /// How many retries are within the budget just now.
    #[must_use]
    pub fn left(&self, now: Counts, config: &RetryConfig) -> u64 {
        let oldest = self.marks.front().copied().unwrap_or_default();
        let requests = now.requests.wrapping_sub(oldest.requests);
        let retries = now.retries.wrapping_sub(oldest.retries);
        let share = requests.saturating_mul(u64::from(config.budget_percent)) / 100;
        let always = u64::from(config.budget_per_second) * WINDOW.as_secs();
        share.max(always).saturating_sub(retries)
    }
}

/// How far apart marks are.
pub const MARK_INTERVAL: Duration = Duration::from_secs(1);
const MARKS: usize = 10;
/// What the budget is counted over.
const WINDOW: Duration = Duration::from_secs(MARK_INTERVAL.as_secs() * MARKS as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RetryOn;

    fn config(budget_percent: u32, budget_per_second: u32) -> RetryConfig {
        let on = RetryOn { lost: true, down: true, timeout: false, invalid: false, statuses: None };
        RetryConfig { retries_max: 3, on, body_bytes_max: 0, budget_percent, budget_per_second }
    }

    fn check(config: &RetryConfig, requests: u64, retries: u64, allowed: bool) {
        let budget = Budget::new(Counts { requests: 1_000, retries: 500 });
        let now = Counts { requests: 1_000 + requests, retries: 500 + retries };
        assert_eq!(budget.allows(now, config), allowed, "{requests} {retries} {config:?}");
    }

    #[test]
    fn a_share_of_the_requests_or_a_few_a_second_may_be_retried() {
        let config = config(20, 3);
        check(&config, 0, 29, true);
        check(&config, 0, 30, false);
        check(&config, 1_000, 199, true);
        check(&config, 1_000, 200, false);
    }

    #[test]
    fn a_budget_of_nothing_allows_none() {
        check(&config(0, 0), 1_000_000, 0, false);
    }

    #[test]
    fn time_without_marks_counts() {
        let mut budget = Budget::new(Counts::default());
        let then = Counts { requests: 30, retries: 30 };
        budget.mark(then, 1);
        assert!(!budget.allows(then, &config(20, 3)));
        budget.mark(then, 3_600);
        assert!(budget.allows(then, &config(20, 3)));
    }

    #[test]
    fn what_lies_before_the_window_counts_no_more() {
        let mut budget = Budget::new(Counts::default());
        let then = Counts { requests: 1_000_000, retries: 100 };
        for _ in 0..MARKS {
            assert!(budget.allows(then, &config(20, 3)));
            budget.mark(then, 1);
        }
        let now = Counts { retries: 130, ..then };
        assert!(!budget.allows(now, &config(20, 3)));
    }
}
