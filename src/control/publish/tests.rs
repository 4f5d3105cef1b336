//! How many snapshots changes make.

use std::net::SocketAddr;

use tokio::sync::mpsc;

use super::*;
use crate::config::{InitialHealth, Mode};
use crate::control::member::Member;
use crate::control::tests::{backend, config};
use crate::health::Verdict;
use crate::metrics::Lanes;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::outcome;

const BACKENDS: usize = 8;

fn verdict(index: usize, healthy: bool) -> News {
    let address = Some(SocketAddr::from(([127, 0, 0, 1], 80)));
    News::Verdict(Verdict {
        index,
        healthy,
        passed: healthy,
        address,
        share: 100,
        why: "a test".to_owned(),
    })
}

fn publisher() -> (Publisher, crossbeam::channel::Receiver<()>) {
    let (sender, receiver) = crossbeam::channel::bounded(1);
    let (config, now) = (config(&[], Duration::from_secs(1)), std::time::Instant::now());
    let config = config.pools.into_iter().next().unwrap();
    let backend = backend("127.0.0.1", 80, Mode::Ready);
    let member = |number| Member::new(number, &backend, &config.breaker, InitialHealth::Probe, now);
    let members = (0..BACKENDS as u32).map(member).collect();
    let roster = Roster::new(members, &config.balance, now);
    let (_, outcomes) = outcome::channel();
    let lanes = Lanes::new(1, BACKENDS);
    let passive = Passive::new(config.eject, config.breaker, lanes, outcomes, Arc::default(), now);
    (Publisher::new(roster, passive, config.into(), sender), receiver)
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
        sender.try_send(verdict(index, false)).unwrap();
    }
    drop(sender);
    runtime().block_on(publisher.run(receiver));
    assert_eq!(published.load().epoch, EPOCH_FIRST);
    assert!(first_round.try_recv().is_err());
}
