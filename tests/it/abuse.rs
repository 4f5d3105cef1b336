//! What once broke the proxy: backends that refuse in the middle, clients that leave or wait.

use std::time::Duration;

use crate::answers::check_own_answer;
use crate::support::proxy::Flags;
use crate::support::upstream::{Upstream, ok};
use crate::support::wait_until;

#[test]
fn the_rest_of_a_body_that_was_not_read_is_never_a_request() {
    // The head and much of the body go out in one write, which fails half-way.
    let upstream = Upstream::scripted(|served| {
        while let Some(head) = served.head() {
            if head.target() == "/first" {
                let framing = head.request_framing();
                if served.wire.body(framing, &mut |_| {}).is_err() {
                    return;
                }
                served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            served.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
            return;
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n".repeat(20_000);
    let head = |target: &str, length: usize| {
        format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut client = proxy.client();
    let first = "x".repeat(250_000);
    let mut bytes =
        format!("{}{first}{}", head("/first", first.len()), head("/early", smuggled.len()));
    bytes += &smuggled;
    let writer = client.wire.stream().clone();
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        // The proxy may end the connection first.
        drop((&*writer).write_all(bytes.as_bytes()));
    });
    client.read_response("POST").expect(200);
    let early = client.read_response("POST");
    assert!(early.head.is_none() || [413, 502].contains(&early.status()), "{early:?}");
    let after = client.read_response("GET");
    assert!(after.head.is_none() || after.status() != 200, "{after:?}");
    sending.join().unwrap();
    assert!(upstream.requests().iter().all(|request| request.head.target() != "/smuggled"));
}

#[test]
fn a_client_that_expects_100_and_gets_103_then_a_refusal_is_not_misread() {
    let upstream = Upstream::scripted(|served| {
        if served.head().is_some() {
            served.write(
                b"HTTP/1.1 103 Early Hints\r\n\r\n\
                  HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n",
            );
            served.wait_for_end();
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client
        .send("POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n");
    assert_eq!(client.wire.head().unwrap().status(), 103);
    let refusal = client.read_response("POST").expect(417);
    assert_eq!(refusal.get("connection"), Some("close"));
}

#[test]
fn a_backend_that_never_says_100_is_late_and_not_the_client() {
    let upstream = Upstream::scripted(|served| {
        served.head();
        served.wait_for_end();
    });
    let flags = Flags::to(&[&upstream]).with("--backend-response-timeout", "300ms");
    let proxy = flags.with("--client-body-timeout", "100ms").start();
    let mut client = proxy.client();
    client
        .send("POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n");
    let response = client.read_response("POST");
    check_own_answer(&response, 504, "http_response_timeout", "response-timeout");
}

#[test]
fn a_client_that_leaves_during_a_silent_answer_frees_its_backend() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
            served.wait_for_end();
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.wire.head().unwrap().status(), 200);
    client.reset();
    wait_until("the upstream connection has ended", Duration::from_secs(5), || {
        upstream.open_connections() == 0
    });
}

#[test]
fn a_retry_makes_a_new_connection() {
    // Each connection serves one request and drops the second.
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(&ok("whole", false));
            served.request();
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            client.get("/").expect(200);
        }
    }
}

#[test]
fn two_dead_backends_of_three_cost_no_request() {
    let alive = Upstream::naming_targets();
    let mut dead = [Upstream::naming_targets(), Upstream::naming_targets()];
    let flags = Flags::to(&[&dead[0], &dead[1], &alive]);
    let proxy = flags.with("--health-interval", "30s").start();
    for upstream in &mut dead {
        upstream.stop();
    }
    let mut client = proxy.client();
    for _ in 0..12 {
        client.request("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").expect(200);
    }
}
