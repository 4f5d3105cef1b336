//! Who is told of a freed place, over several workers.

use std::num::NonZeroU32;

use super::*;

fn list_of(workers: usize, requests_max: u32) -> Arc<Waitlist> {
    let mailboxes = (0..workers).map(|_| Mailbox::new().unwrap().0).collect();
    Waitlist::new(mailboxes, requests_max)
}

fn limits(conns: u32) -> Arc<Limits> {
    Arc::new(Limits::new(NonZeroU32::new(conns), None, None))
}

/// The workers that were told since the last call.
fn told(list: &Waitlist) -> Vec<usize> {
    let workers = list.mailboxes.iter().enumerate();
    workers.filter(|(_, mailbox)| mailbox.take_places_freed()).map(|(worker, _)| worker).collect()
}

fn take(list: &Arc<Waitlist>, pool: PoolId, limits: &Arc<Limits>) -> Box<Place> {
    Waitlist::take_place(list, pool, limits).unwrap()
}

#[test]
fn freed_places_are_offered_to_the_workers_that_wait_in_turn() {
    let (list, limits) = (list_of(3, 9), limits(4));
    let mut places: Vec<_> = (0..4).map(|_| take(&list, POOL, &limits)).collect();
    assert!(Waitlist::take_place(&list, POOL, &limits).is_none());
    places.pop();
    assert!(told(&list).is_empty(), "nobody waits");
    let _entries = [0, 2].map(|worker| Waitlist::enter(&list, worker, POOL, None));
    let mut all: Vec<_> = (0..3)
        .map(|_| {
            places.pop();
            told(&list)
        })
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all, [[0], [2]]);
}

#[test]
fn a_place_is_offered_to_nobody_who_waits_for_another_pool() {
    let (list, limits) = (list_of(2, 9), limits(1));
    let _other = [0, 1].map(|worker| Waitlist::enter(&list, worker, OTHER, None));
    let place = take(&list, POOL, &limits);
    assert!(!list.is_anothers_turn(0, &place) && !list.is_anothers_turn(1, &place));
    drop(place);
    assert!(told(&list).is_empty());
    assert_eq!([0, 1].map(|worker| list.another(worker, POOL)), [None, None]);
    let _own = Waitlist::enter(&list, 1, POOL, None);
    drop(take(&list, POOL, &limits));
    assert_eq!(told(&list), [1]);
    assert_eq!([0, 1].map(|worker| list.another(worker, POOL)), [Some(1), None]);
}

#[test]
fn workers_that_wait_have_their_turn_alike_whichever_of_them_do_not() {
    let (list, limits) = (list_of(8, 9), limits(1));
    let _entries = [0, 1, 5].map(|worker| Waitlist::enter(&list, worker, POOL, None));
    let mut turns = [0; 8];
    let kept = take(&list, POOL, &limits);
    for _ in 0..30 {
        // One keeps what it has when it is its own turn.
        if !list.is_anothers_turn(5, &kept) {
            turns[5] += 1;
            continue;
        }
        list.offer(POOL, &limits);
        told(&list).into_iter().for_each(|worker| turns[worker] += 1);
    }
    assert_eq!(turns, [10, 10, 0, 0, 0, 10, 0, 0]);
}

#[test]
fn a_place_that_no_worker_has_a_use_for_is_passed_on_to_each_once() {
    let (list, limits) = (list_of(6, 9), limits(1));
    let _entries = [0, 2, 3, 5].map(|worker| Waitlist::enter(&list, worker, POOL, None));
    for first in [2, 3, 5, 0, 2] {
        drop(take(&list, POOL, &limits));
        let mut passed = told(&list);
        while let Some(next) = passed.last().and_then(|last| list.another(*last, POOL)) {
            passed.push(next);
            assert!(passed.len() <= 4, "for ever: {passed:?}");
        }
        assert_eq!(passed[0], first);
        passed.sort();
        assert_eq!(passed, [0, 2, 3, 5]);
    }
    // One whose requests have left passes it on to whoever is next.
    assert_eq!([1, 4].map(|worker| list.another(worker, POOL)), [Some(3); 2]);
}

