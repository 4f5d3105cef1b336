//! What requests' outcomes do to a backend whose probes all pass: ejection, breakers, and panic and
//! slow start, which depend on them and on probes.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::{Client, Fate};
use crate::support::load::{Load, Reuse};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Health, Upstream, ok};
use crate::support::{Gate, SOON, wait_until};

/// What a busy machine may add.
const NOISE: Duration = Duration::from_secs(1);
const ERROR: &str = "HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nsick";
const EJECTED: &str = "backend is ejected";
const BACK: &str = "backend is back from ejection";

fn named(name: &str) -> Upstream {
    Upstream::answering(ok(name, false))
}

fn sick() -> Upstream {
    Upstream::answering(ERROR)
}

/// Resets every connection that carries more than a probe.
fn resetting() -> Upstream {
    Upstream::scripted(|served| {
        if served.request().is_some() {
            served.reset_on_return();
        }
    })
}

/// How often a line stands in the log.
fn logged(proxy: &Proxy, line: &str) -> usize {
    proxy.log().matches(line).count()
}

/// The log is written beside the work: a line may come a moment after what it tells of.
#[track_caller]
fn expect_logged(proxy: &Proxy, line: &str, count: usize) {
    wait_until(line, SOON, || logged(proxy, line) == count);
}

/// Sends requests until this many lines stand in the log.
#[track_caller]
fn request_until(client: &mut Client, proxy: &Proxy, line: &str, count: usize) -> Duration {
    wait_until(line, SOON, || {
        client.get("/");
        logged(proxy, line) >= count
    })
}

/// The backend whose requests fail so leaves well within a second, and its requests go elsewhere.
#[track_caller]
fn check_ejected(upstreams: &[&Upstream], kind: &str) {
    let proxy = Flags::to(upstreams)
        .with("--workers", "2")
        .with("--health-interval", "60s")
        .with("--retry-budget-percent", "100")
        .with("--eject-time", "60s")
        .start();
    let took = request_until(&mut proxy.client(), &proxy, EJECTED, 1);
    assert!(took < NOISE, "{took:?}");
    let log = proxy.log();
    assert!(log.contains("5 failures in a row") && log.contains(kind), "{log}");
    assert!(!log.contains("backend is down"), "{log}");
    let mut client = proxy.client();
    // Its snapshot may be on its way.
    wait_until("the others serve", SOON, || (0..20).all(|_| client.get("/").status() == 200));
    let failed = upstreams[2].request_count();
    (0..50).for_each(|_| drop(client.get("/").expect(200)));
    assert_eq!(upstreams[2].request_count(), failed);
}

#[test]
fn a_backend_that_answers_5xx_is_ejected_while_its_probes_pass() {
    check_ejected(&[&named("a"), &named("b"), &sick()], "the last a 500");
}

#[test]
fn a_backend_that_resets_is_ejected_while_its_probes_pass() {
    check_ejected(&[&named("a"), &named("b"), &resetting()], "the last a lost connection");
}

#[test]
fn a_backend_that_refuses_connections_is_ejected_before_its_next_probe() {
    let (a, b, mut refusing) = (named("a"), named("b"), named("c"));
    let proxy = Flags::to(&[&a, &b, &refusing])
        .with("--health-interval", "60s")
        .with("--eject-time", "60s")
        .start();
    refusing.stop();
    let mut client = proxy.client();
    let took = wait_until("it is ejected", SOON, || {
        client.get("/").expect(200);
        logged(&proxy, EJECTED) == 1
    });
    assert!(took < NOISE, "{took:?}");
    expect_logged(&proxy, "the last no connection", 1);
}

#[test]
fn an_ejection_ends_by_itself_and_each_further_one_lasts_twice_as_long() {
    let (well, sick) = (named("well"), sick());
    let proxy = Flags::to(&[&well, &sick]).with("--eject-time", "200ms").start();
    let mut client = proxy.client();
    for (number, millis) in [(1, 200), (2, 400), (3, 800)] {
        request_until(&mut client, &proxy, EJECTED, number);
        let took = request_until(&mut client, &proxy, BACK, number);
        let time = Duration::from_millis(millis);
        // The lower bound is loose: the log was not read at the moment of the ejection.
        assert!(took > time / 3 && took < time + NOISE, "{time:?}: {took:?}");
        assert!(proxy.log().contains(&format!("time={time:?}")), "{}", proxy.log());
        let count = sick.request_count();
        wait_until("it is tried again", SOON, || {
            client.get("/");
            sick.request_count() > count
        });
    }
}

