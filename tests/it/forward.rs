//! Requests forwarded and answers brought back: connections, framing, HTTP/1.0, early and interim answers.

use std::time::Duration;

use crate::support::client::{Client, Ended, Fate};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Upstream, ok};
use crate::support::wire::Framing;
use crate::support::{Gate, wait_until};

fn in_front_of(upstream: &Upstream) -> (Proxy, Client) {
    let proxy = Flags::to(&[upstream]).start();
    let client = proxy.client();
    (proxy, client)
}

/// An answer that has just these bytes, once per request.
fn answering(bytes: &str) -> (Upstream, Proxy, Client) {
    let upstream = Upstream::answering(bytes);
    let (proxy, client) = in_front_of(&upstream);
    (upstream, proxy, client)
}

#[test]
fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::naming_targets();
    let (_proxy, mut client) = in_front_of(&upstream);
    for target in ["/1", "/2", "/3"] {
        assert_eq!(client.get(target).expect(200).text(), target);
    }
    assert_eq!((upstream.raw().len(), upstream.request_count()), (1, 3));
    assert_eq!(client.fate(Duration::from_millis(50)), Fate::Open);
}

#[test]
fn pipelined_requests_are_answered_in_order_with_a_head_in_between() {
    let upstream = Upstream::naming_targets();
    let (_proxy, mut client) = in_front_of(&upstream);
    client.send(
        "GET /1 HTTP/1.1\r\nHost: t\r\n\r\n\
         HEAD /22 HTTP/1.1\r\nHost: t\r\n\r\n\
         POST /333 HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody\
         PUT /4444 HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n\
         GET /5 HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    for (method, target) in
        [("GET", "/1"), ("HEAD", "/22"), ("POST", "/333"), ("PUT", "/4444"), ("GET", "/5")]
    {
        let response = client.read_response(method).expect(200);
        assert_eq!(response.get("content-length"), Some(target.len().to_string().as_str()));
        assert_eq!(response.text(), if method == "HEAD" { "" } else { target });
    }
    let bodies: Vec<_> = upstream.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [&b""[..], b"", b"body", b"body", b""]);
}

#[test]
fn many_pipelined_requests_are_all_answered_in_order() {
    let upstream = Upstream::naming_targets();
    let (_proxy, mut client) = in_front_of(&upstream);
    let request = |number: usize| format!("GET /{number} HTTP/1.1\r\nHost: t\r\n\r\n");
    client.send((0..500).map(request).collect::<String>());
    for number in 0..500 {
        assert_eq!(client.read_response("GET").expect(200).text(), format!("/{number}"));
    }
}

#[test]
fn request_bodies_arrive_whole_in_their_framing() {
    let upstream = Upstream::answering(ok("", false));
    let (_proxy, mut client) = in_front_of(&upstream);
    let cases: [(&str, Framing, &[u8]); 5] = [
        ("Content-Length: 0\r\n\r\n", Framing::Length(0), b""),
        ("Content-Length: 5\r\n\r\nhello", Framing::Length(5), b"hello"),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Framing::Chunked, b""),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            Framing::Chunked,
            b"hello",
        ),
        (
            "transfer-encoding: Chunked\r\n\r\n00000A\r\n0123456789\r\n0\r\n\r\n",
            Framing::Chunked,
            b"0123456789",
        ),
    ];
    for (rest, framing, body) in cases {
        client.request(format!("POST / HTTP/1.1\r\nHost: t\r\n{rest}")).expect(200);
        let request = upstream.last_request();
        assert_eq!(
            (request.head.request_framing(), request.body.as_slice()),
            (framing, body),
            "{rest}"
        );
    }
    client.request("POST / HTTP/1.1\r\nHost: t\r\n\r\n").expect(200);
    assert_eq!(upstream.last_request().body, b"");
}

#[test]
fn trailers_pass_in_both_directions() {
    let (upstream, _proxy, mut client) = answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n2\r\nhi\r\n0\r\nSum: 42\r\n\r\n",
    );
    let request = "POST / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nhi\r\n0\r\nDigest: 7\r\n\r\n";
    let response = client.request(request).expect(200);
    assert_eq!(response.trailers.get("sum"), Some("42"));
    assert_eq!(upstream.last_request().trailers.get("digest"), Some("7"));
}

#[test]
fn response_bodies_arrive_whole_in_their_framing() {
    let cases = [
        ("Content-Length: 0\r\n\r\n", Framing::Length(0), ""),
        ("Content-Length: 5\r\n\r\nhello", Framing::Length(5), "hello"),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Framing::Chunked, ""),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            Framing::Chunked,
            "hello",
        ),
    ];
    for (rest, framing, body) in cases {
        let (_upstream, _proxy, mut client) = answering(&format!("HTTP/1.1 200 OK\r\n{rest}"));
        for _ in 0..2 {
            let response = client.get("/").expect(200);
            assert_eq!((response.framing, response.text().as_str()), (framing, body), "{rest}");
        }
    }
}

