//! What a client sees when its backend fails: a retry on another endpoint, 502, 504, or a cut that shows.
//! And what a backend sees when the client leaves.

use std::time::Duration;

use crate::answers::check_own_answer;
use crate::support::client::{Ended, Fate};
use crate::support::deaf::deaf_after_the_probe;
use crate::support::proxy::Flags;
use crate::support::upstream::{Served, Upstream, ok};
use crate::support::wire::End;
use crate::support::{Gate, wait_until};

const POST: &str = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";

/// Probes so rarely that a backend which fails after the first one stays in the rotation.
fn probing_once(upstreams: &[&Upstream]) -> Flags {
    Flags::to(upstreams).with("--health-interval", "60s")
}

/// An upstream that reads each request and closes (or resets) without an answer.
fn losing(reset: bool) -> Upstream {
    Upstream::scripted(move |served: &mut Served| {
        if served.request().is_some() && reset {
            served.reset_on_return();
        }
    })
}

#[test]
fn a_refused_connection_is_502_and_the_client_stays() {
    let mut upstream = Upstream::naming_targets();
    let proxy = probing_once(&[&upstream]).start();
    upstream.stop();
    let mut client = proxy.client();
    check_own_answer(&client.get("/"), 502, "connection_refused", "connect-failed");
    check_own_answer(&client.request(POST), 502, "connection_refused", "connect-failed");
    assert_eq!(client.fate(Duration::from_millis(50)), Fate::Open);
}

#[test]
fn a_refused_connection_is_retried_on_another_endpoint_for_any_method() {
    let mut gone = Upstream::naming_targets();
    let there = Upstream::answering(ok("there", false));
    let proxy = probing_once(&[&gone, &there]).start();
    gone.stop();
    let mut client = proxy.client();
    for request in [POST, PUT, "GET / HTTP/1.1\r\nHost: t\r\n\r\n"].repeat(4) {
        assert_eq!(client.request(request).expect(200).text(), "there");
    }
    assert!(
        there
            .requests()
            .iter()
            .all(|request| request.head.method() == "GET" || request.body == b"hello")
    );
}

#[test]
fn a_connection_that_does_not_come_about_in_time_is_504_and_the_client_stays() {
    let flags = Flags::to(&[]).with("--backend-connect-timeout", "300ms");
    let (_deaf, proxy) = deaf_after_the_probe(flags);
    let mut client = proxy.client();
    for _ in 0..2 {
        check_own_answer(&client.get("/"), 504, "connection_timeout", "connect-timeout");
    }
}

#[test]
fn a_connection_that_does_not_come_about_in_time_is_retried_on_another_endpoint() {
    let there = Upstream::answering(ok("there", false));
    let flags = Flags::to(&[&there]).with("--backend-connect-timeout", "300ms");
    let (_deaf, proxy) = deaf_after_the_probe(flags);
    let mut client = proxy.client();
    for request in [POST, PUT, "GET / HTTP/1.1\r\nHost: t\r\n\r\n"] {
        assert_eq!(client.request(request).expect(200).text(), "there");
    }
}

#[test]
fn a_post_that_was_sent_and_lost_is_502_and_never_sent_again() {
    for reset in [false, true] {
        let (one, two) = (losing(reset), losing(reset));
        let proxy = probing_once(&[&one, &two]).start();
        let mut client = proxy.client();
        for count in 1..=6 {
            check_own_answer(&client.request(POST), 502, "connection_terminated", "backend-lost");
            assert_eq!(one.request_count() + two.request_count(), count);
        }
    }
}

#[test]
fn a_post_lost_on_a_kept_connection_is_never_sent_again() {
    let answering_once = || {
        Upstream::scripted(|served| {
            if served.request().is_some() {
                served.write(&ok("first", false));
                served.request();
            }
        })
    };
    let (one, two) = (answering_once(), answering_once());
    let proxy = probing_once(&[&one, &two]).start();
    let mut client = proxy.client();
    for _ in 0..2 {
        client.get("/").expect(200);
    }
    check_own_answer(&client.request(POST), 502, "connection_terminated", "backend-lost");
    assert_eq!(one.request_count() + two.request_count(), 3);
}

#[test]
fn an_idempotent_request_that_was_sent_and_lost_is_retried_on_another_endpoint() {
    for reset in [false, true] {
        let (lost, there) = (losing(reset), Upstream::answering(ok("there", false)));
        let proxy = probing_once(&[&lost, &there]).start();
        let mut client = proxy.client();
        for request in ["GET / HTTP/1.1\r\nHost: t\r\n\r\n", PUT].repeat(3) {
            assert_eq!(client.request(request).expect(200).text(), "there");
        }
        assert!(lost.request_count() > 0);
        assert!(
            there
                .requests()
                .iter()
                .all(|request| request.head.method() == "GET" || request.body == b"hello")
        );
    }
}

