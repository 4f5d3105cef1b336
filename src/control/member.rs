//! One endpoint as the control thread knows it, and what that makes of it in a snapshot.
//!
//! Holds what its operator, probes, agent, requests' outcomes and breaker say; `standing` and
//! `weight` combine them. Pure: time is an argument. `roster` holds a pool's members.

use std::time::{Duration, Instant};

use crate::config::{BackendConfig, BreakerConfig, DEFAULT_POOL, InitialHealth, Mode};
use crate::health::agent::Agent;
use crate::health::breaker::Breaker;
use crate::health::outlier::{Ejection, Streak};
use crate::health::tally::Tally;
use crate::health::{self, load::SHARE_FULL};
use crate::upstream::endpoint::{Address, Endpoint, Slot, Standing, Tier, WEIGHT_UNIT};
use crate::upstream::limit::Limits;

/// One endpoint and all that is known about it.
#[derive(Debug)]
pub(super) struct Member {
    /// As the next snapshot shows it.
    pub(super) endpoint: Endpoint,
    /// The configured weight, in parts of `WEIGHT_UNIT`.
    pub(super) weight: u32,
    /// What its operator wants.
    pub(super) mode: Mode,
    /// Whether its probes had a verdict.
    pub(super) is_judged: bool,
    /// What its probes say.
    pub(super) is_healthy: bool,
    /// The share of its weight that its load leaves it, in percent.
    pub(super) share: u32,
    /// What its agent says.
    pub(super) agent: Agent,
    /// Failures in a row.
    pub(super) streak: Streak,
    /// Whether it is ejected.
    pub(super) ejection: Ejection,
    /// Its circuit breaker.
    pub(super) breaker: Breaker,
    /// What had been counted when success was last compared.
    pub(super) compared: Tally,
    /// Whether its address changed since it was last shown.
    pub(super) has_moved: bool,
    /// The shares of its weight that the log told last, by `SHARES`, and when.
    pub(super) told: ([u32; SHARES.len()], Option<Instant>),
    /// How far it has come in.
    start: Start,
}

/// How far an endpoint has come into the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Its first verdict has yet to come; if that is good, it starts with its full weight: where
    /// all endpoints are new, none is spared by another.
    New,
    /// It is not fit.
    Out,
    /// It is fit, since then.
    In(Instant),
    /// It is fit, and was when corelane started, or has its full weight again.
    Full,
}

impl Member {
    /// The member of a backend before its first probe.
    pub(super) fn new(
        number: u32,
        backend: &BackendConfig,
        breaker: &BreakerConfig,
        initial: InitialHealth,
        now: Instant,
    ) -> Member {
        let weight = u32::from(backend.weight.get()) * WEIGHT_UNIT;
        let is_probed = backend.mode != Mode::Maintenance;
        Member {
            endpoint: Endpoint {
                slot: Slot { number, generation: 0 },
                id: format!("{DEFAULT_POOL}/{}", backend.authority()),
                address: health::literal_of(backend).map(Address::Tcp),
                weight,
                tier: if backend.is_backup { Tier::Backup } else { Tier::Primary },
                standing: Standing::Out,
                is_sick: false,
                limits: Limits::new(backend.conns_max, breaker.requests_max, breaker.pending_max)
                    .into(),
            },
            weight,
            mode: backend.mode,
            is_judged: !is_probed,
            is_healthy: is_probed && initial == InitialHealth::Up,
            share: SHARE_FULL,
            agent: Agent::SILENT,
            streak: Streak::default(),
            ejection: Ejection::new(now),
            breaker: Breaker::new(now, Tally::default()),
            compared: Tally::default(),
            has_moved: false,
            told: ([SHARE_FULL; SHARES.len()], None),
            start: Start::New,
        }
    }

    /// The stricter of what its operator and its agent want.
    pub(super) fn mode(&self) -> Mode {
        self.mode.max(self.agent.mode())
    }

