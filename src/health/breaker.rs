//! The circuit breaker of one endpoint: it opens when too large a share of requests fails, and
//! lets a few try before it closes.
//!
//! Pure: counts and the time come in, the next state and what turned come out. `control` reads the
//! counts from the workers' lanes at every tick, allows the trials and publishes the standing.
//! A request that was in flight when the breaker opened counts among the trials if it ends then:
//! the lanes cannot tell it from one, and its outcome says as much of the endpoint.

use std::time::{Duration, Instant};

use crate::config::BreakerConfig;
use crate::health::tally::Tally;

/// The state of a breaker.
#[derive(Clone, Copy, Debug)]
pub enum Breaker {
    /// Requests pass.
    Closed(Window),
    /// None do.
    Open {
        /// When some may try.
        until: Instant,
    },
    /// Some try.
    HalfOpen {
        /// When trials that have not ended are taken for lost.
        until: Instant,
        /// What had been counted when they were allowed first.
        begun: Tally,
    },
}

/// What turned, for the log and for whoever has to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It opened: so many failed, of so many.
    Opened(Tally),
    /// So many trials are to be allowed.
    HalfOpened {
        /// The trials.
        trials: u32,
    },
    /// So many trials did not end in time and are to be allowed again.
    TrialsLost {
        /// The trials.
        trials: u32,
    },
    /// All trials succeeded.
    Closed,
}

impl Breaker {
    /// A closed breaker; `total` is what was counted so far.
    #[must_use]
    pub fn new(now: Instant, total: Tally) -> Breaker {
        Breaker::Closed(Window::new(now, total))
    }

    /// The state now that so much was counted; a breaker without `error_percent` stays as it is.
    #[must_use]
    pub fn observe(
        self,
        now: Instant,
        total: Tally,
        config: &BreakerConfig,
    ) -> (Breaker, Option<Turn>) {
        let Some(percent) = config.error_percent else { return (self, None) };
        let open = Breaker::Open { until: now + config.open_time };
        match self {
            Breaker::Closed(window) => {
                let recent = window.since_oldest(total);
                let is_enough = recent.requests() >= u64::from(config.requests_min.max(1));
                let is_bad =
                    u64::from(recent.failed) * 100 >= recent.requests() * u64::from(percent.get());
                if is_enough && is_bad {
                    return (open, Some(Turn::Opened(recent)));
                }
                (Breaker::Closed(window.advanced(now, total, config.window)), None)
            }
            Breaker::Open { until } if now < until => (self, None),
            Breaker::Open { .. } => {
                let half_open = Breaker::HalfOpen { until: now + config.open_time, begun: total };
                (half_open, Some(Turn::HalfOpened { trials: config.trials.get() }))
            }
            Breaker::HalfOpen { until, begun } => {
                let tried = total.since(begun);
                if tried.failed > 0 {
                    return (open, Some(Turn::Opened(tried)));
                }
                let missing = config.trials.get().saturating_sub(tried.succeeded);
                if missing == 0 {
                    return (Breaker::new(now, total), Some(Turn::Closed));
                }
                if now < until {
                    return (self, None);
                }
                let again = Breaker::HalfOpen { until: now + config.open_time, begun };
                (again, Some(Turn::TrialsLost { trials: missing }))
            }
        }
    }
}

/// What was counted at the last few steps of a window of time.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    marks: [Tally; STEPS],
    oldest: usize,
    marked: Instant,
}

impl Window {
    fn new(now: Instant, total: Tally) -> Window {
        Window { marks: [total; STEPS], oldest: 0, marked: now }
    }

    /// What was counted within the window, of which up to one step is missing at its far end.
    fn since_oldest(&self, total: Tally) -> Tally {
        total.since(self.marks[self.oldest])
    }

    /// The window with its marks set up to now.
    fn advanced(mut self, now: Instant, total: Tally, window: Duration) -> Window {
        if now.saturating_duration_since(self.marked) >= window {
            return Window::new(now, total);
        }
        let step = window / STEPS as u32;
        while now.saturating_duration_since(self.marked) >= step {
            self.marks[self.oldest] = total;
            self.oldest = (self.oldest + 1) % STEPS;
            self.marked += step;
        }
        self
    }
}

