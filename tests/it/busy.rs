//! The limits of a backend that refuse instead of letting wait: requests in flight, and
//! connections in the making.

use std::time::{Duration, Instant};

use crate::answers::check_own_answer;
use crate::support::client::Fate;
use crate::support::deaf::deaf_after_the_probe;
use crate::support::proxy::Flags;
use crate::support::upstream::{Upstream, ok};
use crate::support::{SOON, Turnstile, wait_until};

#[test]
fn just_so_many_requests_are_in_flight_and_more_are_refused_at_once() {
    let turnstile = Turnstile::default();
    let upstream = Upstream::scripted({
        let turnstile = turnstile.clone();
        move |served| {
            while served.request().is_some() {
                turnstile.pass();
                served.write(&ok("", false));
            }
        }
    });
    let flags = Flags::to(&[&upstream]).with("--breaker-requests-max", "3");
    let proxy = flags.with("--workers", "2").start();
    for round in 1..=3 {
        let mut clients: Vec<_> = (0..12).map(|_| proxy.client()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        wait_until("there is room no more", SOON, || upstream.request_count() == 3 * round);
        let (mut served, mut refused) = (Vec::new(), Vec::new());
        for mut client in clients {
            let is_open = client.fate(Duration::from_millis(200)) == Fate::Open;
            let side = if is_open { &mut served } else { &mut refused };
            side.push(client);
        }
        assert_eq!((served.len(), refused.len()), (3, 9));
        for client in &mut refused {
            let refusal = client.read_response("GET");
            check_own_answer(&refusal, 503, "connection_limit_reached", "backends-busy");
        }
        turnstile.release(3);
        for client in &mut served {
            client.read_response("GET").expect(200);
        }
        assert_eq!(upstream.request_count(), 3 * round);
    }
}

#[test]
fn a_request_goes_to_the_backend_that_is_not_at_its_limit() {
    let turnstile = Turnstile::default();
    let upstreams = [(); 2].map(|()| {
        let turnstile = turnstile.clone();
        Upstream::scripted(move |served| {
            while served.request().is_some() {
                turnstile.pass();
                served.write(&ok("", false));
            }
        })
    });
    let proxy = Flags::to(&upstreams.each_ref()).with("--breaker-requests-max", "2").start();
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    wait_until("both are busy", SOON, || {
        upstreams.iter().all(|upstream| upstream.request_count() == 2)
    });
    let refusal = proxy.client().get("/");
    check_own_answer(&refusal, 503, "connection_limit_reached", "backends-busy");
    turnstile.release(4);
    for client in &mut clients {
        client.read_response("GET").expect(200);
    }
}

#[test]
fn just_so_many_connections_are_in_the_making_and_more_are_refused_at_once() {
    let flags = Flags::to(&[]).with("--breaker-pending-max", "2").with("--workers", "2");
    let flags = flags.with("--backend-connect-timeout", "2s").with("--retries", "0");
    let (_deaf, proxy) = deaf_after_the_probe(flags.with("--eject-after", "0"));
    for _ in 0..2 {
        let mut clients: Vec<_> = (0..8).map(|_| proxy.client()).collect();
        let start = Instant::now();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        let (mut connecting, mut refused) = (Vec::new(), Vec::new());
        for mut client in clients {
            let is_open = client.fate(Duration::from_millis(100)) == Fate::Open;
            let side = if is_open { &mut connecting } else { &mut refused };
            side.push(client);
        }
        let took = start.elapsed();
        assert_eq!((connecting.len(), refused.len()), (2, 6), "after {took:?}");
        for client in &mut refused {
            let refusal = client.read_response("GET");
            check_own_answer(&refusal, 503, "connection_limit_reached", "backends-busy");
        }
        for client in &mut connecting {
            let answer = client.read_response("GET");
            check_own_answer(&answer, 504, "connection_timeout", "connect-timeout");
        }
    }
}
