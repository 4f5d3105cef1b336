//! Long bodies whose senders pause: none of their bytes is held back for more to come, and small messages
//! follow at once on the same connections; `drivers` runs it on epoll too.

use std::time::Duration;

use crate::splice::{KIB, MIB, body, get, head};
use crate::support::proxy::Flags;
use crate::support::upstream::{Upstream, ok};
use crate::support::wire::Wire;
use crate::support::{SOON, Turnstile};

/// What comes at once before a sender pauses: most end below what a worker waits for at a time.
const BURSTS: [usize; 10] =
    [3_100_000, 1, 600 * KIB, 100_000, 5, 2 * MIB + 1, 64 * KIB, MIB - 1, 300 * KIB, 2_500_000];
/// How long a byte may be on its way, on a machine that is busy with something else.
const PROMPTLY: Duration = Duration::from_secs(1);

/// Sends bursts, each when the one before it has arrived.
fn send_bursts(wire: &mut Wire, arrived: &Turnstile) {
    for length in BURSTS {
        wire.write(&body(length)).unwrap();
        arrived.pass();
    }
}

/// Takes these bursts, none of which may be held back.
fn take_bursts(wire: &mut Wire, arrived: &Turnstile) {
    wire.patience(PROMPTLY);
    for length in BURSTS {
        while wire.ahead().len() < length {
            wire.fill().unwrap_or_else(|end| panic!("{end:?} in a burst of {length}"));
        }
        assert!(wire.take_ahead() == body(length), "{length}");
        arrived.release(1);
    }
    wire.patience(SOON);
}

#[test]
fn a_backend_that_pauses_has_none_of_its_bytes_held_back() {
    let arrived = Turnstile::default();
    let arriving = arrived.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            if request.head.target() == "/bursts" {
                served.write(&head(BURSTS.iter().sum()));
                send_bursts(&mut served.wire, &arriving);
            } else {
                served.write(&ok("small", false));
            }
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send(get("/bursts"));
        assert_eq!(client.wire.head().unwrap().status(), 200);
        take_bursts(&mut client.wire, &arrived);
        assert_eq!(client.get("/").expect(200).text(), "small");
    }
    assert_eq!(upstream.raw().len(), 1, "one connection serves them all");
}

#[test]
fn a_client_that_pauses_has_none_of_its_bytes_held_back() {
    let arrived = Turnstile::default();
    let arriving = arrived.clone();
    let upstream = Upstream::scripted(move |served| {
        while let Some(head) = served.head() {
            if head.method() == "POST" {
                take_bursts(&mut served.wire, &arriving);
            }
            served.write(&ok("taken", false));
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        let length: usize = BURSTS.iter().sum();
        client.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n"));
        send_bursts(&mut client.wire, &arrived);
        assert_eq!(client.read_response("POST").expect(200).text(), "taken");
        assert_eq!(client.get("/").expect(200).text(), "taken");
    }
    assert_eq!(upstream.raw().len(), 1, "one connection serves them all");
}
