//! Who takes part in the rotation: the first probe, rise and fall and their times, and a backend killed
//! under load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::load::{Fate, Load, Reuse};
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::Server;
use crate::support::upstream::{Health, Upstream, ok};
use crate::support::{Gate, SOON, wait_until};

/// What a busy machine may add to any of the times below.
const NOISE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(200);

/// The longest that `probes` in a row may take, with their jitter of a tenth, and one that hangs.
fn bound(probes: u32) -> Duration {
    probes * (INTERVAL + INTERVAL / 10) + TIMEOUT
}

/// Probes at the times above.
fn probing(flags: Flags) -> Flags {
    flags.with("--health-interval", "200ms").with("--health-timeout", "200ms")
}

fn named(name: &'static str) -> Upstream {
    Upstream::answering(ok(name, false))
}

/// The backends that answer some requests in a row.
fn answering(client: &mut Client) -> BTreeSet<String> {
    (0..12).map(|_| client.get("/").expect(200).text()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn an_endpoint_whose_first_probe_fails_takes_no_traffic_until_it_has_risen() {
    let (well, sick) = (named("well"), named("sick"));
    sick.set_health(Health::Down);
    let proxy = probing(Flags::to(&[&well, &sick])).start();
    let mut client = proxy.client();
    assert_eq!(answering(&mut client), set(&["well"]));
    assert_eq!(sick.request_count(), 0);
    sick.set_health(Health::Up);
    let took =
        wait_until("the risen endpoint takes part", SOON, || answering(&mut client).len() == 2);
    assert!(took < bound(2) + NOISE, "{took:?}");
    assert!(sick.probes_passed() >= 2, "one passed probe is not a rise of two");
}

#[test]
fn the_first_probe_alone_brings_an_endpoint_in() {
    let upstream = named("first");
    let proxy = probing(Flags::to(&[&upstream]))
        .with("--health-interval", "60s")
        .with("--health-rise", "5")
        .start();
    assert_eq!(proxy.client().get("/").expect(200).text(), "first");
    assert_eq!(upstream.probes_passed(), 1);
}

#[test]
fn ready_waits_for_the_first_round_of_probes_and_no_longer_than_one_timeout() {
    let (well, hanging) = (named("well"), named("hanging"));
    hanging.set_health(Health::Hang);
    let start = Instant::now();
    let proxy = probing(Flags::to(&[&well, &hanging]))
        .with("--health-interval", "700ms")
        .with("--health-timeout", "700ms")
        .start();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(600) && took < Duration::from_millis(700) + NOISE,
        "{took:?}"
    );
    assert_eq!(answering(&mut proxy.client()), set(&["well"]));
    assert_eq!(hanging.request_count(), 0);
}

#[test]
fn a_sick_endpoint_leaves_after_its_fall_and_returns_after_its_rise() {
    let upstream = named("well");
    let proxy = probing(Flags::to(&[&upstream])).start();
    let mut client = proxy.client();
    client.get("/").expect(200);
    for sick in [Health::Down, Health::Hang] {
        let failed = upstream.probes_failed();
        upstream.set_health(sick);
        let took = wait_until("it has left", SOON, || client.get("/").status() == 503);
        assert!(took < bound(3) + NOISE, "{sick:?}: {took:?}");
        assert!(upstream.probes_failed() - failed >= 3, "{sick:?}: a fall of three");
        let passed = upstream.probes_passed();
        upstream.set_health(Health::Up);
        let took = wait_until("it is back", SOON, || client.get("/").status() == 200);
        assert!(took < bound(2) + NOISE, "{took:?}");
        assert!(upstream.probes_passed() - passed >= 2, "a rise of two");
    }
}

#[test]
fn fewer_failed_probes_than_the_fall_change_nothing() {
    let upstream = named("well");
    let proxy = probing(Flags::to(&[&upstream]))
        .with("--health-interval", "50ms")
        .with("--health-timeout", "50ms")
        .start();
    let mut client = proxy.client();
    for _ in 0..5 {
        let (passed, failed) = (upstream.probes_passed(), upstream.probes_failed());
        upstream.set_health(Health::FailNext(2));
        wait_until("both have failed and one has passed", SOON, || {
            client.get("/").expect(200);
            upstream.probes_failed() >= failed + 2 && upstream.probes_passed() > passed
        });
    }
}

#[test]
fn an_endpoint_can_be_probed_by_a_bare_connection() {
    let mut upstream = named("well");
    let proxy = probing(Flags::to(&[&upstream])).with("--health-path", "").start();
    let mut client = proxy.client();
    client.get("/").expect(200);
    let addr = upstream.addr;
    upstream.stop();
    let took = wait_until("it has left", SOON, || client.get("/").status() == 503);
    assert!(took < bound(3) + NOISE, "{took:?}");
    let again = Upstream::scripted_at(addr, |served| {
        while served.request().is_some() {
            served.write(&ok("again", false));
        }
    });
    let took = wait_until("it is back", SOON, || client.get("/").status() == 200);
    assert!(took < bound(2) + NOISE, "{took:?}");
    assert_eq!((upstream.probes_passed(), again.probes_passed()), (0, 0));
}

#[test]
fn a_probe_says_what_it_is_and_asks_for_its_path() {
    let probe = std::sync::Arc::new(std::sync::Mutex::new(None));
    let upstream = Upstream::scripted({
        let probe = probe.clone();
        move |served| {
            if let Some(request) = served.request() {
                *probe.lock().unwrap() = Some(request.head);
                served.write(&ok("", false));
            }
        }
    });
    let _proxy = probing(Flags::to(&[&upstream])).with("--health-path", "/up?x=1").start();
    let probe =
        probe.lock().unwrap().clone().expect("the proxy is ready only after its first probe");
    assert_eq!((probe.method(), probe.target()), ("GET", "/up?x=1"));
    assert_eq!(probe.get("host"), Some(upstream.addr.to_string().as_str()));
    assert!(
        probe.get("user-agent").is_some_and(|agent| agent.starts_with("corelane")),
        "{probe:?}"
    );
}

#[test]
fn a_request_in_flight_survives_the_fall_of_its_endpoint() {
    let gate = crate::support::Gate::default();
    let upstream = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            while let Some(request) = served.request() {
                if request.head.target() == "/slow" {
                    gate.wait();
                }
                served.write(&ok("done", false));
            }
        }
    });
    let proxy = probing(Flags::to(&[&upstream])).start();
    let (mut slow, mut client) = (proxy.client(), proxy.client());
    slow.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until("it is in flight", SOON, || upstream.request_count() == 1);
    upstream.set_health(Health::Down);
    wait_until("the endpoint has left", SOON, || client.get("/").status() == 503);
    gate.open();
    assert_eq!(slow.read_response("GET").expect(200).text(), "done");
}

