//! All pools of the process: brings endpoints in and out as the registry decides, and lets each
//! pool take over what is said of its endpoints.
//!
//! A pool keeps its index for the life of the process, since requests name it by that. Never
//! publishes: `publish` does, with what is made here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;

use crate::config::{BackendConfig, HealthConfig, InitialHealth, Mode, PoolConfig, RouteConfig};
use crate::control::handle::Name;
use crate::control::member::Member;
use crate::control::passive::Passive;
use crate::control::registry::{Entry, Turn};
use crate::control::roster::Roster;
use crate::control::slots::Slots;
use crate::control::watches::Watches;
use crate::error::StartError;
use crate::health::tally::Tally;
use crate::health::vitals::Vitals;
use crate::health::{News, Watch};
use crate::metrics::Lanes;
use crate::upstream::endpoint::Slot;
use crate::upstream::outcome::{OUTCOMES_MAX, Outcome};
use crate::upstream::route::Routes;
use crate::upstream::snapshot::{self, POOLS_MAX, PoolId};

/// The pools.
#[derive(Debug)]
pub(super) struct Pools {
    pools: Vec<Pool>,
    slots: Slots,
    watches: Watches,
    lanes: Lanes,
    outcomes: Receiver<Outcome>,
    vitals: Arc<Vitals>,
    /// Endpoints for which there was no slot.
    unplaced: BTreeSet<Name>,
    /// Which requests go to which of them.
    routes: Arc<Routes>,
    /// Whether the routes are others than those of the last snapshot.
    has_other_routes: bool,
    /// Endpoints that go once another can take their requests, or at this time.
    leaving: BTreeMap<Name, Instant>,
    /// The epoch of the next snapshot.
    epoch_next: u64,
}

#[derive(Debug)]
struct Pool {
    roster: Roster,
    passive: Passive,
    /// As the next snapshot shows it.
    shown: Arc<snapshot::Pool>,
    /// Whether it is configured; one that was is kept for the requests that name it.
    is_configured: bool,
    /// What came since the last tick.
    outcomes: Vec<Outcome>,
}

impl Pools {
    /// These pools, without endpoints.
    pub(super) fn new(
        configs: &[Arc<PoolConfig>],
        watches: Watches,
        lanes: Lanes,
        outcomes: Receiver<Outcome>,
        vitals: Arc<Vitals>,
        now: Instant,
    ) -> Pools {
        let (slots, unplaced, pools) = (Slots::default(), BTreeSet::new(), Vec::new());
        let epoch_next = EPOCH_FIRST;
        let mut pools = Pools {
            pools,
            slots,
            watches,
            lanes,
            outcomes,
            vitals,
            unplaced,
            routes: Routes::to_first().into(),
            has_other_routes: false,
            leaving: BTreeMap::new(),
            epoch_next,
        };
        configs.iter().for_each(|config| pools.add_pool(config.clone(), now));
        pools
    }

    fn add_pool(&mut self, config: Arc<PoolConfig>, now: Instant) {
        let (lanes, vitals) = (self.lanes.clone(), self.vitals.clone());
        self.pools.push(Pool {
            passive: Passive::new(config.eject, config.breaker, lanes, vitals, now),
            shown: snapshot::Pool::new(config.clone(), Vec::new()).into(),
            roster: Roster::new(config),
            is_configured: true,
            outcomes: Vec::new(),
        });
    }

    /// Gives the pools these settings, all of which `check` has passed; of a pool that is not named
    /// any more the registry takes the backends.
    pub(super) fn configure(&mut self, configs: Vec<Arc<PoolConfig>>, now: Instant) {
        self.pools.iter_mut().for_each(|pool| pool.is_configured = false);
        for config in configs {
            self.watches.pulse().tighten(&config.health);
            match self.pool_mut(&config.name) {
                None => self.add_pool(config, now),
                Some(pool) => {
                    for name in pool.configure(config) {
                        self.watch(&name);
                    }
                }
            }
        }
    }

