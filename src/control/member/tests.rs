//! What an endpoint's mode, probes, agent, ejection and breaker make of it together.

use super::*;
use crate::config::Config;
use crate::control::tests::{backend, config, entry};
use crate::health::agent;

const START: Duration = Duration::from_secs(20);

fn configuration() -> Config {
    config(&[], Duration::from_secs(1))
}

fn member(mode: Mode) -> Member {
    member_of(backend("127.0.0.1", 80, mode), InitialHealth::Probe)
}

fn member_of(backend: BackendConfig, initial: InitialHealth) -> Member {
    let mut config = configuration();
    config.pools[0].health.initial = initial;
    let slot = Slot { number: 0, generation: 0 };
    Member::new(slot, entry(backend), &config.pools[0], Tally::default(), Instant::now())
}

/// The standing of an endpoint with this mode that these words befell, and the one while its pool
/// is panicking.
#[track_caller]
fn check(mode: Mode, words: &str, heeding: Standing, panicking: Standing) {
    let (config, now) = (configuration(), Instant::now());
    let mut member = member(mode);
    for word in words.split_whitespace() {
        match word {
            "up" => member.is_healthy = true,
            "ejected" => member.ejection = member.ejection.eject(now, &config.pools[0].eject),
            "open" => member.breaker = Breaker::Open { until: now },
            "half-open" => {
                member.breaker = Breaker::HalfOpen { until: now, begun: Tally::default() };
            }
            word => {
                let line = word.strip_prefix("agent:").unwrap();
                member.agent = member.agent.observe(&agent::parse(line));
            }
        }
    }
    let standings = (member.standing(false), member.standing(true));
    assert_eq!(standings, (heeding, panicking), "{mode:?}, {words}");
}

#[test]
fn the_strictest_of_all_counts() {
    use Mode::{Drain, Maintenance, Ready};
    use Standing::{Draining, Open, Out, Trial};
    check(Ready, "", Out, Open);
    check(Ready, "up", Open, Open);
    check(Ready, "up ejected", Out, Open);
    check(Ready, "up open", Out, Open);
    check(Ready, "up half-open", Trial, Open);
    check(Ready, "up half-open ejected", Out, Open);
    check(Ready, "half-open", Out, Open);
    check(Ready, "up agent:down", Out, Open);
    check(Ready, "up agent:down agent:up", Open, Open);
    check(Ready, "agent:up", Out, Open);
    check(Ready, "up agent:down agent:ready", Out, Open);
    check(Ready, "up agent:drain", Draining, Draining);
    check(Ready, "up agent:drain agent:up", Draining, Draining);
    check(Ready, "up agent:drain agent:down", Out, Out);
    check(Ready, "up agent:0%", Draining, Draining);
    check(Ready, "agent:drain", Out, Out);
    check(Ready, "up agent:maint", Out, Out);
    check(Drain, "up", Draining, Draining);
    check(Drain, "", Out, Out);
    check(Drain, "up agent:ready", Draining, Draining);
    check(Drain, "up agent:maint", Out, Out);
    check(Drain, "up ejected", Out, Out);
    check(Maintenance, "up", Out, Out);
}

#[test]
fn a_name_has_no_address_before_it_is_resolved() {
    for (host, id, has_address) in [
        ("localhost", "default/localhost:80", false),
        ("127.0.0.1", "default/127.0.0.1:80", true),
        ("::1", "default/[::1]:80", true),
    ] {
        let backend = backend(host, 80, Mode::Ready);
        for initial in [InitialHealth::Probe, InitialHealth::Up] {
            let member = member_of(backend.clone(), initial);
            let endpoint = &member.endpoint;
            assert_eq!((endpoint.id.as_str(), endpoint.address.is_some()), (id, has_address));
            assert_eq!(member.is_fit(), initial == InitialHealth::Up);
        }
    }
}

#[test]
fn shares_multiply_and_leave_something() {
    for (weight, share, line, expected) in [
        (1, 100, "", 100),
        (1, 50, "", 50),
        (1, 50, "50%", 25),
        (256, 100, "10%", 2560),
        (1, 5, "1%", 1),
        (3, 100, "0%", 3),
    ] {
        let mut member = member(Mode::Ready);
        member.weight = weight * WEIGHT_UNIT;
        member.share = share;
        member.agent = Agent::SILENT.observe(&agent::parse(line));
        assert_eq!(member.weight(Instant::now(), START), expected, "{weight}, {share}, {line}");
    }
}

#[test]
fn weight_grows_in_steps() {
    for (percent_of_start, expected) in
        [(0, 10), (4, 10), (5, 14), (50, 55), (94, 91), (95, 95), (99, 95), (100, 100), (500, 100)]
    {
        let elapsed = START * percent_of_start / 100;
        assert_eq!(growth(elapsed, START), expected, "{percent_of_start} %");
    }
    assert_eq!(growth(Duration::ZERO, Duration::ZERO), 100);
}

#[test]
fn only_what_comes_back_starts_slowly() {
    let mut now = Instant::now();
    let mut member = member(Mode::Ready);
    // Whether it is judged and up, seconds later, and the weight then.
    for (is_judged, is_up, later, expected) in [
        (false, false, 0, 100),
        (true, true, 1, 100),
        (true, false, 1, 100),
        (true, true, 1, 10),
        (true, true, 10, 55),
        (true, true, 9, 95),
        (true, true, 1, 100),
        (true, true, 100, 100),
        (true, false, 1, 100),
        (true, true, 1, 10),
        (true, false, 1, 100),
        (true, true, 1, 10),
    ] {
        now += Duration::from_secs(later);
        (member.is_judged, member.is_healthy) = (is_judged, is_up);
        member.note_fitness(now, START);
        assert_eq!(member.weight(now, START), expected, "{:?}", member.start);
        assert_eq!(member.is_starting(), expected < 100);
    }
}

#[test]
fn what_was_sick_at_first_starts_slowly_too() {
    let now = Instant::now();
    let mut member = member(Mode::Ready);
    member.is_judged = true;
    member.note_fitness(now, START);
    member.is_healthy = true;
    member.note_fitness(now, START);
    assert_eq!(member.weight(now, START), 10);
}
