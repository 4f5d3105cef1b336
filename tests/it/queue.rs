//! `max-conns`: no backend has more connections than that, and what is more waits its turn, on
//! whichever worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::answers::check_own_answer;
use crate::support::client::{Client, Fate};
use crate::support::load::{self, Load, Reuse};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Upstream, ok};
use crate::support::{SOON, Turnstile, wait_until};

/// A proxy in front of these, each with so many places, that probes them only once.
pub fn limited(upstreams: &[&Upstream], conns: usize) -> Flags {
    let flags = Flags::to(&[]).with("--health-interval", "60s").with("--queue-timeout", "60s");
    let backend = |upstream: &Upstream| format!("{},max-conns={conns}", upstream.url());
    upstreams.iter().fold(flags, |flags, upstream| flags.and("--backend", &backend(upstream)))
}

/// Answers each request with its target, when the turnstile lets it.
pub fn holding(turnstile: &Turnstile) -> Upstream {
    let turnstile = turnstile.clone();
    Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            turnstile.pass();
            served.write(&ok(request.head.target(), false));
        }
    })
}

/// Answers each request with the number of its connection.
pub fn numbering() -> Upstream {
    let conns = Arc::new(AtomicUsize::new(0));
    Upstream::scripted(move |served| {
        let mut number = None;
        while served.request().is_some() {
            let number = *number.get_or_insert_with(|| conns.fetch_add(1, SeqCst));
            served.write(&ok(&number.to_string(), false));
        }
    })
}

pub fn send(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
}

/// Whether no answer has come yet after a while in which one would have.
pub fn is_waiting(client: &mut Client) -> bool {
    client.fate(Duration::from_millis(200)) == Fate::Open
}

pub fn targets(upstream: &Upstream) -> Vec<String> {
    upstream.requests().iter().map(|request| request.head.target().to_string()).collect()
}

/// A client on each of two workers, where the backend of `numbering` has one place: its connection
/// changes with the worker.
pub fn one_on_each_worker(proxy: &Proxy) -> [Client; 2] {
    let mut first = proxy.client();
    let number = first.get("/").expect(200).text();
    let mut same = Vec::new();
    for _ in 0..64 {
        let mut client = proxy.client();
        if client.get("/").expect(200).text() != number {
            return [first, client];
        }
        // Kept, so that its port is not taken again.
        same.push(client);
    }
    panic!("64 clients on one worker");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_backend_never_has_more_connections_than_its_places_and_every_request_is_answered() {
    for (conns, reuse) in [(1, Reuse::KeepAlive), (3, Reuse::KeepAlive), (3, Reuse::PerRequest)] {
        let upstream = Upstream::naming_targets();
        let proxy = limited(&[&upstream], conns).with("--workers", "2").start();
        let load = Load::start(proxy.addr(), 16, reuse, "/");
        wait_until("there was some load", SOON * 3, || load.answered() > 1_000);
        let fates = load.stop();
        let answered = [(load::Fate::Answered(200), fates.values().sum())];
        assert_eq!(fates.into_iter().collect::<Vec<_>>(), answered, "{conns} {reuse:?}");
        assert!((1..=conns).contains(&upstream.most_open()), "{}", upstream.most_open());
    }
}

#[test]
fn every_request_is_answered_where_the_backend_closes_each_connection() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            served.wait_for_end();
        }
    });
    let proxy = limited(&[&upstream], 2).with("--workers", "2").start();
    let load = Load::start(proxy.addr(), 16, Reuse::KeepAlive, "/");
    wait_until("there was some load", SOON * 3, || load.answered() > 500);
    let fates = load.stop();
    assert!(fates.keys().eq(&[load::Fate::Answered(200)]), "{fates:?}");
    assert!((1..=2).contains(&upstream.most_open()), "{}", upstream.most_open());
}

#[test]
fn who_comes_first_is_served_first() {
    let turnstile = Turnstile::default();
    let upstream = holding(&turnstile);
    let proxy = limited(&[&upstream], 1).start();
    turnstile.release(8);
    let mut clients: Vec<_> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.get("/before").expect(200);
    }
    // One after the other: what comes at the same time has no order.
    for (number, client) in clients.iter_mut().enumerate() {
        send(client, &format!("/{number}"));
        assert!(is_waiting(client));
    }
    turnstile.release(8);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read_response("GET").expect(200).text(), format!("/{number}"));
    }
    let expected: Vec<_> = (0..8).map(|number| format!("/{number}")).collect();
    assert_eq!(targets(&upstream)[8..], expected);
}

