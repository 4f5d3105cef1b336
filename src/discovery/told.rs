//! What a source says in the log about its failures: each cause at most once a second, and how
//! often it was silent.
//!
//! Pure: time is an argument. The sources call it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// When each cause was last told, and how many were not since.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<&'static str, (Instant, u64)>);

impl Told {
    /// Whether this cause may be told now: with how many times it was not since.
    pub(super) fn now(&mut self, cause: &'static str, now: Instant) -> Option<u64> {
        match self.0.get_mut(cause) {
            Some((at, untold)) if now.saturating_duration_since(*at) < TELL_INTERVAL => {
                *untold += 1;
                None
            }
            Some((at, untold)) => {
                *at = now;
                Some(std::mem::take(untold))
            }
            None => {
                self.0.insert(cause, (now, 0));
                Some(0)
            }
        }
    }
}

/// How often a cause is told at most.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_a_second_with_the_number_of_silent_times() {
        let (mut told, start) = (Told::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(told.now("empty", at(0)), Some(0));
        assert_eq!(told.now("empty", at(500)), None);
        assert_eq!(told.now("failed", at(500)), Some(0));
        assert_eq!(told.now("empty", at(999)), None);
        assert_eq!(told.now("empty", at(1000)), Some(2));
        assert_eq!(told.now("empty", at(2000)), Some(0));
    }
}
