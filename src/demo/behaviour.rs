//! How a backend behaves: well, or like those that a load balancer must bear.
//!
//! Set by flags and, while it runs, by `POST /behave`; `service` and `backend` act on it. Probes
//! and what sets it are never delayed, failed or left without an answer.

use std::time::Duration;

use super::number::{BadNumber, Number};

/// How a backend treats requests and connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behaviour {
    /// How long each answer is held back.
    pub latency: Duration,
    /// The share of answers that are a 500, in percent. The request is executed all the same.
    pub error_percent: u8,
    /// Whether requests are executed but never answered.
    pub is_silent: bool,
    /// How long a connection may lie without a request before it is closed, if it may not for ever.
    pub idle_timeout: Option<Duration>,
    /// Whether answers announce that time, in whole seconds, as `Keep-Alive: timeout=N`.
    pub announces_idle_timeout: bool,
    /// What `X-Load` says on `/health`, if it is there.
    pub load: Option<f64>,
}

impl Behaviour {
    /// Answers at once, always, and keeps connections.
    pub const GOOD: Behaviour = Behaviour {
        latency: Duration::ZERO,
        error_percent: 0,
        is_silent: false,
        idle_timeout: None,
        announces_idle_timeout: false,
        load: None,
    };

    /// Changes what the query names; 0 switches it off.
    pub(super) fn change(&mut self, query: Option<&str>) -> Result<(), BadNumber> {
        let mut changed = *self;
        if let Some(ms) = LATENCY_MS.find_in_query(query)? {
            changed.latency = Duration::from_millis(ms);
        }
        if let Some(percent) = ERROR_PERCENT.find_in_query(query)? {
            // Its limit keeps it within 8 bits.
            changed.error_percent = percent as u8;
        }
        if let Some(switch) = SILENT.find_in_query(query)? {
            changed.is_silent = switch == 1;
        }
        if let Some(ms) = IDLE_MS.find_in_query(query)? {
            changed.idle_timeout = (ms > 0).then(|| Duration::from_millis(ms));
        }
        *self = changed;
        Ok(())
    }

    /// Whether this answer is one of those that fail.
    pub(super) fn fails(&self, random: &mut fastrand::Rng) -> bool {
        random.u8(0..100) < self.error_percent
    }
}

const LATENCY_MS: Number = Number { name: "latency_ms", max: 60_000 };
const ERROR_PERCENT: Number = Number { name: "error_percent", max: 100 };
const SILENT: Number = Number { name: "silent", max: 1 };
const IDLE_MS: Number = Number { name: "idle_ms", max: 3_600_000 };