#[test]
fn an_ejection_ends_when_probes_bring_the_backend_back_and_not_by_those_that_always_passed() {
    let (well, sick, mut lost) = (named("well"), sick(), named("lost"));
    let proxy = Flags::to(&[&well, &sick, &lost])
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
        .with("--eject-max-percent", "100")
        .with("--eject-time", "60s")
        .start();
    let mut client = proxy.client();
    request_until(&mut client, &proxy, EJECTED, 1);
    let addr = lost.addr;
    lost.stop();
    request_until(&mut client, &proxy, EJECTED, 2);
    wait_until("it is down as well", SOON, || logged(&proxy, "backend is down") == 1);
    let again = Upstream::scripted_at(addr, |served| {
        while served.request().is_some() {
            served.write(&ok("again", false));
        }
    });
    let failed = sick.request_count();
    let passed = sick.probes_passed();
    wait_until("it is back", SOON, || client.get("/").expect(200).text() == "again");
    wait_until("more probes have passed", SOON, || sick.probes_passed() > passed + 3);
    (0..20).for_each(|_| drop(client.get("/").expect(200)));
    assert_eq!(sick.request_count(), failed, "it is still ejected");
    assert!(again.request_count() > 5);
}

#[test]
fn no_more_backends_are_ejected_at_once_than_the_percentage() {
    for (percent, expected) in [("50", 2), ("25", 1), ("0", 0), ("100", 3)] {
        let upstreams = [sick(), sick(), sick(), sick()];
        let proxy = Flags::to(&upstreams.each_ref())
            .with("--eject-max-percent", percent)
            .with("--eject-time", "60s")
            .with("--eject-success-gap", "0")
            .start();
        let mut client = proxy.client();
        wait_until("so many are ejected", SOON, || {
            client.get("/").expect(500);
            logged(&proxy, EJECTED) == expected
        });
        // Ten times what ejects, and each look at outcomes comes within it.
        let start = Instant::now();
        wait_until("much more has failed", SOON, || {
            (0..50).for_each(|_| drop(client.get("/").expect(500)));
            start.elapsed() > Duration::from_millis(300)
        });
        assert_eq!(logged(&proxy, EJECTED), expected, "of four at {percent} %");
    }
}

#[test]
fn a_single_backend_is_never_ejected() {
    let upstream = sick();
    let proxy = Flags::to(&[&upstream]).with("--eject-max-percent", "100").start();
    let mut client = proxy.client();
    (0..500).for_each(|_| drop(client.get("/").expect(500)));
    assert_eq!(logged(&proxy, EJECTED), 0);
}

#[test]
fn nothing_is_ejected_where_that_is_switched_off() {
    let (well, sick) = (named("well"), sick());
    let proxy = Flags::to(&[&well, &sick])
        .with("--eject-after", "0")
        .with("--eject-success-gap", "0")
        .with("--eject-interval", "100ms")
        .with("--eject-requests-min", "1")
        .start();
    let mut client = proxy.client();
    let start = Instant::now();
    wait_until("two intervals have passed", SOON, || {
        client.get("/");
        start.elapsed() > Duration::from_millis(500) && sick.request_count() > 100
    });
    assert_eq!(logged(&proxy, EJECTED), 0);
}

/// Fails three of ten requests, never two in a row.
fn failing_now_and_then() -> Upstream {
    let count = Arc::new(AtomicUsize::new(0));
    Upstream::scripted(move |served| {
        while served.request().is_some() {
            let fails = matches!(count.fetch_add(1, Relaxed) % 10, 0 | 3 | 6);
            served.write(&if fails { ERROR.as_bytes().to_vec() } else { ok("c", false) });
        }
    })
}

