//! Turns verdicts into snapshots: the only place that stores into `Published`.
//!
//! The first change after quiet is published at once, later ones together, at most one snapshot
//! each `PUBLISH_INTERVAL`. Runs on the control thread and waits for nobody but the verdicts.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::config::BalanceConfig;
use crate::health::Verdict;
use crate::upstream::endpoint::{Address, Endpoint, Standing};
use crate::upstream::snapshot::{Published, Snapshot};

/// The writer of the snapshot.
#[derive(Debug)]
pub(super) struct Publisher {
    published: Published,
    balance: BalanceConfig,
    /// The epoch in force.
    epoch: u64,
    /// The endpoints as the verdicts so far make them.
    endpoints: Vec<Endpoint>,
    /// Whether each endpoint had its first verdict.
    judged: Vec<bool>,
    /// Told once every endpoint had its first verdict.
    first_round: Option<Sender<()>>,
}

impl Publisher {
    /// Publishes these endpoints as the first snapshot.
    pub(super) fn new(
        endpoints: Vec<Endpoint>,
        balance: BalanceConfig,
        first_round: Sender<()>,
    ) -> Publisher {
        Publisher {
            published: Snapshot::new(EPOCH_FIRST, endpoints.clone(), &balance).publish(),
            balance,
            epoch: EPOCH_FIRST,
            judged: vec![false; endpoints.len()],
            endpoints,
            first_round: Some(first_round),
        }
    }

    /// Where it publishes.
    pub(super) fn published(&self) -> Published {
        Arc::clone(&self.published)
    }

    /// Publishes what the verdicts say, until nobody sends any more.
    pub(super) async fn run(mut self, mut verdicts: Receiver<Verdict>) {
        let mut earliest = Instant::now();
        self.tell_first_round();
        while let Some(verdict) = verdicts.recv().await {
            let mut is_change = self.apply(verdict);
            sleep_until(earliest).await;
            while let Ok(verdict) = verdicts.try_recv() {
                is_change |= self.apply(verdict);
            }
            if is_change {
                self.publish();
                earliest = Instant::now() + PUBLISH_INTERVAL;
            }
            self.tell_first_round();
        }
    }

    /// Takes a verdict over and logs it; whether the snapshot has to change.
    fn apply(&mut self, verdict: Verdict) -> bool {
        let Some(endpoint) = self.endpoints.get_mut(verdict.index) else {
            tracing::error!(index = verdict.index, "a verdict names no endpoint");
            return false;
        };
        let is_first = !std::mem::replace(&mut self.judged[verdict.index], true);
        let address = verdict.address.map(Address::Tcp);
        let standing = if verdict.healthy { Standing::Open } else { Standing::Out };
        let turns = standing != endpoint.standing;
        let moves = address != endpoint.address;
        if moves && endpoint.address.is_some() {
            // Connections to the old address are not to be used for the new one.
            endpoint.slot.generation = endpoint.slot.generation.wrapping_add(1);
        }
        endpoint.standing = standing;
        endpoint.address = address;
        let (id, why) = (&endpoint.id, &verdict.why);
        match (turns || is_first, verdict.healthy) {
            (true, true) => tracing::info!(backend = id, why, "backend is up"),
            (true, false) => tracing::warn!(backend = id, why, "backend is down"),
            (false, _) => tracing::info!(backend = id, ?address, why, "backend moved"),
        }
        turns || moves
    }

    fn publish(&mut self) {
        self.epoch += 1;
        let snapshot = Snapshot::new(self.epoch, self.endpoints.clone(), &self.balance);
        self.published.store(Arc::new(snapshot));
    }

    /// Tells once that the first verdicts are all in and published.
    fn tell_first_round(&mut self) {
        if self.judged.iter().all(|judged| *judged)
            && let Some(first_round) = self.first_round.take()
            && first_round.try_send(()).is_err()
        {
            tracing::debug!("nobody waits for the first round of probes");
        }
    }
}

/// The epoch of the first snapshot.
const EPOCH_FIRST: u64 = 1;
/// The least time between two snapshots.
pub(super) const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::sync::mpsc;

    use super::*;
    use crate::upstream::endpoint::Slot;

    const BACKENDS: usize = 8;

    fn endpoint(number: u32) -> Endpoint {
        Endpoint {
            slot: Slot { number, generation: 0 },
            id: format!("default/backend:{number}"),
            address: None,
            weight: 1,
            healthy: false,
        }
    }

    fn verdict(index: usize, healthy: bool) -> Verdict {
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 80)));
        Verdict { index, healthy, address, why: "a test".to_owned() }
    }

    fn publisher() -> (Publisher, crossbeam::channel::Receiver<()>) {
        let (sender, receiver) = crossbeam::channel::bounded(1);
        let endpoints = (0..BACKENDS as u32).map(endpoint).collect();
        (Publisher::new(endpoints, Policy::RoundRobin, sender), receiver)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn changes_that_come_together_make_one_snapshot() {
        let (publisher, first_round) = publisher();
        let published = publisher.published();
        assert_eq!(published.load().epoch, EPOCH_FIRST);
        let (sender, receiver) = mpsc::channel(BACKENDS);
        for index in 0..BACKENDS {
            sender.try_send(verdict(index, true)).unwrap();
        }
        drop(sender);
        runtime().block_on(publisher.run(receiver));
        let snapshot = published.load();
        assert_eq!(snapshot.epoch, EPOCH_FIRST + 1);
        assert!(snapshot.pools[0].endpoints.iter().all(Endpoint::is_eligible));
        assert_eq!(first_round.try_recv(), Ok(()));
    }

    #[test]
    fn a_stream_of_changes_makes_one_snapshot_an_interval() {
        const CHANGES: usize = 200;
        let (publisher, _first_round) = publisher();
        let published = publisher.published();
        let (sender, receiver) = mpsc::channel(BACKENDS);
        let started = Instant::now();
        let changes = async move {
            for change in 0..CHANGES {
                let healthy = (change / BACKENDS).is_multiple_of(2);
                sender.send(verdict(change % BACKENDS, healthy)).await.unwrap();
            }
        };
        runtime().block_on(async { tokio::join!(publisher.run(receiver), changes) });
        let intervals = started.elapsed().as_millis() / PUBLISH_INTERVAL.as_millis();
        let epochs = published.load().epoch - EPOCH_FIRST;
        assert!(u128::from(epochs) <= intervals + 1, "{epochs} epochs in {intervals} intervals");
    }

    #[test]
    fn a_verdict_without_a_change_publishes_nothing() {
        let (publisher, first_round) = publisher();
        let published = publisher.published();
        let (sender, receiver) = mpsc::channel(BACKENDS + 1);
        for index in [0, BACKENDS] {
            let unchanged = Verdict { address: None, ..verdict(index, false) };
            sender.try_send(unchanged).unwrap();
        }
        drop(sender);
        runtime().block_on(publisher.run(receiver));
        assert_eq!(published.load().epoch, EPOCH_FIRST);
        assert!(first_round.try_recv().is_err());
    }
}