    /// From the next snapshot on requests are routed so; all pools that routes name are there.
    pub(super) fn set_routes(&mut self, routes: &[RouteConfig]) {
        let pool_of = |name: &str| self.pool(name).map(|(index, _)| PoolId(index));
        self.routes = Routes::new(routes, pool_of).into();
        self.has_other_routes = true;
    }

    /// Of pools that have no backend that is known to be up, those take requests that were never
    /// probed: other settings are no reason to refuse all until the first probe.
    pub(super) fn trust_new(&mut self) {
        let mut names = Vec::new();
        for pool in self.pools.iter_mut().filter(|pool| pool.is_configured) {
            let config = pool.roster.config().clone();
            let members = &mut pool.roster.members;
            if members.iter().any(|it| it.is_judged && it.is_fit()) {
                continue;
            }
            for member in members.iter_mut().filter(|it| !it.is_judged) {
                (member.is_judged, member.is_healthy) = (true, true);
                member.why = "not probed yet, and no other is up".to_owned();
                let authority = member.entry.backend.authority();
                names.push(Name { pool: config.name.clone(), authority });
            }
        }
        names.iter().for_each(|name| self.watch(name));
    }

    /// Whether there could be these pools beside those that there were.
    pub(super) fn has_room_for(&self, configs: &[Arc<PoolConfig>]) -> bool {
        let is_new = |config: &&Arc<PoolConfig>| self.pool(&config.name).is_none();
        self.pools.len() + configs.iter().filter(is_new).count() <= POOLS_MAX
    }

    /// The watching of the endpoints.
    pub(super) fn watches(&mut self) -> &mut Watches {
        &mut self.watches
    }

    /// The pools that are configured.
    pub(super) fn rosters(&self) -> impl Iterator<Item = &Roster> {
        self.pools.iter().filter(|pool| pool.is_configured).map(|pool| &pool.roster)
    }

