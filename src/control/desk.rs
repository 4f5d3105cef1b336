//! Answers what comes through a `Handle`: looks what is asked for, and lets the registry decide
//! about what is to be changed.
//!
//! Part of the publisher: a command is carried out between two snapshots, never beside another.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use crate::config::{PoolConfig, RouteConfig, Source};
use crate::control::handle::{Command, Done, Name, Plan, What, Write};
use crate::control::member::Member;
use crate::control::of_flags;
use crate::control::publish::Publisher;
use crate::control::refusal::Refusal;
use crate::control::roster::Roster;
use crate::control::view::{BackendView, PoolView};
use crate::health::tally::Tally;
use crate::upstream::endpoint::{Address, WEIGHT_UNIT};

impl Publisher {
    /// Carries out a command and replies; whether anything changed.
    pub(super) fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Pools(to) => reply(to, self.view()),
            Command::Backend(name, to) => reply(to, self.view_of(&name)),
            Command::Plan(write, to) => reply(to, self.plan(&write)),
            Command::Snapshots(to) => reply(to, self.history.list()),
            Command::Diff(from, until, to) => reply(to, self.history.diff(from, until)),
            Command::Configure(configs, routes, to) => {
                let done = self.configure(configs, &routes);
                let is_change = done.is_ok();
                reply(to, done);
                return is_change;
            }
            Command::Leave => {
                if let Some(saver) = &mut self.saver {
                    saver.leave();
                }
            }
            Command::Write(write, to) => {
                let done = self.write(write);
                let is_change = done.as_ref().is_ok_and(|done| done.before != done.after);
                match &mut self.saver {
                    Some(saver) if done.is_ok() => {
                        // A removal may be forgotten that had no effect: it is kept, too.
                        saver.note();
                        saver.reply_when_kept((to, done));
                    }
                    _ => reply(to, done),
                }
                return is_change;
            }
        }
        false
    }

    fn write(&mut self, write: Write) -> Result<Done, Refusal> {
        let name = write.name.clone();
        self.check(&write)?;
        let before = self.view_of(&name).ok();
        let turns = self.registry.write(write)?;
        self.carry_out(turns, Source::Api.name());
        Ok(Done { before, after: self.view_of(&name).ok(), is_kept: true, is_followed: true })
    }

    fn plan(&self, write: &Write) -> Result<Plan, Refusal> {
        self.check(write)?;
        let told = self.registry.plan(write)?;
        Ok(Plan { told, view: self.view_of(&write.name).ok() })
    }

    /// Makes sure that a backend that is added can be probed.
    fn check(&self, write: &Write) -> Result<(), Refusal> {
        let What::Add(backend) = &write.what else { return Ok(()) };
        let checked = self.pools.check(&write.name.pool, backend);
        checked.map_err(|error| Refusal::Invalid(error.to_string()))
    }

    /// Gives the pools other settings and the backends that flags and files name with them, all at
    /// once or not at all.
    fn configure(
        &mut self,
        configs: Vec<PoolConfig>,
        routes: &[RouteConfig],
    ) -> Result<(), Refusal> {
        let configs: Vec<_> = configs.into_iter().map(Arc::new).collect();
        for config in &configs {
            let mut backends = config.backends.iter();
            let checked = backends.try_for_each(|it| self.pools.check_probe(it, &config.health));
            checked.map_err(|error| Refusal::Invalid(format!("pool {}: {error}", config.name)))?;
        }
        if !self.pools.has_room_for(&configs) {
            return Err(Refusal::TooManyPools);
        }
        let flags = of_flags(&configs);
        let names: Vec<_> = configs.iter().map(|config| config.name.clone()).collect();
        self.pools.configure(configs, Instant::now());
        self.pools.set_routes(routes);
        let mut turns = self.registry.set_pools(names);
        turns.extend(self.registry.hear(flags));
        self.carry_out(turns, CAUSE_RELOAD);
        self.pools.trust_new();
        self.note_cause(CAUSE_RELOAD);
        Ok(())
    }

    fn view(&self) -> Vec<PoolView> {
        let now = Instant::now();
        let pool = |roster: &Roster| PoolView {
            name: roster.config().name.clone(),
            policy: roster.config().balance.policy,
            is_panicking: roster.is_panicking(),
            backends: (roster.members.iter())
                .filter(|it| self.is_decided(it, roster))
                .map(|it| self.view_member(it, roster, now))
                .collect(),
        };
        self.pools.rosters().map(pool).collect()
    }

    fn view_of(&self, name: &Name) -> Result<BackendView, Refusal> {
        let roster = self.pools.rosters().find(|roster| roster.config().name == name.pool);
        let roster = roster.ok_or_else(|| Refusal::UnknownPool(name.pool.clone()))?;
        let is_it = |it: &&Member| it.entry.backend.authority() == name.authority;
        let member = roster.members.iter().find(is_it);
        let member = member.filter(|_| self.registry.get(name).is_some());
        let member = member.ok_or_else(|| Refusal::UnknownBackend(name.to_string()))?;
        Ok(self.view_member(member, roster, Instant::now()))
    }

    /// Whether it is not only left until another can take its requests.
    fn is_decided(&self, member: &Member, roster: &Roster) -> bool {
        let authority = member.entry.backend.authority();
        let name = Name { pool: roster.config().name.clone(), authority };
        self.registry.get(&name).is_some()
    }

    fn view_member(&self, member: &Member, roster: &Roster, now: Instant) -> BackendView {
        let Member { endpoint, entry, .. } = member;
        let lanes = self.pools.lanes();
        let slow_start = roster.config().balance.slow_start;
        let fared = Tally::of(lanes, endpoint.slot.number).since(member.counted);
        BackendView {
            id: endpoint.id.clone(),
            pool: roster.config().name.clone(),
            authority: entry.backend.authority(),
            address: endpoint.address.map(|Address::Tcp(address)| address),
            slot: endpoint.slot,
            source: entry.source,
            origin: entry.origin.clone(),
            revision: entry.revision,
            state: member.state_now(),
            why: member.why.clone(),
            since: self.system_time(member.since),
            mode: member.mode,
            weight: entry.backend.weight.get(),
            effective_weight: f64::from(member.weight(now, slow_start)) / f64::from(WEIGHT_UNIT),
            conns_max: entry.backend.conns_max.map(Into::into),
            conns: endpoint.limits.conns.as_ref().map(|limit| limit.taken()),
            is_backup: entry.backend.is_backup,
            in_flight: lanes.in_flight(endpoint.slot.number),
            succeeded: fared.succeeded,
            failed: fared.failed,
        }
    }

    /// The same time for the same instant, whatever happens to the system's clock.
    fn system_time(&self, at: Instant) -> SystemTime {
        let (instant, system) = self.origin;
        system + at.saturating_duration_since(instant)
    }
}

fn reply<T>(to: oneshot::Sender<T>, answer: T) {
    if to.send(answer).is_err() {
        tracing::debug!("nobody waits for a reply any more");
    }
}

/// Why a snapshot was made after the configuration was read again.
const CAUSE_RELOAD: &str = "reload";