#[test]
fn a_body_that_ends_with_the_connection_arrives_whole() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    ] {
        let upstream = Upstream::scripted(move |served| {
            if served.request().is_some() {
                served.write(head.as_bytes());
                served.write(b"until the end");
            }
        });
        let (_proxy, mut client) = in_front_of(&upstream);
        let response = client.get("/").expect(200);
        assert_eq!(response.text(), "until the end", "{head}");
        // Chunked or until the close are both right; a length cannot be known.
        assert!(
            matches!(response.framing, Framing::Chunked | Framing::UntilClose),
            "{:?}",
            response.framing
        );
    }
}

#[test]
fn answers_without_a_body_leave_the_connection_usable() {
    let cases = [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", 304),
    ];
    for (method, answer, status) in cases {
        let (upstream, _proxy, mut client) = answering(answer);
        for _ in 0..2 {
            client.request(format!("{method} / HTTP/1.1\r\nHost: t\r\n\r\n")).expect(status);
        }
        assert_eq!(client.fate(Duration::from_millis(20)), Fate::Open, "{method} {answer}");
        assert_eq!(upstream.request_count(), 2);
    }
}

#[test]
fn a_head_answer_keeps_its_content_length() {
    let (_upstream, _proxy, mut client) =
        answering("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    let response = client.request("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n").expect(200);
    assert_eq!(response.get("content-length"), Some("1000"));
}

#[test]
fn an_old_client_is_answered_and_closed() {
    let upstream = Upstream::naming_targets();
    let (_proxy, mut client) = in_front_of(&upstream);
    assert_eq!(client.request("GET /old HTTP/1.0\r\n\r\n").expect(200).text(), "/old");
    client.expect_close();
    assert!(
        upstream.last_request().head.start.ends_with("HTTP/1.1"),
        "{}",
        upstream.last_request().head.start
    );
}

#[test]
fn an_old_client_that_asks_for_keep_alive_gets_it() {
    let upstream = Upstream::naming_targets();
    let (_proxy, mut client) = in_front_of(&upstream);
    for target in ["/1", "/2"] {
        let request = format!("GET {target} HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\n\r\n");
        let response = client.request(request).expect(200);
        assert_eq!(response.text(), target);
        assert!(
            response.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("keep-alive")),
            "{response:?}"
        );
    }
    assert_eq!(client.fate(Duration::from_millis(20)), Fate::Open);
}

#[test]
fn a_chunked_answer_reaches_an_old_client_without_chunks() {
    let (_upstream, proxy, _) = answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nSum: 1\r\n\r\n",
    );
    for keep in ["", "Connection: keep-alive\r\n"] {
        let mut client = proxy.client();
        let response =
            client.request(format!("GET / HTTP/1.0\r\nHost: t\r\n{keep}\r\n")).expect(200);
        assert_eq!((response.framing, response.text().as_str()), (Framing::UntilClose, "hello"));
        assert_eq!(response.get("transfer-encoding"), None);
    }
}

#[test]
fn a_client_that_asks_for_the_close_gets_it_and_is_told() {
    let upstream = Upstream::naming_targets();
    let (proxy, mut client) = in_front_of(&upstream);
    let response =
        client.request("GET /bye HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").expect(200);
    assert_eq!(response.get("connection"), Some("close"));
    client.expect_close();
    proxy.client().get("/next").expect(200);
    assert_eq!(upstream.raw().len(), 1, "the upstream connection is kept all the same");
}

#[test]
fn a_backend_that_closes_after_each_answer_does_not_close_the_client() {
    let upstream = Upstream::scripted(|served| {
        if let Some(request) = served.request() {
            let body = request.head.target().to_string();
            served.write(
                format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            );
        }
    });
    let (_proxy, mut client) = in_front_of(&upstream);
    for target in ["/1", "/2", "/3"] {
        let response = client.get(target).expect(200);
        assert_eq!(response.text(), target);
        assert_ne!(response.get("connection"), Some("close"));
    }
    assert_eq!(upstream.raw().len(), 3);
}

#[test]
fn an_answer_before_the_end_of_an_upload_is_delivered() {
    let upstream = Upstream::scripted(|served| {
        if served.head().is_some_and(|head| head.method() == "POST") {
            served.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
            served.wait_for_end();
        }
    });
    let (_proxy, mut client) = in_front_of(&upstream);
    client
        .send("POST /upload HTTP/1.1\r\nHost: t\r\nContent-Length: 10000000\r\n\r\nthe beginning");
    assert_eq!(client.read_response("POST").expect(413).text(), "big");
}