#[test]
fn a_backend_whose_successes_lie_far_below_its_peers_is_ejected() {
    for (gap, expected) in [("20", 1), ("40", 0)] {
        let (a, b, bad) = (named("a"), named("b"), failing_now_and_then());
        let proxy = Flags::to(&[&a, &b, &bad])
            .with("--eject-success-gap", gap)
            .with("--eject-interval", "300ms")
            .with("--eject-requests-min", "50")
            .with("--eject-time", "60s")
            .start();
        let mut client = proxy.client();
        let start = Instant::now();
        wait_until("some intervals have passed", SOON, || {
            (0..20).for_each(|_| drop(client.get("/")));
            let is_over = start.elapsed() > Duration::from_millis(1200);
            logged(&proxy, EJECTED) == 1 || (expected == 0 && is_over)
        });
        assert_eq!(logged(&proxy, EJECTED), expected, "a gap of {gap}: {}", proxy.log());
        assert_eq!(proxy.log().contains("% of its requests succeeded"), expected == 1);
    }
}

#[test]
fn in_panic_all_backends_are_used_until_enough_are_well() {
    let upstreams = ["a", "b", "c", "d"].map(named);
    let proxy = Flags::to(&upstreams.each_ref())
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
        .with("--panic-percent", "50")
        .start();
    let mut client = proxy.client();
    let used = |client: &mut Client| -> usize {
        let names: std::collections::BTreeSet<_> =
            (0..16).map(|_| client.get("/").expect(200).text()).collect();
        names.len()
    };
    assert_eq!(used(&mut client), 4);
    upstreams[0].set_health(Health::Down);
    upstreams[1].set_health(Health::Down);
    wait_until("two of four are no panic", SOON, || used(&mut client) == 2);
    assert_eq!(logged(&proxy, "panic mode begins"), 0);
    upstreams[2].set_health(Health::Down);
    wait_until("all are used", SOON, || used(&mut client) == 4);
    expect_logged(&proxy, "panic mode begins: all backends take requests", 1);
    upstreams[2].set_health(Health::Up);
    wait_until("health is heeded again", SOON, || used(&mut client) == 2);
    expect_logged(&proxy, "panic mode ends: health is heeded again", 1);
}

#[test]
fn without_panic_no_healthy_backend_is_a_503() {
    let upstreams = ["a", "b"].map(named);
    upstreams.iter().for_each(|upstream| upstream.set_health(Health::Down));
    let proxy = Flags::to(&upstreams.each_ref()).start();
    proxy.client().get("/").expect(503);
    assert_eq!(logged(&proxy, "panic mode"), 0);
}

/// What a backend does with its next requests.
#[derive(Clone)]
enum Mood {
    Fails,
    Holds(Gate),
    Well,
}

fn moody(mood: &Arc<Mutex<Mood>>) -> Upstream {
    let mood = mood.clone();
    Upstream::scripted(move |served| {
        while served.request().is_some() {
            let now = mood.lock().unwrap().clone();
            if let Mood::Holds(gate) = &now {
                gate.wait();
            }
            served.write(&match now {
                Mood::Fails => ERROR.as_bytes().to_vec(),
                Mood::Holds(_) | Mood::Well => ok("well", false),
            });
        }
    })
}

fn breaking(upstream: &Upstream) -> Proxy {
    Flags::to(&[upstream])
        .with("--workers", "2")
        .with("--breaker-error-percent", "50")
        .with("--breaker-requests-min", "10")
        .with("--breaker-open-time", "2s")
        .with("--breaker-trials", "3")
        .start()
}

