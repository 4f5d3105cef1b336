//! SIGTERM and SIGINT: every request gets its whole answer, a clean close before its first byte, or a
//! refusal, and the process ends with 0.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{Client, Ended};
use crate::support::load::{Fate, Load, Reuse};
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::Server;
use crate::support::upstream::{Health, Upstream, ok};
use crate::support::{Gate, SOON, wait_until};

#[track_caller]
fn check_fates(fates: &BTreeMap<Fate, usize>) {
    let honest =
        |fate: &Fate| matches!(fate, Fate::Answered(200) | Fate::ClosedBefore | Fate::Refused);
    assert!(fates.keys().all(honest), "{fates:?}");
    assert!(fates.contains_key(&Fate::Answered(200)), "{fates:?}");
}

fn drain_under_load(reuse: Reuse, signal: Signal) {
    let servers = ["a", "b"].map(Server::demo);
    let flags = Flags::to_addrs(&servers.each_ref().map(|server| server.addr));
    let mut proxy = flags.with("--workers", "2").start();
    let load = Load::start(proxy.addr(), 24, reuse, "/bytes/2000");
    wait_until("the load runs", SOON, || load.answered() > 1000);
    proxy.signal(signal);
    proxy.expect_drained();
    let fates = load.until_refused();
    check_fates(&fates);
    let requests = proxy.last_line().split("requests=").nth(1).unwrap().to_string();
    let requests: usize =
        requests.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    assert!(requests >= fates[&Fate::Answered(200)], "requests={requests}, {fates:?}");
}

#[test]
fn kept_connections_under_load_are_drained() {
    for _ in 0..3 {
        drain_under_load(Reuse::KeepAlive, Signal::TERM);
    }
}

#[test]
fn new_connections_under_load_are_drained() {
    for _ in 0..3 {
        drain_under_load(Reuse::PerRequest, Signal::TERM);
    }
}

#[test]
fn sigint_drains_alike() {
    drain_under_load(Reuse::KeepAlive, Signal::INT);
}

/// A proxy with one request in flight, which is answered when the gate opens.
fn with_one_in_flight(flags: impl Fn(Flags) -> Flags) -> (Upstream, Proxy, Client, Gate) {
    let gate = Gate::default();
    let upstream = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            while served.request().is_some() {
                gate.wait();
                served.write(&ok("done", false));
            }
        }
    });
    let proxy = flags(Flags::to(&[&upstream])).start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until("the request is in flight", SOON, || upstream.request_count() == 1);
    (upstream, proxy, client, gate)
}

fn refuses(proxy: &Proxy) -> bool {
    Client::try_connect(proxy.addr()).is_err()
}

#[test]
fn a_request_in_flight_is_finished_and_its_connection_closed() {
    let (_upstream, mut proxy, mut client, gate) = with_one_in_flight(|flags| flags);
    proxy.signal(Signal::TERM);
    wait_until("new clients are refused", SOON, || refuses(&proxy));
    assert!(proxy.is_running());
    gate.open();
    let response = client.read_response("GET").expect(200);
    assert_eq!((response.text().as_str(), response.get("connection")), ("done", Some("close")));
    client.expect_close();
    proxy.expect_drained();
}

#[test]
fn an_upload_in_flight_is_finished() {
    let upstream = Upstream::answering(ok("whole", false));
    let mut proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello");
    wait_until("the beginning has arrived", SOON, || {
        upstream.raw().iter().any(|raw| raw.ends_with(b"hello"))
    });
    proxy.signal(Signal::TERM);
    wait_until("new clients are refused", SOON, || refuses(&proxy));
    client.send("world");
    assert_eq!(client.read_response("POST").expect(200).text(), "whole");
    proxy.expect_drained();
    assert_eq!(upstream.last_request().body, b"helloworld");
}

