//! Whose word counts, what a write does, and what it may not.

use super::*;
use crate::config::Mode;
use crate::control::handle::{Patch, What, Write};
use crate::control::refusal::Refusal;
use crate::control::tests::backend;

fn registry() -> Registry {
    Registry::new(["default".to_owned(), "other".to_owned()], 100)
}

fn name(port: u16) -> Name {
    Name { pool: "default".to_owned(), authority: format!("h:{port}") }
}

/// An update of backends, whose weights tell by whom they were named.
fn update(source: Source, origin: &str, weight: u16, ports: &[u16]) -> Update {
    let found = |port: &u16| {
        let mut backend = backend("h", *port, Mode::Ready);
        backend.weight = weight.try_into().unwrap();
        Found { pool: "default".to_owned(), backend }
    };
    let backends = ports.iter().map(found).collect();
    Update { source, origin: origin.to_owned(), backends, mark: None, told: None }
}

fn write(registry: &mut Registry, port: u16, what: What) -> Result<Vec<Turn>, Refusal> {
    registry.write(Write { name: name(port), what, expected: None })
}

fn weigh(weight: u16) -> What {
    What::Patch(Patch { weight: Some(weight), ..Patch::default() })
}

fn add(port: u16) -> What {
    What::Add(backend("h", port, Mode::Ready))
}

