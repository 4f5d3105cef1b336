//! Health checks: one task an endpoint probes it and says when its state changes.
//!
//! `resolve` finds addresses, `probe` asks one, `judge` decides; `outlier` and `breaker` decide by
//! how requests fare. Runs on the control thread's runtime; no task waits for another.
//! A dead endpoint is found within interval + (fall - 1) × changing interval + timeout, one that
//! recovers within down interval + (rise - 1) × changing interval + timeout, with a tenth of
//! jitter, as long as the timeout is not above these intervals.
//! Never touches the snapshot: `control` does, with the news sent from here.

pub mod agent;
mod agent_watch;
pub mod breaker;
pub mod judge;
pub mod load;
pub mod outlier;
pub mod probe;
pub mod pulse;
mod resolve;
pub mod tally;
pub mod vitals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::{BackendConfig, HealthConfig};
use crate::error::StartError;
use crate::health::agent::Agent;
use crate::health::judge::{Health, Thresholds};
use crate::health::probe::{Passed, Probe, ProbeError};
use crate::health::pulse::Pulse;
use crate::health::resolve::Names;
use crate::upstream::endpoint::Slot;

pub use agent_watch::AgentWatch;

/// What is told about an endpoint.
#[derive(Debug)]
pub enum News {
    /// Its probes'.
    Verdict(Verdict),
    /// Its agent's.
    Agent(Report),
}

impl News {
    /// The slot that the endpoint was given when it was added.
    #[must_use]
    pub fn slot(&self) -> Slot {
        match self {
            News::Verdict(verdict) => verdict.slot,
            News::Agent(report) => report.slot,
        }
    }
}

/// What an agent changed.
#[derive(Debug)]
pub struct Report {
    /// The slot that the endpoint was given when it was added.
    pub slot: Slot,
    /// What its agent wants.
    pub agent: Agent,
    /// What it said, for the log.
    pub why: String,
}

/// What changed about an endpoint; its first verdict is sent whatever it says.
#[derive(Debug)]
pub struct Verdict {
    /// The slot that the endpoint was given when it was added.
    pub slot: Slot,
    /// Whether it may take requests.
    pub healthy: bool,
    /// Whether the last probe passed.
    pub passed: bool,
    /// Where it is reached: the address of the last probe that passed, else the first one known.
    pub address: Option<SocketAddr>,
    /// The share of its weight that its load leaves it, in percent.
    pub share: u32,
    /// What the last probe said, for the log.
    pub why: String,
}

/// The probing of one endpoint.
#[derive(Debug)]
pub struct Watch {
    slot: Slot,
    id: String,
    probe: Arc<Probe>,
    names: Names,
    config: HealthConfig,
    pulse: Arc<Pulse>,
    health: Health,
    /// The address of the last verdict, which the endpoint's agent is asked at.
    address: watch::Sender<Option<SocketAddr>>,
    /// The share of the last verdict.
    share: u32,
    /// Whether the last probe could not be made.
    hindered: bool,
}

/// How one probe went, over all addresses of the endpoint.
#[derive(Debug)]
struct Probed {
    /// The address that passed and what it told, or why none did.
    passed: Result<(SocketAddr, Passed), ProbeError>,
    /// The first address that was tried.
    first: Option<SocketAddr>,
}

impl Watch {
    /// The probing of a backend that was given this slot; `id` names it in the log.
    ///
    /// # Errors
    /// `Usage` when the health path or the backend's name cannot stand in a request.
    pub fn new(
        slot: Slot,
        id: &str,
        backend: &BackendConfig,
        config: &HealthConfig,
        pulse: Arc<Pulse>,
    ) -> Result<Watch, StartError> {
        Ok(Watch {
            slot,
            id: id.to_owned(),
            probe: Arc::new(Probe::new(backend, config)?),
            names: Names::new(&backend.host, backend.port),
            config: config.clone(),
            pulse,
            health: Health::first(config.initial),
            address: watch::Sender::new(literal_of(backend)),
            share: load::SHARE_FULL,
            hindered: false,
        })
    }

    /// The asking of the endpoint's agent, if it has one.
    #[must_use]
    pub fn agent(&self) -> Option<AgentWatch> {
        let port = self.config.agent_port?;
        let address = self.address.subscribe();
        Some(AgentWatch::new(
            self.slot,
            &self.id,
            port,
            address,
            &self.config,
            Arc::clone(&self.pulse),
        ))
    }

    /// Probes at once and then at each interval, until nobody takes news any more.
    pub async fn run(mut self, news: mpsc::Sender<News>) {
        let mut is_first = true;
        loop {
            let started = self.pulse.beat();
            let probed = self.probe().await;
            self.pulse.probed(probed.passed.is_ok(), started.elapsed());
            self.names.refresh(probed.passed.is_err(), Instant::now());
            let is_doubtful = probed.passed.is_err() && self.pulse.was_late_since(started);
            if is_doubtful {
                self.pulse.discard();
            }
            let verdict = self.judge(&probed, is_doubtful, is_first);
            is_first = false;
            if let Some(verdict) = verdict
                && news.send(News::Verdict(verdict)).await.is_err()
            {
                return;
            }
            let interval = self.health.interval(&self.config);
            let period = interval.saturating_add(jitter(interval, fastrand::u64(..)));
            sleep_until(self.pulse.together(started, period)).await;
        }
    }

