//! corelane's own answers to what a client does wrong, or fails to do: status, fate of the connection,
//! Proxy-Status and Retry-After, cause by cause.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use crate::support::client::{Client, Fate, Response};
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::free_addr;
use crate::support::upstream::{Upstream, ok};
use crate::support::wait_until;

/// Fails unless this is corelane's own answer for `cause`: its status, and a Proxy-Status that names it.
#[track_caller]
pub fn check_own_answer(response: &Response, status: u16, error: &str, cause: &str) {
    assert_eq!(response.status(), status, "{cause}: {response:?}");
    assert_eq!(response.ended, crate::support::client::Ended::Complete, "{cause}");
    let proxy_status = response.get("proxy-status").unwrap_or_default();
    assert!(
        proxy_status.starts_with(&format!("corelane; error={error}")),
        "{cause}: {proxy_status:?}"
    );
    assert!(proxy_status.contains(cause), "{cause}: {proxy_status:?}");
    assert_eq!(
        response.get("retry-after").is_some(),
        matches!(status, 429 | 503),
        "{cause}: Retry-After"
    );
    assert!(
        response.get("content-type").is_some_and(|kind| kind.starts_with("text/plain")),
        "{cause}: {response:?}"
    );
    assert!(
        (1..200).contains(&response.body.len()),
        "{cause}: a short text for a person: {:?}",
        response.text()
    );
}

/// A refusal: the answer, then the close; nothing of it reaches the backend.
#[track_caller]
fn check_refused(upstream: &Upstream, client: &mut Client, method: &str, status: u16, cause: &str) {
    let response = client.read_response(method);
    check_own_answer(&response, status, "http_request_error", cause);
    assert_eq!(response.get("connection"), Some("close"), "{cause}");
    client.expect_close();
    assert_eq!(upstream.request_count(), 0, "{cause}: it reached the backend");
}