#[test]
fn who_sends_request_after_request_does_not_overtake_who_waits() {
    let turnstile = Turnstile::default();
    let upstream = holding(&turnstile);
    let proxy = limited(&[&upstream], 1).start();
    let [mut eager, mut waiting] = [proxy.client(), proxy.client()];
    send(&mut eager, "/1");
    wait_until("it is served", SOON, || upstream.request_count() == 1);
    send(&mut waiting, "/2");
    assert!(is_waiting(&mut waiting));
    // The next one is there when the first is answered.
    send(&mut eager, "/3");
    turnstile.release(3);
    for (client, target) in [(&mut eager, "/1"), (&mut waiting, "/2")] {
        assert_eq!(client.read_response("GET").expect(200).text(), target);
    }
    assert_eq!(eager.read_response("GET").expect(200).text(), "/3");
    assert_eq!(targets(&upstream), ["/1", "/2", "/3"]);
}

#[test]
fn an_unused_connection_of_another_worker_gives_its_place_up_at_once() {
    let upstream = numbering();
    let proxy = limited(&[&upstream], 1).with("--workers", "2").start();
    let [mut one, mut two] = one_on_each_worker(&proxy);
    let mut times = Vec::new();
    for _ in 0..15 {
        for client in [&mut one, &mut two] {
            let start = Instant::now();
            client.get("/").expect(200);
            times.push(start.elapsed());
        }
    }
    let median = median(times);
    println!("an unused connection's place passes to another worker in {median:?}");
    assert!(median < Duration::from_millis(50), "{median:?}");
    assert!(upstream.raw().len() > 30 && upstream.most_open() == 1, "{}", upstream.raw().len());
}

#[test]
fn any_backends_unused_connection_will_do() {
    let turnstile = Turnstile::default();
    let (held, numbering) = (holding(&turnstile), numbering());
    // The one that is held is first in the list.
    let proxy = limited(&[&held, &numbering], 1).with("--workers", "2").start();
    let mut busy = proxy.client();
    wait_until("the first backend is busy", SOON, || {
        send(&mut busy, "/held");
        if is_waiting(&mut busy) {
            return true;
        }
        busy.read_response("GET").expect(200);
        false
    });
    let [mut one, mut two] = one_on_each_worker(&proxy);
    let mut times = Vec::new();
    for _ in 0..15 {
        for client in [&mut one, &mut two] {
            let start = Instant::now();
            client.get("/").expect(200);
            times.push(start.elapsed());
        }
    }
    let median = median(times);
    assert!(median < Duration::from_millis(50), "{median:?}");
    turnstile.release(1);
    assert_eq!(busy.read_response("GET").expect(200).text(), "/held");
}

#[test]
fn a_place_freed_on_one_worker_is_taken_up_on_the_other_at_once() {
    let turnstile = Turnstile::default();
    let conns = AtomicUsize::new(0);
    let upstream = Upstream::scripted({
        let turnstile = turnstile.clone();
        move |served| {
            let mut number = None;
            while let Some(request) = served.request() {
                if request.head.target() == "/held" {
                    turnstile.pass();
                }
                let number = *number.get_or_insert_with(|| conns.fetch_add(1, SeqCst));
                served.write(&ok(&number.to_string(), false));
            }
        }
    });
    let proxy = limited(&[&upstream], 1).with("--workers", "2").start();
    let [mut one, mut two] = one_on_each_worker(&proxy);
    let mut times = Vec::new();
    for _ in 0..10 {
        let before = upstream.request_count();
        send(&mut one, "/held");
        wait_until("it is there", SOON, || upstream.request_count() == before + 1);
        send(&mut two, "/");
        assert_eq!(two.fate(Duration::from_millis(50)), Fate::Open, "it waits");
        turnstile.release(1);
        one.read_response("GET").expect(200);
        let start = Instant::now();
        two.read_response("GET").expect(200);
        times.push(start.elapsed());
    }
    let median = median(times);
    println!("a freed place is taken up on another worker in {median:?}");
    assert!(median < Duration::from_millis(50), "{median:?}");
    assert_eq!(upstream.most_open(), 1);
}

#[test]
fn just_so_many_requests_wait_over_all_workers() {
    for (queue_max, workers) in [(0, "1"), (3, "1"), (3, "2")] {
        let turnstile = Turnstile::default();
        let upstream = holding(&turnstile);
        let flags = limited(&[&upstream], 2).with("--workers", workers);
        let proxy = flags.with("--queue-max", &queue_max.to_string()).start();
        let mut clients: Vec<_> = (0..16).map(|_| proxy.client()).collect();
        for client in &mut clients {
            send(client, "/");
        }
        wait_until("there is room no more", SOON, || upstream.request_count() == 2);
        let (mut waiting, mut refused) = (Vec::new(), Vec::new());
        for mut client in clients {
            let side = if is_waiting(&mut client) { &mut waiting } else { &mut refused };
            side.push(client);
        }
        assert_eq!((waiting.len(), refused.len()), (2 + queue_max, 14 - queue_max), "{workers}");
        turnstile.release(100);
        for client in &mut waiting {
            client.read_response("GET").expect(200);
        }
        for client in &mut refused {
            let refusal = client.read_response("GET");
            check_own_answer(&refusal, 503, "connection_limit_reached", "queue-full");
            client.get("/").expect(200);
        }
    }
}

