//! The control plane: one thread, not pinned, that resolves names, probes backends and publishes.
//!
//! It is the only writer of the snapshot. Workers read `Published` and never wait for this thread;
//! they go on with the last snapshot when it ends. `server` starts and stops it.

mod publish;
mod thread;

use std::convert::Infallible;
use std::panic::resume_unwind;
use std::sync::Arc;

use crossbeam::channel::Receiver;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{BackendConfig, BreakerConfig, Config};
use crate::control::publish::Publisher;
use crate::control::thread::Thread;
use crate::error::StartError;
use crate::health::{self, Watch};
use crate::metrics::Lanes;
use crate::upstream::endpoint::{Address, Endpoint, Slot, Standing, Tier, WEIGHT_UNIT};
use crate::upstream::limit::Limits;
use crate::upstream::outcome::Outcome;
use crate::upstream::snapshot::{DEFAULT_POOL, Published};

/// The running control thread; dropping it asks the thread to end without waiting.
#[derive(Debug)]
pub struct Control {
    thread: Thread,
    published: Published,
    first_round: Receiver<()>,
}

impl Control {
    /// Publishes the backends, none of them eligible yet, as epoch 1 and
    /// starts the thread; all first probes begin at once.
    ///
    /// # Errors
    /// `Usage` when a probe cannot be made of the flags, `Resource` when the thread or its runtime
    /// cannot be had.
    pub fn start(
        config: &Config,
        lanes: Lanes,
        outcomes: Receiver<Outcome>,
    ) -> Result<Control, StartError> {
        let mut endpoints = Vec::with_capacity(config.backends.len());
        let mut watches = Vec::with_capacity(config.backends.len());
        for (number, backend) in (0..).zip(&config.backends) {
            let endpoint = endpoint_of(number, backend, &config.breaker);
            watches.push(Watch::new(endpoints.len(), &endpoint.id, backend, &config.health)?);
            endpoints.push(endpoint);
        }
        let (judged, first_round) = crossbeam::channel::bounded(1);
        let publisher = Publisher::new(endpoints, config.balance.clone(), judged);
        let published = publisher.published();
        let thread = Thread::spawn(drive(watches, publisher))?;
        Ok(Control { thread, published, first_round })
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

/// The endpoint of a backend before its first probe.
fn endpoint_of(number: u32, backend: &BackendConfig, breaker: &BreakerConfig) -> Endpoint {
    Endpoint {
        slot: Slot { number, generation: 0 },
        id: format!("{DEFAULT_POOL}/{}", backend.authority()),
        address: health::literal_of(backend).map(Address::Tcp),
        weight: u32::from(backend.weight.get()) * WEIGHT_UNIT,
        tier: if backend.is_backup { Tier::Backup } else { Tier::Primary },
        standing: Standing::Out,
        limits: Arc::new(Limits::new(backend.conns_max, breaker.requests_max, breaker.pending_max)),
    }
}

/// The thread's work: watches send verdicts, the publisher publishes them.
async fn drive(watches: Vec<Watch>, publisher: Publisher) {
    let (sender, verdicts) = mpsc::channel(watches.len().max(1));
    let mut tasks = JoinSet::new();
    for watch in watches {
        tasks.spawn(watch.run(sender.clone()));
    }
    tokio::select! {
        () = publisher.run(verdicts) => {}
        never = panic_of(&mut tasks) => match never {},
    }
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
