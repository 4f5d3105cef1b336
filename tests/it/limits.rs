//! Targets and bodies over their limits, and tunnels: what opens one, and what ends it.

use std::time::Duration;

use crate::answers::check_own_answer;
use crate::support::client::{Client, Ended};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Upstream, ok};
use crate::support::wait_until;

#[test]
fn a_target_over_its_limit_is_refused() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).with("--target-bytes-max", "1000").start();
    let target = |length: usize| format!("/{}", "x".repeat(length - 1));
    let mut client = proxy.client();
    client.get(&target(1000)).expect(200);
    let response = client.get(&target(1001));
    check_own_answer(&response, 414, "http_request_error", "request-target-too-long");
    client.expect_close();
    assert_eq!(upstream.request_count(), 1);
}

#[test]
fn a_body_over_its_limit_is_refused_and_never_looks_complete() {
    let upstream = Upstream::answering(ok("whole", false));
    let proxy = Flags::to(&[&upstream]).with("--body-bytes-max", "1000").start();
    let fits = "x".repeat(1000);
    let framings = [
        |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        |body: &str| {
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
        },
    ];
    for (count, framing) in framings.iter().enumerate() {
        let mut client = proxy.client();
        client.request(format!("POST / HTTP/1.1\r\nHost: t\r\n{}", framing(&fits))).expect(200);
        client.send(format!("POST / HTTP/1.1\r\nHost: t\r\n{}", framing(&format!("{fits}x"))));
        let response = client.read_response("POST");
        check_own_answer(&response, 413, "http_request_error", "request-body-too-large");
        client.expect_close();
        assert_eq!(upstream.request_count(), count + 1);
    }
}

#[test]
fn a_connect_with_a_body_is_refused() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).switch("--connect").start();
    let mut client = proxy.client();
    client.send("CONNECT t:1 HTTP/1.1\r\nHost: t:1\r\nContent-Length: 3\r\n\r\nabc");
    check_own_answer(&client.read_response("GET"), 400, "http_request_error", "connect-body");
    client.expect_close();
}

/// A WebSocket's upgrade through the proxy to an upstream that sends every byte back.
fn upgraded(flags: impl Fn(Flags) -> Flags) -> (Upstream, Proxy, Client) {
    let upstream = Upstream::scripted(|served| {
        let Some(head) = served.head() else { return };
        assert_eq!(
            (head.get("upgrade"), head.get("connection")),
            (Some("websocket"), Some("Upgrade"))
        );
        served.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        while served.wire.fill().is_ok() {
            let bytes = served.wire.take_ahead();
            served.write(&bytes);
        }
    });
    let proxy = flags(Flags::to(&[&upstream])).start();
    let mut client = proxy.client();
    client
        .send("GET /chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let head = client.wire.head().unwrap();
    assert_eq!((head.status(), head.get("upgrade")), (101, Some("websocket")));
    (upstream, proxy, client)
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways_until_one_side_closes() {
    let (upstream, _proxy, mut client) = upgraded(|flags| flags);
    for bytes in [&b"\x81\x05hello"[..], b"\0\r\n\r\n", &[b'x'; 10_000]] {
        client.send(bytes);
        while client.wire.ahead().len() < bytes.len() {
            client.wire.fill().unwrap();
        }
        assert_eq!(client.wire.take_ahead(), bytes);
    }
    drop(client);
    wait_until("the upstream connection has ended", Duration::from_secs(5), || {
        upstream.open_connections() == 0
    });
}

#[test]
fn a_tunnel_that_passes_nothing_for_too_long_is_closed() {
    // tunnel-idle
    let (upstream, _proxy, mut client) = upgraded(|flags| flags.with("--tunnel-timeout", "300ms"));
    assert!(matches!(client.read_response("GET").ended, Ended::CleanClose | Ended::Reset));
    wait_until("the upstream connection has ended", Duration::from_secs(5), || {
        upstream.open_connections() == 0
    });
}
