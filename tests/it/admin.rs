//! The admin API on the real binary: what it answers, what it refuses and says then, its events, and
//! that a flood of its clients delays nothing.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::support::client::{Client, Response};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Health, Upstream};
use crate::support::{SOON, Scratch, wait_until};

pub const TOKEN: &str = "0123456789abcdef-of-the-tests";

pub fn admin(upstreams: &[&Upstream]) -> Flags {
    Flags::to(upstreams).with("--admin", "127.0.0.1:0")
}

pub fn get(addr: SocketAddr, target: &str) -> Response {
    Client::connect(addr).request(format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n\r\n"))
}

#[track_caller]
pub fn json_of(response: &Response) -> Value {
    serde_json::from_slice(&response.body)
        .unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}

#[track_caller]
pub fn status(addr: SocketAddr) -> Value {
    json_of(&get(addr, "/api/v1/status").expect(200))
}

/// A refusal is a problem document whose status is the answer's, and says something.
#[track_caller]
pub fn check_problem(response: &Response, status: u16, word: &str) {
    assert_eq!(response.status(), status, "{response:?}");
    assert_eq!(response.get("content-type"), Some("application/problem+json"));
    let problem = json_of(response);
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().unwrap().starts_with("urn:corelane:problem:"), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
}

#[test]
fn status_tells_what_was_asked_of_the_proxy() {
    let (one, two) = (Upstream::answering(OK), Upstream::answering(OK));
    let proxy = admin(&[&one, &two]).start();
    let addr = proxy.admin_addr();
    let mut client = proxy.client();
    for _ in 0..10 {
        client.get("/").expect(200);
    }
    let status = status(addr);
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["draining"], false);
    assert_eq!(status["totals"]["requests"], 10);
    assert_eq!(status["totals"]["relayed"], 10);
    assert_eq!(status["totals"]["clients_open"], 1);
    let pool = &status["pools"][0];
    assert_eq!((&pool["name"], &pool["policy"]), (&"default".into(), &"round-robin".into()));
    for (backend, upstream) in pool["backends"].as_array().unwrap().iter().zip([&one, &two]) {
        let authority = upstream.url().trim_start_matches("http://").to_string();
        assert_eq!(backend["id"], format!("default/{authority}"));
        assert_eq!(backend["address"], authority);
        assert_eq!(backend["state"], "up");
        assert_eq!((&backend["requests"], &backend["failures"]), (&5.into(), &0.into()));
        assert_eq!(backend["in_flight"], 0);
    }
    let worker = &status["workers"][0];
    assert_eq!((&worker["id"], &worker["running"]), (&0.into(), &true.into()));
    assert_eq!(worker["requests"], 10);
    wait_until("the history has a point with requests", SOON, || {
        let points = json_of(&get(addr, "/api/v1/history").expect(200));
        let points = points["points"].as_array().unwrap();
        points.iter().any(|point| point["requests"].as_f64().unwrap() > 0.0)
    });
}

#[test]
fn readiness_follows_the_backends_and_the_drain() {
    let upstream = Upstream::answering(OK);
    let mut proxy = admin(&[&upstream])
        .with("--health-interval", "100ms")
        .with("--health-timeout", "100ms")
        .with("--drain-timeout", "5s")
        .start();
    let addr = proxy.admin_addr();
    get(addr, "/readyz").expect(200);
    upstream.set_health(Health::Down);
    wait_until("it is not ready", SOON, || get(addr, "/readyz").status() == 503);
    assert!(get(addr, "/readyz").text().contains("no backend of pool default"));
    get(addr, "/healthz").expect(200);
    upstream.set_health(Health::Up);
    wait_until("it is ready", SOON, || get(addr, "/readyz").status() == 200);
    // A client in the middle of a request keeps the drain going.
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    wait_until("the client is there", SOON, || status(addr)["totals"]["clients_open"] == 1);
    proxy.signal(rustix::process::Signal::TERM);
    wait_until("it says that it drains", SOON, || get(addr, "/readyz").text().contains("drains"));
    assert_eq!(status(addr)["draining"], true);
    client.send("\r\n");
    proxy.expect_drained();
}