/// The names of the demo backends that answer some requests in a row; every answer must be a 200.
fn demo_backends_behind(proxy: &Proxy) -> BTreeSet<String> {
    let mut client = proxy.client();
    let name = |client: &mut Client| {
        let body = client.get("/").expect(200).text();
        ["alpha", "beta", "gamma"]
            .into_iter()
            .find(|name| body.contains(&format!("\"{name}\"")))
            .unwrap()
            .to_string()
    };
    (0..12).map(|_| name(&mut client)).collect()
}

#[test]
fn no_client_sees_it_when_one_of_three_backends_is_killed_and_restarted_under_load() {
    let mut servers = ["alpha", "beta", "gamma"].map(Server::demo);
    let flags = Flags::to_addrs(&servers.each_ref().map(|server| server.addr));
    let proxy = probing(flags).with("--workers", "2").start();
    assert_eq!(demo_backends_behind(&proxy), set(&["alpha", "beta", "gamma"]));
    let load = Load::start(proxy.addr(), 16, Reuse::KeepAlive, "/");
    let fresh = Load::start(proxy.addr(), 4, Reuse::PerRequest, "/");
    // Retries may be a fifth of the requests before: with fewer than these, a control thread that
    // gets no processor for 100 ms could use that up.
    wait_until("the load runs", SOON, || load.answered() > 5000);

    servers[1].kill();
    let took =
        wait_until("the killed one is out", SOON, || proxy.log().contains("backend is down"));
    assert!(took < bound(3) + NOISE, "{took:?}");
    assert_eq!(demo_backends_behind(&proxy), set(&["alpha", "gamma"]));
    let answered = load.answered();
    wait_until("the load goes on", SOON, || load.answered() > answered + 1000);

    servers[1] = Server::demo_at(servers[1].addr, "beta");
    let took =
        wait_until("the restarted one is back", SOON, || demo_backends_behind(&proxy).len() == 3);
    assert!(took < bound(2) + NOISE, "{took:?}");
    let answered = load.answered();
    wait_until("the load goes on", SOON, || load.answered() > answered + 1000);
    for tally in [load.stop(), fresh.stop()] {
        assert_eq!(tally.into_keys().collect::<Vec<_>>(), [Fate::Answered(200)]);
    }
}

