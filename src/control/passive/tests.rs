//! Ejections and breakers, by the outcomes and counts of requests.

use std::num::NonZeroU32;

use super::*;
use crate::config::{Config, Mode};
use crate::control::tests::{backend, config, entry};
use crate::upstream::endpoint::Slot;
use crate::upstream::outcome::{self, Kind};

/// A pool of endpoints that are up, watched.
struct Pool {
    members: Vec<Member>,
    passive: Passive,
    lanes: Lanes,
    sender: crossbeam::channel::Sender<Outcome>,
    outcomes: crossbeam::channel::Receiver<Outcome>,
    now: Instant,
}

impl Pool {
    fn new(endpoints: usize, config: &Config) -> Pool {
        let (now, lanes) = (Instant::now(), Lanes::new(2, endpoints));
        let (sender, outcomes) = outcome::channel();
        let config = &config.pools[0];
        let (eject, breaker) = (config.eject, config.breaker);
        let passive = Passive::new(eject, breaker, lanes.clone(), Arc::default(), now);
        let entry = entry(backend("127.0.0.1", 80, Mode::Ready));
        let member = |number| {
            let slot = Slot { number, generation: 0 };
            let mut member = Member::new(slot, entry.clone(), config, Tally::default(), now);
            (member.is_judged, member.is_healthy) = (true, true);
            member
        };
        Pool {
            members: (0..endpoints as u32).map(member).collect(),
            passive,
            lanes,
            sender,
            outcomes,
            now,
        }
    }

    fn fail(&self, number: u32, generation: u32, successes: u32, times: usize) {
        let slot = Slot { number, generation };
        for _ in 0..times {
            self.sender.try_send(Outcome { slot, kind: Kind::Lost, successes }).unwrap();
        }
    }

    fn count(&self, number: u32, succeeded: u32, failed: u32) {
        (0..succeeded).for_each(|request| {
            self.lanes.lane(request as usize % 2).add_success(number);
        });
        (0..failed).for_each(|_| self.lanes.lane(1).add_failure(number));
    }

    /// Ticks so much later; who is ejected then.
    fn tick(&mut self, later: Duration) -> Vec<usize> {
        self.now += later;
        let outcomes: Vec<Outcome> = self.outcomes.try_iter().collect();
        self.passive.tick(&mut self.members, &outcomes, self.now);
        let ejected = self.members.iter().enumerate().filter(|(_, it)| it.ejection.is_ejected());
        ejected.map(|(index, _)| index).collect()
    }
}

const SOON: Duration = Duration::from_millis(25);

fn consecutive() -> Config {
    let mut config = config(&[], Duration::from_secs(1));
    config.pools[0].eject.consecutive_max = NonZeroU32::new(5);
    config
}

fn success() -> Config {
    let mut config = config(&[], Duration::from_secs(1));
    config.pools[0].eject.success_gap_percent = NonZeroU32::new(20);
    config
}

#[test]
fn failures_in_a_row_eject_for_a_while() {
    let mut pool = Pool::new(3, &consecutive());
    pool.fail(1, 0, 9, 4);
    assert!(pool.tick(SOON).is_empty());
    pool.fail(1, 0, 9, 1);
    assert_eq!(pool.tick(SOON), [1]);
    assert_eq!(pool.tick(Duration::from_millis(29_999)), [1]);
    assert!(pool.tick(Duration::from_millis(1)).is_empty());
    pool.fail(1, 0, 9, 5);
    assert_eq!(pool.tick(SOON), [1]);
    assert_eq!(pool.tick(Duration::from_millis(59_999)), [1]);
    assert_eq!(pool.passive.vitals.ejections.get(), 2);
}

#[test]
fn what_is_no_row_ejects_nobody() {
    let mut pool = Pool::new(3, &consecutive());
    // A success in between.
    pool.fail(0, 0, 9, 4);
    pool.fail(0, 0, 10, 4);
    // The slot of an earlier address.
    pool.fail(1, 7, 0, 10);
    // No slot at all.
    pool.fail(9, 0, 0, 10);
    assert!(pool.tick(SOON).is_empty());
    let mut off = Pool::new(3, &config(&[], SOON));
    off.fail(0, 0, 0, 100);
    assert!(off.tick(SOON).is_empty());
}

