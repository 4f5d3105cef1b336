//! What of the status document is shown. Fields that are missing are left empty, unknown ones are
//! passed over: an older or newer corelane can be watched.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `GET /api/v1/status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) now: String,
    pub(super) uptime_seconds: f64,
    pub(super) epoch: u64,
    pub(super) ready: bool,
    pub(super) draining: bool,
    pub(super) totals: Totals,
    pub(super) last_second: Figures,
    pub(super) imbalance: f64,
    pub(super) pools: Vec<Pool>,
    pub(super) workers: Vec<Worker>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) retries: u64,
    pub(super) clients_open: u64,
    pub(super) queued: u64,
    pub(super) tunnels: u64,
    pub(super) failures: BTreeMap<String, u64>,
}

/// What happened within a second; times in seconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Figures {
    pub(super) requests: f64,
    pub(super) errors: f64,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) panicking: bool,
    pub(super) backends: Vec<Backend>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Backend {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) why: String,
    pub(super) since: String,
    pub(super) weight: u32,
    pub(super) effective_weight: f64,
    pub(super) max_conns: Option<u32>,
    pub(super) backup: bool,
    pub(super) in_flight: u32,
    pub(super) requests: u64,
    pub(super) last_second: Figures,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Worker {
    pub(super) id: u64,
    pub(super) core: u64,
    pub(super) driver: Option<String>,
    pub(super) busy: Option<f64>,
    pub(super) clients_open: u64,
    pub(super) accepted: u64,
    pub(super) handed_over: u64,
    pub(super) in_flight: u64,
    pub(super) requests: u64,
}

/// `GET /api/v1/history`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Past {
    pub(super) points: Vec<Figures>,
}

/// `event: change`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Change {
    pub(super) at: String,
    pub(super) epoch: u64,
    pub(super) cause: String,
    pub(super) text: String,
}

/// RFC 9457.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    pub(super) title: String,
    pub(super) detail: String,
}
