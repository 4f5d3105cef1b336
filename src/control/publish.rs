//! Turns what is known about the endpoints into snapshots: the only place that stores into
//! `Published`.
//!
//! The first change after quiet is published at once, later ones together, at most one snapshot
//! each `PUBLISH_INTERVAL`. Runs on the control thread and waits for news and its tick alone.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::PoolConfig;
use crate::control::passive::Passive;
use crate::control::roster::Roster;
use crate::health::News;
use crate::upstream::snapshot::{Pool, Published, Snapshot};

/// The writer of the snapshot.
#[derive(Debug)]
pub(super) struct Publisher {
    published: Published,
    config: Arc<PoolConfig>,
    /// The epoch in force.
    epoch: u64,
    roster: Roster,
    passive: Passive,
    /// Told once every endpoint had its first verdict.
    first_round: Option<Sender<()>>,
}

impl Publisher {
    /// Publishes these endpoints as the first snapshot.
    pub(super) fn new(
        roster: Roster,
        passive: Passive,
        config: Arc<PoolConfig>,
        first_round: Sender<()>,
    ) -> Publisher {
        let pool = Pool::new(config.clone(), roster.endpoints());
        Publisher {
            published: Snapshot::new(EPOCH_FIRST, vec![pool]).publish(),
            config,
            epoch: EPOCH_FIRST,
            roster,
            passive,
            first_round: Some(first_round),
        }
    }

    /// Where it publishes.
    pub(super) fn published(&self) -> Published {
        Arc::clone(&self.published)
    }

    /// Publishes what the news and the ticks make of the endpoints, until nobody sends any more.
    pub(super) async fn run(mut self, mut news: Receiver<News>) {
        let mut tick = pin!(sleep(TICK));
        let mut earliest = Instant::now();
        let mut is_due = true;
        let mut is_open = true;
        while is_open {
            tokio::select! {
                biased;
                () = sleep_until(earliest), if is_due => {
                    is_due = false;
                    if self.publish() {
                        earliest = Instant::now() + PUBLISH_INTERVAL;
                    }
                }
                received = news.recv() => {
                    is_open = received.is_some();
                    is_due = true;
                    self.apply(received, &mut news);
                }
                () = &mut tick => {
                    let now = Instant::now();
                    is_due |= self.tick(now.into_std());
                    tick.as_mut().reset(now + self.tick_length(now.into_std()));
                }
            }
        }
        sleep_until(earliest).await;
        self.publish();
    }

    /// Takes over this news and whatever else has come.
    fn apply(&mut self, mut received: Option<News>, news: &mut Receiver<News>) {
        let now = Instant::now().into_std();
        while let Some(one) = received {
            self.roster.apply(one, now);
            received = news.try_recv().ok();
        }
    }

    /// Does what is due without news; whether the endpoints may be others now.
    fn tick(&mut self, now: std::time::Instant) -> bool {
        self.roster.log_weights(now);
        self.passive.tick(&mut self.roster.members, now) || self.roster.is_starting()
    }

    /// How long until the next tick.
    fn tick_length(&self, now: std::time::Instant) -> Duration {
        if self.roster.is_starting() || self.passive.is_busy(&self.roster.members, now) {
            TICK
        } else {
            TICK_IDLE
        }
    }

    /// Publishes the endpoints as they are now, if that is something new; tells once that the
    /// first verdicts are all in and published.
    fn publish(&mut self) -> bool {
        let is_change = self.roster.refresh(Instant::now().into_std());
        if is_change {
            self.epoch += 1;
            let mut pool = Pool::new(self.config.clone(), self.roster.endpoints());
            pool.is_panicking = self.roster.is_panicking();
            self.published.store(Arc::new(Snapshot::new(self.epoch, vec![pool])));
        }
        if self.roster.is_judged()
            && let Some(first_round) = self.first_round.take()
            && first_round.try_send(()).is_err()
        {
            tracing::debug!("nobody waits for the first round of probes");
        }
        is_change
    }
}

/// The epoch of the first snapshot.
const EPOCH_FIRST: u64 = 1;
/// The least time between two snapshots.
pub(super) const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);
/// How often outcomes are taken over, and ejections, breakers and slow starts move on.
const TICK: Duration = Duration::from_millis(25);
/// The same while requests fare well: the first failures wait so long at most.
const TICK_IDLE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
