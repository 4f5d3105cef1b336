//! The policies against each other's promises: shares, free endpoints, load, latency, hashes.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::*;
use crate::upstream::endpoint::{Address, Standing, WEIGHT_UNIT};
use crate::upstream::hash;
use crate::upstream::limit::Limits;

const POLICIES: [Policy; 6] = [
    Policy::RoundRobin,
    Policy::LeastConnections,
    Policy::P2c,
    Policy::Ewma,
    Policy::Random,
    Policy::Maglev,
];

/// One worker in front of a pool of its own.
struct Bench {
    endpoints: Vec<Endpoint>,
    balance: Balance,
    lanes: Lanes,
    cursor: Cursor,
    now: Instant,
    random: Rng,
}

fn config_of(policy: Policy) -> BalanceConfig {
    BalanceConfig {
        policy,
        hash_key: crate::config::HashKey::Source,
        hash_seed: 1,
        hash_balance_percent: None,
        sticky: None,
        slow_start: Duration::ZERO,
        panic_percent: 0,
    }
}

/// Endpoints of these configured weights.
fn endpoints_of(weights: &[u32]) -> Vec<Endpoint> {
    weights
        .iter()
        .zip(0..)
        .map(|(weight, number)| Endpoint {
            slot: Slot { number, generation: 0 },
            id: format!("default/10.0.{}.{}:80", number / 256, number % 256),
            address: Some(Address::Tcp(([127, 0, 0, 1], 1).into())),
            weight: weight * WEIGHT_UNIT,
            tier: Tier::Primary,
            standing: Standing::Open,
            is_sick: false,
            limits: Arc::new(Limits::new(None, None, None)),
        })
        .collect()
}

impl Bench {
    fn new(policy: Policy, weights: &[u32]) -> Bench {
        Bench::with(&config_of(policy), endpoints_of(weights))
    }

    fn with(config: &BalanceConfig, endpoints: Vec<Endpoint>) -> Bench {
        Bench {
            balance: Balance::new(config, &endpoints, Tier::Primary),
            lanes: Lanes::new(2, endpoints.len().max(1)),
            endpoints,
            cursor: Cursor::seeded(0, 1),
            now: Instant::now(),
            random: Rng::with_seed(1),
        }
    }

    /// The pick for a random key.
    fn pick(&mut self, is_free: impl Fn(usize) -> bool) -> Option<usize> {
        let hash = self.random.u64(..);
        self.pick_for(hash, is_free)
    }

    fn pick_for(&mut self, hash: u64, is_free: impl Fn(usize) -> bool) -> Option<usize> {
        let ask = Ask { hash, lanes: &self.lanes, now: self.now };
        self.balance.pick(&self.endpoints, &mut self.cursor, &ask, is_free)
    }

    /// How often each endpoint is picked of `count` times while nothing is in flight.
    fn counts(&mut self, count: usize) -> Vec<usize> {
        let mut counts = vec![0; self.endpoints.len()];
        for _ in 0..count {
            counts[self.pick(|_| true).unwrap()] += 1;
        }
        counts
    }

    /// The picks as letters.
    fn order(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'a' + self.pick(|_| true).unwrap() as u8)).collect()
    }

    /// `count` requests, one beginning each step and each taking as many steps as `steps_of` its
    /// endpoint says; how many each endpoint got. Every other request goes through another worker's
    /// lane.
    fn run(&mut self, count: usize, steps_of: impl Fn(usize) -> usize) -> Vec<usize> {
        let mut counts = vec![0; self.endpoints.len()];
        let mut under_way: Vec<(usize, usize, usize)> = Vec::new();
        for step in 0..count {
            let ended = under_way.extract_if(.., |(end, ..)| *end <= step);
            for (_, lane, index) in ended {
                let slot = self.endpoints[index].slot;
                self.lanes.lane(lane).end(slot.number);
                let latency = STEP * u32::try_from(steps_of(index)).unwrap();
                self.cursor.observe(slot, latency, self.now);
            }
            let index = self.pick(|_| true).unwrap();
            self.lanes.lane(step % 2).begin(self.endpoints[index].slot.number);
            under_way.push((step + steps_of(index), step % 2, index));
            counts[index] += 1;
            self.now += STEP;
        }
        counts
    }
}

/// Each count lies within 3 standard deviations of its share by weight.
fn check_shares(counts: &[usize], weights: &[u32]) {
    let count: usize = counts.iter().sum();
    for (found, weight) in counts.iter().zip(weights) {
        let share = f64::from(*weight) / f64::from(weights.iter().sum::<u32>());
        let expected = count as f64 * share;
        let deviation = (expected * (1.0 - share)).sqrt();
        let off = (*found as f64 - expected).abs();
        assert!(off <= 3.0 * deviation, "{found} of {expected} in {counts:?}");
    }
}

