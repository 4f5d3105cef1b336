//! Connections that the kernel spread unevenly over the workers: how many each has in the end, and
//! that none is lost, counted twice or left behind on its way from one to another.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::{Client, Ended, Fate};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::Upstream;
use crate::support::{SOON, wait_until};

const CONNS: usize = 32;

/// Opens so many connections before the first request, then sends one on each.
#[track_caller]
fn crowd(proxy: &Proxy, count: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..count).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.get("/").expect(200);
    }
    clients
}

/// A number that a log line names.
#[track_caller]
fn number(line: &str, name: &str) -> usize {
    let value = line.split(&format!(" {name}=")).nth(1).unwrap_or_else(|| panic!("{name}: {line}"));
    let digits = value.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

/// How many connections each worker served, after a drain.
#[track_caller]
fn shares(proxy: &mut Proxy) -> Vec<usize> {
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait_exit(SOON).code(), Some(0));
    let log = proxy.log();
    let ended = log.lines().filter(|line| line.contains("a worker has ended"));
    ended.map(|line| number(line, "accepted")).collect()
}

fn check_spread(driver: &str) {
    let upstream = Upstream::naming_targets();
    for _ in 0..10 {
        let flags = Flags::to(&[&upstream]).with("--workers", "2").with("--driver", driver);
        let mut proxy = flags.with("--log-level", "debug").start();
        let clients = crowd(&proxy, CONNS);
        let shares = shares(&mut proxy);
        assert_eq!((shares.len(), shares.iter().sum::<usize>()), (2, CONNS), "{}", proxy.log());
        let max = *shares.iter().max().unwrap();
        assert!(max * 100 <= CONNS * 60, "{shares:?}");
        drop(clients);
    }
}

#[test]
fn long_lived_connections_leave_no_worker_with_more_than_three_fifths() {
    check_spread("auto");
}

#[test]
fn on_epoll_they_are_spread_alike() {
    check_spread("epoll");
}

#[test]
fn nothing_is_handed_over_where_it_is_off_or_there_is_one_worker() {
    let upstream = Upstream::naming_targets();
    for (steer, workers) in [("off", "2"), ("least", "1")] {
        let flags = Flags::to(&[&upstream]).with("--steer", steer).with("--workers", workers);
        let mut proxy = flags.start();
        drop(crowd(&proxy, CONNS));
        proxy.drain();
        assert_eq!(number(&proxy.last_line(), "handed_over"), 0);
    }
}

#[test]
fn a_place_goes_with_its_connection() {
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).with("--workers", "2").with("--client-conns-max", "8");
    let mut proxy = flags.start();
    for _ in 0..40 {
        drop(crowd(&proxy, 8));
    }
    let mut held = crowd(&proxy, 8);
    let mut ninth = proxy.client();
    ninth.send("GET /ninth HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(ninth.fate(Duration::from_millis(200)), Fate::Open);
    held.pop();
    assert_eq!(ninth.read_response("GET").expect(200).text(), "/ninth");
    proxy.drain();
    assert!(number(&proxy.last_line(), "handed_over") > 0, "{}", proxy.last_line());
}

#[test]
fn an_address_is_counted_where_its_connection_is_served() {
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).with("--workers", "2");
    let mut proxy = flags.with("--client-conns-per-address-max", "6").start();
    for _ in 0..20 {
        let mut held = Vec::new();
        wait_until("the places of the last round are free", SOON, || {
            held.clear();
            held.extend((0..6).map(|_| proxy.client()));
            held.iter_mut().all(|client| client.get("/").status() == 200)
        });
        assert_eq!(proxy.client().get("/").status(), 429);
    }
    proxy.drain();
    assert!(number(&proxy.last_line(), "handed_over") > 0, "{}", proxy.last_line());
}

#[test]
fn connections_for_a_worker_that_dies_are_served_by_its_successor_and_keep_their_places() {
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).with("--workers", "2").with("--client-conns-max", "24");
    let mut proxy = flags.with("--fault", "panic-worker=9").start();
    // A dying worker resets whom it has accepted, maybe before the client knows it is connected.
    let connect = |count: usize| (0..count).flat_map(|_| Client::try_connect(proxy.addr()));
    let mut early: Vec<_> = connect(24).collect();
    for client in &mut early {
        client.wire.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").ok();
        assert_ne!(client.read_response("GET").ended, Ended::Timeout);
    }
    drop(early);
    wait_until("both workers have died", SOON, || {
        connect(1).for_each(drop);
        proxy.log().matches("is started again").count() == 2
    });
    wait_until("every place is free and served, all at once", SOON, || {
        let mut clients: Vec<_> = connect(24).collect();
        for client in &mut clients {
            client.wire.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").ok();
        }
        clients.len() == 24 && clients.iter_mut().all(|it| it.read_response("GET").head.is_some())
    });
    proxy.drain();
}