    /// The counters of the workers.
    pub(super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Whether this pool could have this backend.
    ///
    /// # Errors
    /// When its probe cannot be made.
    pub(super) fn check(&self, pool: &str, backend: &BackendConfig) -> Result<(), StartError> {
        let Some((_, pool)) = self.pool(pool) else { return Ok(()) };
        self.check_probe(backend, &pool.roster.config().health)
    }

    /// Whether a backend could be probed so.
    ///
    /// # Errors
    /// When its probe cannot be made.
    pub(super) fn check_probe(
        &self,
        backend: &BackendConfig,
        health: &HealthConfig,
    ) -> Result<(), StartError> {
        let slot = Slot { number: 0, generation: 0 };
        Watch::new(slot, "", backend, health, self.watches.pulse()).map(drop)
    }

    fn pool(&self, name: &str) -> Option<(usize, &Pool)> {
        let mut pools = self.pools.iter().enumerate();
        pools.find(|(_, pool)| pool.roster.config().name == name)
    }

    fn pool_mut(&mut self, name: &str) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.roster.config().name == name)
    }

    /// Does what the registry decided about an endpoint.
    pub(super) fn apply(&mut self, turn: Turn, now: Instant) {
        let Turn { name, after, .. } = turn;
        self.unplaced.remove(&name);
        self.leaving.remove(&name);
        let Some(entry) = after else { return self.let_go(name, now) };
        let Some(pool) = self.pool_mut(&name.pool) else { return };
        let config = pool.roster.config().clone();
        let Some(member) = pool.roster.get_mut(&name.authority) else {
            return self.add(name, entry, now);
        };
        let (turns, given, mode) = (member.change(entry, &config), member.given, member.mode);
        match (turns, mode) {
            (false, _) => {}
            (true, Mode::Maintenance) => self.watches.stop(given),
            (true, Mode::Ready | Mode::Drain) => self.watch(&name),
        }
    }

    fn add(&mut self, name: Name, entry: Entry, now: Instant) {
        let Some((index, _)) = self.pool(&name.pool) else { return };
        let Some(slot) = self.slots.take(index) else {
            tracing::warn!(backend = %name, "waits for requests on removed backends to end");
            self.unplaced.insert(name);
            return;
        };
        let counted = Tally::of(&self.lanes, slot.number);
        self.lanes.begin_anew(slot.number);
        let roster = &mut self.pools[index].roster;
        let is_probed = entry.backend.mode != Mode::Maintenance;
        let member = Member::new(slot, entry, &roster.config().clone(), counted, now);
        roster.add(member);
        if is_probed {
            self.watch(&name);
        }
    }

    /// Removes an endpoint: at once, or where it alone takes requests as soon as the first verdict
    /// about another is in, so that a set that takes the place of another fails no request.
    fn let_go(&mut self, name: Name, now: Instant) {
        if !self.is_needed(&name) {
            return self.remove(&name, now);
        }
        let Some((_, pool)) = self.pool(&name.pool) else { return };
        let until = now + pool.roster.config().health.timeout + VERDICT_GRACE;
        self.leaving.insert(name, until);
    }

    /// Whether an endpoint takes requests that no other of its pool can take yet, though one may
    /// after its first verdict.
    fn is_needed(&self, name: &Name) -> bool {
        let Some((_, pool)) = self.pool(&name.pool) else { return false };
        let members = || pool.roster.members.iter();
        let is_it = |it: &&Member| it.entry.backend.authority() == name.authority;
        let takes = |it: &Member| it.is_wanted() && it.is_fit() && it.endpoint.address.is_some();
        let stays = |it: &&Member| {
            let authority = it.entry.backend.authority();
            authority != name.authority
                && !self.leaving.contains_key(&Name { pool: name.pool.clone(), authority })
        };
        members().find(is_it).is_some_and(takes)
            && members().any(|it| !it.is_judged && it.is_wanted() && stays(&it))
            && !members().any(|it| takes(it) && stays(&it))
    }

    /// Removes what was only left until now; whether there was anything.
    pub(super) fn remove_leaving(&mut self, now: Instant) -> bool {
        let is_over = |(name, until): &(&Name, &Instant)| **until <= now || !self.is_needed(name);
        let over = self.leaving.iter().filter(is_over).map(|(name, _)| name.clone());
        let over: Vec<Name> = over.collect();
        for name in &over {
            self.leaving.remove(name);
            self.remove(name, now);
        }
        !over.is_empty()
    }

    fn remove(&mut self, name: &Name, now: Instant) {
        let epoch = self.epoch_next;
        let Some(pool) = self.pool_mut(&name.pool) else { return };
        let Some(member) = pool.roster.remove(&name.authority) else { return };
        self.watches.stop(member.given);
        self.slots.give_back(member.endpoint.slot, epoch, now);
    }

    /// Begins to probe an endpoint by the settings of its pool.
    fn watch(&mut self, name: &Name) {
        let pulse = self.watches.pulse();
        let Some(pool) = self.pool_mut(&name.pool) else { return };
        let config = pool.roster.config().clone();
        let Some(member) = pool.roster.get_mut(&name.authority) else { return };
        let (given, id, backend) = (member.given, &member.endpoint.id, &member.entry.backend);
        let mut health = config.health.clone();
        if member.is_judged && member.is_healthy {
            // One failed probe by new settings does not take it out.
            health.initial = InitialHealth::Up;
        }
        match Watch::new(given, id, backend, &health, pulse) {
            Ok(watch) => self.watches.start(given, watch),
            Err(error) => {
                let why = error.to_string();
                tracing::error!(backend = id, why, "backend cannot be probed, so it stays out");
                member.why = why;
                member.is_judged = true;
            }
        }
    }

    /// The backends for which a slot may have become free.
    pub(super) fn take_unplaced(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.unplaced)
    }

    /// Takes news over.
    pub(super) fn hear(&mut self, news: News, now: Instant) {
        let pool = self.slots.pool_of(news.slot().number);
        match pool.and_then(|index| self.pools.get_mut(index)) {
            Some(pool) => pool.roster.apply(news, now),
            None => tracing::debug!(slot = ?news.slot(), "news of an endpoint that was removed"),
        }
    }

    /// Does what is due without news; whether requests turned something.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        // Not `try_iter`, which would hold on to `self`.
        for _ in 0..OUTCOMES_MAX {
            let Ok(outcome) = self.outcomes.try_recv() else { break };
            let pool = self.slots.pool_of(outcome.slot.number);
            if let Some(pool) = pool.and_then(|index| self.pools.get_mut(index)) {
                pool.outcomes.push(outcome);
            }
        }
        let mut is_change = false;
        for Pool { roster, passive, outcomes, .. } in &mut self.pools {
            roster.log_weights(now);
            is_change |= passive.tick(&mut roster.members, outcomes, now);
            outcomes.clear();
        }
        is_change
    }

    /// Lets slots be given out again; `held` is the oldest snapshot that anybody holds.
    pub(super) fn wake_slots(&mut self, held: u64, now: Instant) {
        let lanes = &self.lanes;
        self.slots.wake(held, now, |number| lanes.in_flight(number) == 0);
    }

    /// Whether slots of removed endpoints wait to be given out again.
    pub(super) fn has_resting_slots(&self) -> bool {
        self.slots.is_resting()
    }

    /// Whether something may soon turn.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        let is_busy = |it: &Pool| it.passive.is_busy(&it.roster.members, now);
        let is_waiting = !self.unplaced.is_empty() || !self.leaving.is_empty();
        is_waiting || self.is_starting() || self.pools.iter().any(is_busy)
    }

    /// Whether the weight of any endpoint grows with time.
    pub(super) fn is_starting(&self) -> bool {
        self.pools.iter().any(|pool| pool.roster.is_starting())
    }

    /// Whether all endpoints had their first verdict.
    pub(super) fn is_judged(&self) -> bool {
        self.pools.iter().all(|pool| pool.roster.is_judged())
    }

    /// What made the endpoint of this id what it is.
    pub(super) fn why(&self, id: &str) -> Option<&str> {
        let mut members = self.pools.iter().flat_map(|pool| &pool.roster.members);
        members.find(|member| member.endpoint.id == id).map(|member| member.why.as_str())
    }

    /// Works out what the pools are to show; whether that is something new.
    pub(super) fn refresh(&mut self, now: Instant) -> bool {
        let mut is_change = std::mem::take(&mut self.has_other_routes);
        for Pool { roster, shown, .. } in &mut self.pools {
            if roster.refresh(now) {
                let mut pool = snapshot::Pool::new(roster.config().clone(), roster.endpoints());
                pool.is_panicking = roster.is_panicking();
                *shown = pool.into();
                is_change = true;
            }
        }
        is_change
    }

    /// The next snapshot.
    pub(super) fn snapshot(&mut self) -> snapshot::Snapshot {
        let epoch = self.epoch_next;
        self.epoch_next += 1;
        let pools = self.pools.iter().map(|pool| pool.shown.clone()).collect();
        snapshot::Snapshot::new(epoch, pools).with_routes(self.routes.clone())
    }
}

impl Pool {
    /// Takes other settings over; the backends that are to be probed anew.
    fn configure(&mut self, config: Arc<PoolConfig>) -> Vec<Name> {
        self.is_configured = true;
        self.passive.set_rules(config.eject, config.breaker);
        let is_probed_otherwise = self.roster.config().health != config.health;
        let mut names = Vec::new();
        for member in &mut self.roster.members {
            member.change(member.entry.clone(), &config);
            if is_probed_otherwise && member.mode != Mode::Maintenance {
                let authority = member.entry.backend.authority();
                names.push(Name { pool: config.name.clone(), authority });
            }
        }
        self.roster.set_config(config);
        names
    }
}

/// How much longer than a probe's time the first verdict about an endpoint may take.
const VERDICT_GRACE: Duration = Duration::from_millis(100);
/// The epoch of the first snapshot.
pub(super) const EPOCH_FIRST: u64 = 1;
