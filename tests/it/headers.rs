//! Heads on their way: what is removed, what is added, and that all else passes in order, byte for byte.

use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::Upstream;

fn in_front_of(upstream: &Upstream) -> Proxy {
    Flags::to(&[upstream]).start()
}

/// What the backend sees of a request with this start line and these header lines.
fn forwarded(request: &str) -> crate::support::wire::Head {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    in_front_of(&upstream).client().request(request).expect(200);
    upstream.last_request().head
}

/// What the client sees of an answer with these header lines.
fn returned(headers: &str) -> crate::support::client::Response {
    let upstream =
        Upstream::answering(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n"));
    in_front_of(&upstream).client().get("/").expect(200)
}

#[test]
fn hop_by_hop_headers_of_a_request_stay_behind() {
    let head = forwarded(
        "GET / HTTP/1.1\r\nHost: t\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nProxy-Authorization: Basic eA==\r\nX-Stay: 1\r\n\r\n",
    );
    for name in ["x-hop", "keep-alive", "proxy-connection", "te", "upgrade", "proxy-authorization"]
    {
        assert_eq!(head.all(name), Vec::<&str>::new(), "{name}");
    }
    assert!(!head.all("connection").iter().any(|value| value.to_ascii_lowercase().contains("hop")));
    assert_eq!(head.get("x-stay"), Some("1"));
}

#[test]
fn several_connection_headers_in_any_case_all_count() {
    let head = forwarded(
        "GET / HTTP/1.1\r\nHost: t\r\nConnection: x-a\r\nCONNECTION: ,, X-B ,\r\nX-A: 1\r\nx-b: 1\r\nX-C: 1\r\n\r\n",
    );
    assert_eq!((head.get("x-a"), head.get("x-b"), head.get("x-c")), (None, None, Some("1")));
}

#[test]
fn te_passes_for_trailers_only() {
    let head = forwarded(
        "GET / HTTP/1.1\r\nHost: t\r\nConnection: TE\r\nTE: trailers, deflate;q=0.5\r\n\r\n",
    );
    assert!(head.all("te").iter().all(|value| *value == "trailers"), "{:?}", head.all("te"));
}

#[test]
fn hop_by_hop_headers_of_an_answer_stay_behind() {
    let response = returned(
        "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nX-Stay: 1\r\n",
    );
    for name in
        ["x-hop", "keep-alive", "proxy-connection", "upgrade", "proxy-authenticate", "connection"]
    {
        assert_eq!(response.head().all(name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(response.get("x-stay"), Some("1"));
}

#[test]
fn a_request_carries_who_asked_and_by_what_way() {
    let head = forwarded("GET / HTTP/1.1\r\nHost: shop.example:81\r\n\r\n");
    assert_eq!(head.all("via"), ["1.1 corelane"]);
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x-forwarded-host"), ["shop.example:81"]);
    assert_eq!(head.all("host"), ["shop.example:81"]);
}

#[test]
fn forwarded_headers_sent_by_a_client_are_replaced() {
    let head = forwarded(
        "GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\r\n",
    );
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x-forwarded-host"), ["t"]);
}

#[test]
fn via_tells_the_way_so_far_and_the_clients_version() {
    let head = forwarded("GET / HTTP/1.1\r\nHost: t\r\nVia: 1.1 first\r\n\r\n");
    assert_eq!(head.all("via").join(", "), "1.1 first, 1.1 corelane");
    let head = forwarded("GET / HTTP/1.0\r\nHost: t\r\n\r\n");
    assert_eq!(head.all("via"), ["1.0 corelane"]);
}

#[test]
fn an_answer_gets_no_via_of_ours_and_keeps_its_own() {
    assert_eq!(returned("").head().all("via"), Vec::<&str>::new());
    assert_eq!(returned("Via: 1.1 origin\r\n").head().all("via"), ["1.1 origin"]);
}

#[test]
fn all_other_request_headers_pass_in_order_byte_for_byte() {
    let mine = [
        ("x-LOWER", "a  b"),
        ("X-Twice", "1"),
        ("Accept", "*/*"),
        ("X-Twice", "2"),
        ("X-Empty", ""),
        ("X-Latin", "caf\u{e9}"),
        ("Cookie", "a=b; c=d"),
    ];
    let lines: String = mine.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
    let head = forwarded(&format!("GET /p%20q?a=%2F&b HTTP/1.1\r\nHost: t\r\n{lines}\r\n"));
    assert_eq!(head.start, "GET /p%20q?a=%2F&b HTTP/1.1");
    // White space around a value is no part of it (RFC 9112 section 5.1).
    let theirs = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let theirs: Vec<_> = theirs.filter(|header| mine.contains(header)).collect();
    assert_eq!(theirs, mine);
}

#[test]
fn all_other_answer_headers_pass_in_order_byte_for_byte() {
    let theirs = "Server: odd/1\r\nSet-Cookie: a=1\r\nx-LOWER: a  b\r\nSet-Cookie: b=2\r\nX-Empty:\r\nDate: never\r\n";
    let response = returned(theirs);
    let raw = String::from_utf8_lossy(&response.head().raw).into_owned();
    assert_eq!(raw, format!("HTTP/1.1 200 OK\r\n{theirs}Content-Length: 0\r\n\r\n"));
}

#[test]
fn a_reason_phrase_passes_even_if_it_is_odd_or_empty() {
    for line in ["HTTP/1.1 299 Most Odd", "HTTP/1.1 200 "] {
        let upstream = Upstream::answering(format!("{line}\r\nContent-Length: 0\r\n\r\n"));
        let response = in_front_of(&upstream).client().get("/");
        assert_eq!(response.head().start, line);
    }
}

#[test]
fn an_absolute_target_becomes_a_path_and_its_authority_the_host() {
    let head = forwarded("GET http://shop.example:81/a?b HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!((head.target(), head.all("host")), ("/a?b", vec!["shop.example:81"]));
    assert_eq!(head.all("x-forwarded-host"), ["shop.example:81"]);
    let head = forwarded("GET http://shop.example HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!((head.target(), head.all("host")), ("/", vec!["shop.example"]));
    let head = forwarded("OPTIONS http://shop.example HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!((head.target(), head.all("host")), ("*", vec!["shop.example"]));
}

#[test]
fn an_asterisk_target_passes() {
    assert_eq!(forwarded("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n").start, "OPTIONS * HTTP/1.1");
}

#[test]
fn an_unknown_method_passes() {
    assert_eq!(forwarded("PURGE /x HTTP/1.1\r\nHost: t\r\n\r\n").start, "PURGE /x HTTP/1.1");
}
