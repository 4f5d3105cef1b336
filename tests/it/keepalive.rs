//! Requests that meet the end of the kept connection they are sent on: none fails, and no POST runs
//! twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Served, Upstream, ok};
use crate::support::wire::End;
use crate::support::{SOON, wait_until};

/// Answers with these header lines and closes connections that lie unused for so long, at once and
/// with unread requests in them, as many servers do. Counts the latter.
fn closing_after(idle: Duration, headers: &'static str) -> (Upstream, Arc<AtomicUsize>) {
    let met = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::scripted({
        let met = met.clone();
        move |served| {
            while served.request().is_some() {
                let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n");
                served.write(answer.as_bytes());
                served.wire.patience(idle);
                match served.wire.fill() {
                    Ok(()) => {}
                    Err(End::Timeout) => {
                        served.wire.patience(Duration::from_millis(1));
                        met.fetch_add(usize::from(served.wire.fill().is_ok()), SeqCst);
                        return;
                    }
                    Err(_) => return,
                }
            }
        }
    });
    (upstream, met)
}

fn request(method: &str, id: usize) -> String {
    let body = if method == "POST" { "Content-Length: 2\r\n\r\nhi" } else { "\r\n" };
    format!("{method} /{id} HTTP/1.1\r\nHost: t\r\n{body}")
}

/// How often each target was asked for.
fn runs(upstream: &Upstream) -> BTreeMap<String, usize> {
    let mut runs = BTreeMap::new();
    for request in upstream.requests() {
        *runs.entry(request.head.target().to_string()).or_default() += 1;
    }
    runs
}

fn proxy_to(upstream: &Upstream) -> Proxy {
    Flags::to(&[upstream]).with("--health-interval", "60s").start()
}

#[test]
fn a_connection_is_retired_before_its_announced_end() {
    let (upstream, met) =
        closing_after(Duration::from_secs(1), "Keep-Alive: timeout=1, max=100\r\n");
    let proxy = proxy_to(&upstream);
    let [mut client, mut other] = [proxy.client(), proxy.client()];
    // Each second request comes close to the end of a connection.
    for id in 0..4 {
        client.request(request("POST", id)).expect(200);
        let last = Instant::now();
        wait_until("the connection is nearly at its end", SOON, || {
            last.elapsed() > Duration::from_millis(970)
        });
    }
    other.request(request("GET", 9)).expect(200);
    wait_until("it is retired", SOON, || upstream.open_connections() == 0);
    assert_eq!(met.load(SeqCst), 0, "a request met an end");
    assert_eq!((upstream.raw().len(), upstream.request_count()), (5, 5));
}

#[test]
fn a_connection_whose_end_was_announced_is_closed_by_then() {
    let ended = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::scripted({
        let ended = ended.clone();
        move |served| {
            if served.request().is_some() {
                served.write(
                    b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n",
                );
                ended.fetch_add(usize::from(served.wait_for_end().is_some()), SeqCst);
            }
        }
    });
    let proxy = proxy_to(&upstream);
    // The sweep looks once a second while there is anything to look after.
    let mut client = proxy.client();
    client.get("/").expect(200);
    let took = wait_until("the proxy closes it", SOON, || ended.load(SeqCst) == 1);
    println!("announced for 1 s, closed after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_backend_that_closes_early_fails_no_request_and_runs_no_post_twice() {
    let (upstream, met) = closing_after(Duration::from_millis(100), "");
    let proxy = proxy_to(&upstream);
    let mut clients = [("GET", proxy.client()), ("POST", proxy.client())];
    let (mut id, mut failed) = (0, Vec::new());
    // Gaps around the time after which the backend closes.
    for gap in [60, 90, 97, 99, 100, 101, 103, 110, 150].repeat(4) {
        let (method, client) = &mut clients[id % 2];
        let answer = client.request(request(method, id));
        if answer.status() != 200 {
            failed.push((*method, id));
        }
        id += 1;
        let last = Instant::now();
        wait_until("the gap is over", SOON, || last.elapsed() >= Duration::from_millis(gap));
    }
    let runs = runs(&upstream);
    println!("{id} requests, {} met an end, failed: {failed:?}", met.load(SeqCst));
    assert!(failed.iter().all(|(method, _)| *method == "POST"), "a GET failed: {failed:?}");
    assert!(failed.len() <= 3, "too many POSTs met an end: {failed:?}");
    let is_twice = |id: &usize| runs.get(&format!("/{id}")).is_some_and(|count| *count > 1);
    assert!(!(0..id).filter(|id| id % 2 == 1).any(|id| is_twice(&id)), "{runs:?}");
}

#[test]
fn once_an_end_was_seen_posts_keep_clear_of_it() {
    let (upstream, met) = closing_after(Duration::from_millis(400), "");
    let proxy = proxy_to(&upstream);
    let mut client = proxy.client();
    // It is learned from a connection that is found closed.
    client.get("/").expect(200);
    wait_until("the backend has closed", SOON, || upstream.open_connections() == 0);
    client.get("/").expect(200);
    for id in 0..6 {
        client.request(request("POST", id)).expect(200);
        let last = Instant::now();
        wait_until("its connection is about to be closed", SOON, || {
            last.elapsed() >= Duration::from_millis(385)
        });
    }
    assert_eq!(met.load(SeqCst), 0);
    // The second GET's connection may serve the first POST; the others are too old for one.
    assert!(upstream.raw().len() >= 7, "{}", upstream.raw().len());
}

/// Answers one request of each connection, then each other one with 408 and a close.
fn timing_out() -> Upstream {
    Upstream::scripted(|served: &mut Served| {
        let Some(request) = served.request() else { return };
        served.write(&ok(request.head.target(), false));
        if served.request().is_some() {
            served.write(
                b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            );
        }
    })
}

#[test]
fn a_408_that_meets_a_get_is_tried_again_and_not_passed_on() {
    let upstream = timing_out();
    let proxy = proxy_to(&upstream);
    let mut client = proxy.client();
    for id in 0..3 {
        assert_eq!(client.request(request("GET", id)).expect(200).text(), format!("/{id}"));
    }
    let put = "PUT /3 HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(client.request(put).expect(200).text(), "/3");
    assert_eq!(upstream.raw().len(), 4, "each on a connection of its own");
}

#[test]
fn a_408_is_passed_on_where_the_request_cannot_be_sent_again() {
    let large =
        format!("PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 70000\r\n\r\n{}", "x".repeat(70_000));
    let cases: [(&str, String, &str); 3] = [
        ("a POST", request("POST", 1), "lost"),
        ("what is not held", large, "lost"),
        ("what is not to be tried again", request("GET", 1), "none"),
    ];
    for (what, request, on) in cases {
        let upstream = timing_out();
        let flags = Flags::to(&[&upstream]).with("--retry-on", on);
        let proxy = flags.with("--health-interval", "60s").start();
        let mut client = proxy.client();
        client.get("/0").expect(200);
        let answer = client.request(request);
        assert_eq!((answer.status(), upstream.request_count()), (408, 2), "{what}");
    }
}

#[test]
fn a_408_on_a_new_connection_is_an_answer_like_others() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(
                b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            );
        }
    });
    let proxy = proxy_to(&upstream);
    let mut client: Client = proxy.client();
    client.get("/").expect(408);
    assert_eq!(upstream.request_count(), 1);
}