#[test]
fn idle_clients_are_closed_cleanly_and_at_once() {
    let upstream = Upstream::naming_targets();
    let mut proxy = Flags::to(&[&upstream]).with("--drain-timeout", "60s").start();
    let mut idle = proxy.client();
    idle.get("/").expect(200);
    let mut silent = proxy.client();
    // The second has been accepted once a later one is served.
    proxy.client().get("/").expect(200);
    let start = Instant::now();
    proxy.signal(Signal::TERM);
    idle.expect_close();
    silent.expect_close();
    proxy.expect_drained();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn many_idle_clients_are_closed_cleanly() {
    let upstream = Upstream::naming_targets();
    let mut proxy = Flags::to(&[&upstream]).with("--workers", "2").start();
    let mut clients: Vec<_> = (0..300).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.get("/").expect(200);
    }
    proxy.signal(Signal::TERM);
    for client in &mut clients {
        client.expect_close();
    }
    proxy.expect_drained();
}

#[test]
fn pipelined_requests_that_have_arrived_are_answered_or_cleanly_closed() {
    let (_upstream, mut proxy, mut client, gate) = with_one_in_flight(|flags| flags);
    client.send("GET /2 HTTP/1.1\r\nHost: t\r\n\r\n");
    proxy.signal(Signal::TERM);
    wait_until("new clients are refused", SOON, || refuses(&proxy));
    gate.open();
    let response = client.read_response("GET").expect(200);
    if response.get("connection") != Some("close") {
        client.read_response("GET").expect(200);
    }
    client.expect_close();
    proxy.expect_drained();
}

#[test]
fn a_second_signal_ends_at_once() {
    let (_upstream, mut proxy, _client, _gate) =
        with_one_in_flight(|flags| flags.with("--drain-timeout", "60s"));
    proxy.signal(Signal::TERM);
    wait_until("it drains", SOON, || refuses(&proxy));
    assert!(proxy.is_running());
    proxy.signal(Signal::TERM);
    proxy.wait_exit(Duration::from_secs(3));
}

#[test]
fn a_request_that_never_ends_is_given_up_after_the_drain_timeout() {
    let (_upstream, mut proxy, mut client, _gate) =
        with_one_in_flight(|flags| flags.with("--drain-timeout", "500ms"));
    let start = Instant::now();
    proxy.signal(Signal::TERM);
    let status = proxy.wait_exit(SOON);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(status.code(), Some(0), "{}", proxy.log());
    assert!(client.read_response("GET").head.is_none());
}

#[test]
fn at_rest_it_ends_at_once() {
    let upstream = Upstream::naming_targets();
    let mut proxy = Flags::to(&[&upstream]).with("--drain-timeout", "60s").start();
    let start = Instant::now();
    proxy.drain();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_head_that_has_begun_is_answered_or_its_connection_cleanly_closed() {
    let upstream = Upstream::naming_targets();
    let mut proxy = Flags::to(&[&upstream]).start();
    let mut clients: Vec<_> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET /begun HTTP/1.1\r\nHo");
    }
    proxy.client().get("/").expect(200);
    proxy.signal(Signal::TERM);
    wait_until("new clients are refused", SOON, || refuses(&proxy));
    for client in &mut clients {
        client.wire.write(b"st: t\r\n\r\n").ok();
        let response = client.read_response("GET");
        match response.head {
            Some(_) => assert_eq!(response.expect(200).text(), "/begun"),
            None => assert_eq!(response.ended, Ended::CleanClose),
        }
    }
    proxy.expect_drained();
}

#[test]
fn a_signal_before_it_is_ready_ends_it_too() {
    let upstream = Upstream::naming_targets();
    upstream.set_health(Health::Hang);
    let flags = Flags::to(&[&upstream]).with("--health-interval", "30s");
    let mut proxy = flags.with("--health-timeout", "30s").spawn();
    wait_until("the first probe is under way", SOON, || upstream.probes_failed() == 1);
    assert!(!proxy.is_ready());
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait_exit(SOON).code(), Some(0), "{}", proxy.log());
}