#[test]
fn an_early_answer_to_an_upload_that_goes_on_leaves_the_client_with_the_whole_answer() {
    let upstream = Upstream::scripted(|served| {
        if served.head().is_some_and(|head| head.method() == "POST") {
            served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
            served.wait_for_end();
        }
    });
    let (_proxy, mut client) = in_front_of(&upstream);
    client.send("POST /upload HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n");
    // The proxy may drain the rest or close; neither may cost the answer.
    for _ in 0..10 {
        if client.wire.write(&[b'x'; 100_000]).is_err() {
            break;
        }
    }
    assert_eq!(client.read_response("POST").expect(200).text(), "early");
}

#[test]
fn interim_answers_are_passed_on_before_the_final_one() {
    let (_upstream, _proxy, mut client) = answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    );
    for _ in 0..2 {
        let response = client.get("/").expect(200);
        let links: Vec<_> =
            response.interim.iter().map(|head| (head.status(), head.get("link"))).collect();
        assert_eq!(links, [(103, Some("</a>")), (103, Some("</b>"))]);
        assert_eq!(response.text(), "hi");
    }
}

#[test]
fn an_interim_answer_does_not_wait_for_the_final_one() {
    let gate = Gate::default();
    let upstream = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            if served.request().is_some() {
                served.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
                gate.wait();
                served.write(&ok("done", false));
            }
        }
    });
    let (_proxy, mut client) = in_front_of(&upstream);
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.wire.head().unwrap().status(), 103);
    gate.open();
    assert_eq!(client.read_response("GET").expect(200).text(), "done");
}

#[test]
fn a_client_that_expects_100_continue_gets_it_and_then_sends() {
    let upstream = Upstream::scripted(|served| {
        while let Some(head) = served.head() {
            assert_eq!(head.get("expect"), Some("100-continue"));
            served.write(b"HTTP/1.1 100 Continue\r\n\r\n");
            let mut body = Vec::new();
            served
                .wire
                .body(head.request_framing(), &mut |piece| body.extend_from_slice(piece))
                .unwrap();
            served.write(&ok(&String::from_utf8(body).unwrap(), false));
        }
    });
    let (_proxy, mut client) = in_front_of(&upstream);
    for _ in 0..2 {
        client.send(
            "POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(client.wire.head().unwrap().status(), 100);
        client.send("hello");
        assert_eq!(client.read_response("POST").expect(200).text(), "hello");
    }
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_its_answer() {
    let gate = Gate::default();
    let upstream = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            if served.request().is_some() {
                gate.wait();
                served.write(&ok("late", false));
            }
        }
    });
    let (_proxy, mut client) = in_front_of(&upstream);
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    client.wire.half_close();
    // Longer than it takes the proxy to look for clients that have left.
    let start = std::time::Instant::now();
    wait_until("a second has passed", Duration::from_secs(5), || {
        start.elapsed() > Duration::from_secs(1)
    });
    gate.open();
    let response = client.read_response("GET");
    assert_eq!((response.ended, response.text().as_str()), (Ended::Complete, "late"));
}

#[test]
fn a_streamed_answer_arrives_piece_by_piece() {
    let gate = Gate::default();
    let upstream = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            if served.request().is_some() {
                served
                    .write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
                gate.wait();
                served.write(b"4\r\nlast\r\n0\r\n\r\n");
            }
        }
    });
    let (_proxy, mut client) = in_front_of(&upstream);
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    while !String::from_utf8_lossy(client.wire.ahead()).contains("first") {
        client.wire.fill().expect("the first piece arrives before the last is sent");
    }
    gate.open();
    assert_eq!(client.read_response("GET").expect(200).text(), "firstlast");
}

#[test]
fn nothing_is_served_after_a_request_that_asked_for_the_close() {
    let upstream = Upstream::naming_targets();
    let (_proxy, mut client) = in_front_of(&upstream);
    client.send(
        "GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\nGET /more HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    assert_eq!(client.read_response("GET").expect(200).text(), "/last");
    client.expect_close();
    assert_eq!(upstream.request_count(), 1);
}

#[test]
fn an_old_backend_is_asked_over_a_new_connection_each_time() {
    let (upstream, _proxy, mut client) =
        answering("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    for count in 1..=3 {
        let response = client.get("/").expect(200);
        assert_eq!(response.text(), "hi");
        assert!(response.head().start.starts_with("HTTP/1.1 "), "{response:?}");
        assert_eq!(upstream.raw().len(), count);
    }
}
