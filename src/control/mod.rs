//! The control plane: one thread, not pinned, that resolves names, probes backends and publishes.
//!
//! It is the only writer of the snapshot. Workers read `Published` and never wait for this thread;
//! they go on with the last snapshot when it ends. `server` starts and stops it.

pub mod dashboard;
mod handle;
mod member;
mod passive;
pub mod prometheus;
mod publish;
mod roster;
mod thread;
mod view;

use std::convert::Infallible;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::Receiver;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{Config, Mode};
use crate::control::member::Member;
use crate::control::passive::Passive;
use crate::control::publish::Publisher;
use crate::control::roster::Roster;
use crate::control::thread::Thread;
use crate::error::StartError;
use crate::health::pulse::Pulse;
use crate::health::{News, Watch};
use crate::metrics::Lanes;
use crate::upstream::outcome::Outcome;
use crate::upstream::snapshot::Published;

pub use crate::health::vitals::Vitals;
pub use handle::{CHANGES_MAX, Done, Handle, Patch, Refusal, SNAPSHOTS_MAX};
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
    /// and starts the thread; all first probes begin at once.
    ///
    /// # Errors
    /// `Usage` when a probe cannot be made of the flags, `Resource` when the thread or its runtime
    /// cannot be had.
    pub fn start(
        config: &Config,
        lanes: Lanes,
        outcomes: Receiver<Outcome>,
    ) -> Result<Control, StartError> {
        let now = Instant::now();
        let config = &config.pools[0];
        let vitals = Arc::new(Vitals::default());
        let pulse = Arc::new(Pulse::new(&config.health, Arc::clone(&vitals)));
        let mut members = Vec::with_capacity(config.backends.len());
        let mut watches = Vec::with_capacity(config.backends.len());
        for (number, backend) in (0..).zip(&config.backends) {
            let member = Member::new(number, backend, &config.breaker, config.health.initial, now);
            if backend.mode != Mode::Maintenance {
                let (index, id) = (members.len(), &member.endpoint.id);
                watches.push(Watch::new(index, id, backend, &config.health, Arc::clone(&pulse))?);
            }
            members.push(member);
        }
        let (judged, first_round) = crossbeam::channel::bounded(1);
        let roster = Roster::new(members, &config.balance, now);
        let (eject, breaker) = (config.eject, config.breaker);
        let passive = Passive::new(eject, breaker, lanes, outcomes, Arc::clone(&vitals), now);
        // The registry that answers it comes next; until then each call is told `Gone`.
        let (handle, _) = Handle::new();
        let publisher = Publisher::new(roster, passive, Arc::new(config.clone()), judged);
        let published = publisher.published();
        let thread = Thread::spawn(drive(watches, pulse, publisher))?;
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

    /// Drops the probes in flight and ends the thread; waits for that at most a second.
    pub fn stop(self) {
        self.thread.stop();
    }
}

/// The thread's work: watches send news, the publisher publishes them.
async fn drive(watches: Vec<Watch>, pulse: Arc<Pulse>, publisher: Publisher) {
    // This sender stays: without a watch there is still something to publish.
    let (sender, news) = mpsc::channel::<News>(watches.len().max(1));
    let mut tasks = JoinSet::new();
    tasks.spawn(pulse.run());
    for watch in watches {
        if let Some(agent) = watch.agent() {
            tasks.spawn(agent.run(sender.clone()));
        }
        tasks.spawn(watch.run(sender.clone()));
    }
    // A task like the others: each wake-up of the runtime's main future costs a write to its
    // eventfd and a second turn of its loop, which made half of an idle thread's system calls.
    tasks.spawn(publisher.run(news));
    match panic_of(&mut tasks).await {}
}

/// Carries the panic of a task on: the runtime would hold it back, and the endpoint would be
/// unwatched without a word.
async fn panic_of(tasks: &mut JoinSet<()>) -> Infallible {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
