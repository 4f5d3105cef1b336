//! The endpoints of a pool: takes news of them over, and keeps what a snapshot shows of them.
//!
//! Decides about panic, which takes all of them to see. Logs what turns. Never publishes, never
//! waits and never asks the time: `publish` does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Mode, PoolConfig, Source};
use crate::control::member::{Member, SHARES};
use crate::health::{News, Report, Verdict};
use crate::upstream::endpoint::{Address, Endpoint, Slot, Standing};

/// A pool's endpoints.
#[derive(Debug)]
pub(super) struct Roster {
    /// In the order in which they were added.
    pub(super) members: Vec<Member>,
    config: Arc<PoolConfig>,
    /// Whether too few are fit to heed that.
    is_panicking: bool,
    /// Whether all endpoints of the start had their first verdict.
    is_settled: bool,
    /// Whether endpoints came or went, or the settings changed, since they were last shown.
    is_changed: bool,
}

impl Roster {
    /// A pool without endpoints.
    pub(super) fn new(config: Arc<PoolConfig>) -> Roster {
        let members = Vec::with_capacity(config.backends.len());
        Roster { members, config, is_panicking: false, is_settled: false, is_changed: false }
    }

    /// The settings of the pool.
    pub(super) fn config(&self) -> &Arc<PoolConfig> {
        &self.config
    }

    /// From now on with other settings, which its members were told already.
    pub(super) fn set_config(&mut self, config: Arc<PoolConfig>) {
        self.config = config;
        self.is_changed = true;
    }

    /// Adds an endpoint.
    pub(super) fn add(&mut self, mut member: Member) {
        // Where all are new, none is spared by another.
        if self.members.iter().any(|it| it.is_judged && it.is_fit()) {
            member.start_slowly();
        }
        let (backend, source) = (&member.endpoint.id, member.entry.source);
        if source != Source::Flags {
            tracing::info!(backend, %source, origin = member.entry.origin, "backend is added");
        }
        match member.mode {
            Mode::Drain if self.config.balance.sticky.is_none() => {
                tracing::warn!(backend, "takes no requests: no sticky cookie is configured");
            }
            Mode::Ready => {}
            Mode::Drain => tracing::info!(backend, why = "its option drain", "backend drains"),
            Mode::Maintenance => {
                let why = "its option maintenance";
                tracing::info!(backend, why, "backend is in maintenance");
            }
        }
        self.members.push(member);
        self.is_changed = true;
    }

    /// Removes the endpoint of this authority.
    pub(super) fn remove(&mut self, authority: &str) -> Option<Member> {
        let is_it = |member: &Member| member.entry.backend.authority() == authority;
        let member = self.members.remove(self.members.iter().position(is_it)?);
        self.is_changed = true;
        tracing::info!(backend = member.endpoint.id, "backend is removed");
        Some(member)
    }

    /// The endpoint of this authority.
    pub(super) fn get_mut(&mut self, authority: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.entry.backend.authority() == authority)
    }

    /// The endpoints as they are to be published.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// Whether health is not heeded.
    pub(super) fn is_panicking(&self) -> bool {
        self.is_panicking
    }

    /// Whether all endpoints had their first verdict.
    pub(super) fn is_judged(&self) -> bool {
        self.members.iter().all(|member| member.is_judged)
    }

    /// Whether the weight of any endpoint grows with time.
    pub(super) fn is_starting(&self) -> bool {
        self.members.iter().any(Member::is_starting)
    }

    fn find(&mut self, given: Slot) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.given == given)
    }

    /// Takes news over and logs them.
    pub(super) fn apply(&mut self, news: News, now: Instant) {
        let Some(member) = self.find(news.slot()) else {
            return tracing::debug!(slot = ?news.slot(), "news of an endpoint that was removed");
        };
        match news {
            News::Verdict(verdict) => member.apply_verdict(verdict, now),
            News::Agent(report) => member.apply_report(&report),
        }
    }

    /// Logs the weights that changed since they were last told, each at most once in
    /// `TELL_INTERVAL`.
    pub(super) fn log_weights(&mut self, now: Instant) {
        let slow_start = self.config.balance.slow_start;
        for member in &mut self.members {
            member.log_weight(now, slow_start);
        }
    }

    /// Works out what a snapshot shows now; whether that is something new.
    pub(super) fn refresh(&mut self, now: Instant) -> bool {
        let slow_start = self.config.balance.slow_start;
        for member in &mut self.members {
            member.note_fitness(now, slow_start);
        }
        self.is_settled |= self.is_judged();
        let mut is_change = std::mem::take(&mut self.is_changed);
        let was_panicking = self.is_panicking;
        self.is_panicking = self.has_to_panic();
        if self.is_panicking != was_panicking {
            self.log_panic();
            is_change = true;
        }
        for member in &mut self.members {
            let standing = member.standing(self.is_panicking);
            let weight = member.weight(now, slow_start);
            let is_sick = !self.is_panicking && member.is_sick();
            let shown = &mut member.endpoint;
            is_change |=
                (shown.standing, shown.weight, shown.is_sick) != (standing, weight, is_sick);
            (shown.standing, shown.weight, shown.is_sick) = (standing, weight, is_sick);
            is_change |= std::mem::take(&mut member.is_changed);
            let state = member.state_now();
            if std::mem::replace(&mut member.state, state) != state {
                member.since = now;
            }
        }
        is_change
    }

    /// Whether too few of the wanted endpoints are fit; never before each of the start had its
    /// verdict, and one that was added later counts from its own.
    fn has_to_panic(&self) -> bool {
        let (fit, wanted) = self.fit_of_wanted();
        let is_low = fit * 100 < wanted * usize::from(self.config.balance.panic_percent);
        is_low && self.is_settled
    }

    fn fit_of_wanted(&self) -> (usize, usize) {
        let wanted = self.members.iter().filter(|it| it.is_judged && it.is_wanted());
        wanted.fold((0, 0), |(fit, all), it| (fit + usize::from(it.is_fit()), all + 1))
    }

    fn log_panic(&self) {
        let ((healthy, of), percent) = (self.fit_of_wanted(), self.config.balance.panic_percent);
        if self.is_panicking {
            tracing::warn!(healthy, of, percent, "panic mode begins: all backends take requests");
        } else {
            tracing::warn!(healthy, of, percent, "panic mode ends: health is heeded again");
        }
    }
}

