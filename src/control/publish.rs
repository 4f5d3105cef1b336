//! Turns what is known about the endpoints into snapshots: the only place that stores into
//! `Published`.
//!
//! The first change after quiet is published at once, later ones together, at most one snapshot
//! each `PUBLISH_INTERVAL`. Runs on the control thread and waits for news, commands, updates of
//! sources and its tick alone.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use crossbeam::channel::Sender;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::Source;
use crate::control::handle::Desk;
use crate::control::history::History;
use crate::control::pools::Pools;
use crate::control::registry::{Origin, Registry, Turn};
use crate::control::saver::Saver;
use crate::control::state_file::Kept;
use crate::discovery::Update;
use crate::health::News;
use crate::upstream::snapshot::{Published, Snapshot};

/// The writer of the snapshot.
#[derive(Debug)]
pub(super) struct Publisher {
    published: Published,
    pub(super) pools: Pools,
    pub(super) registry: Registry,
    pub(super) history: History,
    news: Receiver<News>,
    updates: Receiver<Update>,
    desk: Desk,
    bell: Bell,
    /// Where changes are kept, if they are.
    pub(super) saver: Option<Saver>,
    /// Snapshots that were published and may still be held, the oldest first.
    held: VecDeque<(u64, Weak<Snapshot>)>,
    /// What the next snapshot is made for.
    causes: BTreeSet<&'static str>,
    /// Told once every endpoint had its first verdict,
    first_round: Option<Sender<()>>,
    /// and so many sources have told something,
    awaited: usize,
    /// of which these have.
    told: BTreeSet<Origin>,
    /// When the thread was made, by both clocks.
    pub(super) origin: (std::time::Instant, SystemTime),
}

/// What the publisher hears.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) news: Receiver<News>,
    pub(super) updates: Receiver<Update>,
    pub(super) desk: Desk,
}

/// Lets the workers know that endpoints were removed, so that an idle one lets go of the snapshot
/// that still has them.
pub struct Bell(pub Box<dyn Fn() + Send>);

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

impl Publisher {
    /// Publishes what the registry has decided by now as the first snapshot.
    pub(super) fn new(
        mut pools: Pools,
        registry: Registry,
        ears: Ears,
        bell: Bell,
        first_round: Sender<()>,
    ) -> Publisher {
        let Ears { news, updates, desk } = ears;
        let origin = (std::time::Instant::now(), SystemTime::now());
        pools.refresh(origin.0);
        let snapshot = pools.snapshot();
        let mut history = History::new(desk.changes.clone());
        history.note(&snapshot, &BTreeSet::from(["start"]), origin.1, |id| pools.why(id));
        Publisher {
            published: snapshot.publish(),
            pools,
            registry,
            history,
            news,
            updates,
            desk,
            bell,
            saver: None,
            held: VecDeque::new(),
            causes: BTreeSet::new(),
            first_round: Some(first_round),
            awaited: 0,
            told: BTreeSet::new(),
            origin,
        }
    }

    /// The first round is over only when so many sources have told their first set, too.
    pub(super) fn await_sources(&mut self, sources: usize) {
        self.awaited = sources;
    }

    /// Where it publishes.
    pub(super) fn published(&self) -> Published {
        Arc::clone(&self.published)
    }

    /// Publishes what comes of the news, commands, updates and ticks, for ever.
    pub(super) async fn run(mut self) {
        self.pools.watches().begin();
        let mut tick = pin!(sleep(TICK));
        let mut earliest = Instant::now();
        let mut is_due = true;
        // Questions that came while something was to be published: whoever reads that a backend is
        // up finds it in the snapshot.
        let mut waiting = Vec::new();
        loop {
            self.save();
            tokio::select! {
                biased;
                () = sleep_until(earliest), if is_due => {
                    is_due = false;
                    if self.publish() {
                        earliest = Instant::now() + PUBLISH_INTERVAL;
                    }
                    for question in waiting.drain(..) {
                        self.obey(question);
                    }
                }
                () = &mut tick => {
                    let now = Instant::now();
                    is_due |= self.tick(now.into_std());
                    tick.as_mut().reset(now + self.tick_length(now.into_std()));
                }
                Some(news) = self.news.recv() => {
                    is_due = true;
                    self.hear(news);
                }
                Some(command) = self.desk.commands.recv() => {
                    if is_due && command.is_question() {
                        waiting.push(command);
                    } else {
                        is_due |= self.obey(command);
                    }
                }
                Some(update) = self.updates.recv() => is_due |= self.learn(update),
                () = written(&mut self.saver) => {}
                never = self.pools.watches().panicked() => match never {},
            }
        }
    }

    /// Has the state file written, if it is due.
    fn save(&mut self) {
        if let Some(saver) = &mut self.saver
            && saver.is_due(std::time::Instant::now())
        {
            saver.begin(Kept::of(&self.registry).text());
        }
        if let Some(saver) = &mut self.saver {
            saver.unlock_if_left();
        }
    }

