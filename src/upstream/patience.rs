//! How long a backend keeps an unused connection, as far as that is known of it.
//!
//! A backend says it in `Keep-Alive: timeout=N`, or shows it by closing: then an unused connection
//! is retired somewhat earlier, so that no request meets the close. What was seen is doubted as
//! time passes, since a restart closes connections of any age. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// What it said, less a margin.
    announced: Option<Duration>,
    /// An age by which it had closed a connection, less a margin, and when that was seen.
    seen: Option<(Duration, Instant)>,
}

impl Patience {
    /// It said that it keeps an unused connection for so long.
    pub fn announce(&mut self, timeout: Duration) {
        let margin = (timeout / 10).max(ANNOUNCED_MARGIN).min(timeout / 2);
        self.announced = Some(timeout - margin);
    }

    /// It was found to have closed a connection that had lain unused for `age`.
    pub fn found_closed(&mut self, age: Duration, now: Instant) {
        let retire_at = (age / 4 * 3).max(SEEN_MIN);
        if self.seen_at(now).is_none_or(|seen| retire_at < seen) {
            self.seen = Some((retire_at, now));
        }
    }

    /// For how long an unused connection can be relied on, and `idle_timeout` at most.
    #[must_use]
    pub fn limit(&self, idle_timeout: Duration, now: Instant) -> Duration {
        let known = [self.announced, self.seen_at(now)];
        known.into_iter().flatten().fold(idle_timeout, Duration::min)
    }

    /// What was seen, twice as long for each `DOUBT_INTERVAL` that has passed since.
    fn seen_at(&self, now: Instant) -> Option<Duration> {
        let (seen, at) = self.seen?;
        let intervals = now.saturating_duration_since(at).as_secs() / DOUBT_INTERVAL.as_secs();
        let doublings = u32::try_from(intervals).unwrap_or(u32::MAX);
        Some(seen.saturating_mul(2_u32.saturating_pow(doublings)))
    }
}

/// The least time between the retiring of a connection and the close that was announced for it.
const ANNOUNCED_MARGIN: Duration = Duration::from_millis(500);
/// Connections are kept so long whatever is seen.
const SEEN_MIN: Duration = Duration::from_millis(10);
/// How long what was seen is believed before it is doubted.
const DOUBT_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    #[test]
    fn an_announced_time_is_kept_clear_of() {
        for (timeout, limit) in
            [(5_000, 4_500), (60_000, 30_000), (20_000, 18_000), (1_000, 500), (0, 0)]
        {
            let mut patience = Patience::default();
            patience.announce(Duration::from_millis(timeout));
            assert_eq!(patience.limit(IDLE, Instant::now()), Duration::from_millis(limit));
        }
    }

    #[test]
    fn closes_that_are_seen_shorten_it_until_none_is() {
        let now = Instant::now();
        let mut patience = Patience::default();
        let closes_after = Duration::from_millis(100);
        let mut finds = 0;
        while patience.limit(IDLE, now) >= closes_after {
            // Found as late as it can be: just before it would have been retired.
            patience.found_closed(patience.limit(IDLE, now), now);
            finds += 1;
        }
        assert!(finds <= 20, "{finds}");
    }

    #[test]
    fn what_was_seen_is_doubted_in_time() {
        let now = Instant::now();
        let mut patience = Patience::default();
        patience.found_closed(Duration::from_millis(400), now);
        for (seconds, millis) in [(0, 300), (9, 300), (10, 600), (30, 2_400), (3600, 30_000)] {
            let limit = patience.limit(IDLE, now + Duration::from_secs(seconds));
            assert_eq!(limit, Duration::from_millis(millis), "after {seconds} s");
        }
    }

    #[test]
    fn a_longer_close_does_not_lengthen_it() {
        let now = Instant::now();
        let mut patience = Patience::default();
        patience.found_closed(Duration::from_millis(400), now);
        patience.found_closed(Duration::from_secs(20), now);
        assert_eq!(patience.limit(IDLE, now), Duration::from_millis(300));
    }
}