    /// One probe of all addresses within the time limit.
    async fn probe(&mut self) -> Probed {
        let limit = self.config.timeout;
        let started = Instant::now();
        let addresses = match timeout(limit, self.names.addresses()).await {
            Ok(Ok(addresses)) => resolve::in_order(addresses, *self.address.borrow()),
            Ok(Err(error)) => return Probed::failed(ProbeError::Unresolved(error)),
            Err(_) => {
                let error = std::io::ErrorKind::TimedOut.into();
                return Probed::failed(ProbeError::Unresolved(error));
            }
        };
        let first = addresses.first().copied();
        let left = limit.saturating_sub(started.elapsed());
        let stagger = left / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let passing = first_passing(Arc::clone(&self.probe), addresses, stagger);
        let passed = match timeout(left, passing).await {
            Ok(passed) => passed,
            Err(_) => Err(ProbeError::Timeout(limit)),
        };
        Probed { passed, first }
    }

    /// Counts a probe, unless it is doubtful, and says what it changed.
    fn judge(&mut self, probed: &Probed, is_doubtful: bool, is_first: bool) -> Option<Verdict> {
        let was_up = self.health.is_up();
        let (why, hindered) = match &probed.passed {
            Ok(_) => ("its check passed".to_owned(), false),
            Err(error) => (error.to_string(), error.is_local()),
        };
        if hindered && !self.hindered {
            tracing::warn!(backend = self.id, why, "health unknown, left as it was");
        }
        self.hindered = hindered;
        if is_doubtful {
            tracing::debug!(backend = self.id, why, "a failed probe does not count");
        } else if !hindered {
            self.health = self.health.observe(probed.passed.is_ok(), Thresholds::of(&self.config));
        }
        let is_change = self.learn(probed) || self.health.is_up() != was_up;
        (is_first || is_change).then(|| Verdict {
            slot: self.slot,
            healthy: self.health.is_up(),
            passed: probed.passed.is_ok(),
            address: *self.address.borrow(),
            share: self.share,
            why,
        })
    }

    /// Takes over where the endpoint is and how loaded; whether that changed.
    fn learn(&mut self, probed: &Probed) -> bool {
        let (address, share) = match &probed.passed {
            // A backend that tells no load has none.
            Ok((address, passed)) => (Some(*address), passed.share.unwrap_or(load::SHARE_FULL)),
            Err(_) => (self.address.borrow().or(probed.first), self.share),
        };
        let share_before = self.share;
        self.share = load::settled(share_before, share);
        let moves = self.address.send_if_modified(|before| {
            let moves = *before != address;
            *before = address;
            moves
        });
        moves || self.share != share_before
    }
}

impl Probed {
    fn failed(error: ProbeError) -> Probed {
        Probed { passed: Err(error), first: None }
    }
}

/// The first of these addresses that passes, or the error of the last that failed.
///
/// They are tried in order: the next one as soon as one failed, or beside it once it has kept
/// silent for `stagger`, so that one address that hangs does not hide another that works.
async fn first_passing(
    probe: Arc<Probe>,
    addresses: Vec<SocketAddr>,
    stagger: Duration,
) -> Result<(SocketAddr, Passed), ProbeError> {
    let mut untried = addresses.into_iter();
    let mut probes = JoinSet::new();
    let mut last = None;
    loop {
        if let Some(address) = untried.next() {
            let probe = Arc::clone(&probe);
            probes.spawn(async move { probe.run(address).await.map(|passed| (address, passed)) });
        }
        let joined = tokio::select! {
            joined = probes.join_next() => joined,
            () = sleep(stagger), if untried.len() > 0 => continue,
        };
        match joined {
            Some(Ok(Ok(passed))) => return Ok(passed),
            Some(Ok(Err(error))) => last = Some(error),
            Some(Err(error)) => last = Some(ProbeError::Panicked(error)),
            None => {
                let nothing = || ProbeError::Unresolved(std::io::ErrorKind::NotFound.into());
                return Err(last.unwrap_or_else(nothing));
            }
        }
    }
}

/// The address of a backend that is named by one.
#[must_use]
pub fn literal_of(backend: &BackendConfig) -> Option<SocketAddr> {
    resolve::literal(&backend.host, backend.port)
}

/// What is added to an interval: uniform from 0 to `JITTER_PERCENT` of it as `random` is over
/// all values.
fn jitter(interval: Duration, random: u64) -> Duration {
    let nanos_max = u64::try_from(interval.as_nanos() / 100 * JITTER_PERCENT).unwrap_or(u64::MAX);
    let nanos = (u128::from(random) * (u128::from(nanos_max) + 1)) >> u64::BITS;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(nanos_max))
}

/// The most that an interval is lengthened at random, in percent, so that the probes of many
/// endpoints, and of many processes, drift apart.
pub const JITTER_PERCENT: u128 = 10;

#[cfg(test)]
mod tests;
