//! What was counted in each of the last seconds: rates and quantiles, from the lanes.
//!
//! One reading a second of sums that the workers keep anyway. Called by the sampler of `mod`.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::status::Time;
use crate::control::prometheus::busy_time;
use crate::metrics::{Counter, Distribution, FirstBytes, Lanes, Latency, StatusClass};
use crate::upstream::endpoint::Slot;
use crate::upstream::snapshot::Snapshot;

/// The last `POINTS_MAX` seconds.
#[derive(Debug)]
pub(super) struct History {
    points: VecDeque<Point>,
    last: Reading,
    endpoints: HashMap<Slot, Figures>,
    /// By worker.
    busy: Vec<Option<f64>>,
}

/// One second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Point {
    /// Its end.
    pub(super) at: Time,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// What one second was like. For all together, errors are answers with a 5xx, and times those of
/// requests that ended in it; for one endpoint, requests that failed on it, and times until an
/// answer's head had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    requests: f64,
    errors: f64,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
}

/// The sums at one time.
#[derive(Debug)]
struct Reading {
    at: Instant,
    requests: u64,
    errors: u64,
    times: Distribution,
    endpoints: HashMap<Slot, EndpointReading>,
    /// By worker, its processor time so far, where the kernel tells.
    busy: Vec<Option<Duration>>,
}

/// The sums of one endpoint.
#[derive(Debug)]
struct EndpointReading {
    succeeded: u32,
    failed: u32,
    first_bytes: FirstBytes,
}

impl History {
    /// An empty one, that begins to count now.
    pub(super) fn new(lanes: &Lanes, snapshot: &Snapshot) -> History {
        let last = Reading::of(lanes, snapshot, Instant::now());
        History {
            points: VecDeque::with_capacity(POINTS_MAX),
            last,
            endpoints: HashMap::new(),
            busy: Vec::new(),
        }
    }

    /// Takes the time since the last reading as one second more.
    pub(super) fn sample(&mut self, lanes: &Lanes, snapshot: &Snapshot, at: SystemTime) {
        let reading = Reading::of(lanes, snapshot, Instant::now());
        let figures = reading.since(&self.last);
        self.endpoints = reading.endpoints_since(&self.last);
        self.busy = reading.busy_since(&self.last);
        self.last = reading;
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back(Point { at: Time(at), figures });
    }

    /// The oldest first.
    pub(super) fn points(&self) -> Vec<Point> {
        self.points.iter().copied().collect()
    }

    /// The last second.
    pub(super) fn last_second(&self) -> Figures {
        self.points.back().map(|point| point.figures).unwrap_or_default()
    }

    /// The part of the last second in which a worker was at work, where the kernel tells.
    pub(super) fn busy_of(&self, worker: usize) -> Option<f64> {
        self.busy.get(worker).copied().flatten()
    }

    /// The last second of one endpoint.
    pub(super) fn last_second_of(&self, slot: Slot) -> Figures {
        self.endpoints.get(&slot).copied().unwrap_or_default()
    }
}

impl Reading {
    fn of(lanes: &Lanes, snapshot: &Snapshot, at: Instant) -> Reading {
        let endpoints = snapshot.pools.iter().flat_map(|pool| &pool.endpoints);
        Reading {
            at,
            requests: lanes.sum(Counter::Requests),
            errors: lanes.sum_status(StatusClass::ServerError),
            times: lanes.distribution(Latency::Total),
            endpoints: endpoints
                .map(|endpoint| (endpoint.slot, EndpointReading::of(lanes, endpoint.slot.number)))
                .collect(),
            busy: (0..lanes.len()).map(|worker| busy_time(lanes.lane(worker))).collect(),
        }
    }

    fn busy_since(&self, last: &Reading) -> Vec<Option<f64>> {
        let elapsed = self.at.saturating_duration_since(last.at).max(ELAPSED_MIN).as_secs_f64();
        let part = |(now, then): (&Option<Duration>, &Option<Duration>)| {
            Some(((*now)?.checked_sub((*then)?)?.as_secs_f64() / elapsed).min(1.0))
        };
        self.busy.iter().zip(&last.busy).map(part).collect()
    }

    fn since(&self, last: &Reading) -> Figures {
        let per_second = self.per_second_since(last);
        let times = self.times.since(&last.times);
        let quantile = |per_mille| times.quantile(per_mille).map(|time| time.as_secs_f64());
        Figures {
            requests: per_second(self.requests.saturating_sub(last.requests)),
            errors: per_second(self.errors.saturating_sub(last.errors)),
            p50_seconds: quantile(500),
            p99_seconds: quantile(990),
        }
    }