#[test]
fn no_more_are_ejected_at_once_than_may_be() {
    for (endpoints, percent_max, expected) in
        [(4, 50, 2), (4, 100, 3), (10, 10, 1), (2, 10, 1), (2, 0, 0), (1, 100, 0)]
    {
        let mut config = consecutive();
        config.pools[0].eject.percent_max = percent_max;
        let mut pool = Pool::new(endpoints, &config);
        for number in 0..endpoints as u32 {
            pool.fail(number, 0, 0, 6);
        }
        let ejected = pool.tick(SOON).len();
        assert_eq!(ejected, expected, "{percent_max} % of {endpoints}");
    }
}

#[test]
fn the_last_eligible_one_is_not_ejected() {
    let mut pool = Pool::new(4, &consecutive());
    pool.members[0].is_healthy = false;
    pool.members[1].mode = Mode::Drain;
    pool.members[2].endpoint.address = None;
    pool.fail(3, 0, 0, 5);
    assert!(pool.tick(SOON).is_empty());
    // The row goes on: once another is back, the next failure ejects.
    pool.members[0].is_healthy = true;
    assert!(pool.tick(SOON).is_empty());
    pool.fail(3, 0, 0, 1);
    assert_eq!(pool.tick(SOON), [3]);
}

#[test]
fn what_is_out_anyway_is_not_ejected() {
    let mut pool = Pool::new(3, &consecutive());
    pool.members[0].is_healthy = false;
    pool.fail(0, 0, 0, 10);
    assert!(pool.tick(SOON).is_empty());
}

#[test]
fn success_far_below_the_peers_ejects_at_the_intervals_end() {
    let mut pool = Pool::new(3, &success());
    for number in 0..2 {
        pool.count(number, 500, 5);
    }
    pool.count(2, 300, 200);
    assert!(pool.tick(Duration::from_millis(9_999)).is_empty());
    assert_eq!(pool.tick(Duration::from_millis(1)), [2]);
}

#[test]
fn success_is_compared_within_an_interval_alone() {
    let mut pool = Pool::new(2, &success());
    // Of old, 1 was bad, but too few requests said so.
    pool.count(0, 1000, 0);
    pool.count(1, 0, 99);
    assert!(pool.tick(Duration::from_secs(10)).is_empty());
    pool.count(0, 1000, 0);
    pool.count(1, 100, 0);
    assert!(pool.tick(Duration::from_secs(10)).is_empty());
}

#[test]
fn two_outliers_do_not_hide_each_other() {
    let mut pool = Pool::new(5, &success());
    for (number, failed) in [(0, 0), (1, 0), (2, 500), (3, 400), (4, 0)] {
        pool.count(number, 500 - failed, failed);
    }
    assert_eq!(pool.tick(Duration::from_secs(10)), [2, 3]);
}

#[test]
fn a_breaker_turns_by_the_lanes() {
    let mut config = config(&[], Duration::from_secs(1));
    config.pools[0].breaker.error_percent = NonZeroU32::new(50);
    let mut pool = Pool::new(2, &config);
    let limits = Arc::clone(&pool.members[1].endpoint.limits);
    pool.count(1, 10, 10);
    pool.tick(SOON);
    assert!(matches!(pool.members[1].breaker, Breaker::Open { .. }));
    assert!(pool.members[0].is_fit() && !limits.has_trial());
    pool.tick(Duration::from_secs(10));
    assert_eq!([(); 4].map(|()| limits.take_trial()), [true, true, true, false]);
    // One trial ends, the others never do.
    pool.count(1, 1, 0);
    pool.tick(Duration::from_secs(10));
    assert_eq!([(); 3].map(|()| limits.take_trial()), [true, true, false]);
    pool.count(1, 2, 0);
    pool.tick(SOON);
    assert!(pool.members[1].is_fit());
    assert_eq!(pool.passive.vitals.breaker_openings.get(), 1);
}