/// A backend that is probed well and answers no request before the gate opens.
fn silent(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::scripted(move |served| {
        while served.request().is_some() {
            gate.wait();
            served.write(&ok("late", false));
        }
    })
}

#[test]
fn what_waits_for_a_backend_that_goes_down_is_asked_of_another_if_that_is_safe() {
    let gate = Gate::default();
    let (dying, well) = (silent(&gate), named("well"));
    let proxy = probing(Flags::to(&[&dying, &well])).start();
    let mut clients: Vec<_> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    wait_until("half of them wait", SOON, || dying.request_count() == 4);
    let mut posts = [proxy.client(), proxy.client()];
    for client in &mut posts {
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
    }
    wait_until("a POST waits too", SOON, || dying.request_count() == 5);
    dying.set_health(Health::Down);
    for client in &mut clients {
        assert_eq!(client.read_response("GET").expect(200).text(), "well");
    }
    wait_until("the log says why", SOON, || proxy.log().contains("backend-down"));
    gate.open();
    let mut bodies = posts.map(|mut client| client.read_response("POST").expect(200).text());
    bodies.sort_unstable();
    assert_eq!(bodies, ["late", "well"], "each ran once, where it was");
}

#[test]
fn what_waits_for_a_backend_that_goes_down_goes_on_waiting_where_no_other_can_serve_it() {
    for flags in [["--retry-on", "lost"], ["--retries", "0"]] {
        let gate = Gate::default();
        let (dying, well) = (silent(&gate), named("well"));
        let flags = probing(Flags::to(&[&dying, &well])).with(flags[0], flags[1]);
        let proxy = flags.start();
        let mut clients = [proxy.client(), proxy.client()];
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        wait_until("one waits", SOON, || dying.request_count() == 1);
        dying.set_health(Health::Down);
        wait_until("it is down", SOON, || proxy.log().contains("backend is down"));
        gate.open();
        let mut bodies = clients.map(|mut client| client.read_response("GET").expect(200).text());
        bodies.sort_unstable();
        assert_eq!(bodies, ["late", "well"]);
    }
}

/// Requests that wait for two backends, both of which then fail their checks, one after the other.
#[test]
fn what_waits_goes_on_waiting_in_panic_and_beyond_the_budget_for_retries() {
    for (name, value, well_serves) in
        [("--panic-percent", "60", false), ("--retry-budget-min", "0", true)]
    {
        let gate = Gate::default();
        let (dying, other) = (silent(&gate), silent(&gate));
        let proxy = probing(Flags::to(&[&dying, &other]))
            .with("--retry-budget-percent", "0")
            .with(name, value)
            .start();
        let mut clients: Vec<_> = (0..8).map(|_| proxy.client()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        wait_until("they wait", SOON, || dying.request_count() + other.request_count() == 8);
        dying.set_health(Health::Down);
        if !well_serves {
            other.set_health(Health::Down);
        }
        wait_until("it is down", SOON, || proxy.log().contains("backend is down"));
        // A few sweeps: 100 ms at most are between two.
        let since = Instant::now();
        wait_until("sweeps were made", SOON, || since.elapsed() > Duration::from_millis(400));
        gate.open();
        for client in &mut clients {
            assert_eq!(client.read_response("GET").expect(200).text(), "late");
        }
        assert_eq!(dying.request_count() + other.request_count(), 8, "none ran twice");
    }
}
