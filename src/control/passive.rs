//! How requests fare: ejects endpoints and turns breakers, from the workers' outcomes and counts.
//!
//! `publish` calls it at every tick. What it decides it writes into the members; it publishes
//! nothing, asks no clock, and does nothing for a rule that is switched off.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{BreakerConfig, EjectConfig};
use crate::control::member::Member;
use crate::health::breaker::{Breaker, Turn};
use crate::health::outlier::{Outlier, ejected_max, worst};
use crate::health::tally::Tally;
use crate::health::vitals::Vitals;
use crate::metrics::Lanes;
use crate::upstream::outcome::Outcome;

/// The watching of a pool's requests.
#[derive(Debug)]
pub(super) struct Passive {
    eject: EjectConfig,
    breaker: BreakerConfig,
    lanes: Lanes,
    vitals: Arc<Vitals>,
    /// When success was last compared.
    compared: Instant,
    /// When a worker last told of a failure, if one did.
    failed: Option<Instant>,
}

impl Passive {
    /// The watching of requests that these lanes count.
    pub(super) fn new(
        eject: EjectConfig,
        breaker: BreakerConfig,
        lanes: Lanes,
        vitals: Arc<Vitals>,
        now: Instant,
    ) -> Passive {
        Passive { eject, breaker, lanes, vitals, compared: now, failed: None }
    }

    /// From now on by other rules.
    pub(super) fn set_rules(&mut self, eject: EjectConfig, breaker: BreakerConfig) {
        (self.eject, self.breaker) = (eject, breaker);
    }

    /// Takes over what came since the last tick, of that the failures that workers told of;
    /// whether anything turned.
    pub(super) fn tick(
        &mut self,
        members: &mut [Member],
        outcomes: &[Outcome],
        now: Instant,
    ) -> bool {
        let mut is_change = self.end_ejections(members, now);
        is_change |= self.turn_breakers(members, now);
        is_change |= self.take_outcomes(members, outcomes, now);
        is_change |= self.compare(members, now);
        is_change
    }

    /// Whether something may soon turn: requests failed lately, or a breaker is not closed.
    pub(super) fn is_busy(&self, members: &[Member], now: Instant) -> bool {
        let is_failing =
            self.failed.is_some_and(|at| now.saturating_duration_since(at) < BUSY_TIME);
        is_failing || members.iter().any(|it| !matches!(it.breaker, Breaker::Closed(_)))
    }

    /// Ends ejections whose time is over.
    fn end_ejections(&self, members: &mut [Member], now: Instant) -> bool {
        let mut is_change = false;
        for member in members {
            let before = member.ejection;
            member.ejection = before.at(now, &self.eject);
            if before.is_ejected() && !member.ejection.is_ejected() {
                let (backend, after) = (&member.endpoint.id, before.time().unwrap_or_default());
                tracing::info!(backend, ?after, "backend is back from ejection");
                member.why = format!("back from an ejection of {after:?}");
                is_change = true;
            }
        }
        is_change
    }

    /// Takes over the failures that workers told of.
    fn take_outcomes(
        &mut self,
        members: &mut [Member],
        outcomes: &[Outcome],
        now: Instant,
    ) -> bool {
        if outcomes.is_empty() {
            return false;
        }
        self.failed = Some(now);
        let Some(max) = self.eject.consecutive_max else { return false };
        let numbers = members.iter().map(|member| member.endpoint.slot.number);
        let indexes: HashMap<u32, usize> = numbers.zip(0..).collect();
        let mut is_change = false;
        for outcome in outcomes {
            let Some(index) = indexes.get(&outcome.slot.number).copied() else { continue };
            let Some(member) = members.get_mut(index) else { continue };
            // The failures of a slot's earlier address say nothing about its present one, and
            // those of requests that were in flight when it was ejected nothing new.
            if member.endpoint.slot != outcome.slot || member.ejection.is_ejected() {
                continue;
            }
            member.streak = member.streak.observe(outcome.successes);
            let failures = member.streak.failures();
            if failures >= max.get() {
                let why = format!("{failures} failures in a row, the last {}", outcome.kind);
                is_change |= self.eject(members, index, &why, now);
            }
        }
        is_change
    }

