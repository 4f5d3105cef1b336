//! The control plane: one thread, not pinned, that resolves names, probes backends and publishes.
//!
//! It is the only writer of the snapshot. Workers read `Published` and never wait for this thread;
//! they go on with the last snapshot when it ends. `server` starts and stops it.

pub mod admin;
pub mod dashboard;
mod desk;
mod fleet;
mod handle;
mod history;
mod member;
mod passive;
mod pools;
pub mod prometheus;
mod publish;
mod refusal;
mod registry;
mod reload;
mod roster;
mod saver;
mod slots;
mod state_file;
mod thread;
mod view;
mod watches;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam::channel::Receiver;
use tokio::sync::mpsc;

use crate::config::{Config, EtcdConfig, PoolConfig, Source};
use crate::control::pools::Pools;
use crate::control::publish::{Ears, Publisher};
use crate::control::registry::Registry;
use crate::control::saver::Saver;
use crate::control::state_file::Kept;
use crate::control::thread::Thread;
use crate::control::watches::Watches;
use crate::discovery::{self, BackendsFile, Found, UPDATES_MAX, Update, Writer};
use crate::error::StartError;
use crate::health::pulse::Pulse;
use crate::metrics::Lanes;
use crate::upstream::outcome::Outcome;
use crate::upstream::snapshot::Published;

pub use crate::health::vitals::Vitals;
pub use handle::{CHANGES_MAX, Done, Handle, Patch, SNAPSHOTS_MAX};
pub use publish::Bell;
pub use refusal::Refusal;
pub use reload::Reading;
pub use saver::StateLock;
pub use view::{BackendView, Change, Difference, PoolView, Revision, Shown, State};

/// The running control thread; dropping it asks the thread to end without waiting.
#[derive(Debug)]
pub struct Control {
    thread: Thread,
    published: Published,
    first_round: Receiver<()>,
    vitals: Arc<Vitals>,
    handle: Handle,
}

impl Control {
    /// Publishes the backends as epoch 1, none of them eligible yet unless they are to begin up,
    /// and starts the thread; all first probes begin at once. `bell` lets the workers know of
    /// endpoints that are gone; `state` is the configuration's state file, if it has one.
    ///
    /// # Errors
    /// `Usage` when a probe cannot be made of the flags, `Resource` when the thread or its runtime
    /// cannot be had.
    pub fn start(
        config: &Config,
        lanes: Lanes,
        outcomes: Receiver<Outcome>,
        bell: Bell,
        state: Option<StateLock>,
    ) -> Result<Control, StartError> {
        let now = Instant::now();
        let vitals = Arc::new(Vitals::default());
        let configs: Vec<_> = config.pools.iter().cloned().map(Arc::new).collect();
        let pulse = Pulse::new(configs.iter().map(|pool| &pool.health), Arc::clone(&vitals));
        let (watches, news) = Watches::new(Arc::new(pulse));
        let mut pools = Pools::new(&configs, watches, lanes, outcomes, vitals.clone(), now);
        pools.set_routes(&config.routes);
        for pool in &configs {
            pool.backends.iter().try_for_each(|backend| pools.check(&pool.name, backend))?;
        }
        let mut registry = Registry::new(configs.iter().map(|pool| pool.name.clone()), seed());
        let file = config.registry.backends_file.as_deref().map(BackendsFile::open).transpose();
        let (file, said) = file.map_err(StartError::Usage)?.unzip();
        for turn in [of_flags(&configs)].into_iter().chain(said).flat_map(|it| registry.hear(it)) {
            pools.apply(turn, now);
        }
        let saver = state.map(|lock| recall(lock, config, &mut registry, &mut pools, now));
        let saver = saver.transpose()?;
        let (judged, first_round) = crossbeam::channel::bounded(1);
        let (mut handle, desk) = Handle::new();
        if let Some(etcd) = config.etcd_to_write() {
            handle = handle.through(Writer::new(etcd).map_err(StartError::Usage)?);
        }
        let recalled = registry.said_by(Source::Etcd).next();
        let (updates, told) = mpsc::channel(UPDATES_MAX);
        let ears = Ears { news, updates: told, desk };
        let mut publisher = Publisher::new(pools, registry, ears, bell, judged);
        publisher.saver = saver;
        publisher.await_sources(
            config.discovery.dns.len() + usize::from(config.discovery.etcd.is_some()),
        );
        let published = publisher.published();
        let runtime = Thread::runtime()?;
        let entered = runtime.enter();
        let tasks = publisher.pools.watches().tasks();
        discovery::spawn(&config.discovery, recalled, &updates, tasks)
            .map_err(StartError::Usage)?;
        if let Some(file) = file {
            tasks.spawn(file.run(updates));
        }
        drop(entered);
        let thread = Thread::spawn(runtime, drive(publisher))?;
        Ok(Control { thread, published, first_round, vitals, handle })
    }

    /// The snapshot in force, for a worker's `View`.
    #[must_use]
    pub fn published(&self) -> Published {
        Published::clone(&self.published)
    }

    /// Gives one message when each endpoint had its first verdict and the snapshot shows it, at
    /// most one health timeout (plus `PUBLISH_INTERVAL`, 20 ms) after the start; disconnected
    /// after that message, or without it when the thread ended before.
    #[must_use]
    pub fn first_round(&self) -> &Receiver<()> {
        &self.first_round
    }

    /// Disconnected once the thread no longer works, for whatever reason; it never gives a
    /// message.
    #[must_use]
    pub fn ended(&self) -> &Receiver<Infallible> {
        self.thread.ended()
    }

    /// What the thread did so far.
    #[must_use]
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// How to ask it and what to tell it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether the thread still probes and publishes.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.thread.is_alive()
    }

    /// Runs a task on the thread, beside its work.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.thread.spawn_beside(task);
    }

    /// Drops the probes in flight and ends the thread; waits for that at most a second.
    pub fn stop(self) {
        self.thread.stop();
    }
}

/// The thread's work. A task of its own: each wake-up of the runtime's main future costs a write to
/// its eventfd and a second turn of its loop, which made half of an idle thread's system calls.
async fn drive(publisher: Publisher) {
    if let Err(error) = tokio::spawn(publisher.run()).await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Takes over what the state file keeps, and keeps more there from now on.
fn recall(
    lock: StateLock,
    config: &Config,
    registry: &mut Registry,
    pools: &mut Pools,
    now: Instant,
) -> Result<Saver, StartError> {
    let path = lock.path.as_path();
    let state = Kept::read(path).map_err(StartError::Usage)?;
    let etcd = config.discovery.etcd.as_ref().map(EtcdConfig::origin);
    if let Some(state) = state {
        let turns = state.recall(registry, etcd.as_deref()).map_err(|reason| {
            let path = path.display();
            StartError::Usage(format!("--state-file {path}: {reason}; mend it, or move it away"))
        })?;
        tracing::info!(file = %path.display(), changes = turns.len(), "the state file is recalled");
        turns.into_iter().for_each(|turn| pools.apply(turn, now));
    }
    Saver::start(lock, &Kept::of(registry).text())
}

/// What flags and the configuration file say.
fn of_flags(pools: &[Arc<PoolConfig>]) -> Update {
    let mut backends = Vec::new();
    for pool in pools {
        let found = |backend| Found { pool: pool.name.clone(), backend };
        backends.extend(pool.backends.iter().cloned().map(found));
    }
    let origin = Source::Flags.name().to_owned();
    Update { source: Source::Flags, origin, backends, mark: None, told: None }
}

/// A number that is above each revision of earlier processes: the microseconds since 1970.
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