    /// Takes over this news and whatever else has come.
    fn hear(&mut self, news: News) {
        let now = Instant::now().into_std();
        self.causes.insert("health");
        let mut received = Some(news);
        while let Some(news) = received {
            self.pools.hear(news, now);
            received = self.news.try_recv().ok();
        }
    }

    /// Takes over what a source says; whether anything changed.
    fn learn(&mut self, update: Update) -> bool {
        let is_etcd = update.source == Source::Etcd;
        let (source, origin) = (update.source.name(), update.origin.clone());
        let told = update.told;
        let is_first = self.told.len() < self.awaited
            && self.told.insert((update.source, update.origin.clone()));
        let turns = self.registry.hear(update);
        let is_change = !turns.is_empty() || is_first;
        tracing::debug!(source, origin, changes = turns.len(), "a source told its backends");
        self.carry_out(turns, source);
        if let Some(told) = told {
            self.desk.heard.send_replace(told);
        }
        if let Some(saver) = &mut self.saver
            && is_etcd
        {
            saver.note();
        }
        let left_out = self.registry.left_out().count();
        if left_out > 0 && is_change {
            let example = self.registry.left_out().next().map(ToString::to_string);
            tracing::warn!(
                source,
                left_out,
                example,
                "backends are left out: there is no such pool, or there are too many backends"
            );
        }
        is_change
    }

    /// Does what the registry decided.
    pub(super) fn carry_out(&mut self, turns: Vec<Turn>, cause: &'static str) {
        if !turns.is_empty() {
            self.causes.insert(cause);
        }
        let now = std::time::Instant::now();
        // What comes may take the place of what goes.
        let (come, gone): (Vec<_>, Vec<_>) = turns.into_iter().partition(|it| it.after.is_some());
        for turn in come.into_iter().chain(gone) {
            self.pools.apply(turn, now);
        }
    }

    /// Names something that the next snapshot is made for.
    pub(super) fn note_cause(&mut self, cause: &'static str) {
        self.causes.insert(cause);
    }

    /// Does what is due without news; whether the endpoints may be others now.
    fn tick(&mut self, now: std::time::Instant) -> bool {
        let is_starting = self.pools.is_starting();
        if is_starting {
            self.causes.insert("weights");
        }
        let mut is_change = self.pools.tick(now);
        if is_change {
            self.causes.insert("requests");
        }
        if self.pools.remove_leaving(now) {
            self.causes.insert("removal");
            is_change = true;
        }
        if self.pools.has_resting_slots() {
            let held = self.oldest_held();
            self.pools.wake_slots(held, now);
        }
        let unplaced = self.pools.take_unplaced();
        for name in &unplaced {
            if let Some(entry) = self.registry.get(name).cloned() {
                let turn = Turn { name: name.clone(), before: None, after: Some(entry) };
                self.pools.apply(turn, now);
            }
        }
        is_change || is_starting || !unplaced.is_empty()
    }

    /// The epoch of the oldest snapshot that anybody holds.
    fn oldest_held(&mut self) -> u64 {
        self.held.retain(|(_, snapshot)| snapshot.strong_count() > 0);
        let in_force = || self.published.load().epoch;
        self.held.front().map_or_else(in_force, |(epoch, _)| *epoch)
    }

    /// How long until the next tick.
    fn tick_length(&self, now: std::time::Instant) -> Duration {
        if self.pools.is_busy(now) { TICK } else { TICK_IDLE }
    }

    /// Publishes the endpoints as they are now, if that is something new; tells once that the
    /// first verdicts are all in and published.
    fn publish(&mut self) -> bool {
        let is_change = self.pools.refresh(Instant::now().into_std());
        if is_change {
            let snapshot = Arc::new(self.pools.snapshot());
            let causes = std::mem::take(&mut self.causes);
            let pools = &self.pools;
            self.history.note(&snapshot, &causes, SystemTime::now(), |id| pools.why(id));
            let before = self.published.swap(snapshot);
            self.held.push_back((before.epoch, Arc::downgrade(&before)));
            drop(before);
            self.held.retain(|(_, snapshot)| snapshot.strong_count() > 0);
            if self.pools.has_resting_slots() {
                (self.bell.0)();
            }
        }
        self.causes.clear();
        if self.pools.is_judged()
            && self.told.len() >= self.awaited
            && let Some(first_round) = self.first_round.take()
            && first_round.try_send(()).is_err()
        {
            tracing::debug!("nobody waits for the first round of probes");
        }
        is_change
    }
}

/// Waits until the state file was written.
async fn written(saver: &mut Option<Saver>) {
    match saver {
        Some(saver) => saver.written().await,
        None => std::future::pending().await,
    }
}

/// The least time between two snapshots.
pub(super) const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);
/// How often outcomes are taken over, and ejections, breakers and slow starts move on.
const TICK: Duration = Duration::from_millis(25);
/// The same while requests fare well: the first failures wait so long at most.
const TICK_IDLE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