#[test]
fn whatever_the_policy_a_free_endpoint_is_found_and_no_other() {
    let mut random = Rng::with_seed(7);
    for policy in POLICIES {
        for count in [1, 2, 3, 10, 200] {
            let weights: Vec<u32> = (0..count).map(|_| random.u32(1..=256)).collect();
            let mut config = config_of(policy);
            config.hash_balance_percent = NonZeroU32::new(125).filter(|_| random.bool());
            let mut bench = Bench::with(&config, endpoints_of(&weights));
            for round in 0..200 {
                let only = random.usize(..count);
                let picked = bench.pick(|index| index == only);
                assert_eq!(picked, Some(only), "{policy:?}: the only free one of {count}");
                assert_eq!(bench.pick(|_| false), None, "{policy:?}: all {count} busy");
                let free: Vec<bool> = (0..count).map(|_| random.u8(..4) == 0).collect();
                let picked = bench.pick(|index| free[index]);
                let is_right = picked.map_or(!free.contains(&true), |index| free[index]);
                assert!(is_right, "{policy:?}: {picked:?} of {free:?}");
                bench.lanes.lane(round % 2).begin(random.u32(..count as u32));
                bench.now += Duration::from_millis(random.u64(..2000));
            }
        }
    }
}

#[test]
fn whatever_the_policy_only_the_eligible_endpoints_of_its_tier_are_picked() {
    let mut endpoints = endpoints_of(&[1; 8]);
    endpoints[0].tier = Tier::Backup;
    endpoints[2].standing = Standing::Out;
    endpoints[3].standing = Standing::Draining;
    endpoints[5].standing = Standing::Trial;
    endpoints[6].address = None;
    for policy in POLICIES {
        let config = config_of(policy);
        let mut bench = Bench::with(&config, endpoints.clone());
        let counts = bench.counts(800);
        let picked: Vec<usize> = (0..8).filter(|index| counts[*index] > 0).collect();
        assert_eq!(picked, [1, 4, 5, 7], "{policy:?}");
        bench.balance = Balance::new(&config, &endpoints, Tier::Backup);
        assert_eq!(bench.counts(10), [10, 0, 0, 0, 0, 0, 0, 0], "{policy:?}");
        endpoints[0].standing = Standing::Out;
        bench.balance = Balance::new(&config, &endpoints, Tier::Backup);
        assert_eq!(bench.pick(|_| true), None, "{policy:?}: an empty tier");
        endpoints[0].standing = Standing::Open;
    }
}

#[test]
fn whatever_the_policy_shares_under_load_follow_the_weights() {
    let weights = [1, 2, 4, 1];
    for policy in POLICIES {
        let counts = Bench::new(policy, &weights).run(40_000, |_| 40);
        for (found, weight) in counts.iter().zip(weights) {
            let expected = 40_000.0 * f64::from(weight) / 8.0;
            let off = (*found as f64 - expected).abs() / expected;
            assert!(off < 0.1, "{policy:?}: {counts:?}");
        }
    }
}

#[test]
fn turns_are_taken_in_smooth_order() {
    assert_eq!(Bench::new(Policy::RoundRobin, &[5, 1, 1]).order(14), "aabacaaaabacaa");
    assert_eq!(Bench::new(Policy::RoundRobin, &[3, 1, 1]).order(7), "abacaab");
    let mut bench = Bench::new(Policy::RoundRobin, &[1, 1, 1]);
    let picks: Vec<_> = (0..4).map(|_| bench.pick(|index| index != 1)).collect();
    assert_eq!(picks, [Some(0), Some(2), Some(0), Some(2)]);
}

#[test]
fn workers_start_at_different_turns() {
    let mut bench = Bench::new(Policy::RoundRobin, &[1; 8]);
    let mut first: Vec<usize> = (0..8)
        .map(|worker| {
            bench.cursor = Cursor::new(worker);
            bench.pick(|_| true).unwrap()
        })
        .collect();
    first.sort_unstable();
    first.dedup();
    assert!(first.len() >= 6, "{first:?}");
}

#[test]
fn a_cursor_goes_on_when_the_pool_changes() {
    let mut bench = Bench::new(Policy::RoundRobin, &[1; 8]);
    assert_eq!(bench.order(6), "abcdef");
    for count in [8, 7, 6] {
        let weights = vec![1; count];
        bench.endpoints = endpoints_of(&weights);
        bench.balance =
            Balance::new(&config_of(Policy::RoundRobin), &bench.endpoints, Tier::Primary);
        assert!(bench.pick(|_| true).is_some());
    }
}

