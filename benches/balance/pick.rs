//! One pick among 200 endpoints, and the count that follows it, by policy and number of lanes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelane::config::Policy;
use corelane::metrics::Lanes;
use corelane::upstream::balance::{Ask, Balance, Cursor};
use corelane::upstream::endpoint::{Endpoint, Tier};
use divan::Bencher;
use fastrand::Rng;

use crate::{ENDPOINTS, config_of, endpoints};

const POLICIES: [Policy; 6] = [
    Policy::RoundRobin,
    Policy::LeastConnections,
    Policy::P2c,
    Policy::Ewma,
    Policy::Random,
    Policy::Maglev,
];

/// One worker, and the other workers' lanes.
struct Worker {
    endpoints: Vec<Endpoint>,
    balance: Balance,
    lanes: Lanes,
    cursor: Cursor,
    now: Instant,
    keys: Rng,
}

impl Worker {
    fn new(policy: Policy, lanes: usize, bound_percent: u32) -> Worker {
        let mut config = config_of(policy);
        config.hash_balance_percent = std::num::NonZeroU32::new(bound_percent);
        let endpoints = endpoints(|number| 1 + number % 3);
        let now = Instant::now();
        let lanes = Lanes::new(lanes, ENDPOINTS as usize);
        let mut cursor = Cursor::seeded(0, 1);
        for endpoint in &endpoints {
            let latency = Duration::from_micros(1000 + u64::from(endpoint.slot.number));
            cursor.observe(endpoint.slot, latency, now);
            (0..5).for_each(|_| lanes.lane(1).begin(endpoint.slot.number));
        }
        let balance = Balance::new(&config, &endpoints, Tier::Primary);
        Worker { balance, endpoints, lanes, cursor, now, keys: Rng::with_seed(1) }
    }

    fn pick(&mut self) -> Option<usize> {
        self.now += Duration::from_micros(10);
        let ask = Ask { hash: self.keys.u64(..), lanes: &self.lanes, now: self.now };
        self.balance.pick(&self.endpoints, &mut self.cursor, &ask, |_| true)
    }
}

#[divan::bench(args = POLICIES, sample_size = PICKS)]
fn quiet_2_lanes(bencher: Bencher<'_, '_>, policy: Policy) {
    let mut worker = Worker::new(policy, 2, 0);
    bencher.bench_local(|| worker.pick());
}

#[divan::bench(args = POLICIES, sample_size = PICKS)]
fn quiet_16_lanes(bencher: Bencher<'_, '_>, policy: Policy) {
    let mut worker = Worker::new(policy, 16, 0);
    bencher.bench_local(|| worker.pick());
}

#[divan::bench(args = POLICIES, sample_size = PICKS)]
fn quiet_64_lanes(bencher: Bencher<'_, '_>, policy: Policy) {
    let mut worker = Worker::new(policy, 64, 0);
    bencher.bench_local(|| worker.pick());
}

#[divan::bench(args = [2, 16, 64], sample_size = PICKS)]
fn bounded_maglev(bencher: Bencher<'_, '_>, lanes: usize) {
    let mut worker = Worker::new(Policy::Maglev, lanes, 125);
    bencher.bench_local(|| worker.pick());
}

/// Another thread begins and ends requests in its lane all the time, so the counters that are read
/// come from its core.
#[divan::bench(args = POLICIES, sample_size = PICKS)]
fn written_2_lanes(bencher: Bencher<'_, '_>, policy: Policy) {
    let mut worker = Worker::new(policy, 2, 0);
    let lanes = worker.lanes.clone();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Rng::with_seed(2);
            while !is_over.load(Ordering::Relaxed) {
                let slot = random.u32(..ENDPOINTS);
                lanes.lane(1).begin(slot);
                lanes.lane(1).end(slot);
            }
        });
        bencher.bench_local(|| worker.pick());
        is_over.store(true, Ordering::Relaxed);
    });
}

/// The picks of a sample: few enough that most samples are not interrupted.
const PICKS: u32 = 500;