    fn endpoints_since(&self, last: &Reading) -> HashMap<Slot, Figures> {
        let per_second = self.per_second_since(last);
        let figures = |(slot, now): (&Slot, &EndpointReading)| {
            Some((*slot, now.since(last.endpoints.get(slot)?, &per_second)))
        };
        self.endpoints.iter().filter_map(figures).collect()
    }

    fn per_second_since(&self, last: &Reading) -> impl Fn(u64) -> f64 + use<> {
        let elapsed = self.at.saturating_duration_since(last.at).max(ELAPSED_MIN);
        move |count| count as f64 / elapsed.as_secs_f64()
    }
}

impl EndpointReading {
    fn of(lanes: &Lanes, slot: u32) -> EndpointReading {
        EndpointReading {
            succeeded: lanes.succeeded(slot),
            failed: lanes.failed(slot),
            first_bytes: lanes.first_bytes(slot),
        }
    }

    fn since(&self, last: &EndpointReading, per_second: impl Fn(u64) -> f64) -> Figures {
        let errors = self.failed.wrapping_sub(last.failed);
        let requests = self.succeeded.wrapping_sub(last.succeeded).wrapping_add(errors);
        let times = self.first_bytes.since(&last.first_bytes);
        Figures {
            requests: per_second(requests.into()),
            errors: per_second(errors.into()),
            p50_seconds: times.quantile(500),
            p99_seconds: times.quantile(990),
        }
    }
}

/// Five minutes.
pub(super) const POINTS_MAX: usize = 300;
/// Guards the division where the clock stood still.
const ELAPSED_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot::new(1, Vec::new())
    }

    #[test]
    fn the_last_five_minutes_are_kept() {
        let (lanes, snapshot) = (Lanes::new(1, 0), snapshot());
        let mut history = History::new(&lanes, &snapshot);
        assert_eq!(history.last_second(), Figures::default());
        for second in 0..POINTS_MAX as u64 + 5 {
            history.sample(&lanes, &snapshot, SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        }
        let points = history.points();
        assert_eq!(points.len(), POINTS_MAX);
        assert_eq!(points[0].at, Time(SystemTime::UNIX_EPOCH + Duration::from_secs(5)));
    }

    #[test]
    fn a_point_is_of_what_came_since_the_last() {
        let (lanes, snapshot) = (Lanes::new(2, 0), snapshot());
        lanes.lane(0).record(Latency::Total, Duration::from_secs(10));
        lanes.lane(0).add(Counter::Requests);
        let mut history = History::new(&lanes, &snapshot);
        history.sample(&lanes, &snapshot, SystemTime::now());
        assert_eq!(history.last_second(), Figures::default());
        for worker in 0..2 {
            lanes.lane(worker).record(Latency::Total, Duration::from_millis(1));
            lanes.lane(worker).add(Counter::Requests);
        }
        history.sample(&lanes, &snapshot, SystemTime::now());
        let figures = history.last_second();
        assert!(figures.requests > 0.0 && figures.errors == 0.0, "{figures:?}");
        let p99 = figures.p99_seconds.unwrap();
        assert!((0.0009..0.0011).contains(&p99), "{p99}");
    }

    #[test]
    fn an_endpoints_second_has_its_own_rates_and_times() {
        let lanes = Lanes::new(2, 2);
        lanes.lane(0).record_first_byte(1, Duration::from_secs(10));
        lanes.lane(0).add_success(1);
        let then = EndpointReading::of(&lanes, 1);
        for worker in 0..2 {
            lanes.lane(worker).record_first_byte(1, Duration::from_millis(3));
            lanes.lane(worker).record_first_byte(0, Duration::from_secs(10));
            lanes.lane(worker).add_success(1);
        }
        lanes.lane(1).add_failure(1);
        let figures = EndpointReading::of(&lanes, 1).since(&then, |count| count as f64);
        assert_eq!((figures.requests, figures.errors), (3.0, 1.0));
        for seconds in [figures.p50_seconds, figures.p99_seconds] {
            assert!(seconds.is_some_and(|it| (0.002..0.0042).contains(&it)), "{figures:?}");
        }
        let idle = EndpointReading::of(&lanes, 1);
        let figures = idle.since(&EndpointReading::of(&lanes, 1), |count| count as f64);
        assert_eq!(figures, Figures::default());
    }
}