#[test]
fn draws_keep_to_the_weights_when_idle() {
    let weights = [1, 2, 3, 4, 10, 20];
    for policy in [Policy::Random, Policy::P2c] {
        check_shares(&Bench::new(policy, &weights).counts(100_000), &weights);
    }
    // One that is busy leaves its share to the others in proportion.
    let mut bench = Bench::new(Policy::Random, &weights);
    let mut counts = [0; 5];
    for _ in 0..100_000 {
        counts[bench.pick(|index| index != 5).unwrap()] += 1;
    }
    check_shares(&counts, &weights[..5]);
}

#[test]
fn an_idle_pool_goes_round_under_least_connections() {
    assert_eq!(Bench::new(Policy::LeastConnections, &[1, 1, 1]).order(7), "abcabca");
}

#[test]
fn least_connections_sees_all_workers_and_heeds_weights() {
    // Requests in flight through worker 0 and 1, and the weight.
    for (loads, expected) in [
        (&[(2, 0, 1), (0, 1, 1), (1, 1, 1)][..], 1),
        (&[(0, 3, 1), (3, 0, 1), (1, 1, 1)], 2),
        // 2 requests for a weight of 1 against 5 for 4, then against 9 for 4.
        (&[(1, 0, 1), (4, 0, 4)], 1),
        (&[(1, 0, 1), (4, 4, 4)], 0),
    ] {
        let weights: Vec<u32> = loads.iter().map(|(_, _, weight)| *weight).collect();
        let mut bench = Bench::new(Policy::LeastConnections, &weights);
        for (slot, (first, second, _)) in (0..).zip(loads) {
            (0..*first).for_each(|_| bench.lanes.lane(0).begin(slot));
            (0..*second).for_each(|_| bench.lanes.lane(1).begin(slot));
        }
        assert_eq!(bench.pick(|_| true), Some(expected), "{loads:?}");
    }
}

#[test]
fn of_two_the_one_with_fewer_requests_is_picked() {
    let mut bench = Bench::new(Policy::P2c, &[1, 1]);
    bench.lanes.lane(1).begin(0);
    assert_eq!(bench.order(100), "b".repeat(100));
    // Of three, the busiest always meets a better one.
    let mut bench = Bench::new(Policy::P2c, &[1, 1, 1]);
    bench.lanes.lane(0).begin(2);
    let counts = bench.counts(30_000);
    assert_eq!(counts[2], 0);
    check_shares(&counts[..2], &[1, 1]);
}

#[test]
fn loads_stay_level_when_one_endpoint_is_slow() {
    let steps_of = |index| if index == 0 { 400 } else { 20 };
    for policy in [Policy::LeastConnections, Policy::P2c] {
        let counts = Bench::new(policy, &[1; 4]).run(40_000, steps_of);
        assert!(counts[0] > 200 && counts[0] < 2_000, "{policy:?}: {counts:?}");
    }
}

#[test]
fn a_slow_endpoint_gets_a_small_share_under_ewma_but_one() {
    let steps_of = |index| if index == 0 { 100 } else { 2 };
    let counts = Bench::new(Policy::Ewma, &[1; 4]).run(60_000, steps_of);
    // 60 seconds: once a second it is tried, whatever it costs.
    assert!(counts[0] >= 30 && counts[0] < 600, "{counts:?}");
    assert!(counts[1..].iter().all(|count| *count > 15_000), "{counts:?}");
}

#[test]
fn an_endpoint_that_was_slow_comes_back() {
    let mut bench = Bench::new(Policy::Ewma, &[1; 4]);
    bench.run(20_000, |index| if index == 0 { 100 } else { 2 });
    bench.run(60_000, |_| 2);
    let counts = bench.run(20_000, |_| 2);
    assert!(counts[0] > 2_000, "{counts:?}");
}

#[test]
fn a_newcomer_is_tried_at_once_and_not_overrun() {
    let mut bench = Bench::new(Policy::Ewma, &[1; 10]);
    bench.run(10_000, |_| 20);
    // Slot 3 has another endpoint, and none of its answers comes for a while.
    bench.endpoints[3].slot.generation = 1;
    bench.balance = Balance::new(&config_of(Policy::Ewma), &bench.endpoints, Tier::Primary);
    let tried = (0..100).position(|_| bench.pick(|_| true) == Some(3));
    assert!(tried.is_some_and(|tried| tried < 50), "{tried:?}");
    let counts = bench.run(200, |index| if index == 3 { 500 } else { 20 });
    assert!(counts[3] < 20, "{counts:?}");
}

