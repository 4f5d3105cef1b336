//! Heads as the other side gets them.

use std::mem::MaybeUninit;

use super::*;
use crate::config::{HeadLimits, TraceParents};
use crate::http1::response::AnswerTo;
use crate::http1::{request as request_head, response as response_head};

const LIMITS: HeadLimits = HeadLimits { bytes_max: 4096, headers_max: 32, target_bytes_max: 1024 };

fn config(mode: ForwardedHeaders) -> ForwardConfig {
    ForwardConfig {
        upgrades: vec!["websocket".to_owned()],
        connect: false,
        forwarded_headers: mode,
        forwarded: false,
        request_id: false,
        traceparent: TraceParents::AsTheyAre,
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
    }
}

fn forwarded(head: &str, client: &str, config: &ForwardConfig) -> String {
    let mut space = [MaybeUninit::uninit(); 32];
    let head = request_head::parse(head.as_bytes(), &mut space, &LIMITS, false);
    let head = head.unwrap().unwrap();
    let local = "127.0.0.1:80".parse().unwrap();
    let provenance = Provenance::new(client.parse().unwrap(), local, config);
    let additions = Additions {
        provenance: &provenance,
        upgrade: head.upgrade.map(|_| "websocket"),
        request_id: config.request_id.then_some(0xabc),
        traceparent: None,
    };
    let mut out = b"before".to_vec();
    request(&head, &additions, &mut out);
    String::from_utf8_lossy(&out).strip_prefix("before").unwrap().to_owned()
}

fn check_request(head: &str, expected: &str) {
    let seen = forwarded(head, "::ffff:9.0.0.1", &config(ForwardedHeaders::Append));
    assert_eq!(seen, expected);
}

const ADDED: &str = "X-Forwarded-For: 9.0.0.1\r\nX-Forwarded-Proto: http\r\n";

#[test]
fn a_request_keeps_its_order_and_its_bytes() {
    check_request(
        "PUT /p HTTP/1.1\r\nB: 1\r\nHost: h\r\naA:  x\u{e9} y \r\nContent-Length: 3\r\nE:\r\n\r\n",
        &format!(
            "PUT /p HTTP/1.1\r\nHost: h\r\nB: 1\r\naA: x\u{e9} y\r\nContent-Length: 3\r\nE: \r\n\
             {ADDED}X-Forwarded-Host: h\r\nVia: 1.1 corelane\r\n\r\n"
        ),
    );
}

#[test]
fn what_speaks_to_the_next_hop_alone_is_left_out() {
    check_request(
        "GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: x-secret, close\r\nX-Secret: 1\r\n\
         Keep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nTE: gzip, trailers\r\n\
         X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nVia: 1.0 other\r\n\
         Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
        &format!(
            "GET / HTTP/1.1\r\nHost: b\r\nVia: 1.0 other\r\nContent-Length: 1\r\n\
             Connection: TE\r\nTE: trailers\r\n{ADDED}X-Forwarded-Host: b\r\n\
             Via: 1.1 corelane\r\n\r\n"
        ),
    );
}

#[test]
fn a_host_is_made_up_for_http_1_0() {
    check_request(
        "GET / HTTP/1.0\r\n\r\n",
        &format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n{ADDED}Via: 1.0 corelane\r\n\r\n"),
    );
}

#[test]
fn forwarded_headers_follow_the_mode_and_the_trust() {
    let head = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\n\
                X-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n\r\n";
    let (start, end) = ("GET / HTTP/1.1\r\nHost: h\r\n", "Via: 1.1 corelane\r\n\r\n");
    let theirs = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                  Forwarded: for=6.6.6.6\r\n";
    let ours = |client: &str| {
        format!("X-Forwarded-For: {client}\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n")
    };
    let kept = format!("{theirs}X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: h\r\n");
    for (mode, client, lines) in [
        (ForwardedHeaders::Append, "9.0.0.1", ours("9.0.0.1")),
        (ForwardedHeaders::Append, "10.0.0.1", kept),
        (ForwardedHeaders::Replace, "10.0.0.1", ours("10.0.0.1")),
        (ForwardedHeaders::Off, "9.0.0.1", theirs.to_owned()),
    ] {
        let seen = forwarded(head, client, &config(mode));
        assert_eq!(seen, format!("{start}{lines}{end}"), "{mode:?} {client}");
    }
}

#[test]
fn forwarded_and_a_request_id_are_added_where_asked_for() {
    let config =
        ForwardConfig { forwarded: true, request_id: true, ..config(ForwardedHeaders::Off) };
    let seen = forwarded("GET / HTTP/1.1\r\nHost: h:1\r\n\r\n", "::1", &config);
    let expected = "GET / HTTP/1.1\r\nHost: h:1\r\n\
                    Forwarded: for=\"[::1]\";host=\"h:1\";proto=http\r\n\
                    X-Request-Id: 00000000000000000000000000000abc\r\n\
                    Via: 1.1 corelane\r\n\r\n";
    assert_eq!(seen, expected);
    let head = "GET / HTTP/1.1\r\nHost: h\r\nx-request-id: mine\r\n\r\n";
    let seen = forwarded(head, "1.1.1.1", &config);
    assert_eq!(seen.to_ascii_lowercase().matches("x-request-id").count(), 1);
}

#[test]
fn an_upgrade_names_the_one_protocol_that_is_let_through() {
    check_request(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Upgrade\r\nUpgrade: h2c, websocket\r\n\
         X: 1\r\nSec-WebSocket-Key: k\r\n\r\n",
        &format!(
            "GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: k\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\n{ADDED}X-Forwarded-Host: h\r\nVia: 1.1 corelane\r\n\r\n"
        ),
    );
}

fn check_response(head: &str, client: ClientSide, expected: Option<&str>) {
    let mut space = [MaybeUninit::uninit(); 32];
    let parsed = response_head::parse(head.as_bytes(), &mut space, &LIMITS, AnswerTo::Other);
    let parsed = parsed.unwrap().unwrap();
    assert_eq!(passes_as_is(&parsed, client), expected.is_none());
    let mut out = Vec::new();
    response(&parsed, client, b"", &mut out);
    assert_eq!(String::from_utf8_lossy(&out), expected.unwrap_or(head));
}

#[test]
fn responses_tell_the_client_about_its_own_connection() {
    let modern = ClientSide { version: Version::Http11, keep_alive: true };
    let closing = ClientSide { keep_alive: false, ..modern };
    let old = ClientSide { version: Version::Http10, keep_alive: true };
    check_response("HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 1\r\n\r\n", modern, None);
    check_response(
        "HTTP/1.1 200 OK\r\nConnection: close, a\r\nA: 1\r\nContent-Length: 1\r\n\r\n",
        modern,
        Some("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"),
    );
    check_response(
        "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
        closing,
        Some("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"),
    );
    check_response(
        "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
        ClientSide { keep_alive: false, ..old },
        Some("HTTP/1.1 200 \r\nConnection: close\r\n\r\n"),
    );
    check_response(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
        old,
        Some("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"),
    );
    check_response(
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        modern,
        Some("HTTP/1.1 204 No Content\r\n\r\n"),
    );
    check_response("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", modern, None);
}
