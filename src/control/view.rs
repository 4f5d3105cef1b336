//! What the control thread knows, as plain values for whoever shows it.
//!
//! Made on the control thread for each question and never changed; the admin API, the dashboard and
//! metrics read them. Nothing here decides anything.

use std::fmt;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::config::{Mode, Policy, Source};
use crate::upstream::endpoint::{Slot, Standing, Tier};

/// A pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// How it picks.
    pub policy: Policy,
    /// Whether too few of its backends are fit to heed health.
    pub is_panicking: bool,
    /// Its backends.
    pub backends: Vec<BackendView>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendView {
    /// `pool/host:port`.
    pub id: String,
    /// Its pool's name.
    pub pool: String,
    /// `host:port`, with brackets around an IPv6 address.
    pub authority: String,
    /// Where it is reached, once its name was resolved.
    pub address: Option<SocketAddr>,
    /// Its place in the lanes, which count from 0 for nobody: compare with an earlier look.
    pub slot: Slot,
    /// Where it is named; of several sources, the one that decides.
    pub source: Source,
    /// Which of its kind.
    pub origin: String,
    /// The state of its settings: another number with each change of them.
    pub revision: Revision,
    /// How it is.
    pub state: State,
    /// What made it so, in words.
    pub why: String,
    /// Since when.
    pub since: SystemTime,
    /// What its operator wants; its agent may be stricter.
    pub mode: Mode,
    /// The configured weight.
    pub weight: u16,
    /// The weight that its load, its agent and a slow start leave it.
    pub effective_weight: f64,
    /// The most connections to it, if there is a limit.
    pub conns_max: Option<u32>,
    /// How many of them are open, busy or idle, where there is a limit.
    pub conns: Option<u32>,
    /// Whether it takes requests only while no other backend can.
    pub is_backup: bool,
    /// Requests in flight on it.
    pub in_flight: u32,
    /// Requests that succeeded on it since it was added,
    pub succeeded: u32,
    /// and those that failed; both wrap.
    pub failed: u32,
}

/// The state of a backend's settings: two that are equal mean the same settings. Never the same
/// again, not even after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes requests.
    Up,
    /// Its probes or its agent say that it is down.
    Down,
    /// It is out for how requests fared on it.
    Ejected,
    /// Its breaker is open.
    BreakerOpen,
    /// A few requests try it, its breaker being half open.
    Trial,
    /// It takes requests of the sessions it has, and is up.
    Draining,
    /// Its operator, or its agent, has taken it out.
    Maintenance,
    /// Its first probe has yet to end.
    Unknown,
}

impl State {
    /// Its name in the API, in metrics and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Down => "down",
            State::Ejected => "ejected",
            State::BreakerOpen => "breaker-open",
            State::Trial => "trial",
            State::Draining => "draining",
            State::Maintenance => "maintenance",
            State::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A snapshot that was published, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its epoch.
    pub epoch: u64,
    /// When it was published.
    pub at: SystemTime,
    /// What it was made for: `start`, `health`, `requests`, `weights`, `reload`, `removal` (of what
    /// was only left until another could take its requests), or a source of backends; several are joined by commas.
    pub cause: String,
    /// What is other than before.
    pub text: String,
}

/// What a snapshot shows of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Where it is reached.
    pub address: Option<SocketAddr>,
    /// Its weight in parts of `endpoint::WEIGHT_UNIT`.
    pub weight: u32,
    /// When it is wanted.
    pub tier: Tier,
    /// What requests it takes.
    pub standing: Standing,
    /// The most connections to it.
    pub conns_max: Option<u32>,
}

/// How one backend differs between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `pool/host:port`.
    pub id: String,
    /// What the one shows; `None` where it has no such backend,
    pub before: Option<Shown>,
    /// and the other.
    pub after: Option<Shown>,
}