#[test]
fn what_is_asked_wrongly_is_refused_with_a_reason() {
    let upstream = Upstream::answering(OK);
    let proxy = admin(&[&upstream]).start();
    let addr = proxy.admin_addr();
    let host = format!("Host: {addr}\r\n");
    for (line, headers, status, word) in [
        ("GET /nowhere", host.as_str(), 404, "openapi"),
        ("GET /api/v1/", &host, 404, "openapi"),
        ("DELETE /api/v1/status", &host, 405, "Allow"),
        ("GET /healthz", "Host: evil.example\r\n", 403, "--admin-host"),
        ("GET /healthz", "", 400, "Host"),
        ("GET /healthz", &format!("{host}{host}"), 400, "Host"),
        ("POST /api/v1/status", &format!("{host}Origin: http://evil.example\r\n"), 403, "curl"),
        ("POST /api/v1/status", &format!("{host}Content-Length: 0\r\n"), 415, "application/json"),
    ] {
        let request = format!("{line} HTTP/1.1\r\n{headers}\r\n");
        check_problem(&Client::connect(addr).request(request), status, word);
    }
    let refused =
        Client::connect(addr).request(format!("DELETE /healthz HTTP/1.1\r\nHost: {addr}\r\n\r\n"));
    assert_eq!(refused.get("allow"), Some("GET,HEAD"));
    let large = format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(100_000));
    assert!((400..500).contains(&Client::connect(addr).request(large).status()));
    assert_eq!(Client::connect(addr).request("garbage\r\n\r\n").status(), 400);
}

#[test]
fn a_head_that_does_not_come_is_waited_for_only_so_long() {
    let upstream = Upstream::answering(OK);
    let proxy = admin(&[&upstream]).start();
    let addr = proxy.admin_addr();
    let mut client = Client::connect(addr);
    client.send("GET /healthz HTTP/1.1\r\nHos");
    let mut idle = Client::connect(addr);
    client.wire.patience(SOON * 2);
    check_problem(&client.read_response("GET"), 408, "in time");
    idle.wire.patience(SOON * 2);
    idle.expect_close();
}

#[test]
fn without_the_token_nothing_is_told() {
    let upstream = Upstream::answering(OK);
    let scratch = Scratch::new("token");
    let file = scratch.join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let proxy = Flags::to(&[&upstream])
        .with("--admin", "0.0.0.0:0")
        .with("--admin-token-file", file.to_str().unwrap())
        .start();
    let port = proxy.admin_addr().port();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = |path: &str, headers: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n{headers}\r\n");
        Client::connect(addr).request(request)
    };
    for path in ["/api/v1/status", "/api/v1/events", "/nowhere"] {
        let refused = ask(path, "");
        check_problem(&refused, 401, "--admin-token-file");
        assert!(refused.get("www-authenticate").unwrap().starts_with("Bearer"));
        check_problem(
            &ask(path, "Authorization: Bearer 0123456789\r\n"),
            401,
            "--admin-token-file",
        );
    }
    ask("/healthz", "").expect(200);
    ask("/api/v1/status", &format!("Authorization: Bearer {TOKEN}\r\n")).expect(200);
    assert!(!proxy.log().contains(TOKEN));
}

#[test]
fn a_unix_socket_serves_its_owner_and_goes_with_the_process() {
    let upstream = Upstream::answering(OK);
    let scratch = Scratch::new("socket");
    let path = scratch.join("admin.sock");
    let flag = format!("unix:{}", path.display());
    // What a killed process leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut proxy = Flags::to(&[&upstream]).with("--admin", &flag).start();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: corelane\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let mut second = Flags::to(&[&upstream]).with("--admin", &flag).spawn();
    assert_eq!(second.wait_exit(SOON).code(), Some(71));
    assert!(second.log().is_empty() || !second.log().contains("ready on"));
    proxy.drain();
    assert!(!path.exists());
}

