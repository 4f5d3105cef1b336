//! How long a source waits after a failure: twice as long after each, up to a bound, jittered.
//!
//! Pure: what is random is an argument. `dns` and `etcd` call it.

use std::time::Duration;

/// The waits after failures in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `min`, after the first failure, to `max`.
    pub(super) fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max: max.max(min), failures: 0 }
    }

    /// Something worked: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure; `random` lies in 0 to 1.
    pub(super) fn next(&mut self, random: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        jittered(self.min.saturating_mul(doubled).min(self.max), random)
    }
}

/// A part of this time, from three quarters to all of it: processes that began together part.
pub(super) fn jittered(time: Duration, random: f64) -> Duration {
    time.mul_f64(0.75 + random.clamp(0.0, 1.0) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let waits: Vec<_> = (0..4).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(75));
        for _ in 0..100 {
            assert!(backoff.next(0.5) <= Duration::from_millis(350));
        }
    }
}
