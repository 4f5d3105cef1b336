//! Targets, bodies, connections and rates over their limits, and tunnels: what ends one.

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

#[test]
fn a_tunnel_whose_backend_resets_is_reset() {
    // tunnel-cut
    let upstream = Upstream::scripted(|served| {
        if served.head().is_none() {
            return;
        }
        served.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        if served.wire.fill().is_ok() {
            served.reset_on_return();
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.wire.head().unwrap().status(), 101);
    client.send("x");
    assert_eq!(client.read_response("GET").ended, Ended::Reset);
    wait_until("it is logged", Duration::from_secs(5), || proxy.log().contains("tunnel-cut"));
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).with("--client-conns-per-address-max", "2");
    let proxy = flags.with("--workers", "2").start();
    let mut held: Vec<_> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut held {
        client.get("/").expect(200);
    }
    let mut third = proxy.client();
    let response = third.get("/");
    check_own_answer(&response, 429, "http_request_denied", "client-conns");
    assert_eq!(response.get("retry-after"), Some("1"));
    third.expect_close();
    drop(held);
    wait_until("places are free again", Duration::from_secs(5), || {
        proxy.client().get("/").status() == 200
    });
}

#[test]
fn an_address_sends_no_more_requests_than_it_may() {
    let upstream = Upstream::answering(ok("whole", false));
    let proxy = Flags::to(&[&upstream]).with("--client-rate-max", "5").start();
    let mut client = proxy.client();
    let mut refused = 0;
    for _ in 0..20 {
        let response = client.request("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx");
        if response.status() == 429 {
            check_own_answer(&response, 429, "http_request_denied", "client-rate");
            refused += 1;
        }
    }
    assert!((10..=15).contains(&refused), "{refused} of 20 refused");
    wait_until("the bucket fills again", Duration::from_secs(5), || {
        client.get("/").status() == 200
    });
}

#[test]
fn accepting_waits_while_all_places_are_taken() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).with("--client-conns-max", "2").start();
    let mut held: Vec<_> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut held {
        client.get("/").expect(200);
    }
    let mut third = proxy.client();
    third.send("GET /third HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until("it is logged", Duration::from_secs(5), || proxy.log().contains("clients-max"));
    assert_eq!(upstream.request_count(), 2);
    held.pop();
    assert_eq!(third.read_response("GET").expect(200).text(), "/third");
}

#[test]
fn a_body_that_comes_too_slowly_is_refused() {
    let upstream = Upstream::answering(ok("whole", false));
    let proxy = Flags::to(&[&upstream]).with("--body-rate-min", "100000").start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\nx");
    let response = client.read_response("POST");
    check_own_answer(&response, 408, "http_request_error", "client-body-slow");
    client.expect_close();
    assert_eq!(upstream.request_count(), 0, "a body that was cut never looks complete");
}

#[test]
fn a_client_that_reads_nothing_is_reset() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(b"HTTP/1.1 200 OK\r\n\r\n");
            while served.write(&[b'x'; 65536]) {}
        }
    });
    let proxy = Flags::to(&[&upstream]).with("--client-body-timeout", "300ms").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until("it is logged", Duration::from_secs(10), || {
        proxy.log().contains("client-read-timeout")
    });
    assert_eq!(client.read_response("GET").ended, Ended::Reset, "it is not complete");
}