const REFUSED: [(&str, u16, &[u8]); 35] = [
    ("request-header-name", 400, b"GET / HTTP/1.1\r\nHost: t\r\nno colon\r\n\r\n"),
    ("request-target", 400, b"GET /\r\n\r\n"),
    ("request-header-name", 400, b"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\n folded\r\n\r\n"),
    ("request-is-tls", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("request-bare-line-end", 400, b"GET / HTTP/1.1\nHost: t\n\n"),
    ("request-bare-line-end", 400, b"GET / HTTP/1.1\r\nHost: t\nX: y\r\n\r\n"),
    ("request-header-value", 400, b"GET / HTTP/1.1\r\nHost: t\rX: y\r\n\r\n"),
    ("request-method", 400, b"G@T / HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("request-target", 400, b"GET no/slash HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("request-target", 400, b"GET /a#b HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("request-target", 400, b"GET * HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("request-header-name", 400, b"GET / HTTP/1.1\r\nHost: t\r\nX : y\r\n\r\n"),
    ("request-header-name", 400, b"GET / HTTP/1.1\r\nHost: t\r\nX[]: y\r\n\r\n"),
    ("request-header-value", 400, b"GET / HTTP/1.1\r\nHost: t\r\nX: a\x01b\r\n\r\n"),
    ("request-header-value", 400, b"GET / HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n"),
    ("host-missing", 400, b"GET / HTTP/1.1\r\n\r\n"),
    ("host-repeated", 400, b"GET / HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n"),
    ("host-invalid", 400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("host-invalid", 400, b"GET / HTTP/1.1\r\nHost: user@t\r\n\r\n"),
    ("request-length-invalid", 400, b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: +3\r\n\r\nabc"),
    ("request-length-invalid", 400, b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 18446744073709551616\r\n\r\nabc"),
    ("request-lengths-differ", 400, b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    (
        "request-length-and-coding",
        400,
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("request-coding-invalid", 400, b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("request-coding-invalid", 400, b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
    ("request-coding-in-http10", 400, b"POST / HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("request-coding-unknown", 501, b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("request-connection", 400, b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Host\r\n\r\n"),
    ("request-version", 505, b"GET / HTTP/2.0\r\nHost: t\r\n\r\n"),
    ("request-version", 505, b"GET / HTTP/1.2\r\nHost: t\r\n\r\n"),
    ("connect-off", 405, b"CONNECT t:443 HTTP/1.1\r\nHost: t:443\r\n\r\n"),
    // The beginning of an HTTP/2 connection.
    ("request-version", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("request-target", 400, b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n"),
    ("request-bare-line-end", 400, b"GET / HTTP/1.1 \r\nHost: t\r\n\r\n"),
    ("request-syntax", 400, b"GET / HTTX/1.1\r\nHost: t\r\n\r\n"),
];

#[test]
fn a_head_that_breaks_the_rules_is_refused_and_closed() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).start();
    let mut failures = Vec::new();
    for (cause, status, request) in REFUSED {
        // Every row is tried before any fails: a parser's faults are best seen together.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut client = proxy.client();
            client.send(request);
            check_refused(&upstream, &mut client, "GET", status, cause);
        }));
        if result.is_err() {
            failures.push(format!("{cause}: {}", request.escape_ascii()));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn what_follows_a_refused_request_is_never_read_as_one() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n");
    check_refused(&upstream, &mut client, "GET", 400, "host-missing");
}

#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
    for _ in 0..10 {
        if client.wire.write(&[b'x'; 100_000]).is_err() {
            break;
        }
    }
    check_own_answer(&client.read_response("POST"), 400, "http_request_error", "host-missing");
}

#[test]
fn requests_before_a_bad_one_are_answered_first() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.send("GET /good HTTP/1.1\r\nHost: t\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.read_response("GET").expect(200).text(), "/good");
    check_own_answer(&client.read_response("GET"), 400, "http_request_error", "host-missing");
    client.expect_close();
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream])
        .with("--head-bytes-max", "8192")
        .with("--headers-max", "10")
        .with("--target-bytes-max", "8192")
        .start();
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(9000)));
    check_refused(&upstream, &mut client, "GET", 431, "request-head-too-large");
    let mut client = proxy.client();
    client.send(format!("GET /{} HTTP/1.1\r\nHost: t\r\n", "x".repeat(9000)));
    check_refused(&upstream, &mut client, "GET", 431, "request-head-too-large");
    let mut client = proxy.client();
    client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: y\r\n".repeat(10)));
    check_refused(&upstream, &mut client, "GET", 431, "request-headers-too-many");
    let mut client = proxy.client();
    client
        .request(format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: y\r\n".repeat(9)))
        .expect(200);
    client
        .request(format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(8000)))
        .expect(200);
}

#[test]
fn a_fault_inside_a_request_body_is_refused_and_never_looks_complete() {
    let cases = [
        ("request-chunk-invalid", "5\r\nhello\r\nzz\r\nxx\r\n0\r\n\r\n"),
        ("request-chunk-invalid", "5\r\nhelloX\r\n0\r\n\r\n"),
        ("request-chunk-invalid", "-5\r\nhello\r\n0\r\n\r\n"),
        ("request-chunk-invalid", "5\nhello\r\n0\r\n\r\n"),
        ("request-trailer-invalid", "5\r\nhello\r\n0\r\nno colon\r\n\r\n"),
        ("request-trailer-invalid", "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n"),
    ];
    for (cause, body) in cases {
        let upstream = Upstream::answering(ok("whole", false));
        let proxy = Flags::to(&[&upstream]).start();
        let mut client = proxy.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        check_refused(&upstream, &mut client, "POST", 400, cause);
        wait_until("the upstream connection has ended", Duration::from_secs(5), || {
            upstream.open_connections() == 0
        });
    }
}

#[test]
fn a_head_that_does_not_end_in_time_is_answered_408() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).with("--client-header-timeout", "300ms").start();
    for beginning in ["G", "GET / HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\nHost: t\r\n"] {
        let mut client = proxy.client();
        client.send(beginning);
        check_refused(&upstream, &mut client, "GET", 408, "client-head-timeout");
    }
    // The same for a later request of the connection.
    let mut client = proxy.client();
    client.get("/").expect(200);
    client.send("GET");
    check_own_answer(
        &client.read_response("GET"),
        408,
        "http_request_error",
        "client-head-timeout",
    );
    client.expect_close();
}

#[test]
fn an_idle_client_is_closed_without_a_word() {
    // client-idle-timeout: no answer, since nothing was asked. A client that never asked has the time of a head.
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).with("--client-idle-timeout", "300ms");
    let proxy = flags.with("--client-header-timeout", "300ms").start();
    let mut silent = proxy.client();
    silent.expect_close();
    let mut idle = proxy.client();
    idle.get("/").expect(200);
    assert_eq!(idle.fate(Duration::from_millis(100)), Fate::Open);
    idle.expect_close();
}

#[test]
fn a_body_that_stalls_is_answered_408_and_not_taken_for_complete() {
    for framing in
        ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
    {
        let upstream = Upstream::answering(ok("whole", false));
        let proxy = Flags::to(&[&upstream]).with("--client-body-timeout", "300ms").start();
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: t\r\n{framing}"));
        check_refused(&upstream, &mut client, "POST", 408, "client-body-timeout");
        wait_until("the upstream connection has ended", Duration::from_secs(5), || {
            upstream.open_connections() == 0
        });
    }
}

fn in_front_of_nothing() -> Proxy {
    Flags::to_addrs(&[free_addr()]).start()
}

#[test]
fn without_an_eligible_endpoint_the_answer_is_503_and_the_connection_stays() {
    let proxy = in_front_of_nothing();
    let mut client = proxy.client();
    for _ in 0..2 {
        check_own_answer(&client.get("/"), 503, "destination_unavailable", "no-backend");
    }
    let seconds: u32 = client.get("/").get("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    client.request("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n").expect(503);
    let post = client.request("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
    check_own_answer(&post, 503, "destination_unavailable", "no-backend");
    let mut old = proxy.client();
    old.request("GET / HTTP/1.0\r\n\r\n").expect(503);
    old.expect_close();
}

#[test]
fn an_unread_body_of_a_failed_request_is_never_read_as_a_request() {
    let proxy = in_front_of_nothing();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 60\r\n\r\n");
    check_own_answer(&client.read_response("POST"), 503, "destination_unavailable", "no-backend");
    // It may drain the body or close; what it must not do is answer the body.
    client
        .wire
        .write(format!("{:<60}", "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes())
        .ok();
    assert_ne!(client.fate(Duration::from_millis(300)), Fate::Bytes);
}
