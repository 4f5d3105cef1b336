//! What is tried again, on which backend, how often; and what never is.

use crate::answers::check_own_answer;
use crate::support::client::{Client, Response};
use crate::support::proxy::Flags;
use crate::support::upstream::{Served, Upstream, ok};
use crate::support::wire::Framing;
use crate::support::{SOON, Turnstile, wait_until};

/// A proxy that keeps backends in the rotation whatever they do, with `--retry-on` this list.
fn retrying(upstreams: &[&Upstream], on: &str) -> Flags {
    let flags = Flags::to(upstreams).with("--health-interval", "60s").with("--eject-after", "0");
    flags.with("--retry-on", on).with("--retry-budget-min", "1000")
}

/// Reads the head and so many bytes of each request's body, and resets.
fn resetting_after(body_bytes: usize) -> Upstream {
    Upstream::scripted(move |served: &mut Served| {
        if served.head().is_some() {
            while served.wire.ahead().len() < body_bytes && served.wire.fill().is_ok() {}
            served.reset_on_return();
        }
    })
}

fn saying(text: &'static str) -> Upstream {
    Upstream::answering(ok(text, false))
}

fn failing(status: u16) -> Upstream {
    Upstream::answering(format!(
        "HTTP/1.1 {status} Failed\r\nX-Own: yes\r\nContent-Length: 6\r\n\r\nfailed"
    ))
}

