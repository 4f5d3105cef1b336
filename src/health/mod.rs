//! Active health checks: one task an endpoint probes it and says when its state changes.
//!
//! `resolve` finds addresses, `probe` asks one, `judge` decides. Runs on the control thread's
//! runtime; no task waits for another, so a backend that hangs delays no other's probes.
//! A dead endpoint is found within fall × (interval + jitter) + timeout, a recovered one within
//! rise × (interval + jitter) + timeout, as long as the timeout is not above the interval.
//! Never touches the snapshot: `control` does, with the verdicts sent from here.

pub mod judge;
pub mod probe;
mod resolve;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{BackendConfig, HealthConfig};
use crate::error::StartError;
use crate::health::judge::{Health, Limits};
use crate::health::probe::{Probe, ProbeError};
use crate::health::resolve::Names;

/// What changed about an endpoint; its first verdict is sent whatever it says.
#[derive(Debug)]
pub struct Verdict {
    /// The slot number of the endpoint.
    pub index: usize,
    /// Whether it may take requests.
    pub healthy: bool,
    /// Where it is reached: the address of the last probe that passed, else the first one known.
    pub address: Option<SocketAddr>,
    /// What the last probe said, for the log.
    pub why: String,
}

/// The probing of one endpoint.
#[derive(Debug)]
pub struct Watch {
    index: usize,
    id: String,
    probe: Arc<Probe>,
    names: Names,
    config: HealthConfig,
    health: Health,
    /// The address of the last verdict.
    address: Option<SocketAddr>,
    /// Whether the last probe could not be made.
    hindered: bool,
}

/// How one probe went, over all addresses of the endpoint.
#[derive(Debug)]
struct Outcome {
    /// The address that passed, or why none did.
    passed: Result<SocketAddr, ProbeError>,
    /// The first address that was tried.
    first: Option<SocketAddr>,
}

impl Watch {
    /// The probing of a backend in this slot; `id` names it in the log.
    ///
    /// # Errors
    /// `Usage` when the health path or the backend's name cannot stand in a request.
    pub fn new(
        index: usize,
        id: &str,
        backend: &BackendConfig,
        config: &HealthConfig,
    ) -> Result<Watch, StartError> {
        Ok(Watch {
            index,
            id: id.to_owned(),
            probe: Arc::new(Probe::new(backend, config)?),
            names: Names::new(&backend.host, backend.port),
            config: config.clone(),
            health: Health::New,
            address: literal_of(backend),
            hindered: false,
        })
    }

    /// Probes at once and then at each interval, until nobody takes verdicts any more.
    pub async fn run(mut self, verdicts: mpsc::Sender<Verdict>) {
        let mut is_first = true;
        loop {
            let started = Instant::now();
            let outcome = self.probe().await;
            self.names.refresh(outcome.passed.is_err(), Instant::now());
            let verdict = self.judge(&outcome, is_first);
            is_first = false;
            if let Some(verdict) = verdict
                && verdicts.send(verdict).await.is_err()
            {
                return;
            }
            let interval = self.config.interval;
            let period = interval.saturating_add(jitter(interval, fastrand::u64(..)));
            sleep(period.saturating_sub(started.elapsed())).await;
        }
    }

    /// One probe of all addresses within the time limit.
    async fn probe(&mut self) -> Outcome {
        let limit = self.config.timeout;
        let started = Instant::now();
        let addresses = match timeout(limit, self.names.addresses()).await {
            Ok(Ok(addresses)) => resolve::in_order(addresses, self.address),
            Ok(Err(error)) => return Outcome::failed(ProbeError::Unresolved(error)),
            Err(_) => {
                let error = std::io::ErrorKind::TimedOut.into();
                return Outcome::failed(ProbeError::Unresolved(error));
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
        Outcome { passed, first }
    }

    /// Counts a probe and says what it changed.
    fn judge(&mut self, outcome: &Outcome, is_first: bool) -> Option<Verdict> {
        let was_up = self.health.is_up();
        let address_before = self.address;
        let (why, hindered) = match &outcome.passed {
            Ok(address) => (format!("{address} passed"), false),
            Err(error) => (error.to_string(), error.is_local()),
        };
        if hindered && !self.hindered {
            tracing::warn!(backend = self.id, why, "health unknown, left as it was");
        }
        self.hindered = hindered;
        if !hindered {
            self.health = self.health.observe(outcome.passed.is_ok(), Limits::of(&self.config));
        }
        self.address = match outcome.passed {
            Ok(address) => Some(address),
            Err(_) => self.address.or(outcome.first),
        };
        let healthy = self.health.is_up();
        let is_change = healthy != was_up || self.address != address_before;
        (is_first || is_change).then_some(Verdict {
            index: self.index,
            healthy,
            address: self.address,
            why,
        })
    }
}

impl Outcome {
    fn failed(error: ProbeError) -> Outcome {
        Outcome { passed: Err(error), first: None }
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
) -> Result<SocketAddr, ProbeError> {
    let mut untried = addresses.into_iter();
    let mut probes = JoinSet::new();
    let mut last = None;
    loop {
        if let Some(address) = untried.next() {
            let probe = Arc::clone(&probe);
            probes.spawn(async move { probe.run(address).await.map(|()| address) });
        }
        let joined = tokio::select! {
            joined = probes.join_next() => joined,
            () = sleep(stagger), if untried.len() > 0 => continue,
        };
        match joined {
            Some(Ok(Ok(address))) => return Ok(address),
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
