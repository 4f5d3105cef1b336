//! Counters of the control thread, which it writes and anyone may read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::Histogram;

/// What the control thread did so far.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Endpoints ejected for how requests fared on them.
    pub ejections: Count,
    /// Breakers that opened.
    pub breaker_openings: Count,
    /// Times that the control thread ran late.
    pub lags: Count,
    /// Failed probes that did not count because of that.
    pub probes_discarded: Count,
    /// Breakers that began to allow trials,
    pub breaker_half_openings: Count,
    /// and those that closed again.
    pub breaker_closings: Count,
    /// Probes that passed, and those that failed or were discarded.
    pub probes_passed: Count,
    /// See `probes_passed`.
    pub probes_failed: Count,
    /// How long probes took, with finding the address.
    pub probe_times: Histogram,
    /// How late the thread's heartbeats came.
    pub lag_times: Histogram,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts one more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