/// Bytes that tell their place.
fn body_of(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn in_chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// The head and the body of a request, as they are sent.
fn framed(method: &str, body: &[u8], framing: Framing) -> (String, Vec<u8>) {
    let head = format!("{method} / HTTP/1.1\r\nHost: t\r\n");
    match framing {
        Framing::Chunked => {
            (head + "Transfer-Encoding: chunked\r\n\r\n", in_chunks(body, 1_000.min(body.len())))
        }
        _ => (head + &format!("Content-Length: {}\r\n\r\n", body.len()), body.to_vec()),
    }
}

/// How a backend is made.
type Made = fn() -> Upstream;

const FRAMINGS: [Framing; 2] = [Framing::Length(0), Framing::Chunked];
const GET: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

/// Of two requests that `send` sends one at least is lost and replayed.
#[track_caller]
fn check_replayed(lost_after: usize, send: impl Fn(&mut Client)) {
    let (lost, there) = (resetting_after(lost_after), saying("there"));
    let proxy = retrying(&[&lost, &there], "lost").start();
    let mut client = proxy.client();
    for _ in 0..2 {
        send(&mut client);
        assert_eq!(client.read_response("PUT").expect(200).text(), "there");
    }
    assert!(!lost.raw().is_empty() && there.request_count() == 2);
    let bodies: Vec<_> = there.requests().into_iter().map(|request| request.body).collect();
    assert!(bodies.iter().all(|body| *body == body_of(bodies[0].len())), "not the same bytes");
    assert_eq!(bodies[0].len(), bodies[1].len());
}

#[test]
fn a_put_is_replayed_with_the_same_bytes() {
    for framing in FRAMINGS {
        for (length, lost_after) in [(10, 10), (50_000, 50_000), (50_000, 100), (50_000, 0)] {
            let (head, body) = framed("PUT", &body_of(length), framing);
            // In one piece with its head, behind it, and in several.
            check_replayed(lost_after, |client| client.send([head.as_bytes(), &body].concat()));
            check_replayed(lost_after, |client| {
                client.send(&head);
                client.send(&body);
            });
            check_replayed(lost_after, |client| {
                client.send(&head);
                body.chunks(body.len() / 3 + 1).for_each(|piece| client.send(piece));
            });
        }
    }
}

#[test]
fn a_put_that_is_lost_while_its_body_comes_is_replayed_whole() {
    for framing in FRAMINGS {
        let (lost, there) = (resetting_after(5), saying("there"));
        let proxy = retrying(&[&lost, &there], "lost").start();
        let (head, body) = framed("PUT", &body_of(30_000), framing);
        for _ in 0..2 {
            let mut client = proxy.client();
            let bytes = || [lost.raw(), there.raw()].concat().concat().len();
            let before = bytes();
            client.send(&head);
            client.send(&body[..20_000]);
            wait_until("it is lost or arrives", SOON, || {
                lost.open_connections() == 0 && bytes() > before
            });
            client.send(&body[20_000..]);
            assert_eq!(client.read_response("PUT").expect(200).text(), "there");
        }
        assert!(!lost.raw().is_empty(), "{framing:?}");
        assert!(there.requests().iter().all(|request| request.body == body_of(30_000)));
    }
}

#[test]
fn no_more_of_a_body_is_held_than_was_asked_for() {
    const MAX: usize = 5_000;
    for (length, framing, is_replayed) in [
        (MAX, Framing::Length(0), true),
        (MAX + 1, Framing::Length(0), false),
        (MAX / 2, Framing::Chunked, true),
        (MAX + 1, Framing::Chunked, false),
    ] {
        for is_apart in [false, true] {
            let (one, two) = (resetting_after(length), resetting_after(length));
            let flags = retrying(&[&one, &two], "lost");
            let proxy = flags.with("--retry-body-bytes-max", &MAX.to_string()).start();
            let (head, body) = framed("PUT", &body_of(length), framing);
            let mut client = proxy.client();
            match is_apart {
                true => {
                    client.send(&head);
                    client.send(&body);
                }
                false => client.send([head.as_bytes(), &body].concat()),
            }
            let answer = client.read_response("PUT");
            check_own_answer(&answer, 502, "connection_terminated", "backend-lost");
            let attempts = one.raw().len() + two.raw().len();
            let what = format!("{length} bytes, {framing:?}, apart: {is_apart}");
            assert_eq!(attempts, 1 + usize::from(is_replayed), "{what}");
        }
    }
}

/// The one answer to `request` of two backends alike, and how many attempts it took.
fn attempts_of(
    backend: impl Fn() -> Upstream,
    request: &str,
    flags: impl Fn(Flags) -> Flags,
) -> (Response, usize) {
    let (one, two) = (backend(), backend());
    let proxy = flags(retrying(&[&one, &two], "lost,timeout,invalid,500-599")).start();
    let method = request.split(' ').next().unwrap_or_default();
    let mut client = proxy.client();
    client.send(request);
    let answer = client.read_response(method);
    (answer, one.request_count() + two.request_count())
}

fn losing() -> Upstream {
    Upstream::scripted(|served| drop(served.request()))
}

fn garbling() -> Upstream {
    Upstream::answering("garbage\r\n\r\n")
}

fn hanging() -> Upstream {
    Upstream::scripted(|served| {
        if served.request().is_some() {
            served.wait_for_end();
        }
    })
}

const POST: &str = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn a_post_runs_once_whatever_is_to_be_tried_again() {
    let flags = |flags: Flags| flags.with("--backend-response-timeout", "300ms");
    let backends: [(Made, u16); 4] =
        [(losing, 502), (garbling, 502), (hanging, 504), (|| failing(500), 500)];
    for (backend, status) in backends {
        let (answer, attempts) = attempts_of(backend, POST, flags);
        assert_eq!((answer.status(), attempts), (status, 1));
    }
}

#[test]
fn each_failure_is_tried_again_on_another_backend_if_that_was_asked_for() {
    let backends: [(&str, Made, u16); 5] = [
        ("lost", losing, 502),
        ("timeout", hanging, 504),
        ("invalid", garbling, 502),
        ("500-599", || failing(500), 500),
        ("599,503", || failing(503), 503),
    ];
    for (on, backend, status) in backends {
        for is_asked in [true, false] {
            let (bad, there) = (backend(), saying("there"));
            let flags = retrying(&[&bad, &there], if is_asked { on } else { "none" });
            let proxy = flags.with("--backend-response-timeout", "300ms").start();
            let mut client = proxy.client();
            let mut statuses: Vec<_> =
                (0..2).map(|_| client.request(GET)).map(|it| it.status()).collect();
            statuses.sort_unstable();
            let expected = if is_asked { [200, 200] } else { [200, status] };
            assert_eq!(statuses, expected, "{on} {is_asked}");
            assert!(bad.request_count() > 0);
        }
    }
}

#[test]
fn a_status_that_was_not_asked_for_is_not_tried_again() {
    let (answer, attempts) = attempts_of(|| failing(429), GET, |flags| flags);
    assert_eq!((answer.expect(429).text().as_str(), attempts), ("failed", 1));
}

#[test]
fn the_answer_itself_is_passed_on_where_none_is_left_to_ask() {
    // No other backend.
    let only = failing(503);
    let proxy = retrying(&[&only], "500-599").start();
    let answer = proxy.client().get("/").expect(503);
    assert_eq!((answer.text().as_str(), answer.get("x-own")), ("failed", Some("yes")));
    assert_eq!(only.request_count(), 1);
    // Both failed; a budget of nothing.
    for (name, value, expected) in [("--retries", "3", 2), ("--retry-budget-min", "0", 1)] {
        let flags = |flags: Flags| flags.with("--retry-budget-percent", "0").with(name, value);
        let (answer, attempts) = attempts_of(|| failing(503), GET, flags);
        assert_eq!((answer.expect(503).get("x-own"), attempts), (Some("yes"), expected), "{name}");
    }
}

#[test]
fn a_failed_backends_answer_is_gone_when_the_other_has_no_place() {
    let turnstile = Turnstile::default();
    let held = Upstream::scripted({
        let turnstile = turnstile.clone();
        move |served| {
            while served.request().is_some() {
                turnstile.pass();
                served.write(&ok("held", false));
            }
        }
    });
    let bad = failing(500);
    let flags = retrying(&[&bad], "500").with("--queue-max", "0");
    let proxy = flags.and("--backend", &format!("{},max-conns=1", held.url())).start();
    let mut busy = proxy.client();
    // Retried on the other, if it was not picked first.
    busy.send(GET);
    wait_until("the other is busy", SOON, || held.request_count() == 1);
    let answer = proxy.client().get("/");
    check_own_answer(&answer, 502, "http_protocol_error", "response-status");
    turnstile.release(1);
    busy.read_response("GET").expect(200);
}

#[test]
fn a_client_that_waits_for_a_100_gets_one_clean_answer() {
    let head = "PUT / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let lost_at_once = || {
        Upstream::scripted(|served| {
            if served.head().is_some() {
                served.reset_on_return();
            }
        })
    };
    let failing_at_once = || {
        Upstream::scripted(|served| {
            if served.head().is_some() {
                served.write(b"HTTP/1.1 500 Failed\r\nContent-Length: 6\r\n\r\nfailed");
                served.wait_for_end();
            }
        })
    };
    let backends: [(Made, u16); 2] = [(lost_at_once, 502), (failing_at_once, 500)];
    for (backend, status) in backends {
        let (one, two) = (backend(), backend());
        let proxy = retrying(&[&one, &two], "lost,500").start();
        let mut client = proxy.client();
        client.send(head);
        client.read_response("PUT").expect(status);
        client.expect_close();
        assert_eq!(one.raw().len() + two.raw().len(), 1, "{status}");
    }
}

