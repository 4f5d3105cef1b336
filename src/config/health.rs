//! How backends are watched: by probes, and by how requests fare on them.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The active health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// What a probe asks for; `None` only opens a connection.
    pub path: Option<String>,
    /// The probe's method, a token.
    pub method: String,
    /// The probe's Host, if it is not the backend's own authority.
    pub host: Option<String>,
    /// More headers of the probe.
    pub headers: Vec<HealthHeader>,
    /// The statuses that pass.
    pub statuses: Statuses,
    /// What the first `BODY_BYTES_MAX` of an answer's body must contain, if anything.
    pub body: Option<String>,
    /// From the start of one probe to the start of the next while an endpoint is up, before
    /// jitter,
    pub interval: Duration,
    /// while its state is changing,
    pub interval_changing: Duration,
    /// and while it is down.
    pub interval_down: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Passed probes in a row that bring a sick endpoint back.
    pub rise: NonZeroU32,
    /// Failed probes in a row that take an endpoint out.
    pub fall: NonZeroU32,
    /// What an endpoint is before its first probe.
    pub initial: InitialHealth,
    /// The port on which a backend's agent tells its load, if there is one.
    pub agent_port: Option<u16>,
}

/// A header of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthHeader {
    /// A token.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The statuses of a probe's answer that pass; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether this status passes.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl fmt::Display for Statuses {
    /// As a flag has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

/// What an endpoint is before its first probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialHealth {
    /// It takes no requests; its first probe decides alone.
    Probe,
    /// It takes requests.
    Up,
}

/// When requests' own outcomes eject an endpoint: take it out for a while.
#[derive(Clone, Copy, Debug)]
pub struct EjectConfig {
    /// Failures in a row (no connection, a lost one, a timeout, a 5xx) that eject it, if any do.
    pub consecutive_max: Option<NonZeroU32>,
    /// How many percentage points an endpoint's share of successes may lie below its peers', if
    /// that ejects it.
    pub success_gap_percent: Option<NonZeroU32>,
    /// Over what time success is compared,
    pub interval: Duration,
    /// and with how many requests at least.
    pub requests_min: u32,
    /// How long the first ejection lasts; each further one twice as long,
    pub time: Duration,
    /// up to this.
    pub time_max: Duration,
    /// The most endpoints that are ejected at once, in percent of a pool's.
    pub percent_max: u8,
}

/// When an endpoint gets no requests for a while, and how many at once.
#[derive(Clone, Copy, Debug)]
pub struct BreakerConfig {
    /// The most requests in flight on an endpoint, over all workers, if there is a limit.
    pub requests_max: Option<NonZeroU32>,
    /// The most requests that wait for a connection to an endpoint to be made, over all workers,
    /// if there is a limit.
    pub pending_max: Option<NonZeroU32>,
    /// The share of failed requests that opens the breaker, in percent, if one does.
    pub error_percent: Option<NonZeroU32>,
    /// Over what time that share is counted,
    pub window: Duration,
    /// and with how many requests at least.
    pub requests_min: u32,
    /// How long it stays open before requests try the endpoint again.
    pub open_time: Duration,
    /// How many of them must succeed.
    pub trials: NonZeroU32,
}
