//! What the admin API changes: backends that come, change and go under load, two writers at once, and
//! a drain.

use std::net::SocketAddr;
use std::thread;

use serde_json::{Value, json};

use crate::admin::{admin, check_problem, get, json_of, status};
use crate::queue::holding;
use crate::support::client::{Client, Response};
use crate::support::load::{Fate, Load, Reuse};
use crate::support::upstream::Upstream;
use crate::support::{SOON, Turnstile, wait_until};

pub const BACKENDS: &str = "/api/v1/pools/default/backends";

/// Sends a request with a JSON body on a connection of its own.
pub fn send(addr: SocketAddr, line: &str, headers: &str, body: &str) -> Response {
    write(&mut Client::connect(addr), addr, line, headers, body)
}

fn write(client: &mut Client, addr: SocketAddr, line: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    client.request(format!(
        "{line} HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    ))
}

pub fn authority(upstream: &Upstream) -> String {
    upstream.url().trim_start_matches("http://").to_string()
}

pub fn answering(body: &str) -> Upstream {
    let length = body.len();
    Upstream::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"))
}

#[track_caller]
fn wait_for_state(addr: SocketAddr, path: &str, state: &str) {
    wait_until(&format!("{path} is {state}"), SOON, || {
        json_of(&get(addr, path).expect(200))["state"] == state
    });
}

#[test]
fn backends_come_change_and_go() {
    let (one, two) = (answering("one"), answering("two"));
    let proxy = admin(&[&one]).start();
    let addr = proxy.admin_addr();
    let id = authority(&two);
    let path = format!("{BACKENDS}/{id}");
    let body = json!({ "address": id, "weight": 3 }).to_string();
    let added = send(addr, &format!("POST {BACKENDS}"), "", &body).expect(201);
    assert_eq!(added.get("location"), Some(path.as_str()));
    let backend = json_of(&added);
    assert_eq!((&backend["source"], &backend["weight"]), (&"api".into(), &3.into()));
    assert_eq!(
        added.get("etag"),
        Some(format!("\"{}\"", backend["revision"].as_str().unwrap()).as_str())
    );
    check_problem(&send(addr, &format!("POST {BACKENDS}"), "", &body), 409, "already");
    wait_for_state(addr, &path, "up");
    let mut client = proxy.client();
    wait_until("the workers know it", SOON, || client.get("/").expect(200).text() == "two");
    let bodies: Vec<String> = (0..8).map(|_| client.get("/").expect(200).text()).collect();
    assert_eq!(bodies.iter().filter(|body| *body == "two").count(), 6, "{bodies:?}");
    send(addr, &format!("PATCH {path}"), "", r#"{"mode":"maintenance"}"#).expect(200);
    wait_for_state(addr, &path, "maintenance");
    wait_until("its last request is over", SOON, || client.get("/").expect(200).text() == "one");
    assert!((0..5).all(|_| client.get("/").expect(200).text() == "one"));
    let patch = r#"{"mode":"ready","weight":256,"max_conns":9,"backup":false}"#;
    let changed = json_of(&send(addr, &format!("PATCH {path}"), "", patch).expect(200));
    assert_eq!((&changed["weight"], &changed["max_conns"]), (&256.into(), &9.into()));
    let removed = send(addr, &format!("DELETE {path}"), "", "");
    assert_eq!(removed.status(), 204);
    check_problem(&get(addr, &path), 404, "no backend");
    let snapshots = json_of(&get(addr, "/api/v1/snapshots").expect(200));
    let last = snapshots["snapshots"].as_array().unwrap().last().unwrap()["epoch"].clone();
    let diff = json_of(&get(addr, &format!("/api/v1/snapshots/diff?from=1&to={last}")).expect(200));
    assert!(diff["backends"].is_array(), "{diff}");
}

#[test]
fn a_change_that_cannot_be_kept_is_in_force_and_says_so() {
    let (one, two) = (answering("one"), answering("two"));
    let scratch = crate::support::Scratch::new("unkept");
    let directory = scratch.join("gone");
    std::fs::create_dir(&directory).unwrap();
    let state = directory.join("state.json").display().to_string();
    let proxy = admin(&[&one, &two]).with("--state-file", &state).start();
    let addr = proxy.admin_addr();
    let [path, other] = [&one, &two].map(|it| format!("{BACKENDS}/{}", authority(it)));
    let patch = |weight: u32| {
        let body = json!({ "weight": weight }).to_string();
        json_of(&send(addr, &format!("PATCH {path}"), "", &body).expect(200))
    };
    assert_eq!(patch(2).get("kept"), None);
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(patch(3)["kept"], false);
    let removed = send(addr, &format!("DELETE {other}"), "", "").expect(200);
    assert_eq!(json_of(&removed), json!({ "kept": false }));
    assert_eq!(json_of(&get(addr, &path).expect(200))["weight"], 3, "it is in force");
    std::fs::create_dir(&directory).unwrap();
    wait_until("what could not be kept is kept", SOON, || {
        std::fs::read_to_string(&state).is_ok_and(|text| text.contains("\"weight\": 3"))
    });
    assert_eq!(patch(4).get("kept"), None);
}

/// Connections that are open when a limit comes, is lowered, or their backend goes.
#[test]
fn connections_beyond_a_new_limit_and_of_what_was_removed_are_closed() {
    const CLIENTS: usize = 6;
    let turnstile = Turnstile::default();
    let upstream = holding(&turnstile);
    let proxy = admin(&[&upstream]).with("--health-interval", "60s").start();
    let addr = proxy.admin_addr();
    let path = format!("{BACKENDS}/{}", authority(&upstream));
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    let mut seen = 0;
    // All at once are in flight when the change is made, or it is made when they are over.
    let mut play = |line: &str, body: &str, is_in_flight: bool, left: usize| {
        clients.iter_mut().for_each(|client| crate::queue::send(client, "/"));
        seen += CLIENTS;
        let change = || {
            let status = send(addr, &format!("{line} {path}"), "", body).status();
            assert!((200..300).contains(&status), "{line} {body}: {status}");
        };
        wait_until("all are there", SOON, || upstream.request_count() == seen);
        if is_in_flight {
            change();
        }
        turnstile.release(CLIENTS);
        for client in &mut clients {
            client.read_response("GET").expect(200);
        }
        if !is_in_flight {
            change();
        }
        let open = || upstream.open_connections();
        wait_until(&format!("{line} {body} leaves {left}"), SOON, || open() == left);
    };
    play("PATCH", r#"{"weight":2}"#, true, CLIENTS);
    play("PATCH", r#"{"max_conns":6}"#, false, 0);
    play("PATCH", r#"{"max_conns":2}"#, true, 2);
    send(addr, &format!("PATCH {path}"), "", r#"{"max_conns":null}"#).expect(200);
    play("PATCH", r#"{"max_conns":7}"#, true, 0);
    play("DELETE", "", true, 0);
}

#[test]
fn wrong_writes_are_refused_with_a_reason_and_change_nothing() {
    let upstream = answering("one");
    let proxy = admin(&[&upstream]).start();
    let addr = proxy.admin_addr();
    let path = format!("{BACKENDS}/{}", authority(&upstream));
    let before = json_of(&get(addr, &path).expect(200))["revision"].clone();
    let (post, patch) = (format!("POST {BACKENDS}"), format!("PATCH {path}"));
    let huge = format!("{{\"address\":\"{}\"}}", "a".repeat(100_000));
    for (line, headers, body, status, word) in [
        (&post, "", "", 400, "JSON object"),
        (&post, "", "{", 400, "JSON object"),
        (&post, "", "[1]", 400, "JSON object"),
        (&post, "", "{\"address\":\"127.0.0.1:1\",\"address\":\"127.0.0.1:2\"}", 400, "twice"),
        (&post, "", "{}", 422, "HOST:PORT"),
        (&post, "", "{\"address\":1}", 422, "string"),
        (&post, "", "{\"address\":\"no port\"}", 422, ""),
        (&post, "", "{\"address\":\"127.0.0.1:0\"}", 422, ""),
        (&post, "", "{\"address\":\"127.0.0.1:+80\"}", 422, "port"),
        (&post, "", "{\"address\":\"127.0.0.1:1\\u0000\"}", 422, "port"),
        (&post, "", &format!("{{\"address\":\"{}:1\"}}", "a".repeat(64)), 422, "63"),
        (&post, "", "{\"address\":\"127.0.0.1:1\",\"colour\":1}", 422, "no such field"),
        (&post, "", &huge, 413, "65536"),
        (&patch, "", "{\"weight\":0}", 422, "1 to 256"),
        (&patch, "", "{\"weight\":257}", 422, "1 to 256"),
        (&patch, "", "{\"weight\":\"2\"}", 422, "1 to 256"),
        (&patch, "", "{\"weight\":2.5}", 422, "1 to 256"),
        (&patch, "", "{\"mode\":\"down\"}", 422, "maintenance"),
        (&patch, "", "{\"max_conns\":0}", 422, "null"),
        (&patch, "", "{\"backup\":\"yes\"}", 422, "true or false"),
        (&patch, "", "{\"address\":\"127.0.0.1:1\"}", 422, "no such field"),
        (&patch, "If-Match: 1\r\n", "{\"weight\":2}", 400, "ETag"),
        (&patch, "If-Match: \"1\"\r\n", "{\"weight\":2}", 412, "somebody else"),
        (&patch, "If-Match: \"1\", \"2\"\r\n", "{\"weight\":2}", 412, "somebody else"),
        (&patch, "Origin: http://evil.example\r\n", "{\"weight\":2}", 403, "Origin"),
        (&format!("DELETE {path}"), "If-Match: \"1\"\r\n", "", 412, "somebody else"),
        (&format!("PATCH {BACKENDS}/127.0.0.1:1"), "", "{\"weight\":2}", 404, "no backend"),
        (&format!("DELETE {BACKENDS}/127.0.0.1:1"), "", "", 404, "no backend"),
        (
            &"POST /api/v1/pools/none/backends".to_string(),
            "",
            "{\"address\":\"127.0.0.1:1\"}",
            404,
            "no pool",
        ),
        (&"GET /api/v1/pools/none/backends".to_string(), "", "", 404, "no pool"),
        (&"POST /api/v1/reload".to_string(), "", "{}", 422, "--config"),
        (&"GET /api/v1/snapshots/diff?from=1".to_string(), "", "", 422, "missing"),
        (&"GET /api/v1/snapshots/diff?from=1&to=x".to_string(), "", "", 422, "number"),
        (&"GET /api/v1/snapshots/diff?from=1&to=99999".to_string(), "", "", 404, "99999"),
        (&"GET /api/v1/explain?colour=1".to_string(), "", "", 422, "header.NAME"),
        (&"GET /api/v1/explain?listener=1".to_string(), "", "", 422, "0 to 0"),
        (&"GET /api/v1/explain?client=me".to_string(), "", "", 422, "IP address"),
        (&"GET /api/v1/explain?pool=none".to_string(), "", "", 404, "no pool"),
        (&"GET /api/v1/explain?path=/%0d%0aHost:x".to_string(), "", "", 422, "control"),
    ] {
        check_problem(&send(addr, line, headers, body), status, word);
    }
    let slow = format!(
        "{patch} HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{{"
    );
    let mut client = Client::connect(addr);
    client.wire.patience(SOON * 2);
    check_problem(&client.request(slow), 408, "body");
    assert_eq!(json_of(&get(addr, &path).expect(200))["revision"], before);
    assert_eq!(status(addr)["pools"][0]["backends"].as_array().unwrap().len(), 1);
}

/// Each writer adds one to the weight until it has done so often enough, and reads again where
/// somebody was quicker.
#[test]
fn two_writers_at_once_lose_no_update() {
    const WRITES: u64 = 60;
    let upstream = answering("one");
    let proxy = admin(&[&upstream]).start();
    let addr = proxy.admin_addr();
    let path = format!("{BACKENDS}/{}", authority(&upstream));
    let writer = |path: String| {
        thread::spawn(move || {
            let (mut done, mut lost) = (0, 0);
            while done < WRITES {
                let seen = get(addr, &path).expect(200);
                let weight = json_of(&seen)["weight"].as_u64().unwrap() + 1;
                let condition = format!("If-Match: {}\r\n", seen.get("etag").unwrap());
                let body = json!({ "weight": weight }).to_string();
                match send(addr, &format!("PATCH {path}"), &condition, &body).status() {
                    200 => done += 1,
                    412 => lost += 1,
                    status => panic!("{status}"),
                }
                assert!(lost < 10_000);
            }
        })
    };
    let writers = [writer(path.clone()), writer(path.clone())];
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(json_of(&get(addr, &path).expect(200))["weight"], 1 + 2 * WRITES);
}

/// Memory is read when the changes of a thousand are over and their snapshots are gone.
#[test]
fn a_thousand_changes_under_load_fail_no_request_and_leave_no_memory() {
    let upstreams = [answering("one"), answering("two"), answering("three")];
    let proxy = admin(&[&upstreams[0]]).start();
    let addr = proxy.admin_addr();
    let load = Load::start(proxy.addr(), 4, Reuse::KeepAlive, "/");
    let mut client = Client::connect(addr);
    let mut change = |count: usize| {
        for number in 0..count {
            let id = authority(&upstreams[1 + number / 2 % 2]);
            let response = if number % 2 == 0 {
                let body = json!({ "address": id, "weight": 1 + number % 256 }).to_string();
                write(&mut client, addr, &format!("POST {BACKENDS}"), "", &body)
            } else {
                write(&mut client, addr, &format!("DELETE {BACKENDS}/{id}"), "", "")
            };
            assert!((200..300).contains(&response.status()), "{response:?}");
        }
    };
    change(100);
    let before = proxy.memory();
    let mut after = Vec::new();
    for _ in 0..3 {
        change(1000);
        after.push(proxy.memory());
    }
    let fates = load.stop();
    assert!(fates.keys().all(|fate| *fate == Fate::Answered(200)), "{fates:?}");
    assert!(after[0] <= before + MEMORY_MAX, "{before} then {after:?}");
    assert!(after[2] <= after[1] + MEMORY_NOISE, "{before} then {after:?}");
    let log = proxy.log();
    assert!(!log.contains("the control thread was late"), "{log}");
}

#[test]
fn changes_are_told_to_those_who_listen() {
    let upstream = answering("one");
    let proxy = admin(&[&upstream]).start();
    let addr = proxy.admin_addr();
    let mut events = crate::admin::Events::listen(addr);
    let path = format!("{BACKENDS}/{}", authority(&upstream));
    send(addr, &format!("PATCH {path}"), "", r#"{"weight":7}"#).expect(200);
    let change = events.next("change");
    assert!(change["epoch"].as_u64().unwrap() > 1, "{change}");
    assert!(!change["text"].as_str().unwrap().is_empty(), "{change}");
}

#[test]
fn explain_says_what_the_workers_do() {
    let upstreams = ["one", "two", "three", "four"].map(answering);
    let all: Vec<&Upstream> = upstreams.iter().collect();
    let proxy = admin(&all)
        .with("--policy", "maglev")
        .with("--hash-key", "header:x-key")
        .with("--sticky-cookie", "lane")
        .start();
    let addr = proxy.admin_addr();
    let explained =
        |query: &str| json_of(&get(addr, &format!("/api/v1/explain?{query}")).expect(200));
    for key in 0..20 {
        let mut client = proxy.client();
        let answer = client.request(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n"));
        let found = explained(&format!("header.x-key={key}"));
        let backend =
            upstreams.iter().find(|it| format!("default/{}", authority(it)) == found["backend"]);
        let body = String::from_utf8(backend.unwrap().raw().concat()).unwrap();
        assert!(body.contains(&format!("\r\nX-Key: {key}\r\n")), "{found}");
        let cookie = answer.get("set-cookie").unwrap().split(';').next().unwrap().to_string();
        let value = cookie.strip_prefix("lane=").unwrap();
        let sticky = explained(&format!("header.x-key=other&cookie.lane={value}"));
        assert_eq!(sticky["backend"], found["backend"], "{sticky}");
    }
    let unkeyed = explained("path=/");
    assert_eq!(unkeyed["backend"], Value::Null, "{unkeyed}");
    assert_eq!(unkeyed["candidates"].as_array().unwrap().len(), 4);
    assert!(explained("method=G%C3%84T")["why"].as_str().unwrap().contains("400"));
}

#[test]
fn a_drain_that_is_asked_for_twice_is_one_drain() {
    let upstream = answering("one");
    let mut proxy = admin(&[&upstream]).start();
    let addr = proxy.admin_addr();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    wait_until("the client is there", SOON, || status(addr)["totals"]["clients_open"] == 1);
    for _ in 0..2 {
        send(addr, "POST /api/v1/drain", "", "{}").expect(202);
    }
    wait_until("it drains", SOON, || status(addr)["draining"] == true);
    send(addr, "POST /api/v1/drain", "", "{}").expect(202);
    client.send("\r\n");
    assert_eq!(client.read_response("GET").status(), 200);
    proxy.expect_drained();
}

/// What a thousand changes may leave,
const MEMORY_MAX: u64 = 16 * 1024 * 1024;
/// and what of the third thousand is the allocator's noise.
const MEMORY_NOISE: u64 = 1024 * 1024;
