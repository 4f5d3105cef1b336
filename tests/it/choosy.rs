//! Requests that wait for places on some backends only, sessions and retries: they get them, and hold
//! up nobody who takes others.

use std::time::{Duration, Instant};

use crate::admin_writes::{self, BACKENDS, authority};
use crate::queue::{holding, is_waiting, limited, numbering, one_on_each_worker, send, targets};
use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::upstream::{Upstream, ok};
use crate::support::{SOON, Turnstile, wait_until};

/// Whether these two are with one worker.
fn is_with(one: &mut Client, other: &mut Client) -> bool {
    one.get("/").expect(200).text() == other.get("/").expect(200).text()
}

#[test]
fn a_session_waits_for_its_backend_and_holds_nobody_up() {
    let turnstile = Turnstile::default();
    let (held, free) = (holding(&turnstile), Upstream::answering(ok("free", false)));
    let flags = limited(&[&held, &free], 1).with("--sticky-cookie", "s");
    let proxy = flags.start();
    turnstile.release(1);
    let cookie = wait_for_cookie(&proxy, "/first");
    let request = |target| format!("GET {target} HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n");
    let [mut busy, mut waiting] = [proxy.client(), proxy.client()];
    busy.send(request("/busy"));
    wait_until("it is served", SOON, || held.request_count() == 2);
    waiting.send(request("/waiting"));
    assert!(is_waiting(&mut waiting));
    let mut other = proxy.client();
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(other.get("/").expect(200).text(), "free");
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "twenty requests were held up: {took:?}");
    assert!(is_waiting(&mut waiting));
    turnstile.release(2);
    assert_eq!(busy.read_response("GET").expect(200).text(), "/busy");
    assert_eq!(waiting.read_response("GET").expect(200).text(), "/waiting");
}

/// The cookie of a session on the backend that answers with the target.
fn wait_for_cookie(proxy: &Proxy, target: &str) -> String {
    let mut cookie = String::new();
    wait_until("a session is on the backend", SOON, || {
        let response = proxy.client().get(target).expect(200);
        let set = response.get("set-cookie").expect("a cookie");
        cookie = set.split(';').next().unwrap_or_default().to_string();
        response.text() == target
    });
    cookie
}

#[test]
fn a_retry_that_waits_elsewhere_holds_up_no_one_on_the_backend_that_failed_it() {
    let turnstile = Turnstile::default();
    let held = holding(&turnstile);
    let failing = Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            if request.head.target() == "/lost" {
                return;
            }
            served.write(&ok("failing", false));
        }
    });
    let proxy = limited(&[&held, &failing], 1).with("--workers", "1").start();
    let [mut busy, mut lost, mut other] = [(); 3].map(|()| proxy.client());
    wait_until("the first backend is busy", SOON, || {
        send(&mut busy, "/busy");
        if is_waiting(&mut busy) {
            return true;
        }
        busy.read_response("GET").expect(200);
        false
    });
    send(&mut lost, "/lost");
    assert!(is_waiting(&mut lost));
    assert!(targets(&failing).contains(&"/lost".to_string()), "it was tried there");
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(other.get("/").expect(200).text(), "failing");
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "twenty requests were held up: {took:?}");
    assert!(is_waiting(&mut lost));
    turnstile.release(2);
    assert_eq!(busy.read_response("GET").expect(200).text(), "/busy");
    assert_eq!(lost.read_response("GET").expect(200).text(), "/lost");
}

#[test]
fn a_session_whose_backend_is_put_aside_while_it_waits_takes_anothers_place() {
    let turnstiles = [Turnstile::default(), Turnstile::default()];
    let [aside, left] = [&turnstiles[0], &turnstiles[1]].map(holding);
    let flags = limited(&[&aside, &left], 1).with("--sticky-cookie", "s");
    let proxy = flags.with("--workers", "1").with("--admin", "127.0.0.1:0").start();
    let mut clients = [(); 4].map(|()| proxy.client());
    let [first, busy, waiting, behind] = &mut clients;
    for client in [&mut *first, &mut *busy] {
        send(client, "/busy");
    }
    let count = || aside.request_count() + left.request_count();
    wait_until("both are busy", SOON, || count() == 2);
    turnstiles[0].release(1);
    wait_until("one has an answer", SOON, || !is_waiting(first) || !is_waiting(busy));
    let freed = if is_waiting(first) { busy } else { first };
    let answer = freed.read_response("GET").expect(200);
    let cookie = answer.get("set-cookie").and_then(|it| it.split(';').next()).expect("a cookie");
    let request = format!("GET /on HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n");
    freed.send(&request);
    wait_until("it is busy again", SOON, || aside.request_count() == 2);
    waiting.send(&request);
    assert!(is_waiting(waiting));
    let path = format!("PATCH {BACKENDS}/{}", authority(&aside));
    let admin = proxy.admin_addr();
    admin_writes::send(admin, &path, "", r#"{"mode":"maintenance"}"#).expect(200);
    assert!(is_waiting(waiting), "the other backend has no place");
    send(behind, "/behind");
    assert!(is_waiting(behind));
    turnstiles[1].release(3);
    assert_eq!(waiting.read_response("GET").expect(200).text(), "/on");
    assert_eq!(behind.read_response("GET").expect(200).text(), "/behind");
    assert_eq!(targets(&left), ["/busy", "/on", "/behind"]);
    turnstiles[0].release(1);
}

#[test]
fn a_session_that_waits_on_one_worker_slows_no_other_down() {
    let turnstile = Turnstile::default();
    let (held, numbering) = (holding(&turnstile), numbering());
    let flags = limited(&[&held, &numbering], 1).with("--sticky-cookie", "s");
    let proxy = flags.with("--workers", "2").start();
    turnstile.release(1);
    let cookie = wait_for_cookie(&proxy, "/first");
    let request = |target| format!("GET {target} HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n");
    let mut busy = proxy.client();
    busy.send(request("/busy"));
    wait_until("it is served", SOON, || held.request_count() == 2);
    let [mut waiting, mut other] = one_on_each_worker(&proxy);
    // One more on the worker of `other`: the connection to the backend stays that worker's.
    let clients = (0..64).map(|_| proxy.client());
    let mut elsewhere = Vec::new();
    let mut third = None;
    for mut client in clients {
        if is_with(&mut other, &mut client) {
            third = Some(client);
            break;
        }
        elsewhere.push(client);
    }
    let mut third = third.expect("one of 64 clients");
    waiting.send(request("/waiting"));
    assert!(is_waiting(&mut waiting));
    let start = Instant::now();
    for _ in 0..20 {
        send(&mut other, "/");
        send(&mut third, "/");
        other.read_response("GET").expect(200);
        third.read_response("GET").expect(200);
    }
    let took = start.elapsed();
    println!("forty requests beside a session that waits on another worker took {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    turnstile.release(2);
    busy.read_response("GET").expect(200);
    waiting.read_response("GET").expect(200);
}