    /// Whether its probes and its agent take it to be up.
    pub(super) fn is_up(&self) -> bool {
        self.is_healthy && self.agent.is_up() && self.agent.mode() != Mode::Maintenance
    }

    /// Whether nothing speaks against it: it is up, not ejected, and its breaker closed.
    pub(super) fn is_fit(&self) -> bool {
        let is_closed = matches!(self.breaker, Breaker::Closed(_));
        self.is_up() && is_closed && !self.ejection.is_ejected()
    }

    /// Whether what waits for its answer had better go elsewhere.
    pub(super) fn is_sick(&self) -> bool {
        let is_down = !self.is_up() && self.mode() != Mode::Maintenance;
        is_down || self.ejection.is_ejected()
    }

    /// Whether it takes all requests, or would if its pool is panicking.
    pub(super) fn is_wanted(&self) -> bool {
        self.mode() == Mode::Ready
    }

    /// What requests it takes, in a pool that heeds health or is panicking.
    pub(super) fn standing(&self, is_panicking: bool) -> Standing {
        match self.mode() {
            Mode::Maintenance => Standing::Out,
            Mode::Drain if self.is_fit() => Standing::Draining,
            Mode::Drain => Standing::Out,
            Mode::Ready if is_panicking => Standing::Open,
            Mode::Ready if !self.is_up() || self.ejection.is_ejected() => Standing::Out,
            Mode::Ready => match self.breaker {
                Breaker::Closed(_) => Standing::Open,
                Breaker::HalfOpen { .. } => Standing::Trial,
                Breaker::Open { .. } => Standing::Out,
            },
        }
    }

    /// Its weight now: the configured one, less for its load, its agent and a slow start.
    pub(super) fn weight(&self, now: Instant, slow_start: Duration) -> u32 {
        let shares = self.shares(now, slow_start);
        let weight = shares.iter().fold(u64::from(self.weight), |it, share| it * u64::from(*share));
        let full: u64 = shares.iter().map(|_| u64::from(SHARE_FULL)).product();
        u32::try_from(weight / full).unwrap_or(u32::MAX).max(1)
    }

    /// What each of `SHARES` leaves of its weight now, in percent.
    pub(super) fn shares(&self, now: Instant, slow_start: Duration) -> [u32; SHARES.len()] {
        let growth = match self.start {
            Start::In(since) => growth(now.saturating_duration_since(since), slow_start),
            Start::New | Start::Out | Start::Full => SHARE_FULL,
        };
        [self.share, self.agent.share(), growth]
    }

    /// Notes whether it is fit now, which may begin or end a slow start.
    pub(super) fn note_fitness(&mut self, now: Instant, slow_start: Duration) {
        self.start = match (self.start, self.is_fit()) {
            (Start::New, _) if !self.is_judged => Start::New,
            (_, false) => Start::Out,
            (Start::New, true) => Start::Full,
            (Start::Out, true) => Start::In(now),
            (Start::In(since), true) if now.saturating_duration_since(since) >= slow_start => {
                Start::Full
            }
            (start @ (Start::In(_) | Start::Full), true) => start,
        };
    }

    /// Whether its weight still grows.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.start, Start::In(_))
    }
}

/// The percentage of its weight that an endpoint has so long after it came in.
fn growth(elapsed: Duration, slow_start: Duration) -> u32 {
    if elapsed >= slow_start {
        return SHARE_FULL;
    }
    let step = elapsed.as_nanos() * START_STEPS / slow_start.as_nanos();
    let grown = (u128::from(SHARE_FULL) - START_PERCENT) * step / START_STEPS;
    u32::try_from(START_PERCENT + grown).unwrap_or(SHARE_FULL)
}

/// What takes a part of an endpoint's weight.
pub(super) const SHARES: [&str; 3] = ["load", "agent", "slow start"];
/// What a slow start begins with, in percent of the weight.
const START_PERCENT: u128 = 10;
/// The steps in which the weight grows; each publishes a snapshot.
const START_STEPS: u128 = 20;

#[cfg(test)]
mod tests;
