//! How many snapshots changes make.

use std::net::SocketAddr;

use tokio::sync::mpsc;

use super::*;
use crate::config::{Mode, SLOTS_MAX};
use crate::control::handle::{Handle, Name};
use crate::control::pools::EPOCH_FIRST;
use crate::control::tests::{backend, config, entry};
use crate::control::watches::Watches;
use crate::health::Verdict;
use crate::health::pulse::Pulse;
use crate::metrics::Lanes;
use crate::upstream::endpoint::{Endpoint, Slot};
use crate::upstream::outcome;

const BACKENDS: usize = 8;
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn verdict(number: usize, healthy: bool) -> News {
    let address = Some(SocketAddr::from(([127, 0, 0, 1], 1 + number as u16)));
    News::Verdict(Verdict {
        slot: Slot { number: number as u32, generation: 0 },
        healthy,
        passed: healthy,
        address,
        share: 100,
        why: "a test".to_owned(),
    })
}

/// A publisher of endpoints that nobody probes, which hears these news, and its first round.
fn publisher(news: Receiver<News>) -> (Publisher, crossbeam::channel::Receiver<()>) {
    let now = std::time::Instant::now();
    let (_, outcomes) = outcome::channel();
    let config = Arc::new(config(&[], Duration::from_secs(1)).pools.remove(0));
    let (watches, _) = Watches::new(Arc::new(Pulse::new([&config.health], Arc::default())));
    let lanes = Lanes::new(1, SLOTS_MAX);
    let configs = [config];
    let mut pools = Pools::new(&configs, watches, lanes, outcomes, Arc::default(), now);
    let registry = Registry::new(["default".to_owned()], 0);
    for number in 0..BACKENDS as u32 {
        let backend = backend("127.0.0.1", 1 + number as u16, Mode::Ready);
        let name = Name { pool: "default".to_owned(), authority: backend.authority() };
        pools.apply(Turn { name, before: None, after: Some(entry(backend)) }, now);
        pools.watches().stop(Slot { number, generation: 0 });
    }
    let (_handle, desk) = Handle::new();
    let (_, updates) = mpsc::channel(1);
    let (sender, first_round) = crossbeam::channel::bounded(1);
    let (ears, bell) = (Ears { news, updates, desk }, Bell(Box::new(|| {})));
    (Publisher::new(pools, registry, ears, bell, sender), first_round)
}

/// Runs a publisher until so much was done.
fn run(publisher: Publisher, until: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = publisher.run() => panic!("it runs for ever"),
            () = until => {}
            () = tokio::time::sleep(PATIENCE) => panic!("nothing was published"),
        }
    });
}

async fn reaches(published: &Published, epoch: u64) {
    while published.load().epoch < epoch {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn changes_that_come_together_make_one_snapshot() {
    let (sender, news) = mpsc::channel(BACKENDS);
    let (publisher, first_round) = publisher(news);
    let published = publisher.published();
    assert_eq!(published.load().epoch, EPOCH_FIRST);
    for number in 0..BACKENDS {
        sender.try_send(verdict(number, true)).unwrap();
    }
    run(publisher, reaches(&published, EPOCH_FIRST + 1));
    let snapshot = published.load();
    assert_eq!(snapshot.epoch, EPOCH_FIRST + 1);
    assert!(snapshot.pools[0].endpoints.iter().all(Endpoint::is_eligible));
    assert_eq!(first_round.try_recv(), Ok(()));
}

#[test]
fn a_stream_of_changes_makes_one_snapshot_an_interval() {
    const CHANGES: usize = 200;
    let (sender, news) = mpsc::channel(BACKENDS);
    let (publisher, _first_round) = publisher(news);
    let published = publisher.published();
    let started = Instant::now();
    run(publisher, async {
        for change in 0..CHANGES {
            let healthy = (change / BACKENDS).is_multiple_of(2);
            sender.send(verdict(change % BACKENDS, healthy)).await.unwrap();
        }
        reaches(&published, EPOCH_FIRST + 1).await;
    });
    let intervals = started.elapsed().as_millis() / PUBLISH_INTERVAL.as_millis();
    let epochs = published.load().epoch - EPOCH_FIRST;
    assert!(u128::from(epochs) <= intervals + 1, "{epochs} epochs in {intervals} intervals");
}

#[test]
fn news_without_a_change_publish_nothing() {
    let (sender, news) = mpsc::channel(BACKENDS);
    let (mut publisher, first_round) = publisher(news);
    publisher.hear(verdict(0, false));
    sender.try_send(verdict(BACKENDS, false)).unwrap();
    publisher.hear(verdict(0, false));
    assert!(!publisher.publish());
    assert_eq!(publisher.published().load().epoch, EPOCH_FIRST);
    assert!(first_round.try_recv().is_err());
}

#[test]
fn a_slot_comes_again_when_nobody_holds_a_snapshot_with_its_endpoint() {
    let (_sender, news) = mpsc::channel(BACKENDS);
    let (mut publisher, _first_round) = publisher(news);
    let held = publisher.published().load_full();
    let name = |port| Name { pool: "default".to_owned(), authority: format!("127.0.0.1:{port}") };
    let gone = Turn {
        name: name(1),
        before: Some(entry(backend("127.0.0.1", 1, Mode::Ready))),
        after: None,
    };
    publisher.carry_out(vec![gone], "api");
    assert!(publisher.publish());
    let add = |publisher: &mut Publisher, port| {
        let after = Some(entry(backend("127.0.0.1", port, Mode::Ready)));
        publisher.carry_out(vec![Turn { name: name(port), before: None, after }], "api");
        publisher.publish();
        publisher.published().load().pools[0].endpoints.last().unwrap().slot
    };
    publisher.tick(std::time::Instant::now());
    assert_eq!(add(&mut publisher, 50).number, BACKENDS as u32, "a worker holds the snapshot");
    drop(held);
    publisher.tick(std::time::Instant::now());
    assert_eq!(add(&mut publisher, 51), Slot { number: 0, generation: 1 });
}