#[test]
fn an_address_that_cannot_be_had_stops_the_start() {
    let upstream = Upstream::answering(OK);
    let proxy = admin(&[&upstream]).start();
    let taken = proxy.admin_addr().to_string();
    for (admin, code) in [(taken.as_str(), 71), ("192.0.2.1:9900", 64), ("0.0.0.0:0", 64)] {
        let mut second = Flags::to(&[&upstream]).with("--admin", admin).spawn();
        assert_eq!(second.wait_exit(SOON).code(), Some(code), "{admin}");
        assert!(second.log().contains("--admin"), "{}", second.log());
    }
}

/// Reads server-sent events: their names and data.
pub struct Events(Client, String);

impl Events {
    pub fn listen(addr: SocketAddr) -> Events {
        Events::listen_as(addr, "")
    }

    /// The same with these header lines.
    pub fn listen_as(addr: SocketAddr, headers: &str) -> Events {
        let mut client = Client::connect(addr);
        client.send(format!("GET /api/v1/events HTTP/1.0\r\nHost: {addr}\r\n{headers}\r\n"));
        let head = client.wire.head().unwrap();
        assert_eq!((head.status(), head.get("content-type")), (200, Some("text/event-stream")));
        Events(client, String::new())
    }

    #[track_caller]
    pub fn next(&mut self, event: &str) -> Value {
        loop {
            while let Some((message, rest)) = self.1.split_once("\n\n") {
                let (message, rest) = (message.to_string(), rest.to_string());
                self.1 = rest;
                let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name));
                if field("event: ") == Some(event) {
                    return serde_json::from_str(field("data: ").unwrap()).unwrap();
                }
            }
            if self.0.wire.ahead().is_empty() {
                self.0.wire.fill().unwrap();
            }
            let bytes = self.0.wire.take_ahead();
            self.1 += &String::from_utf8(bytes).unwrap();
        }
    }
}

#[test]
fn events_bring_the_status_each_second_to_each_listener() {
    let upstream = Upstream::answering(OK);
    let proxy = admin(&[&upstream]).start();
    let addr = proxy.admin_addr();
    let (mut one, mut two) = (Events::listen(addr), Events::listen(addr));
    proxy.client().get("/").expect(200);
    wait_until("the event has the request", SOON, || one.next("status")["totals"]["requests"] == 1);
    assert_eq!(two.next("status")["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn listeners_are_bounded_and_those_that_leave_make_room() {
    let upstream = Upstream::answering(OK);
    let proxy = admin(&[&upstream]).start();
    let addr = proxy.admin_addr();
    let listeners: Vec<Events> = (0..32).map(|_| Events::listen(addr)).collect();
    check_problem(&get(addr, "/api/v1/events"), 503, "32 clients");
    drop(listeners);
    wait_until("there is room again", SOON, || {
        let mut client = Client::connect(addr);
        client.send(format!("GET /api/v1/events HTTP/1.0\r\nHost: {addr}\r\n\r\n"));
        client.wire.head().unwrap().status() == 200
    });
}

#[test]
fn a_thousand_connections_neither_shut_others_out_nor_delay_the_probes() {
    let upstream = Upstream::answering(OK);
    let proxy = admin(&[&upstream])
        .with("--health-interval", "500ms")
        .with("--health-timeout", "500ms")
        .start();
    let addr = proxy.admin_addr();
    let silent: Vec<Client> = (0..500).map(|_| Client::connect(addr)).collect();
    let mut asking: Vec<Client> = (0..500).map(|_| Client::connect(addr)).collect();
    let mut answered = 0;
    for client in &mut asking {
        client.send(format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"));
    }
    let passed = upstream.probes_passed();
    for client in &mut asking {
        let response = client.read_response("GET");
        answered += usize::from(response.head.is_some_and(|head| head.status() == 200));
    }
    assert_eq!(answered, 500);
    wait_until("probes go on", SOON, || upstream.probes_passed() > passed + 3);
    drop(silent);
    check_never_late(&proxy);
}

/// The control thread was never late: its log has no line about it.
#[track_caller]
fn check_never_late(proxy: &Proxy) {
    let log = proxy.log();
    assert!(!log.contains("the control thread was late"), "{log}");
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