#[test]
fn a_request_is_retried_once_and_no_more() {
    let lost = [losing(false), losing(false), losing(false)];
    let proxy = probing_once(&[&lost[0], &lost[1], &lost[2]]).start();
    check_own_answer(&proxy.client().get("/"), 502, "connection_terminated", "backend-lost");
    assert_eq!(lost.iter().map(Upstream::request_count).sum::<usize>(), 2);
}

#[test]
fn a_body_that_is_no_longer_held_is_never_sent_again() {
    let (one, two) = (losing(false), losing(false));
    let proxy = probing_once(&[&one, &two]).start();
    let mut client = proxy.client();
    client.send("PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 5000000\r\n\r\n");
    client.send(vec![b'x'; 5_000_000]);
    check_own_answer(&client.read_response("PUT"), 502, "connection_terminated", "backend-lost");
    assert_eq!(one.request_count() + two.request_count(), 1);
}

#[test]
fn a_bad_response_head_is_502_and_not_retried() {
    let large =
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(40_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(100));
    let cases = [
        ("response-invalid", "http_protocol_error", "garbage\r\n\r\n"),
        ("response-invalid", "http_protocol_error", "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"),
        ("response-invalid", "http_protocol_error", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (
            "response-invalid",
            "http_protocol_error",
            "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "response-invalid",
            "http_protocol_error",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        ),
        (
            "response-invalid",
            "http_protocol_error",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "response-invalid",
            "http_protocol_error",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
        ),
        ("response-head-too-large", "http_response_header_section_size", &large),
        ("response-head-too-large", "http_response_header_section_size", &many),
    ];
    for (cause, error, answer) in cases {
        let (one, two) = (Upstream::answering(answer), Upstream::answering(answer));
        let proxy = probing_once(&[&one, &two]).start();
        let mut client = proxy.client();
        for count in 1..=2 {
            check_own_answer(&client.get("/"), 502, error, cause);
            assert_eq!(one.request_count() + two.request_count(), count, "{cause}: not retried");
        }
        let short: String = answer.chars().take(60).collect();
        wait_until("such a connection is not reused", Duration::from_secs(5), || {
            one.open_connections() + two.open_connections() == 0
        });
        assert_eq!(client.fate(Duration::from_millis(20)), Fate::Open, "{short}");
    }
}

#[test]
fn a_head_that_ends_early_is_502() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(b"HTTP/1.1 200 OK\r\nContent-Le");
        }
    });
    let proxy = probing_once(&[&upstream]).start();
    let response = proxy.client().get("/");
    assert_eq!(response.expect(502).head().all("proxy-status").len(), 1);
}

#[test]
fn a_response_head_that_is_not_there_in_time_is_504_and_the_client_stays() {
    for beginning in ["", "HTTP/1.1 200 OK\r\nX: "] {
        let upstream = Upstream::scripted(move |served| {
            while let Some(request) = served.request() {
                match request.head.target() {
                    "/slow" => {
                        served.write(beginning.as_bytes());
                        served.wait_for_end();
                        return;
                    }
                    _ => served.write(&ok("fine", false)),
                };
            }
        });
        let proxy = probing_once(&[&upstream]).with("--backend-response-timeout", "300ms").start();
        let mut client = proxy.client();
        client.get("/").expect(200);
        check_own_answer(&client.get("/slow"), 504, "http_response_timeout", "response-timeout");
        assert_eq!(client.get("/").expect(200).text(), "fine");
        assert_eq!(upstream.raw().len(), 2, "the connection that timed out is not used again");
    }
}

/// Beginnings of a body, and what follows when the client has read them: then the connection ends.
const CUT: [(&str, &str); 8] = [
    // response-truncated
    ("Content-Length: 100\r\n\r\nhello", ""),
    ("Content-Length: 100\r\n\r\n", "hello"),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", ""),
    ("Transfer-Encoding: chunked\r\n\r\n64\r\nhello", ""),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "0\r\n"),
    // response-chunk-invalid
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "zz\r\n"),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello", "XX0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "0\r\nno colon\r\n\r\n"),
];

#[test]
fn a_body_cut_by_its_backend_never_looks_complete() {
    for ((beginning, rest), reset) in CUT.iter().flat_map(|case| [(case, false), (case, true)]) {
        let gate = Gate::default();
        let upstream = Upstream::scripted({
            let gate = gate.clone();
            move |served| {
                if served.request().is_some() {
                    served.write(format!("HTTP/1.1 200 OK\r\n{beginning}").as_bytes());
                    gate.wait();
                    served.write(rest.as_bytes());
                    if reset {
                        served.reset_on_return();
                    }
                }
            }
        });
        let proxy = probing_once(&[&upstream]).start();
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        let head = client.wire.head().unwrap();
        gate.open();
        let end = client.wire.body(head.response_framing("GET"), &mut |_| {});
        let end = end.expect_err("an answer that was cut");
        assert!(matches!(end, End::CleanClose | End::Reset), "{beginning:?} {rest:?}: {end:?}");
        assert_eq!((head.status(), upstream.request_count()), (200, 1));
    }
}