#[test]
fn an_entry_waits_for_what_it_was_changed_to() {
    let (list, limits) = (list_of(2, 1), limits(1));
    let mut entry = Waitlist::enter(&list, 1, POOL, Some(limits.clone())).unwrap();
    let other = Arc::new(Limits::new(NonZeroU32::new(1), None, None));
    for (alone, of_this, of_other) in
        [(None, true, true), (Some(&other), false, true), (Some(&limits), true, false)]
    {
        entry.change(alone.cloned());
        assert!(Waitlist::enter(&list, 0, POOL, None).is_none(), "it is still the only one");
        for (limits, is_told) in [(&limits, of_this), (&other, of_other)] {
            drop(take(&list, POOL, limits));
            assert_eq!(!told(&list).is_empty(), is_told);
        }
    }
    drop(entry);
    drop(take(&list, POOL, &limits));
    assert!(told(&list).is_empty() && list.is_empty());
}

#[test]
fn each_pool_has_turns_of_its_own() {
    let (list, limits) = (list_of(2, 9), limits(1));
    let pools = [POOL, OTHER];
    let _entries =
        pools.map(|pool| [0, 1].map(|worker| Waitlist::enter(&list, worker, pool, None)));
    let mut told_of = pools.map(|_| Vec::new());
    for _ in 0..2 {
        for (pool, told_of) in pools.iter().zip(&mut told_of) {
            drop(take(&list, *pool, &limits));
            told_of.extend(told(&list));
        }
    }
    told_of.iter_mut().for_each(|workers| workers.sort());
    assert_eq!(told_of, [[0, 1], [0, 1]]);
}

#[test]
fn no_more_requests_wait_than_may() {
    let list = list_of(2, 2);
    let entries: Vec<_> = (0..3).map(|n| Waitlist::enter(&list, n % 2, PoolId(n), None)).collect();
    assert_eq!(entries.iter().flatten().count(), 2);
    drop(entries);
    assert!(Waitlist::enter(&list, 1, POOL, None).is_some());
}

#[test]
fn a_worker_keeps_its_connection_unless_another_is_next() {
    let (list, limits) = (list_of(2, 9), limits(1));
    let place = take(&list, POOL, &limits);
    assert!(!list.is_anothers_turn(0, &place), "nobody waits");
    let _other = Waitlist::enter(&list, 1, POOL, None);
    assert!(list.is_anothers_turn(0, &place) && !list.is_anothers_turn(1, &place));
    let _own = Waitlist::enter(&list, 0, POOL, None);
    let turns: Vec<_> = (0..4)
        .map(|_| {
            let is_anothers = list.is_anothers_turn(0, &place);
            if is_anothers {
                list.offer(POOL, &limits);
            }
            is_anothers
        })
        .collect();
    assert!(turns.contains(&true) && turns.contains(&false), "{turns:?}");
}

#[test]
fn a_place_goes_to_those_who_wait_for_its_endpoint() {
    let (list, wanted, other) = (list_of(3, 9), limits(1), limits(1));
    let [wanted_place, other_place] = [&wanted, &other].map(|limits| take(&list, POOL, limits));
    let _alone = Waitlist::enter(&list, 2, POOL, Some(wanted));
    assert!(list.is_anothers_turn(0, &wanted_place) && !list.is_anothers_turn(0, &other_place));
    assert!(!list.is_anothers_turn(2, &wanted_place));
    drop(other_place);
    assert!(told(&list).is_empty());
    let _any = Waitlist::enter(&list, 1, POOL, None);
    drop(wanted_place);
    assert_eq!(told(&list), [1, 2]);
}

const POOL: PoolId = PoolId(0);
const OTHER: PoolId = PoolId(POOLS_MAX - 1);