#[test]
fn a_breaker_opens_lets_exactly_its_trials_pass_over_two_workers_and_closes() {
    let mood = Arc::new(Mutex::new(Mood::Fails));
    let upstream = moody(&mood);
    let proxy = breaking(&upstream);
    let mut client = proxy.client();
    let start = Instant::now();
    wait_until("it opens", SOON, || client.get("/").status() == 503);
    assert!(start.elapsed() < NOISE && upstream.request_count() >= 10);
    expect_logged(&proxy, "breaker opens", 1);

    let gate = Gate::default();
    *mood.lock().unwrap() = Mood::Holds(gate.clone());
    let before = upstream.request_count();
    let mut clients: Vec<_> = (0..16).map(|_| proxy.client()).collect();
    (0..20).for_each(|_| drop(client.get("/").expect(503)));
    let mut held: Vec<Client> = Vec::new();
    // All clients ask until three of them are held, and the others are refused.
    wait_until("the trials are under way", SOON, || {
        for mut client in std::mem::take(&mut clients) {
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
            match client.fate(Duration::from_millis(20)) {
                Fate::Bytes => {
                    client.read_response("GET").expect(503);
                    clients.push(client);
                }
                Fate::Open => held.push(client),
                fate => panic!("{fate:?}"),
            }
        }
        upstream.request_count() - before >= 3
    });
    for client in &mut clients {
        assert_ne!(client.fate(Duration::from_millis(1)), Fate::Bytes);
        client.get("/").expect(503);
    }
    assert_eq!(upstream.request_count() - before, 3, "{}", proxy.log());
    let refused = client.get("/").expect(503);
    assert!(
        refused.get("proxy-status").is_some_and(|it| it.contains("backends-busy")),
        "{refused:?}"
    );
    gate.open();
    for mut client in held {
        client.read_response("GET");
    }
    wait_until("it closes", SOON, || logged(&proxy, "breaker closes") == 1);
    *mood.lock().unwrap() = Mood::Well;
    wait_until("requests pass", SOON, || client.get("/").status() == 200);
    clients.iter_mut().for_each(|client| drop(client.get("/").expect(200)));
}

#[test]
fn a_breaker_opens_again_when_a_trial_fails() {
    let mood = Arc::new(Mutex::new(Mood::Fails));
    let upstream = moody(&mood);
    let proxy = breaking(&upstream);
    let mut client = proxy.client();
    wait_until("it opens", SOON, || client.get("/").status() == 503);
    let before = upstream.request_count();
    wait_until("a trial fails", SOON, || client.get("/").status() == 500);
    wait_until("it opens again", SOON, || logged(&proxy, "breaker opens") == 2);
    assert!(upstream.request_count() - before <= 3, "no more than the trials");
    wait_until("the snapshot is in force", SOON, || client.get("/").status() == 503);
    *mood.lock().unwrap() = Mood::Well;
    wait_until("it closes", SOON, || {
        client.get("/");
        logged(&proxy, "breaker closes") == 1
    });
    wait_until("requests pass", SOON, || client.get("/").status() == 200);
}

#[test]
fn a_backend_that_returns_gets_a_growing_share() {
    let (a, b) = (named("a"), named("b"));
    let proxy = Flags::to(&[&a, &b])
        .with("--workers", "2")
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
        .with("--slow-start", "3s")
        .start();
    let mut client = proxy.client();
    (0..20).for_each(|_| drop(client.get("/").expect(200)));
    assert_eq!(b.request_count(), 10, "at the start none is spared");
    b.set_health(Health::Down);
    wait_until("it is down", SOON, || logged(&proxy, "backend is down") == 1);
    let load = Load::start(proxy.addr(), 2, Reuse::KeepAlive, "/");
    let ups = logged(&proxy, "backend is up");
    b.set_health(Health::Up);
    wait_until("it is up", SOON, || logged(&proxy, "backend is up") > ups);
    let start = Instant::now();
    let share_until = |end: Duration| {
        let before = (a.request_count(), b.request_count());
        wait_until("the window ends", SOON, || start.elapsed() >= end);
        let (of_a, of_b) = (a.request_count() - before.0, b.request_count() - before.1);
        of_b as f64 / (of_a + of_b) as f64
    };
    let shares = [700, 1600, 2600].map(|end| share_until(Duration::from_millis(end)));
    share_until(Duration::from_millis(3500));
    let full = share_until(Duration::from_millis(4000));
    load.stop();
    assert!(shares[0] < 0.3, "{shares:?}");
    assert!(
        shares[0] < shares[1] && shares[1] < shares[2] && shares[2] < full,
        "{shares:?} {full}"
    );
    assert!((0.49..0.51).contains(&full), "{full}");
}
