//! News of endpoints, and what a snapshot then shows.

use std::net::SocketAddr;

use super::*;
use crate::control::tests::{backend, config, entry};
use crate::health::agent::{Agent, parse};
use crate::health::tally::Tally;
use crate::upstream::endpoint::Slot;

const HERE: ([u8; 4], u16) = ([127, 0, 0, 1], 80);
const THERE: ([u8; 4], u16) = ([127, 0, 0, 2], 80);

fn roster(modes: &[Mode], panic_percent: u8) -> Roster {
    let mut config = config(&[], Duration::from_secs(1));
    config.pools[0].balance.panic_percent = panic_percent;
    let (now, config) = (Instant::now(), Arc::new(config.pools.remove(0)));
    let mut roster = Roster::new(config.clone());
    for (number, mode) in (0..).zip(modes) {
        let (slot, entry) = (slot(number), entry(backend("name", 80, *mode)));
        roster.add(Member::new(slot, entry, &config, Tally::default(), now));
    }
    roster.refresh(now);
    roster
}

fn slot(number: u32) -> Slot {
    Slot { number, generation: 0 }
}

fn verdict(number: u32, healthy: bool, address: impl Into<SocketAddr>) -> News {
    let address = Some(address.into());
    News::Verdict(Verdict {
        slot: slot(number),
        healthy,
        passed: healthy,
        address,
        share: 100,
        why: "a test".to_owned(),
    })
}

fn report(number: u32, line: &str) -> News {
    let agent = Agent::SILENT.observe(&parse(line));
    News::Agent(Report { slot: slot(number), agent, why: "a test".to_owned() })
}

/// The standings: `O`pen, `T`rial, `D`raining or `-` for out, and `!` in a panic.
fn shown(roster: &Roster) -> String {
    let letter = |endpoint: Endpoint| match endpoint.standing {
        Standing::Open => 'O',
        Standing::Trial => 'T',
        Standing::Draining => 'D',
        Standing::Out => '-',
    };
    let panic = roster.is_panicking().then_some('!');
    roster.endpoints().into_iter().map(letter).chain(panic).collect()
}

/// Applies each of the news and compares what is shown after each; a new picture is a change.
#[track_caller]
fn check(mut roster: Roster, news: Vec<(News, &str)>) {
    for (one, expected) in news {
        let (before, told) = (shown(&roster), format!("{one:?}"));
        roster.apply(one, Instant::now());
        let is_change = roster.refresh(Instant::now());
        assert_eq!(shown(&roster), expected, "after {told}");
        assert!(is_change || before == expected, "{before} to {expected} is no change");
    }
}

#[test]
fn verdicts_and_reports_are_shown() {
    use Mode::{Drain, Maintenance, Ready};
    let news = vec![
        (verdict(0, true, HERE), "O--"),
        (verdict(1, true, HERE), "OD-"),
        (report(0, "drain"), "DD-"),
        (report(0, "up"), "OD-"),
        (report(0, "down"), "-D-"),
        (verdict(0, true, THERE), "-D-"),
        (report(0, "up 50%"), "OD-"),
        (verdict(1, false, HERE), "O--"),
        (verdict(7, true, HERE), "O--"),
    ];
    check(roster(&[Ready, Drain, Maintenance], 0), news);
}

#[test]
fn panic_begins_below_the_share_and_ends_at_it() {
    use Mode::{Drain, Maintenance, Ready};
    let news = vec![
        // Nobody panics before all were probed.
        (verdict(0, false, HERE), "----"),
        (verdict(2, true, HERE), "--D-"),
        (verdict(1, false, HERE), "OOD-!"),
        (verdict(1, true, HERE), "-OD-"),
        (report(1, "down"), "OOD-!"),
        // What drains or is in maintenance counts neither way.
        (report(0, "maint"), "-OD-!"),
        (report(1, "up"), "-OD-"),
        (report(1, "maint"), "--D-"),
    ];
    check(roster(&[Ready, Ready, Drain, Maintenance], 50), news);
}

#[test]
fn a_move_is_a_change_and_a_new_generation() {
    let mut roster = roster(&[Mode::Ready], 0);
    let shown = |roster: &Roster| roster.endpoints()[0].slot;
    let now = Instant::now();
    for (address, is_change, generation) in
        [(HERE, true, 0), (HERE, false, 0), (THERE, true, 1), (HERE, true, 2)]
    {
        roster.apply(verdict(0, true, address), now);
        assert_eq!(roster.refresh(now), is_change);
        assert_eq!(shown(&roster), Slot { number: 0, generation });
    }
}

#[test]
fn an_agents_share_is_shown_in_the_weight() {
    let mut roster = roster(&[Mode::Ready], 0);
    roster.apply(report(0, "30%"), Instant::now());
    assert!(roster.refresh(Instant::now()));
    assert_eq!(roster.endpoints()[0].weight, 30);
}

#[test]
fn a_weight_is_told_once_a_second_and_at_last() {
    let mut roster = roster(&[Mode::Ready], 0);
    let begun = Instant::now();
    for (line, later, told) in [
        // What takes no requests has no weight.
        ("30%", 0, [100, 100, 100]),
        ("40%", 100, [100, 40, 100]),
        ("50%", 200, [100, 40, 100]),
        ("50%", 1099, [100, 40, 100]),
        ("50%", 1100, [100, 50, 100]),
        ("50%", 9000, [100, 50, 100]),
        ("100%", 9001, [100, 100, 100]),
    ] {
        let now = begun + Duration::from_millis(later);
        roster.apply(report(0, line), now);
        if later > 0 {
            roster.apply(verdict(0, true, HERE), now);
        }
        roster.refresh(now);
        roster.log_weights(now);
        assert_eq!(roster.members[0].told.0, told, "after {line} at {later} ms");
    }
}

#[test]
fn an_endpoint_that_comes_up_again_is_no_longer_ejected() {
    let mut roster = roster(&[Mode::Ready], 0);
    let eject = config(&[], Duration::from_secs(1)).pools[0].eject;
    let now = Instant::now();
    roster.apply(verdict(0, true, HERE), now);
    roster.members[0].ejection = roster.members[0].ejection.eject(now, &eject);
    // A probe that passes on an endpoint that is up says nothing new.
    for (healthy, is_ejected) in [(true, true), (false, true), (true, false)] {
        roster.apply(verdict(0, healthy, HERE), now);
        assert_eq!(roster.members[0].ejection.is_ejected(), is_ejected);
    }
}