#[test]
fn who_waits_for_too_long_is_refused_and_may_ask_again() {
    let turnstile = Turnstile::default();
    let upstream = holding(&turnstile);
    let proxy = limited(&[&upstream], 1).with("--queue-timeout", "300ms").start();
    let [mut busy, mut late] = [proxy.client(), proxy.client()];
    send(&mut busy, "/busy");
    wait_until("it is served", SOON, || upstream.request_count() == 1);
    let start = Instant::now();
    let refusal = late.get("/late");
    let waited = start.elapsed();
    check_own_answer(&refusal, 503, "connection_limit_reached", "queue-timeout");
    assert!((300..2_000).contains(&waited.as_millis()), "{waited:?}");
    turnstile.release(2);
    busy.read_response("GET").expect(200);
    assert_eq!(late.get("/again").expect(200).text(), "/again");
    assert_eq!(targets(&upstream), ["/busy", "/again"]);
}

#[test]
fn who_leaves_while_it_waits_makes_room_and_is_not_served() {
    let turnstile = Turnstile::default();
    let upstream = holding(&turnstile);
    let proxy = limited(&[&upstream], 1).with("--queue-max", "1").start();
    let [mut busy, mut leaving] = [proxy.client(), proxy.client()];
    send(&mut busy, "/busy");
    wait_until("it is served", SOON, || upstream.request_count() == 1);
    send(&mut leaving, "/left");
    assert!(is_waiting(&mut leaving));
    let mut next = proxy.client();
    check_own_answer(&next.get("/next"), 503, "connection_limit_reached", "queue-full");
    leaving.reset();
    wait_until("there is room in the queue", SOON, || {
        send(&mut next, "/next");
        is_waiting(&mut next) || next.read_response("GET").status() != 503
    });
    turnstile.release(2);
    busy.read_response("GET").expect(200);
    assert_eq!(next.read_response("GET").expect(200).text(), "/next");
    assert_eq!(targets(&upstream), ["/busy", "/next"]);
}

#[test]
fn requests_that_wait_are_completed_when_the_proxy_drains() {
    let turnstile = Turnstile::default();
    let upstream = holding(&turnstile);
    let mut proxy = limited(&[&upstream], 1).with("--workers", "2").start();
    let mut clients: Vec<_> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        send(client, "/");
    }
    wait_until("one is served", SOON, || upstream.request_count() == 1);
    for client in &mut clients {
        assert!(is_waiting(client));
    }
    proxy.signal(Signal::TERM);
    wait_until("no client is taken", SOON, || Client::try_connect(proxy.addr()).is_err());
    turnstile.release(6);
    for client in &mut clients {
        let response = client.read_response("GET").expect(200);
        assert_eq!(response.get("connection"), Some("close"));
    }
    proxy.expect_drained();
}

#[test]
fn the_requests_of_a_killed_backend_wait_for_the_others() {
    let turnstiles = [Turnstile::default(), Turnstile::default()];
    let mut killed = holding(&turnstiles[0]);
    let left = holding(&turnstiles[1]);
    let proxy = limited(&[&killed, &left], 1).with("--workers", "2").start();
    let mut clients: Vec<_> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        send(client, "/");
    }
    wait_until("both are busy", SOON, || killed.request_count() + left.request_count() == 2);
    killed.stop();
    turnstiles[1].release(6);
    for client in &mut clients {
        client.read_response("GET").expect(200);
    }
    assert_eq!((left.request_count(), left.most_open()), (6, 1));
}

#[test]
fn a_lost_request_waits_for_a_place_again() {
    let (turnstile, lost) = (Turnstile::default(), AtomicUsize::new(0));
    let upstream = Upstream::scripted({
        let turnstile = turnstile.clone();
        move |served| {
            while let Some(request) = served.request() {
                turnstile.pass();
                if request.head.target() == "/lost" && lost.fetch_add(1, SeqCst) == 0 {
                    return;
                }
                served.write(&ok(request.head.target(), false));
            }
        }
    });
    let proxy = limited(&[&upstream], 1).start();
    let mut clients: Vec<_> = (0..3).map(|_| proxy.client()).collect();
    send(&mut clients[0], "/lost");
    wait_until("it is served", SOON, || upstream.request_count() == 1);
    for client in &mut clients[1..] {
        send(client, "/waiting");
        assert!(is_waiting(client));
    }
    turnstile.release(4);
    for client in &mut clients {
        client.read_response("GET").expect(200);
    }
    assert_eq!((upstream.request_count(), upstream.most_open()), (4, 1));
}