#[test]
fn a_late_answer_of_the_endpoint_before_is_not_counted() {
    let mut bench = Bench::new(Policy::Ewma, &[1, 1]);
    bench.endpoints[0].slot.generation = 1;
    bench.balance = Balance::new(&config_of(Policy::Ewma), &bench.endpoints, Tier::Primary);
    for index in [0, 1] {
        assert!(bench.pick(|free| free == index).is_some());
        bench.cursor.observe(bench.endpoints[index].slot, STEP, bench.now);
    }
    bench.cursor.observe(Slot { number: 0, generation: 0 }, STEP * 1000, bench.now);
    let counts = bench.counts(1000);
    check_shares(&counts, &[1, 1]);
}

#[test]
fn a_peak_counts_at_once_and_fades() {
    let mut bench = Bench::new(Policy::Ewma, &[1, 1]);
    for (slot, steps) in [(0, 1), (0, 30), (0, 1), (1, 10)] {
        let slot = Slot { number: slot, generation: 0 };
        bench.cursor.observe(slot, STEP * steps, bench.now);
    }
    // Both were tried just now.
    assert!(bench.pick(|free| free == 0).is_some() && bench.pick(|free| free == 1).is_some());
    assert_eq!(bench.order(20), "b".repeat(20));
    // A quicker answer long after takes most of the peak away: 30 * 10 / 50 + 1 * 40 / 50.
    bench.now += Duration::from_secs(40);
    bench.cursor.observe(Slot { number: 0, generation: 0 }, STEP, bench.now);
    bench.cursor.observe(Slot { number: 1, generation: 0 }, STEP * 10, bench.now);
    assert!(bench.pick(|free| free == 0).is_some() && bench.pick(|free| free == 1).is_some());
    assert_eq!(bench.order(20), "a".repeat(20));
}

/// The endpoints of many keys, by their ids.
fn owners(bench: &mut Bench) -> Vec<String> {
    (0..KEYS)
        .map(|key: u32| {
            let index = bench.pick_for(hash::of_bytes(&key.to_le_bytes(), 1), |_| true).unwrap();
            bench.endpoints[index].id.clone()
        })
        .collect()
}

#[test]
fn a_removed_endpoint_moves_little_more_than_its_own_keys() {
    let all = endpoints_of(&[1; 10]);
    let before = owners(&mut Bench::with(&config_of(Policy::Maglev), all.clone()));
    for removed in 0..all.len() {
        let mut rest = all.clone();
        rest.remove(removed);
        let after = owners(&mut Bench::with(&config_of(Policy::Maglev), rest));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        let percent = moved as f64 * 100.0 / f64::from(KEYS);
        assert!((8.0..12.0).contains(&percent), "{percent} % moved without {removed}");
    }
}

#[test]
fn processes_with_the_same_seed_send_a_key_to_the_same_endpoint() {
    let weights = [1, 2, 3, 4, 5, 6];
    let endpoints = endpoints_of(&weights);
    let mut reversed = endpoints.clone();
    reversed.reverse();
    let mut config = config_of(Policy::Maglev);
    let here = owners(&mut Bench::with(&config, endpoints.clone()));
    assert_eq!(here, owners(&mut Bench::with(&config, reversed)));
    config.hash_seed = 2;
    let other = owners(&mut Bench::with(&config, endpoints));
    assert!(here.iter().zip(&other).any(|(a, b)| a != b));
}

#[test]
fn keys_are_shared_out_by_weight() {
    let weights = [1, 2, 3, 4, 10];
    let counts = Bench::new(Policy::Maglev, &weights).counts(200_000);
    for (found, weight) in counts.iter().zip(weights) {
        let expected = 10_000.0 * f64::from(weight);
        assert!((*found as f64 - expected).abs() < expected * 0.05, "{counts:?}");
    }
}

#[test]
fn a_hot_key_is_held_to_the_bound_and_goes_to_few_others() {
    let mut config = config_of(Policy::Maglev);
    config.hash_balance_percent = NonZeroU32::new(125);
    let weights = [1, 1, 2, 4, 2];
    let mut bench = Bench::with(&config, endpoints_of(&weights));
    let first = bench.pick_for(HOT, |_| true);
    for total in 1..=1000_u32 {
        let index = bench.pick_for(HOT, |_| true).unwrap();
        let slot = bench.endpoints[index].slot.number;
        bench.lanes.lane(total as usize % 2).begin(slot);
        let bound = 1.25 * f64::from(weights[index]) * f64::from(total) / 10.0;
        let in_flight = bench.lanes.in_flight(slot);
        assert!(f64::from(in_flight) <= bound.ceil(), "{in_flight} of {bound} on {index}");
    }
    (0..2).for_each(|worker| bench.lanes.lane(worker).reset_gauges());
    assert_eq!(bench.pick_for(HOT, |_| true), first, "idle again, the key has its own endpoint");
}

/// A step of simulated time.
const STEP: Duration = Duration::from_millis(1);
/// Keys whose moves are counted.
const KEYS: u32 = 50_000;
const HOT: u64 = 0x0123_4567_89AB_CDEF;