/// The backends of the first pool as `port=weight/source`.
fn shown(registry: &Registry) -> String {
    let show = |(name, entry): (&Name, &Entry)| {
        let port = name.authority.split(':').next_back().unwrap_or_default();
        format!("{port}={}/{}", entry.backend.weight, entry.source)
    };
    registry.decided.iter().map(show).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_first_source_that_names_a_backend_decides() {
    let mut registry = registry();
    for (source, origin, weight, ports, expected) in [
        (Source::Dns, "a", 5, &[1, 2][..], "1=5/dns 2=5/dns"),
        (Source::Etcd, "b", 4, &[1], "1=4/etcd 2=5/dns"),
        (Source::File, "c", 3, &[1, 3], "1=3/file 2=5/dns 3=3/file"),
        (Source::Flags, "d", 2, &[3], "1=3/file 2=5/dns 3=2/flags"),
        (Source::File, "c", 6, &[1], "1=6/file 2=5/dns 3=2/flags"),
        (Source::File, "c", 6, &[], "1=4/etcd 2=5/dns 3=2/flags"),
        (Source::Dns, "z", 7, &[2, 4], "1=4/etcd 2=5/dns 3=2/flags 4=7/dns"),
        (Source::Dns, "a", 5, &[], "1=4/etcd 2=7/dns 3=2/flags 4=7/dns"),
        (Source::Etcd, "b", 4, &[], "2=7/dns 3=2/flags 4=7/dns"),
    ] {
        registry.hear(update(source, origin, weight, ports));
        assert_eq!(shown(&registry), expected, "after {source} {origin}");
    }
}

#[test]
fn what_is_said_again_turns_nothing() {
    let mut registry = registry();
    assert_eq!(registry.hear(update(Source::File, "f", 1, &[2, 1])).len(), 2);
    assert!(registry.hear(update(Source::File, "f", 1, &[1, 2])).is_empty());
    assert!(registry.hear(update(Source::Dns, "d", 9, &[1])).is_empty());
    let turns = registry.hear(update(Source::File, "f", 1, &[2, 3]));
    let names: Vec<_> = turns.iter().map(|turn| turn.name.authority.as_str()).collect();
    assert_eq!(names, ["h:1", "h:3"]);
    assert_eq!(turns[0].after.as_ref().unwrap().source, Source::Dns);
}

#[test]
fn backends_come_in_the_order_in_which_they_are_named() {
    let turns = registry().hear(update(Source::Flags, "flags", 1, &[3, 1, 2]));
    let names: Vec<_> = turns.iter().map(|turn| turn.name.authority.as_str()).collect();
    assert_eq!(names, ["h:3", "h:1", "h:2"]);
}

#[test]
fn a_write_goes_before_all_sources_until_it_is_reset() {
    let mut registry = registry();
    registry.hear(update(Source::Flags, "flags", 2, &[1]));
    for (port, what, expected) in [
        (1, weigh(9), Ok("1=9/api")),
        (1, weigh(9), Ok("1=9/api")),
        (1, What::Reset, Ok("1=2/flags")),
        (1, What::Reset, Ok("1=2/flags")),
        (1, What::Remove, Ok("")),
        (1, What::Remove, Err(Refusal::UnknownBackend("default/h:1".to_owned()))),
        (1, weigh(3), Err(Refusal::UnknownBackend("default/h:1".to_owned()))),
        (1, What::Reset, Ok("1=2/flags")),
        (1, What::Remove, Ok("")),
        (1, add(1), Ok("1=1/api")),
        (1, add(1), Err(Refusal::Exists("default/h:1".to_owned()))),
        (2, add(2), Ok("1=1/api 2=1/api")),
        (2, weigh(4), Ok("1=1/api 2=4/api")),
        (2, What::Remove, Ok("1=1/api")),
        (2, What::Reset, Err(Refusal::UnknownBackend("default/h:2".to_owned()))),
    ] {
        let told = format!("{what:?} of {port}");
        let before = shown(&registry);
        match (write(&mut registry, port, what), expected) {
            (Ok(_), Ok(expected)) => assert_eq!(shown(&registry), expected, "after {told}"),
            (Err(refusal), Err(expected)) => {
                assert_eq!(refusal, expected, "{told}");
                assert_eq!(shown(&registry), before, "{told} is refused and changes nothing");
            }
            (done, expected) => panic!("{told}: {done:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_removal_outlives_what_its_source_says_and_a_change_does_not_outlive_its_source() {
    let mut registry = registry();
    registry.hear(update(Source::Etcd, "e", 2, &[1, 2]));
    write(&mut registry, 1, What::Remove).unwrap();
    write(&mut registry, 2, weigh(9)).unwrap();
    registry.hear(update(Source::Etcd, "e", 3, &[1, 2]));
    assert_eq!(shown(&registry), "2=9/api");
    registry.hear(update(Source::Etcd, "e", 3, &[]));
    assert_eq!(shown(&registry), "");
    registry.hear(update(Source::Etcd, "e", 3, &[1, 2]));
    assert_eq!(shown(&registry), "2=9/api");
}

#[test]
fn two_writers_never_lose_a_change() {
    let mut registry = registry();
    registry.hear(update(Source::Flags, "flags", 2, &[1]));
    let seen = registry.get(&name(1)).unwrap().revision;
    assert!(seen > Revision(100));
    let write = |registry: &mut Registry, weight, expected| {
        registry.write(Write { name: name(1), what: weigh(weight), expected: Some(expected) })
    };
    write(&mut registry, 5, seen).unwrap();
    let now = registry.get(&name(1)).unwrap().revision;
    assert_eq!(write(&mut registry, 6, seen), Err(Refusal::Conflict(now)));
    assert_eq!(shown(&registry), "1=5/api");
    // What a source says is a change as well.
    registry.write(Write { name: name(1), what: What::Reset, expected: Some(now) }).unwrap();
    let reset = registry.get(&name(1)).unwrap().revision;
    assert!(reset > now);
    let gone = Write { name: name(9), what: What::Remove, expected: Some(reset) };
    assert_eq!(registry.write(gone), Err(Refusal::UnknownBackend("default/h:9".to_owned())));
}

#[test]
fn values_out_of_range_are_refused() {
    let mut registry = registry();
    registry.hear(update(Source::Flags, "flags", 2, &[1]));
    let none = Patch::default();
    for patch in [
        Patch { weight: Some(0), ..none },
        Patch { weight: Some(257), ..none },
        Patch { conns_max: Some(Some(0)), ..none },
    ] {
        let refused = write(&mut registry, 1, What::Patch(patch));
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{patch:?}: {refused:?}");
    }
    let elsewhere = Name { pool: "nowhere".to_owned(), ..name(1) };
    let write = Write { name: elsewhere, what: weigh(1), expected: None };
    assert_eq!(registry.write(write), Err(Refusal::UnknownPool("nowhere".to_owned())));
}

#[test]
fn what_has_no_room_comes_in_when_there_is_some() {
    let mut registry = registry();
    let ports: Vec<u16> = (1..=BACKENDS_MAX as u16 + 2).collect();
    let turns = registry.hear(update(Source::File, "f", 1, &ports));
    assert_eq!((turns.len(), registry.left_out().count()), (BACKENDS_MAX, 2));
    assert_eq!(write(&mut registry, 9999, add(9999)), Err(Refusal::TooMany));
    let turns = write(&mut registry, 1, What::Remove).unwrap();
    assert_eq!((turns.len(), registry.left_out().count()), (2, 1));
    assert_eq!((&turns[0].after, registry.decided.len()), (&None, BACKENDS_MAX));
}

#[test]
fn what_names_no_pool_comes_in_with_its_pool() {
    let mut registry = registry();
    let mut found = update(Source::Etcd, "e", 1, &[1]);
    found.backends[0].pool = "later".to_owned();
    assert!(registry.hear(found).is_empty());
    registry.hear(update(Source::Etcd, "f", 1, &[2]));
    let turns = registry.set_pools(["later".to_owned()]);
    let come: Vec<_> =
        turns.iter().map(|turn| (turn.name.to_string(), turn.after.is_some())).collect();
    assert_eq!(come, [("default/h:2".to_owned(), false), ("later/h:1".to_owned(), true)]);
}

#[test]
fn removals_of_what_nobody_names_make_room_for_others() {
    let mut registry = registry();
    let all = SAID_MAX as u16;
    for ports in [1..=all / 2, all / 2 + 1..=all] {
        let ports: Vec<u16> = ports.collect();
        registry.hear(update(Source::Etcd, "e", 1, &ports));
        for port in ports {
            write(&mut registry, port, What::Remove).unwrap();
        }
    }
    assert_eq!(registry.api.len(), SAID_MAX);
    write(&mut registry, 60_000, add(60_000)).unwrap();
    assert_eq!(registry.api.len(), SAID_MAX / 2 + 1);
    assert_eq!(shown(&registry), "60000=1/api");
}
