//! One endpoint as the control thread knows it, and what that makes of it in a snapshot.
//!
//! Holds what its operator, probes, agent, requests' outcomes and breaker say; `standing` and
//! `weight` combine them. Pure: time is an argument. `roster` holds a pool's members.

use std::time::{Duration, Instant};

use crate::config::{BackendConfig, InitialHealth, Mode, PoolConfig};
use crate::control::registry::Entry;
use crate::control::view::State;
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
    /// What its source says of it.
    pub(super) entry: Entry,
    /// The slot that it was given, by which news name it; the endpoint's generation may be later.
    pub(super) given: Slot,
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
    /// What had been counted when it was added.
    pub(super) counted: Tally,
    /// Whether something of it changed that no other field shows, since it was last shown.
    pub(super) is_changed: bool,
    /// How it is,
    pub(super) state: State,
    /// what made it so, in words,
    pub(super) why: String,
    /// and since when.
    pub(super) since: Instant,
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
    /// The member of a backend before its first probe; `counted` is what its lanes' slot counted
    /// for others.
    pub(super) fn new(
        slot: Slot,
        entry: Entry,
        config: &PoolConfig,
        counted: Tally,
        now: Instant,
    ) -> Member {
        let backend = &entry.backend;
        let weight = weight_of(backend);
        let is_probed = backend.mode != Mode::Maintenance;
        let mut member = Member {
            given: slot,
            endpoint: Endpoint {
                slot,
                id: format!("{}/{}", config.name, backend.authority()),
                address: health::literal_of(backend).map(Address::Tcp),
                weight,
                tier: tier_of(backend),
                standing: Standing::Out,
                is_sick: false,
                limits: limits_of(backend, config).into(),
            },
            weight,
            mode: backend.mode,
            is_judged: !is_probed,
            is_healthy: is_probed && config.health.initial == InitialHealth::Up,
            share: SHARE_FULL,
            agent: Agent::SILENT,
            streak: Streak::default(),
            ejection: Ejection::new(now),
            breaker: Breaker::new(now, counted),
            compared: counted,
            counted,
            is_changed: true,
            state: State::Unknown,
            why: String::new(),
            since: now,
            told: ([SHARE_FULL; SHARES.len()], None),
            start: Start::New,
            entry,
        };
        member.state = member.state_now();
        member.why = match member.state {
            State::Maintenance => member.says_mode(),
            _ => "it was added".to_owned(),
        };
        member
    }

    /// It joins others that take requests already: it starts slowly.
    pub(super) fn start_slowly(&mut self) {
        self.start = Start::Out;
    }

    /// Takes over what its source says now, by the settings of its pool; whether its probes are to
    /// begin anew. Requests in flight and places taken stay as they are.
    pub(super) fn change(&mut self, entry: Entry, config: &PoolConfig) -> bool {
        let backend = &entry.backend;
        self.weight = weight_of(backend);
        self.endpoint.tier = tier_of(backend);
        let (requests, pending) = (config.breaker.requests_max, config.breaker.pending_max);
        let (slot, limits) = (&mut self.endpoint.slot, &self.endpoint.limits);
        if let Some(changed) = limits.changed(backend.conns_max, requests, pending) {
            if limits.conns.is_none() && changed.conns.is_some() {
                // Connections without a place must not be used again.
                slot.generation = slot.generation.wrapping_add(1);
            }
            self.endpoint.limits = changed.into();
        }
        let mode = std::mem::replace(&mut self.mode, backend.mode);
        let is_probed = |mode| mode != Mode::Maintenance;
        let turns = is_probed(mode) != is_probed(backend.mode);
        if turns {
            self.is_judged = !is_probed(backend.mode);
            self.is_healthy = is_probed(backend.mode) && config.health.initial == InitialHealth::Up;
            (self.share, self.agent) = (SHARE_FULL, Agent::SILENT);
            self.start = Start::Out;
        }
        self.entry = entry;
        self.is_changed = true;
        if mode != self.mode {
            self.why = self.says_mode();
            self.log_mode_change();
        }
        turns
    }

    /// That its source wants this mode of it.
    fn says_mode(&self) -> String {
        let mode = match self.mode {
            Mode::Ready => "ready",
            Mode::Drain => "drain",
            Mode::Maintenance => "maintenance",
        };
        format!("{mode}, by its source ({})", self.entry.source)
    }

    fn log_mode_change(&self) {
        let (backend, why) = (&self.endpoint.id, &self.why);
        match self.mode {
            Mode::Ready => tracing::info!(backend, why, "backend is ready again"),
            Mode::Drain => tracing::info!(backend, why, "backend drains"),
            Mode::Maintenance => tracing::info!(backend, why, "backend is in maintenance"),
        }
    }

    /// How it is now.
    pub(super) fn state_now(&self) -> State {
        match self.mode() {
            Mode::Maintenance => State::Maintenance,
            _ if !self.is_judged && !self.is_healthy => State::Unknown,
            _ if !self.is_up() => State::Down,
            _ if self.ejection.is_ejected() => State::Ejected,
            mode => match self.breaker {
                Breaker::Open { .. } => State::BreakerOpen,
                _ if mode == Mode::Drain => State::Draining,
                Breaker::HalfOpen { .. } => State::Trial,
                Breaker::Closed(_) => State::Up,
            },
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

/// The configured weight, in parts of `WEIGHT_UNIT`.
fn weight_of(backend: &BackendConfig) -> u32 {
    u32::from(backend.weight.get()) * WEIGHT_UNIT
}

fn tier_of(backend: &BackendConfig) -> Tier {
    if backend.is_backup { Tier::Backup } else { Tier::Primary }
}

fn limits_of(backend: &BackendConfig, config: &PoolConfig) -> Limits {
    Limits::new(backend.conns_max, config.breaker.requests_max, config.breaker.pending_max)
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