impl Member {
    fn apply_verdict(&mut self, verdict: Verdict, now: Instant) {
        let is_first = !std::mem::replace(&mut self.is_judged, true);
        let address = verdict.address.map(Address::Tcp);
        let turns = verdict.healthy != self.is_healthy;
        let moves = address != self.endpoint.address;
        if moves && self.endpoint.address.is_some() {
            // Connections to the old address are not to be used for the new one, nor do failures
            // there count here.
            self.endpoint.slot.generation = self.endpoint.slot.generation.wrapping_add(1);
            self.streak = Default::default();
        }
        self.endpoint.address = address;
        self.is_changed |= moves;
        self.is_healthy = verdict.healthy;
        if turns && verdict.healthy {
            // What it was ejected for, it was down for as well, and that is over.
            self.ejection = self.ejection.lift(now);
        }
        self.share = verdict.share;
        if turns || is_first {
            self.why.clone_from(&verdict.why);
        }
        let (backend, why) = (&self.endpoint.id, &verdict.why);
        match (turns || is_first, verdict.healthy) {
            (true, true) if !verdict.passed => {
                tracing::warn!(backend, why, "backend begins up, but its first check failed");
            }
            (true, true) if self.agent.is_up() => self.log_up(why),
            (true, true) => tracing::info!(backend, why, "its checks pass, its agent reports down"),
            (true, false) if self.agent.is_up() => tracing::warn!(backend, why, "backend is down"),
            (true, false) => tracing::warn!(backend, why, "its checks fail, as its agent reports"),
            (false, _) if moves => tracing::info!(backend, ?address, why, "backend moved"),
            (false, _) => tracing::debug!(backend, share = verdict.share, "its load changed"),
        }
    }

    fn apply_report(&mut self, report: &Report) {
        let mode_before = self.mode();
        let before = std::mem::replace(&mut self.agent, report.agent);
        self.why.clone_from(&report.why);
        let (backend, why, agent) = (&self.endpoint.id, &report.why, self.agent);
        if agent.mode() != before.mode() {
            self.log_mode(mode_before, why);
        }
        match (before.is_up(), agent.is_up()) {
            (false, true) if self.is_healthy => self.log_up(why),
            (false, true) => {
                tracing::info!(backend, why, "its agent reports up, its checks still fail");
            }
            (true, false) if self.is_healthy => tracing::warn!(backend, why, "backend is down"),
            (true, false) => tracing::warn!(backend, why, "its agent reports down"),
            _ => tracing::debug!(backend, why, share = agent.share(), "its agent's share"),
        }
    }

    /// Says that its probes and its agent now take it to be up, and what it takes.
    fn log_up(&self, why: &str) {
        let backend = &self.endpoint.id;
        match self.mode() {
            Mode::Ready => tracing::info!(backend, why, "backend is up"),
            Mode::Drain => tracing::info!(backend, why, "backend is up, and drains"),
            Mode::Maintenance => tracing::info!(backend, why, "backend is up, in maintenance"),
        }
    }

    /// Says what its agent made of its mode.
    fn log_mode(&self, before: Mode, why: &str) {
        let backend = &self.endpoint.id;
        match self.mode() {
            mode if mode == before => {
                tracing::info!(
                    backend,
                    why,
                    "its agent's mode changes nothing: a flag is stricter"
                );
            }
            Mode::Ready if self.is_up() => tracing::info!(backend, why, "backend is ready again"),
            Mode::Ready => tracing::info!(backend, why, "backend is ready again, but still down"),
            Mode::Drain => tracing::info!(backend, why, "backend drains"),
            Mode::Maintenance => tracing::info!(backend, why, "backend is in maintenance"),
        }
    }
}

impl Member {
    fn log_weight(&mut self, now: Instant, slow_start: Duration) {
        let (shares, (told, at)) = (self.shares(now, slow_start), self.told);
        // The weight of what takes no new requests says nothing.
        let has_weight = matches!(self.endpoint.standing, Standing::Open | Standing::Trial);
        let is_early = at.is_some_and(|at| now.saturating_duration_since(at) < TELL_INTERVAL);
        if shares == told || !has_weight || is_early {
            return;
        }
        let changed = SHARES.iter().zip(shares.iter().zip(told));
        let changed = changed.filter(|(_, (now, told))| **now != *told).map(|(name, _)| *name);
        let why = changed.collect::<Vec<_>>().join(", ");
        let (backend, weight) = (&self.endpoint.id, self.weight(now, slow_start));
        let percent = u64::from(weight) * 100 / u64::from(self.weight).max(1);
        tracing::info!(backend, why, "backend has now {percent} % of its weight");
        self.told = (shares, Some(now));
    }
}

/// The least time between two lines about one endpoint's weight.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