/// Marks in a window; it slides by a tenth of its length.
const STEPS: usize = 10;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Half of at least 10 within a second; open for 5 s; 3 trials.
    fn config() -> BreakerConfig {
        BreakerConfig {
            requests_max: None,
            pending_max: None,
            error_percent: NonZeroU32::new(50),
            window: ms(1000),
            requests_min: 10,
            open_time: ms(5000),
            trials: NonZeroU32::new(3).unwrap(),
        }
    }

    /// What happens at these times in milliseconds, with so many more succeeded and failed: the
    /// turns, as `O`pened, `H`alf-opened, `L`ost, `C`losed or `.`.
    #[track_caller]
    fn check(config: &BreakerConfig, steps: &[(u64, u32, u32)], expected: &str) {
        let start = Instant::now();
        // The counts wrap on the way.
        let mut total = Tally { succeeded: u32::MAX - 3, failed: u32::MAX - 2 };
        let mut breaker = Breaker::new(start, total);
        let mut turns = String::new();
        for (at, succeeded, failed) in steps {
            total.succeeded = total.succeeded.wrapping_add(*succeeded);
            total.failed = total.failed.wrapping_add(*failed);
            let (next, turn) = breaker.observe(start + ms(*at), total, config);
            breaker = next;
            turns.push(match turn {
                None => '.',
                Some(Turn::Opened(_)) => 'O',
                Some(Turn::HalfOpened { trials: 3 }) => 'H',
                Some(Turn::TrialsLost { trials: 2 }) => 'L',
                Some(Turn::Closed) => 'C',
                Some(other) => panic!("{other:?}"),
            });
        }
        assert_eq!(turns, expected, "{steps:?}");
    }

    #[test]
    fn it_opens_at_the_share_and_with_enough_requests() {
        check(&config(), &[(10, 5, 5)], "O");
        check(&config(), &[(10, 6, 5)], ".");
        check(&config(), &[(10, 0, 9), (20, 0, 1)], ".O");
        check(&config(), &[(10, 0, 0), (20, 100, 99), (30, 0, 1)], "..O");
        let off = BreakerConfig { error_percent: None, ..config() };
        check(&off, &[(10, 0, 1000)], ".");
        let any = BreakerConfig { requests_min: 0, ..config() };
        check(&any, &[(10, 0, 0), (20, 0, 1)], ".O");
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        check(&config(), &[(10, 0, 9), (200, 0, 0), (950, 0, 1)], "..O");
        let mut steps: Vec<_> = (1..=11).map(|step| (step * 100, 0, 0)).collect();
        steps[0].2 = 9;
        steps.push((1150, 0, 1));
        check(&config(), &steps, "............");
        // Old successes do not hide that all fails now.
        let mut steps: Vec<_> = (1..=11).map(|step| (step * 100, 0, 0)).collect();
        steps[0].1 = 1000;
        steps.push((1150, 0, 10));
        check(&config(), &steps, "...........O");
    }

    #[test]
    fn what_came_while_nobody_looked_still_counts() {
        check(&config(), &[(10_000, 0, 10)], "O");
    }

    #[test]
    fn trials_close_it_or_open_it_again() {
        let opened = (10, 0, 10);
        check(&config(), &[opened, (5009, 0, 0), (5010, 0, 0), (5020, 3, 0)], "O.HC");
        check(&config(), &[opened, (5010, 0, 0), (5020, 2, 0), (5030, 1, 0)], "OH.C");
        check(&config(), &[opened, (5010, 0, 0), (5020, 2, 1), (10_019, 0, 0)], "OHO.");
        check(&config(), &[opened, (5010, 0, 0), (5020, 0, 1), (10_020, 0, 0)], "OHOH");
        // Failures that come while it is open are of requests that were in flight.
        check(&config(), &[opened, (20, 0, 50), (5010, 0, 0), (5020, 3, 0)], "O.HC");
    }

    #[test]
    fn it_begins_anew_after_it_closed() {
        let closed = [(10, 0, 10), (5010, 0, 0), (5020, 3, 0)];
        check(&config(), &[&closed[..], &[(5030, 0, 9), (5040, 0, 1)]].concat(), "OHC.O");
    }

    #[test]
    fn trials_without_an_end_are_allowed_again() {
        let half_open = [(10, 0, 10), (5010, 0, 0)];
        let lost = [(5020, 1, 0), (10_009, 0, 0), (10_010, 0, 0), (10_020, 2, 0)];
        check(&config(), &[&half_open[..], &lost].concat(), "OH..LC");
    }
}
