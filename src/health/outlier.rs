//! Passive ejection: which endpoints leave the rotation for how requests fare on them, and for how
//! long.
//!
//! Pure: outcomes, counts and the time come in. `control` feeds it, holds the results and
//! publishes; it also knows who is eligible, so it keeps the last one in.
//! Success is compared with the peers' pooled share, not with the mean less some deviations as
//! Envoy does: of n endpoints none lies more than (n - 1) / √n deviations off, 1.16 with three.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::config::EjectConfig;
use crate::health::tally::Tally;

/// Failures in a row on one endpoint, over all workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streak {
    /// How many requests had succeeded when it began.
    successes: u32,
    failures: u32,
}

impl Streak {
    /// The streak after a failure that came when so many requests had succeeded.
    #[must_use]
    pub fn observe(self, successes: u32) -> Streak {
        let failures = if successes == self.successes { self.failures } else { 0 };
        Streak { successes, failures: failures.saturating_add(1) }
    }

    /// Its length.
    #[must_use]
    pub fn failures(self) -> u32 {
        self.failures
    }
}

/// Whether an endpoint is ejected, and how often it lately was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// It is not.
    In {
        /// How often the next ejection's time is doubled.
        doublings: u32,
        /// Since when it is spent well: each interval of that takes a doubling back.
        since: Instant,
    },
    /// It is.
    Ejected {
        /// How often the next ejection's time will be doubled.
        doublings: u32,
        /// When it was.
        since: Instant,
        /// When it comes back.
        until: Instant,
    },
}

impl Ejection {
    /// Not ejected, nor ever before.
    #[must_use]
    pub fn new(now: Instant) -> Ejection {
        Ejection::In { doublings: 0, since: now }
    }

    /// Ejected from now on; one that is stays as it is.
    #[must_use]
    pub fn eject(self, now: Instant, config: &EjectConfig) -> Ejection {
        let Ejection::In { doublings, .. } = self else { return self };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let time = config.time.saturating_mul(factor);
        // More doublings than the longest time takes would only have to be taken back.
        let doublings = if time < config.time_max { doublings + 1 } else { doublings };
        let until = now + time.min(config.time_max);
        Ejection::Ejected { doublings, since: now, until }
    }

    /// Not ejected any more, before its time is over; how often it was still counts.
    #[must_use]
    pub fn lift(self, now: Instant) -> Ejection {
        match self {
            Ejection::Ejected { doublings, .. } => Ejection::In { doublings, since: now },
            Ejection::In { .. } => self,
        }
    }

    /// The state now, no further outcome having come.
    #[must_use]
    pub fn at(self, now: Instant, config: &EjectConfig) -> Ejection {
        match self {
            Ejection::Ejected { doublings, until, .. } if until <= now => {
                Ejection::In { doublings, since: now }
            }
            Ejection::In { doublings, since }
                if doublings > 0 && now.saturating_duration_since(since) >= config.interval =>
            {
                Ejection::In { doublings: doublings - 1, since: since + config.interval }
            }
            Ejection::In { .. } | Ejection::Ejected { .. } => self,
        }
    }

    /// Whether it takes no requests.
    #[must_use]
    pub fn is_ejected(self) -> bool {
        matches!(self, Ejection::Ejected { .. })
    }

    /// How long it is ejected in all, if it is.
    #[must_use]
    pub fn time(self) -> Option<Duration> {
        match self {
            Ejection::In { .. } => None,
            Ejection::Ejected { since, until, .. } => Some(until - since),
        }
    }
}

/// An endpoint whose share of successes lies far below its peers'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlier {
    /// The endpoint.
    pub index: usize,
    /// Its share, 0 to 1,
    pub success: f64,
    /// and theirs.
    pub peers: f64,
}

/// The endpoint that lies furthest below its peers, if that is more than `gap_percent` points and
/// no accident; of `tallies`, those that are `None` neither are compared nor count as peers.
#[must_use]
pub fn worst(
    tallies: &[Option<Tally>],
    gap_percent: NonZeroU32,
    requests_min: u32,
) -> Option<Outlier> {
    let all = tallies.iter().flatten().fold(Tally::default(), |all, it| all.plus(*it));
    let requests_min = u64::from(requests_min.max(1));
    let gap_min = f64::from(gap_percent.get()) / 100.0;
    let mut found: Option<Outlier> = None;
    for (index, own) in tallies.iter().enumerate() {
        let Some(own) = *own else { continue };
        let peers = all.since(own);
        if own.requests() < requests_min || peers.requests() < requests_min {
            continue;
        }
        let outlier = Outlier { index, success: own.success(), peers: peers.success() };
        let gap = outlier.gap();
        let is_far = gap > gap_min && gap > DEVIATIONS_MIN * deviation(own, peers, all);
        if is_far && found.is_none_or(|found| gap > found.gap()) {
            found = Some(outlier);
        }
    }
    found
}

impl Outlier {
    fn gap(self) -> f64 {
        self.peers - self.success
    }
}

/// The standard deviation of the difference of two shares of successes that differ by accident
/// alone: each is binomial with the success that both show together.
fn deviation(own: Tally, peers: Tally, all: Tally) -> f64 {
    let success = all.success();
    let parts = 1.0 / own.requests() as f64 + 1.0 / peers.requests() as f64;
    (success * (1.0 - success) * parts).sqrt()
}

/// The most endpoints of a pool of so many that may be ejected at once: so many percent, rounded
/// down, but one of two or more, or a small pool would have no ejection at all; 0 percent is none.
#[must_use]
pub fn ejected_max(endpoints: usize, percent_max: u8) -> usize {
    match (endpoints, percent_max) {
        (0 | 1, _) | (_, 0) => 0,
        (endpoints, percent) => (endpoints * usize::from(percent) / 100).max(1),
    }
}