    /// Ejects an endpoint, if the rules for all let it; whether it is.
    fn eject(&self, members: &mut [Member], index: usize, why: &str, now: Instant) -> bool {
        let ejected = members.iter().filter(|member| member.ejection.is_ejected()).count();
        let max = ejected_max(members.len(), self.eject.percent_max);
        let is_eligible =
            |it: &Member| it.is_wanted() && it.is_fit() && it.endpoint.address.is_some();
        let mut others = members.iter().enumerate().filter(|(other, _)| *other != index);
        let has_other = others.any(|(_, other)| is_eligible(other));
        let Some(member) = members.get_mut(index) else { return false };
        let backend = &member.endpoint.id;
        // What takes no requests for another reason is not ejected on top of that.
        if !member.is_fit() || ejected >= max || !has_other {
            tracing::debug!(backend, why, ejected, max, has_other, "backend is not ejected");
            return false;
        }
        member.ejection = member.ejection.eject(now, &self.eject);
        member.streak = Default::default();
        self.vitals.ejections.add();
        let time = member.ejection.time().unwrap_or_default();
        tracing::warn!(backend, why, ?time, "backend is ejected");
        member.why = why.to_owned();
        true
    }

    /// Moves the breakers on.
    fn turn_breakers(&self, members: &mut [Member], now: Instant) -> bool {
        let Some(percent) = self.breaker.error_percent else { return false };
        let mut is_change = false;
        for member in members {
            let total = Tally::of(&self.lanes, member.endpoint.slot.number);
            let (breaker, turn) = member.breaker.observe(now, total, &self.breaker);
            member.breaker = breaker;
            let Some(turn) = turn else { continue };
            is_change = true;
            let (backend, limits) = (&member.endpoint.id, &member.endpoint.limits);
            match turn {
                Turn::Opened(Tally { failed, succeeded }) => {
                    limits.allow_trials(0);
                    self.vitals.breaker_openings.add();
                    let why = format!("{failed} failed and {succeeded} did not");
                    tracing::warn!(backend, why, percent, "breaker opens");
                    member.why = why;
                }
                Turn::HalfOpened { trials } => {
                    limits.allow_trials(trials);
                    self.vitals.breaker_half_openings.add();
                    tracing::info!(backend, why = "its time is over", trials, "breaker half-opens");
                    member.why = format!("its breaker allows {trials} trials");
                }
                Turn::TrialsLost { trials } => {
                    limits.allow_trials(trials);
                    tracing::debug!(backend, trials, "trials of a breaker are allowed again");
                }
                Turn::Closed => {
                    let why = "all trials succeeded";
                    self.vitals.breaker_closings.add();
                    tracing::info!(backend, why, "breaker closes");
                    member.why = why.to_owned();
                }
            }
        }
        is_change
    }

    /// Ejects the endpoints that lie far below their peers, once in each interval.
    fn compare(&mut self, members: &mut [Member], now: Instant) -> bool {
        let Some(gap_percent) = self.eject.success_gap_percent else { return false };
        if now.saturating_duration_since(self.compared) < self.eject.interval {
            return false;
        }
        self.compared = now;
        let mut tallies: Vec<_> = members.iter_mut().map(|it| self.tally_of(it)).collect();
        let mut is_change = false;
        // The worst leaves first, and no longer hides the next among their peers.
        while let Some(outlier) = worst(&tallies, gap_percent, self.eject.requests_min) {
            let Outlier { index, success, peers } = outlier;
            let why = format!(
                "{:.1} % of its requests succeeded, {:.1} % of its peers'",
                success * 100.0,
                peers * 100.0
            );
            is_change |= self.eject(members, index, &why, now);
            tallies[index] = None;
        }
        is_change
    }

    /// How requests fared on an endpoint since the last comparison; `None` while it is ejected.
    fn tally_of(&self, member: &mut Member) -> Option<Tally> {
        let total = Tally::of(&self.lanes, member.endpoint.slot.number);
        let tally = total.since(std::mem::replace(&mut member.compared, total));
        (!member.ejection.is_ejected()).then_some(tally)
    }
}

/// How long after a failure others are looked for more often.
const BUSY_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
