//! The client and the scripted upstream against each other: what they report must be so.

use std::time::Duration;

use crate::support::client::{Client, Ended, Fate};
use crate::support::load::{self, Load, Reuse};
use crate::support::upstream::Upstream;
use crate::support::wire::{End, Framing};
use crate::support::{Gate, wait_until};

/// The answer to a GET whose upstream writes `bytes` and closes.
fn answer_of(bytes: &'static [u8]) -> crate::support::client::Response {
    let upstream = Upstream::scripted(move |served| {
        served.request();
        served.write(bytes);
    });
    Client::connect(upstream.addr).get("/")
}

#[test]
fn each_framing_is_read_and_an_early_end_is_seen() {
    let cases: [(&[u8], Framing, &str, Ended); 7] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Framing::Length(2), "hi", Ended::Complete),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", Framing::Length(3), "hi", Ended::CleanClose),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\nX: y\r\n\r\n",
            Framing::Chunked,
            "hi",
            Ended::Complete,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
            Framing::Chunked,
            "hi",
            Ended::CleanClose,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n0\r\n\r\n",
            Framing::Chunked,
            "h",
            Ended::Garbled,
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nhi", Framing::UntilClose, "hi", Ended::Complete),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Framing::None, "", Ended::Complete),
    ];
    for (bytes, framing, body, ended) in cases {
        let response = answer_of(bytes);
        assert_eq!(
            (response.framing, response.text().as_str(), response.ended),
            (framing, body, ended)
        );
    }
    assert_eq!(answer_of(b"HTTP/1.1 200").ended, Ended::CleanClose);
    assert!(answer_of(b"HTTP/1.1 200").head.is_none());
    let interim =
        answer_of(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!((interim.interim.len(), interim.status()), (1, 204));
}

#[test]
fn a_reset_is_told_from_a_close_on_both_sides() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some_and(|request| request.head.target() == "/reset") {
            served.reset_on_return();
        }
    });
    assert_eq!(Client::connect(upstream.addr).get("/reset").ended, Ended::Reset);
    assert_eq!(Client::connect(upstream.addr).get("/close").ended, Ended::CleanClose);

    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let upstream = Upstream::scripted({
        let seen = seen.clone();
        move |served| {
            served.request();
            let end = served.wait_for_end();
            seen.lock().unwrap().push(end);
        }
    });
    let request = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut client = Client::connect(upstream.addr);
    client.send(request);
    wait_until("the request is there", Duration::from_secs(5), || upstream.request_count() == 1);
    client.reset();
    wait_until("the reset is seen", Duration::from_secs(5), || seen.lock().unwrap().len() == 1);
    let mut client = Client::connect(upstream.addr);
    client.send(request);
    drop(client);
    wait_until("the close is seen", Duration::from_secs(5), || seen.lock().unwrap().len() == 2);
    assert_eq!(*seen.lock().unwrap(), [Some(End::Reset), Some(End::CleanClose)]);
}

#[test]
fn requests_and_raw_bytes_are_recorded_without_the_probes() {
    let upstream = Upstream::naming_targets();
    let mut probe = Client::connect(upstream.addr);
    probe.get("/health").expect(200);
    let mut client = Client::connect(upstream.addr);
    assert_eq!(client.get("/a").text(), "/a");
    let chunked =
        "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n";
    assert_eq!(client.request(chunked).text(), "/b");
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        (requests[1].body.as_slice(), requests[1].trailers.get("t")),
        (&b"abc"[..], Some("1"))
    );
    assert_eq!(
        upstream.raw(),
        [format!("GET /a HTTP/1.1\r\nHost: test\r\n\r\n{chunked}").into_bytes()]
    );
    assert_eq!(upstream.probes_passed(), 1);
}

#[test]
fn a_stopped_upstream_refuses_and_ends_its_connections() {
    let mut upstream = Upstream::naming_targets();
    let mut client = Client::connect(upstream.addr);
    client.get("/").expect(200);
    assert_eq!(client.fate(Duration::from_millis(20)), Fate::Open);
    upstream.stop();
    client.expect_close();
    assert!(Client::try_connect(upstream.addr).is_err());
}

#[test]
fn the_load_tells_the_fates_of_requests_apart() {
    let gate = Gate::default();
    let mut upstream = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            while let Some(request) = served.request() {
                match request.head.target() {
                    "/cut" => {
                        served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi");
                        return gate.wait();
                    }
                    _ => served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
                };
            }
        }
    });
    let cut = Load::start(upstream.addr, 1, Reuse::KeepAlive, "/cut");
    let good = Load::start(upstream.addr, 2, Reuse::KeepAlive, "/");
    let fresh = Load::start(upstream.addr, 1, Reuse::PerRequest, "/");
    wait_until("answers", Duration::from_secs(5), || good.answered() > 10 && fresh.answered() > 10);
    wait_until("the one to be cut", Duration::from_secs(5), || {
        upstream.requests().iter().any(|r| r.head.target() == "/cut")
    });
    upstream.stop();
    gate.open();
    let fates: Vec<_> = cut.until_refused().into_keys().collect();
    assert_eq!(fates, [load::Fate::Refused, load::Fate::Cut]);
    let fates = good.until_refused();
    assert!(fates.contains_key(&load::Fate::Answered(200)), "{fates:?}");
    fresh.until_refused();
}