/// How many standard deviations are no accident: one comparison in 740 is, by chance.
const DEVIATIONS_MIN: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn config() -> EjectConfig {
        EjectConfig {
            consecutive_max: NonZeroU32::new(5),
            success_gap_percent: NonZeroU32::new(20),
            interval: seconds(10),
            requests_min: 100,
            time: seconds(30),
            time_max: seconds(100),
            percent_max: 50,
        }
    }

    #[test]
    fn a_streak_ends_with_a_success() {
        for (successes, expected) in [
            (&[7, 7, 7][..], 3),
            (&[7, 7, 8], 1),
            (&[0, 0], 2),
            (&[7, 8, 7, 8], 1),
            (&[u32::MAX, 0, 0], 2),
        ] {
            let streak = successes.iter().fold(Streak::default(), |it, count| it.observe(*count));
            assert_eq!(streak.failures(), expected, "{successes:?}");
        }
    }

    #[test]
    fn each_further_ejection_lasts_twice_as_long_up_to_the_limit() {
        let config = config();
        let mut now = Instant::now();
        let mut ejection = Ejection::new(now);
        for expected in [30, 60, 100, 100, 100] {
            ejection = ejection.eject(now, &config);
            assert_eq!(ejection.time(), Some(seconds(expected)));
            assert_eq!(ejection.eject(now + seconds(1), &config), ejection);
            now += seconds(expected);
            assert!(ejection.at(now - seconds(1), &config).is_ejected());
            ejection = ejection.at(now, &config);
            assert!(!ejection.is_ejected());
        }
    }

    #[test]
    fn a_lifted_ejection_still_doubles_the_next() {
        let (config, start) = (config(), Instant::now());
        let lifted = Ejection::new(start).eject(start, &config).lift(start + seconds(1));
        assert!(!lifted.is_ejected());
        assert_eq!(lifted.lift(start + seconds(2)), lifted);
        assert_eq!(lifted.eject(start + seconds(2), &config).time(), Some(seconds(60)));
    }

    #[test]
    fn an_interval_spent_well_takes_a_doubling_back() {
        let config = config();
        for (well, expected) in [(9, 60), (10, 30), (25, 30), (1000, 30)] {
            let start = Instant::now();
            let back = start + seconds(30);
            let mut ejection = Ejection::new(start).eject(start, &config).at(back, &config);
            for second in 0..=well {
                ejection = ejection.at(back + seconds(second), &config);
            }
            let time = ejection.eject(back + seconds(well), &config).time();
            assert_eq!(time, Some(seconds(expected)), "after {well} s");
        }
    }

    /// The requests of each endpoint, as (succeeded, failed), and which one lies furthest below
    /// the others by more than 20 points.
    #[track_caller]
    fn check(tallies: &[(u32, u32)], expected: Option<usize>) {
        let tallies: Vec<_> =
            tallies.iter().map(|&(succeeded, failed)| Some(Tally { succeeded, failed })).collect();
        let gap = NonZeroU32::new(20).unwrap();
        assert_eq!(worst(&tallies, gap, 100).map(|it| it.index), expected, "{tallies:?}");
    }

    #[test]
    fn an_endpoint_far_below_its_peers_is_found() {
        check(&[(100, 0), (100, 0), (70, 30)], Some(2));
        check(&[(100, 0), (0, 100)], Some(1));
        check(&[(100, 0), (70, 30), (60, 40)], Some(2));
        check(&[(100_000, 0), (0, 100)], Some(1));
    }

    #[test]
    fn endpoints_that_fare_alike_are_none() {
        check(&[(100, 0), (100, 0), (100, 0)], None);
        check(&[(0, 100), (0, 100), (0, 100)], None);
        check(&[(50, 50), (60, 40), (45, 55)], None);
        check(&[(100, 0), (100, 0), (81, 19)], None);
    }

    #[test]
    fn too_few_requests_say_nothing() {
        check(&[(100, 0), (0, 99)], None);
        check(&[(99, 0), (0, 100)], None);
        check(&[(100, 0)], None);
        check(&[], None);
    }

    #[test]
    fn a_gap_that_may_be_chance_is_none() {
        let gap = NonZeroU32::new(20).unwrap();
        for (own, expected) in [((6, 4), false), ((600, 400), true)] {
            let peers = Tally { succeeded: own.0 * 10 / 6 * 9 / 10, failed: own.0 / 6 };
            let tallies = [Some(peers), Some(Tally { succeeded: own.0, failed: own.1 })];
            assert_eq!(worst(&tallies, gap, 10).is_some(), expected, "{tallies:?}");
        }
    }

    #[test]
    fn who_is_ejected_is_no_peer() {
        let gap = NonZeroU32::new(20).unwrap();
        let bad = Some(Tally { succeeded: 0, failed: 100 });
        let well = Some(Tally { succeeded: 1000, failed: 0 });
        assert_eq!(worst(&[well, bad, bad], gap, 100).map(|it| it.index), Some(1));
        assert_eq!(worst(&[well, None, bad], gap, 100).map(|it| it.index), Some(2));
        assert_eq!(worst(&[None, None, bad], gap, 100), None);
    }

    #[test]
    fn so_many_may_be_ejected_at_once() {
        for (endpoints, percent, expected) in [
            (0, 100, 0),
            (1, 100, 0),
            (2, 0, 0),
            (2, 10, 1),
            (3, 50, 1),
            (4, 50, 2),
            (10, 10, 1),
            (10, 39, 3),
            (10, 100, 10),
        ] {
            assert_eq!(ejected_max(endpoints, percent), expected, "{percent} % of {endpoints}");
        }
    }
}
