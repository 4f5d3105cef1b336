//! The status document: what the dashboard and `corelane top` show, whole, in one answer.
//!
//! Its field names are an interface: fields may be added, none is renamed. Built of what the
//! registry, the lanes and the process say; decides nothing. Called by handlers and the sampler.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::Api;
use super::history::{Figures, History};
use crate::config::{Mode, Policy};
use crate::control::{BackendView, PoolView};
use crate::error::Cause;
use crate::metrics::{Counter, Lanes, StatusClass};
use crate::process::Phase;

/// A time as RFC 3339 writes it, in UTC, with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(self.0))
    }
}

/// The whole.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    now: Time,
    uptime_seconds: f64,
    epoch: u64,
    ready: bool,
    draining: bool,
    totals: Totals,
    last_second: Figures,
    imbalance: f64,
    pools: Vec<Pool>,
    workers: Vec<Worker>,
}

/// Counts since the start, and what is open now.
#[derive(Serialize)]
struct Totals {
    requests: u64,
    relayed: u64,
    failures: BTreeMap<&'static str, u64>,
    statuses: BTreeMap<&'static str, u64>,
    retries: u64,
    connects: u64,
    reuses: u64,
    clients_open: u64,
    clients_accepted: u64,
    handed_over: u64,
    queued: u64,
    tunnels: u64,
    in_flight: u32,
    bytes_received: u64,
    bytes_sent: u64,
}

#[derive(Serialize)]
pub(super) struct Pool {
    name: String,
    policy: &'static str,
    panicking: bool,
    backends: Vec<Backend>,
}

/// One backend; `id` is `pool/host:port`.
#[derive(Serialize)]
pub(super) struct Backend {
    id: String,
    address: String,
    resolved: Option<std::net::SocketAddr>,
    source: &'static str,
    origin: String,
    revision: String,
    state: &'static str,
    why: String,
    since: Time,
    mode: &'static str,
    weight: u16,
    effective_weight: f64,
    max_conns: Option<u32>,
    conns: Option<u32>,
    backup: bool,
    in_flight: u32,
    requests: u32,
    failures: u32,
    last_second: Figures,
    /// False in the answer to a change that a restart would forget; left out elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<bool>,
}

/// One worker.
#[derive(Serialize)]
pub(super) struct Worker {
    id: usize,
    core: usize,
    driver: Option<&'static str>,
    running: bool,
    restarts: u32,
    busy: Option<f64>,
    clients_open: u64,
    accepted: u64,
    handed_over: u64,
    in_flight: u32,
    requests: u64,
}

impl Status {
    pub(super) fn of(api: &Api, pools: &[PoolView]) -> Status {
        let phase = api.process.phase();
        // In one place: a guard in the literal below would live to its end.
        let (last_second, pools) = {
            let history = api.history();
            let pools = pools.iter().map(|pool| Pool::of(&history, pool)).collect();
            (history.last_second(), pools)
        };
        Status {
            version: env!("CARGO_PKG_VERSION"),
            now: Time(SystemTime::now()),
            uptime_seconds: api.process.uptime().as_secs_f64(),
            epoch: api.published.load().epoch,
            ready: super::readiness::reasons(phase, &api.published.load()).is_empty(),
            draining: phase == Phase::Draining,
            totals: Totals::of(&api.lanes),
            last_second,
            imbalance: api.lanes.imbalance(Counter::Accepted),
            pools,
            workers: workers(api),
        }
    }
}

impl Totals {
    fn of(lanes: &Lanes) -> Totals {
        let failures = Cause::ALL.into_iter().map(|cause| (cause.name(), lanes.sum_cause(cause)));
        let statuses = StatusClass::ALL.into_iter().filter(|class| *class != StatusClass::None);
        Totals {
            requests: lanes.sum(Counter::Requests),
            relayed: lanes.sum(Counter::Relayed),
            failures: failures.filter(|(_, count)| *count > 0).collect(),
            statuses: statuses.map(|it| (it.name(), lanes.sum_status(it))).collect(),
            retries: lanes.sum(Counter::Retries),
            connects: lanes.sum(Counter::Connects),
            reuses: lanes.sum(Counter::Reuses),
            clients_open: lanes.sum(Counter::ClientsOpen),
            clients_accepted: lanes.sum(Counter::Accepted),
            handed_over: lanes.sum(Counter::HandedOver),
            queued: lanes.sum(Counter::Queued),
            tunnels: lanes.sum(Counter::Tunnels),
            in_flight: lanes.in_flight_total(),
            bytes_received: lanes.sum(Counter::FromClients),
            bytes_sent: lanes.sum(Counter::ToClients),
        }
    }
}

impl Pool {
    pub(super) fn of(history: &History, pool: &PoolView) -> Pool {
        let backend = |view: &BackendView| Backend::of(view, history.last_second_of(view.slot));
        Pool {
            name: pool.name.clone(),
            policy: name_of(pool.policy),
            panicking: pool.is_panicking,
            backends: pool.backends.iter().map(backend).collect(),
        }
    }
}

impl Backend {
    pub(super) fn of(view: &BackendView, last_second: Figures) -> Backend {
        Backend {
            id: view.id.clone(),
            address: view.authority.clone(),
            resolved: view.address,
            source: view.source.name(),
            origin: view.origin.clone(),
            revision: view.revision.to_string(),
            state: view.state.name(),
            why: view.why.clone(),
            since: Time(view.since),
            mode: mode_name(view.mode),
            weight: view.weight,
            effective_weight: view.effective_weight,
            max_conns: view.conns_max,
            conns: view.conns,
            backup: view.is_backup,
            in_flight: view.in_flight,
            requests: view.succeeded.wrapping_add(view.failed),
            failures: view.failed,
            last_second,
            kept: None,
        }
    }
}

/// The workers by their numbers.
pub(super) fn workers(api: &Api) -> Vec<Worker> {
    let history = api.history();
    let worker = |(id, state): (usize, crate::process::WorkerState)| {
        let lane = api.lanes.lane(id);
        Worker {
            id,
            core: state.core,
            driver: state.driver,
            running: state.is_running,
            restarts: state.restarts,
            busy: history.busy_of(id),
            clients_open: lane.get(Counter::ClientsOpen),
            accepted: lane.get(Counter::Accepted),
            handed_over: lane.get(Counter::HandedOver),
            in_flight: lane.in_flight_total(),
            requests: lane.get(Counter::Requests),
        }
    };
    api.process.workers().into_iter().enumerate().map(worker).collect()
}

/// A mode's name.
pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Ready => "ready",
        Mode::Drain => "drain",
        Mode::Maintenance => "maintenance",
    }
}

/// A policy's name, as its flag has it.
pub(super) fn name_of(policy: Policy) -> &'static str {
    match policy {
        Policy::RoundRobin => "round-robin",
        Policy::LeastConnections => "least-connections",
        Policy::P2c => "p2c",
        Policy::Ewma => "ewma",
        Policy::Random => "random",
        Policy::Maglev => "maglev",
    }
}