#[test]
fn nothing_is_tried_again_once_an_interim_answer_was_passed_on() {
    let hinting = || {
        Upstream::scripted(|served| {
            if served.request().is_some() {
                served.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            }
        })
    };
    let (answer, attempts) = attempts_of(hinting, GET, |flags| flags);
    assert_eq!((answer.interim.len(), attempts), (1, 1));
    check_own_answer(&answer, 502, "connection_terminated", "backend-lost");
}

#[test]
fn a_status_after_an_interim_answer_is_passed_on() {
    let hinting = || {
        Upstream::scripted(|served| {
            if served.request().is_some() {
                served.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
                served.write(b"HTTP/1.1 500 Failed\r\nContent-Length: 6\r\n\r\nfailed");
                served.wait_for_end();
            }
        })
    };
    let (answer, attempts) = attempts_of(hinting, GET, |flags| flags);
    assert_eq!((answer.interim.len(), attempts), (1, 1));
    assert_eq!(answer.expect(500).text(), "failed");
}

#[test]
fn a_request_is_tried_again_as_often_as_was_asked_for() {
    // Requests that find the one backend of four that is there, in two turns.
    for (retries, found) in [("0", 2), ("3", 8)] {
        let mut gone = [(); 3].map(|()| saying("gone"));
        let there = saying("there");
        let [one, two, three] = gone.each_ref();
        let proxy = retrying(&[one, two, three, &there], "none").with("--retries", retries).start();
        gone.iter_mut().for_each(Upstream::stop);
        let mut client = proxy.client();
        let statuses: Vec<_> = (0..8).map(|_| client.get("/").status()).collect();
        let answered = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(answered, found, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 502].contains(status)));
    }
}

#[test]
fn retries_stay_within_their_budget() {
    const REQUESTS: usize = 200;
    // The window is ten seconds; a fifth of two hundred requests may be tried again.
    for (percent, min, expected) in [("0", "0", 0..=0), ("0", "2", 20..=40), ("20", "0", 30..=45)] {
        let (lost, there) = (losing(), saying("there"));
        let flags = retrying(&[&lost, &there], "lost").with("--retry-budget-percent", percent);
        let proxy = flags.with("--retry-budget-min", min).start();
        let mut client = proxy.client();
        let statuses: Vec<_> = (0..REQUESTS).map(|_| client.request(GET).status()).collect();
        let failed = statuses.iter().filter(|status| **status == 502).count();
        let retried = lost.request_count() - failed;
        assert!(lost.request_count() > REQUESTS / 3, "{}", lost.request_count());
        assert!(expected.contains(&retried), "{percent} % and {min}: {retried} retries");
    }
}
