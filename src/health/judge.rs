//! Rise and fall: when probes take an endpoint out of the rotation and bring it back.
//!
//! Pure: what a probe said comes in, the next state comes out. It never looks at a clock and
//! never does I/O. `health` calls it once a probe.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::{HealthConfig, InitialHealth};

/// What the probes so far say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not probed yet: it takes no requests, and its first probe decides alone.
    New,
    /// It takes requests.
    Up {
        /// Failed probes in a row, below `fall`.
        failures: u32,
    },
    /// It takes no requests.
    Down {
        /// Passed probes in a row, below `rise`.
        passes: u32,
    },
}

/// How many probes in a row change the state.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// Passed probes in a row that bring an endpoint back.
    pub rise: NonZeroU32,
    /// Failed probes in a row that take an endpoint out.
    pub fall: NonZeroU32,
}

impl Thresholds {
    /// The thresholds of a configuration.
    #[must_use]
    pub fn of(config: &HealthConfig) -> Thresholds {
        Thresholds { rise: config.rise, fall: config.fall }
    }
}

impl Health {
    /// The state before the first probe.
    #[must_use]
    pub fn first(initial: InitialHealth) -> Health {
        match initial {
            InitialHealth::Probe => Health::New,
            InitialHealth::Up => Health::Up { failures: 0 },
        }
    }

    /// The time from the start of one probe to the start of the next, before jitter.
    #[must_use]
    pub fn interval(self, config: &HealthConfig) -> Duration {
        match self {
            Health::Up { failures: 0 } => config.interval,
            Health::Down { passes: 0 } => config.interval_down,
            Health::New | Health::Up { .. } | Health::Down { .. } => config.interval_changing,
        }
    }

    /// The state after one more probe.
    #[must_use]
    pub fn observe(self, passed: bool, thresholds: Thresholds) -> Health {
        match (self, passed) {
            (Health::New | Health::Up { .. }, true) => Health::Up { failures: 0 },
            (Health::New | Health::Down { .. }, false) => Health::Down { passes: 0 },
            (Health::Up { failures }, false) => match failures.saturating_add(1) {
                failures if failures >= thresholds.fall.get() => Health::Down { passes: 0 },
                failures => Health::Up { failures },
            },
            (Health::Down { passes }, true) => match passes.saturating_add(1) {
                passes if passes >= thresholds.rise.get() => Health::Up { failures: 0 },
                passes => Health::Down { passes },
            },
        }
    }

    /// Whether the endpoint takes requests.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Health::Up { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes (`+` passed, `-` failed) and the state after each (`U` up, `d` down).
    fn check(rise: u32, fall: u32, probes: &str, states: &str) {
        let thresholds = Thresholds {
            rise: NonZeroU32::new(rise).unwrap(),
            fall: NonZeroU32::new(fall).unwrap(),
        };
        let mut health = Health::New;
        let mut seen = String::new();
        for probe in probes.chars() {
            health = health.observe(probe == '+', thresholds);
            seen.push(if health.is_up() { 'U' } else { 'd' });
        }
        assert_eq!(seen, states, "rise {rise}, fall {fall}, probes {probes}");
    }

    #[test]
    fn a_new_endpoint_is_not_up() {
        assert!(!Health::New.is_up());
    }

    #[test]
    fn an_endpoint_that_begins_up_falls_like_any_other() {
        assert_eq!(Health::first(InitialHealth::Probe), Health::New);
        let thresholds = Thresholds { rise: NonZeroU32::MIN, fall: NonZeroU32::new(2).unwrap() };
        let first = Health::first(InitialHealth::Up).observe(false, thresholds);
        assert_eq!(first, Health::Up { failures: 1 });
        assert_eq!(first.observe(false, thresholds), Health::Down { passes: 0 });
    }

    #[test]
    fn probes_come_faster_while_the_state_changes() {
        let config = crate::health::tests::config(Duration::from_secs(1));
        let [up, changing, down] = [1, 2, 3].map(Duration::from_secs);
        let config = HealthConfig {
            interval: up,
            interval_changing: changing,
            interval_down: down,
            ..config
        };
        for (health, expected) in [
            (Health::New, changing),
            (Health::Up { failures: 0 }, up),
            (Health::Up { failures: 1 }, changing),
            (Health::Down { passes: 1 }, changing),
            (Health::Down { passes: 0 }, down),
        ] {
            assert_eq!(health.interval(&config), expected, "{health:?}");
        }
    }

    #[test]
    fn the_first_probe_decides_alone() {
        check(3, 3, "+", "U");
        check(3, 3, "-", "d");
        check(1, 1, "+", "U");
        check(1, 1, "-", "d");
    }

    #[test]
    fn fall_failures_in_a_row_take_it_out() {
        check(2, 3, "+---", "UUUd");
        check(2, 3, "+--+--+---", "UUUUUUUUUd");
        check(2, 1, "+-", "Ud");
    }

    #[test]
    fn rise_passes_in_a_row_bring_it_back() {
        check(2, 3, "-++", "ddU");
        check(2, 3, "-+-+-++", "ddddddU");
        check(1, 3, "-+", "dU");
    }

    #[test]
    fn counts_start_anew_after_each_change() {
        check(2, 2, "+--++--", "UUddUUd");
        check(3, 2, "-+++-+--", "dddUUUUd");
        check(1, 1, "+-+-+", "UdUdU");
    }
}