#[test]
fn a_body_cut_at_once_never_looks_complete() {
    for (beginning, rest) in CUT {
        let upstream = Upstream::scripted(move |served| {
            if served.request().is_some() {
                served.write(format!("HTTP/1.1 200 OK\r\n{beginning}{rest}").as_bytes());
            }
        });
        let proxy = probing_once(&[&upstream]).start();
        let response = proxy.client().get("/");
        // Where nothing has been sent on yet, 502 is the better answer.
        match response.head().status() {
            502 => check_own_answer(&response, 502, "http_protocol_error", "response-invalid"),
            _ => {
                assert!(matches!(response.ended, Ended::CleanClose | Ended::Reset), "{response:?}")
            }
        }
        assert_eq!(upstream.request_count(), 1);
    }
}

#[test]
fn a_cut_answer_to_an_old_client_is_not_a_clean_end() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        }
    });
    let proxy = probing_once(&[&upstream]).start();
    // Without chunks a clean close would say "complete".
    let response = proxy.client().request("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(response.ended, Ended::Reset, "{response:?}");
}

#[test]
fn an_answer_that_stalls_is_cut() {
    // response-body-timeout
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
            served.wait_for_end();
        }
    });
    let proxy = probing_once(&[&upstream]).with("--backend-body-timeout", "300ms").start();
    let response = proxy.client().get("/");
    assert!(matches!(response.ended, Ended::CleanClose | Ended::Reset), "{response:?}");
    wait_until("the upstream connection has ended", Duration::from_secs(5), || {
        upstream.open_connections() == 0
    });
}

#[test]
fn a_client_that_reads_nothing_for_too_long_is_given_up() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            while served.write(&[b'x'; 65536]) {}
        }
    });
    let proxy = probing_once(&[&upstream]).with("--client-body-timeout", "500ms").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let head = client.wire.head().unwrap();
    wait_until("the upstream connection has ended", Duration::from_secs(5), || {
        upstream.open_connections() == 0
    });
    let end = client.wire.body(head.response_framing("GET"), &mut |_| {});
    assert!(end.is_err());
}

#[test]
fn a_backend_that_reads_nothing_for_too_long_is_given_up() {
    let gate = Gate::default();
    let upstream = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            if served.head().is_some() {
                gate.wait();
            }
        }
    });
    let proxy = probing_once(&[&upstream]).with("--backend-body-timeout", "500ms").start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000000\r\n\r\n");
    let start = std::time::Instant::now();
    while client.wire.write(&[b'x'; 65536]).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "the upload goes on and on");
    }
    gate.open();
}

/// How the backend sees it that a client leaves before its answer.
fn backend_sees_that_a_client_left(leave: impl Fn(crate::support::client::Client)) {
    // client-left
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.wait_for_end();
        }
    });
    let proxy = probing_once(&[&upstream]).start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until("the backend has it", Duration::from_secs(5), || upstream.request_count() == 1);
    leave(client);
    wait_until("the upstream connection has ended", Duration::from_secs(3), || {
        upstream.open_connections() == 0
    });
}

#[test]
fn a_client_that_resets_while_it_waits_ends_the_upstream_connection() {
    backend_sees_that_a_client_left(crate::support::client::Client::reset);
}

#[test]
fn a_client_that_leaves_inside_a_large_answer_ends_the_upstream_connection() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            while served.write(&[b'x'; 65536]) {}
        }
    });
    let proxy = probing_once(&[&upstream]).start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.wire.head().unwrap().status(), 200);
    drop(client);
    wait_until("the upstream connection has ended", Duration::from_secs(5), || {
        upstream.open_connections() == 0
    });
    assert_eq!(proxy.client().fate(Duration::from_millis(20)), Fate::Open);
}

#[test]
fn a_client_that_leaves_inside_its_upload_never_makes_it_look_complete() {
    for framing in
        ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
    {
        let upstream = Upstream::answering(ok("whole", false));
        let proxy = probing_once(&[&upstream]).start();
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: t\r\n{framing}"));
        wait_until("the backend has the beginning", Duration::from_secs(5), || {
            upstream.raw().iter().any(|raw| raw.ends_with(b"hello") || raw.ends_with(b"hello\r\n"))
        });
        client.reset();
        wait_until("the upstream connection has ended", Duration::from_secs(5), || {
            upstream.open_connections() == 0
        });
        assert_eq!(upstream.request_count(), 0);
    }
}
