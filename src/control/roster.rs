//! The endpoints of a pool: takes news of them over, and keeps what a snapshot shows of them.
//!
//! Decides about panic, which takes all of them to see. Logs what turns. Never publishes, never
//! waits and never asks the time: `publish` does.

use std::time::{Duration, Instant};

use crate::config::{BalanceConfig, Mode};
use crate::control::member::{Member, SHARES};
use crate::health::{News, Report, Verdict};
use crate::upstream::endpoint::{Address, Endpoint, Standing};

/// A pool's endpoints.
#[derive(Debug)]
pub(super) struct Roster {
    /// By slot number.
    pub(super) members: Vec<Member>,
    /// Whether too few are fit to heed that.
    is_panicking: bool,
    panic_percent: u8,
    slow_start: Duration,
}

impl Roster {
    /// These endpoints, none of which was heard of.
    pub(super) fn new(members: Vec<Member>, balance: &BalanceConfig, now: Instant) -> Roster {
        let has_sessions = balance.sticky.is_some();
        for member in &members {
            let backend = &member.endpoint.id;
            match member.mode {
                Mode::Drain if !has_sessions => {
                    tracing::warn!(backend, "takes no requests: no sticky cookie is configured");
                }
                Mode::Ready => {}
                Mode::Drain => tracing::info!(backend, why = "its option drain", "backend drains"),
                Mode::Maintenance => {
                    let why = "its option maintenance";
                    tracing::info!(backend, why, "backend is in maintenance");
                }
            }
        }
        let mut roster = Roster {
            members,
            is_panicking: false,
            panic_percent: balance.panic_percent,
            slow_start: balance.slow_start,
        };
        roster.refresh(now);
        roster
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

    /// Takes news over and logs them.
    pub(super) fn apply(&mut self, news: News, now: Instant) {
        let index = match &news {
            News::Verdict(verdict) => verdict.index,
            News::Agent(report) => report.index,
        };
        let Some(member) = self.members.get_mut(index) else {
            tracing::error!(index, "news name no endpoint");
            return;
        };
        match news {
            News::Verdict(verdict) => member.apply_verdict(verdict, now),
            News::Agent(report) => member.apply_report(&report),
        }
    }

    /// Logs the weights that changed since they were last told, each at most once in
    /// `TELL_INTERVAL`.
    pub(super) fn log_weights(&mut self, now: Instant) {
        for member in &mut self.members {
            member.log_weight(now, self.slow_start);
        }
    }

    /// Works out what a snapshot shows now; whether that is something new.
    pub(super) fn refresh(&mut self, now: Instant) -> bool {
        for member in &mut self.members {
            member.note_fitness(now, self.slow_start);
        }
        let was_panicking = self.is_panicking;
        self.is_panicking = self.has_to_panic();
        let mut is_change = self.is_panicking != was_panicking;
        if is_change {
            self.log_panic();
        }
        for member in &mut self.members {
            let standing = member.standing(self.is_panicking);
            let weight = member.weight(now, self.slow_start);
            let is_sick = !self.is_panicking && member.is_sick();
            let shown = &mut member.endpoint;
            is_change |=
                (shown.standing, shown.weight, shown.is_sick) != (standing, weight, is_sick);
            (shown.standing, shown.weight, shown.is_sick) = (standing, weight, is_sick);
            is_change |= std::mem::take(&mut member.has_moved);
        }
        is_change
    }

    /// Whether too few of the wanted endpoints are fit; never before each had its verdict.
    fn has_to_panic(&self) -> bool {
        let (fit, wanted) = self.fit_of_wanted();
        let is_low = fit * 100 < wanted * usize::from(self.panic_percent);
        is_low && self.is_judged()
    }

    fn fit_of_wanted(&self) -> (usize, usize) {
        let wanted = self.members.iter().filter(|member| member.is_wanted());
        wanted.fold((0, 0), |(fit, all), it| (fit + usize::from(it.is_fit()), all + 1))
    }

    fn log_panic(&self) {
        let ((healthy, of), percent) = (self.fit_of_wanted(), self.panic_percent);
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
        self.has_moved |= moves;
        self.is_healthy = verdict.healthy;
        if turns && verdict.healthy {
            // What it was ejected for, it was down for as well, and that is over.
            self.ejection = self.ejection.lift(now);
        }
        self.share = verdict.share;
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
        tracing::info!(backend, why, "backend's weight is now {weight} of {}", self.weight);
        self.told = (shares, Some(now));
    }
}

/// The least time between two lines about one endpoint's weight.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
