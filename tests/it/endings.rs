//! The access log's line of endings that need a setting or a backend of their own: how requests end for
//! want of a place or a connection, inside bodies, answers and tunnels. `access_log` has those that one
//! proxy can show, `answers` every refusal of a request for its grammar; `health` and `retries` those
//! after which another backend is asked.

use rustix::process::Signal;
use serde_json::Value;

use crate::access_log::Logging;
use crate::support::client::Client;
use crate::support::deaf::deaf_after_the_probe;
use crate::support::proxy::Flags;
use crate::support::servers::free_addr;
use crate::support::upstream::{Served, Upstream};
use crate::support::{Gate, SOON, Scratch, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
const UPGRADE: &str =
    "GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// The statuses that lines have, and who answered.
const NONE: (Option<u64>, Option<&str>) = (None, None);
const fn corelane(status: u64) -> (Option<u64>, Option<&'static str>) {
    (Some(status), Some("corelane"))
}
const fn backend(status: u64) -> (Option<u64>, Option<&'static str>) {
    (Some(status), Some("backend"))
}

/// Waits for the line with this cause, the only one, and checks its status and whose answer that is.
#[track_caller]
fn check_line(log: &Logging, cause: &str, answer: (Option<u64>, Option<&str>)) -> Value {
    let mut lines = Vec::new();
    wait_until(cause, SOON, || {
        lines = log.lines().into_iter().filter(|line| line["cause"] == cause).collect();
        !lines.is_empty()
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = lines.remove(0);
    assert_eq!((line["status"].as_u64(), line["answered_by"].as_str()), answer, "{line}");
    line
}

/// The same for one request: what the backend does, and the client; it stays until the line is there.
#[track_caller]
fn check<C>(
    flags: &[(&str, &str)],
    script: impl Fn(&mut Served) + Send + Sync + 'static,
    act: impl FnOnce(Client, &Upstream) -> C,
    cause: &str,
    answer: (Option<u64>, Option<&str>),
) {
    let upstream = Upstream::scripted(script);
    let one_attempt = Flags::to(&[&upstream]).with("--retries", "0");
    let flags = flags.iter().fold(one_attempt, |all, (name, value)| all.with(name, value));
    let log = Logging::json(flags);
    let _client = act(log.proxy.client(), &upstream);
    check_line(&log, cause, answer);
}

/// Sends this, and stays.
fn sending(bytes: &'static str) -> impl FnOnce(Client, &Upstream) -> Client {
    move |mut client, _upstream| {
        client.send(bytes);
        client
    }
}

/// Reads a head and never answers.
fn hold(served: &mut Served) {
    if served.head().is_some() {
        served.wait_for_end();
    }
}

/// Writes this for a head, and leaves the rest.
fn half(answer: &'static str) -> impl Fn(&mut Served) + Send + Sync {
    move |served| {
        if served.head().is_some() {
            served.write(answer.as_bytes());
            served.wait_for_end();
        }
    }
}

/// Writes an answer as long as somebody takes it.
fn pour(served: &mut Served) {
    if served.head().is_some() {
        served.write(b"HTTP/1.1 200 OK\r\n\r\n");
        while served.write(&[b'x'; 65536]) {}
    }
}

fn wait_for_head(upstream: &Upstream) {
    wait_until("the backend has it", SOON, || !upstream.raw().is_empty());
}

#[test]
fn requests_that_their_clients_end_have_their_lines() {
    let post = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\nx";
    let leave_in_body = |mut client: Client, upstream: &Upstream| {
        client.send(post);
        wait_for_head(upstream);
        client.reset();
    };
    check(&[], hold, leave_in_body, "client-left", NONE);
    let leave_in_answer = |mut client: Client, _: &Upstream| {
        client.send(GET);
        assert_eq!(client.wire.head().unwrap().status(), 200);
        client.reset();
    };
    check(&[], pour, leave_in_answer, "client-left", backend(200));
    let slow = [("--body-rate-min", "100000")];
    check(&slow, hold, sending(post), "client-body-slow", corelane(408));
    let impatient = [("--client-body-timeout", "300ms")];
    check(&impatient, pour, sending(GET), "client-read-timeout", backend(200));
    let trailer =
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nwhat\r\n\r\n";
    check(&[], hold, sending(trailer), "request-trailer-invalid", corelane(400));
}

#[test]
fn requests_that_their_backends_end_have_their_lines() {
    let impatient = [("--backend-body-timeout", "200ms")];
    let stalling = half("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
    check(&impatient, stalling, sending(GET), "response-body-timeout", backend(200));
    let gate = Gate::default();
    let opened = gate.clone();
    let garbling = move |served: &mut Served| {
        if served.head().is_some() {
            served.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
            gate.wait();
            served.write(b"zz\r\n");
            served.wait_for_end();
        }
    };
    // Where nothing was sent on yet, it would be 502.
    let read = |mut client: Client, _: &Upstream| {
        client.send(GET);
        assert_eq!(client.wire.head().unwrap().status(), 200);
        opened.open();
        client
    };
    check(&[], garbling, read, "response-chunk-invalid", backend(200));
    let large = |served: &mut Served| {
        if served.head().is_some() {
            let header = "x".repeat(40_000);
            served.write(format!("HTTP/1.1 200 OK\r\nX: {header}\r\n\r\n").as_bytes());
            served.wait_for_end();
        }
    };
    check(&[], large, sending(GET), "response-head-too-large", corelane(502));
}

#[test]
fn tunnels_that_do_not_end_well_have_their_lines() {
    let impatient = [("--tunnel-timeout", "200ms")];
    check(&impatient, half(SWITCH), sending(UPGRADE), "tunnel-idle", backend(101));
    let resetting = |served: &mut Served| {
        if served.head().is_some() {
            served.write(SWITCH.as_bytes());
            if served.wire.fill().is_ok() {
                served.reset_on_return();
            }
        }
    };
    let talk = |mut client: Client, _: &Upstream| {
        client.send(UPGRADE);
        assert_eq!(client.wire.head().unwrap().status(), 101);
        client.send("x");
        client
    };
    check(&[], resetting, talk, "tunnel-cut", backend(101));
}

#[test]
fn requests_without_a_connection_have_their_lines() {
    let patient = |flags: Flags| flags.with("--health-interval", "60s").with("--retries", "0");
    let mut gone = Upstream::naming_targets();
    let log = Logging::json(patient(Flags::to(&[&gone])));
    gone.stop();
    log.proxy.client().get("/");
    let line = check_line(&log, "connect-failed", corelane(502));
    assert!(line["connect_seconds"].is_number() && line["backend"].is_string(), "{line}");

    let flags = patient(Flags::to(&[])).with("--backend-connect-timeout", "200ms");
    let mut deaf = None;
    let log = Logging::start_by(flags.with("--access-log-format", "json"), |flags| {
        let (listener, proxy) = deaf_after_the_probe(flags);
        deaf = Some(listener);
        proxy
    });
    log.proxy.client().get("/");
    let line = check_line(&log, "connect-timeout", corelane(504));
    assert!(line["connect_seconds"].as_f64() >= Some(0.2), "{line}");

    let log = Logging::json(Flags::to_addrs(&[free_addr()]));
    log.proxy.client().get("/");
    let line = check_line(&log, "no-backend", corelane(503));
    assert!(line["pool"] == "default" && line["backend"].is_null(), "{line}");
}

#[test]
fn requests_without_a_place_have_their_lines() {
    let upstream = Upstream::scripted(hold);
    let flags = Flags::to(&[]).with("--health-interval", "60s").with("--queue-max", "1");
    let one_place = format!("{},max-conns=1", upstream.url());
    let log = Logging::json(flags.with("--queue-timeout", "500ms").and("--backend", &one_place));
    let mut clients: Vec<Client> = (0..3).map(|_| log.proxy.client()).collect();
    for client in &mut clients {
        client.send(GET);
        wait_for_head(&upstream);
    }
    // Of the other two, one may wait, for so long.
    let line = check_line(&log, "queue-full", corelane(503));
    assert!(line["queue_seconds"].is_null(), "{line}");
    let line = check_line(&log, "queue-timeout", corelane(503));
    assert!(line["queue_seconds"].as_f64() >= Some(0.5), "{line}");

    let upstream = Upstream::scripted(hold);
    let log = Logging::json(Flags::to(&[&upstream]).with("--breaker-requests-max", "1"));
    let mut clients = [log.proxy.client(), log.proxy.client()];
    for client in &mut clients {
        client.send(GET);
        wait_for_head(&upstream);
    }
    check_line(&log, "backends-busy", corelane(503));

    let log = Logging::json(Flags::to(&[&upstream]).with("--client-conns-per-address-max", "1"));
    let mut held = log.proxy.client();
    held.send(GET);
    wait_for_head(&upstream);
    let mut refused = log.proxy.client();
    refused.get("/");
    check_line(&log, "client-conns", corelane(429));
}

#[test]
fn requests_without_a_route_have_their_lines() {
    let upstream = Upstream::naming_targets();
    let scratch = Scratch::new("endings");
    let config = scratch.join("lane.toml").display().to_string();
    let routes = format!(
        "[[pools]]\nname = \"web\"\nbackends = [\"{}\"]\n\
         [[routes]]\nhost = \"a\"\npath-prefix = \"/api\"\npool = \"web\"\n",
        upstream.url()
    );
    std::fs::write(&config, routes).unwrap();
    let log = Logging::json(Flags::to(&[]).with("--config", &config));
    for (request, cause, status) in [
        (GET, "no-route", 404),
        ("GET //api HTTP/1.1\r\nHost: a\r\n\r\n", "request-path-ambiguous", 400),
    ] {
        log.proxy.client().request(request);
        let line = check_line(&log, cause, corelane(status));
        assert!(line["pool"].is_null() && line["target"].is_string(), "{line}");
    }
}

/// A client that leaves while it waits for a place had no attempt.
#[test]
fn a_client_that_leaves_the_queue_has_its_line() {
    let upstream = Upstream::scripted(hold);
    let flags = Flags::to(&[]).with("--health-interval", "60s").with("--queue-timeout", "60s");
    let one_place = format!("{},max-conns=1", upstream.url());
    let log = Logging::json(flags.with("--admin", "127.0.0.1:0").and("--backend", &one_place));
    let [mut served, mut waiting] = [log.proxy.client(), log.proxy.client()];
    served.send(GET);
    wait_for_head(&upstream);
    waiting.send(GET);
    wait_until("it waits", SOON, || {
        crate::figures::scrape(&log.proxy).get("corelane_queue_length") == Some(1.0)
    });
    waiting.reset();
    let line = check_line(&log, "client-left", NONE);
    assert!(line["queue_seconds"].is_number() && line["backend"].is_null(), "{line}");
}

/// Neither its client nor its backend is blamed.
#[test]
fn what_a_drain_cuts_off_is_told_as_stopped() {
    let upstream = Upstream::scripted(hold);
    let mut log = Logging::json(Flags::to(&[&upstream]).with("--drain-timeout", "300ms"));
    let mut client = log.proxy.client();
    client.send(GET);
    wait_for_head(&upstream);
    log.proxy.signal(Signal::TERM);
    log.proxy.wait_exit(SOON);
    let line = check_line(&log, "stopped", NONE);
    assert_eq!(line["sent_bytes"], 0, "{line}");
    let told = log.proxy.log();
    assert!(!told.contains("backend-lost") && told.contains("cut=1"), "{told}");
}
