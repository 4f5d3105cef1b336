//! Whether the control thread itself was late: then a failed probe says nothing about its endpoint.
//!
//! A heartbeat runs on the thread's runtime; a gap between two beats is the time nothing ran. A
//! probe also asks when it begins and ends, since after a stall its timer may fire before the
//! heartbeat's. Only failures are doubted: an answer that passed did come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::HealthConfig;
use crate::health::vitals::Vitals;

/// The heartbeat of the control thread.
#[derive(Debug)]
pub struct Pulse {
    /// When it was made.
    origin: Instant,
    beats: Mutex<Beats>,
    vitals: Arc<Vitals>,
}

impl Pulse {
    /// A pulse that begins with its first beat. A thread is late when it lags more than half the
    /// shortest interval, or a whole timeout, which would fail each probe in flight; of several
    /// settings, the strictest.
    #[must_use]
    pub fn new<'c>(
        configs: impl IntoIterator<Item = &'c HealthConfig>,
        vitals: Arc<Vitals>,
    ) -> Pulse {
        let lag_max = configs.into_iter().map(lag_max_of).min().unwrap_or(LAG_MAX);
        Pulse { origin: Instant::now(), beats: Mutex::new(Beats::new(lag_max)), vitals }
    }

    /// From now on it is as strict as these settings want, too.
    pub fn tighten(&self, config: &HealthConfig) {
        let mut beats = self.beats();
        beats.lag_max = beats.lag_max.min(lag_max_of(config));
    }

    /// Beats until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut beats = interval(self.beats().period);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            self.beat();
        }
    }

    /// Beats once, and says when.
    pub fn beat(&self) -> Instant {
        let now = Instant::now();
        let (late, lag) = {
            let mut beats = self.beats();
            (beats.beat(now), beats.lag)
        };
        self.vitals.lag_times.record(lag);
        if let Some(lag) = late {
            self.vitals.lags.add();
            tracing::error!(?lag, "the control thread was late; probes that failed do not count");
        }
        now
    }

    /// When to do what is due a period after this time: a little earlier, together with whatever
    /// else is due about then. Fewer wake-ups make the probes of 200 endpoints each 2 s cost 1.0 %
    /// of a core in place of 1.7 (`cargo bench --bench probing`).
    #[must_use]
    pub fn together(&self, began: Instant, period: Duration) -> Instant {
        let step = STEP_MAX.min(period / STEPS_MIN);
        let due = (began - self.origin).saturating_add(period);
        let over = due.as_nanos().checked_rem(step.as_nanos()).unwrap_or(0);
        let over = Duration::from_nanos(u64::try_from(over).unwrap_or(0));
        self.origin.checked_add(due - over).unwrap_or(began + FAR)
    }

    /// Whether the thread was late at any time since then; a failed probe that began then is to
    /// be discarded.
    pub fn was_late_since(&self, began: Instant) -> bool {
        self.beat();
        self.beats().was_late_since(began)
    }

    /// Counts a probe that took so long.
    pub fn probed(&self, is_passed: bool, time: Duration) {
        let vitals = &self.vitals;
        if is_passed {
            vitals.probes_passed.add()
        } else {
            vitals.probes_failed.add()
        }
        vitals.probe_times.record(time);
    }

    /// Counts a failed probe that was discarded.
    pub fn discard(&self) {
        self.vitals.probes_discarded.add();
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How late a thread may be that probes by these settings.
fn lag_max_of(config: &HealthConfig) -> Duration {
    let shortest = config.interval.min(config.interval_changing).min(config.interval_down);
    (shortest / 2).min(config.timeout)
}

/// The beats of a thread, without its clock.
#[derive(Debug)]
struct Beats {
    /// How late one may be.
    lag_max: Duration,
    /// How far apart they are on a thread that is well.
    period: Duration,
    /// `None` before the first one.
    last: Option<Instant>,
    /// How late that was.
    lag: Duration,
    /// When the last lag ended.
    late_until: Option<Instant>,
}

impl Beats {
    fn new(lag_max: Duration) -> Beats {
        let period = (lag_max / BEATS_PER_LAG).clamp(PERIOD_MIN, PERIOD_MAX);
        Beats { lag_max, period, last: None, lag: Duration::ZERO, late_until: None }
    }

    /// Takes a beat; how late it is when that is too late.
    fn beat(&mut self, now: Instant) -> Option<Duration> {
        let last = self.last.replace(now).unwrap_or(now);
        let gap = now.saturating_duration_since(last);
        let lag = gap.saturating_sub(self.period);
        self.lag = lag;
        if lag <= self.lag_max {
            return None;
        }
        self.late_until = Some(now);
        Some(lag)
    }

    /// Whether a lag ended after this time.
    fn was_late_since(&self, began: Instant) -> bool {
        self.late_until.is_some_and(|until| began < until)
    }
}

/// How late a thread may be that probes nothing.
const LAG_MAX: Duration = Duration::from_secs(1);
/// Beats within the lag that is too much, so that a gap is known to a quarter of it.
const BEATS_PER_LAG: u32 = 4;
/// The least time between two beats; tokio's timers count milliseconds.
const PERIOD_MIN: Duration = Duration::from_millis(5);
/// The most: it costs nothing worth measuring.
const PERIOD_MAX: Duration = Duration::from_millis(100);

/// How far apart the times are at which things are done together,
const STEP_MAX: Duration = Duration::from_millis(25);
/// and how many of them lie in a period at least, so that it is hardly shortened.
const STEPS_MIN: u32 = 40;
/// In place of a time that cannot be told.
const FAR: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_beat_is_late_when_it_lags_more_than_it_may() {
        // A lag of 200 ms is too much, so beats are 50 ms apart.
        for (gap, expected) in
            [(0, None), (50, None), (250, None), (251, Some(201)), (1050, Some(1000))]
        {
            let start = Instant::now();
            let mut beats = Beats::new(ms(200));
            assert_eq!(beats.beat(start), None);
            assert_eq!(beats.beat(start + ms(gap)), expected.map(ms), "gap {gap} ms");
        }
    }

    #[test]
    fn a_probe_is_doubted_when_a_lag_ended_after_it_began() {
        let start = Instant::now();
        let mut beats = Beats::new(ms(200));
        beats.beat(start);
        assert!(!beats.was_late_since(start));
        beats.beat(start + ms(1000));
        beats.beat(start + ms(1050));
        for (began, expected) in [(0, true), (999, true), (1000, false), (1040, false)] {
            assert_eq!(beats.was_late_since(start + ms(began)), expected, "began at {began} ms");
        }
    }

    #[test]
    fn what_is_due_about_the_same_time_is_done_together() {
        let config = crate::health::tests::config(ms(100));
        let pulse = Pulse::new([&config], Arc::default());
        for (began, period, expected) in [
            (0, 2000, 2000),
            (10, 2000, 2000),
            (24, 2000, 2000),
            (25, 2000, 2025),
            (7, 2004, 2000),
            (0, 400, 400),
            (9, 400, 400),
            (10, 400, 410),
            (3, 0, 3),
        ] {
            let due = pulse.together(pulse.origin + ms(began), ms(period));
            assert_eq!(due, pulse.origin + ms(expected), "{began} + {period} ms");
        }
        let never = pulse.together(pulse.origin, Duration::MAX);
        assert!(never >= pulse.origin + FAR);
    }

    #[test]
    fn a_clock_that_stands_still_is_not_late() {
        let start = Instant::now();
        let mut beats = Beats::new(Duration::ZERO);
        beats.beat(start + ms(10));
        assert_eq!(beats.beat(start), None);
    }
}
