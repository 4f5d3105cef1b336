//! The same bytes cut at every place: where a read ends must never matter.
//! Between two pieces another client's request makes its round trip through the same single worker, so that
//! the first piece has been read before the second is sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};

use crate::support::client::Client;
use crate::support::proxy::Flags;
use crate::support::upstream::{Upstream, ok};

const UPLOADS: [&str; 2] = [
    "POST /split?q HTTP/1.1\r\nHost: t\r\nX-A: b\r\nContent-Length: 11\r\n\r\nhello world",
    "POST /split?q HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: 1\r\n\r\n",
];

fn echoing() -> Upstream {
    Upstream::scripted(|served| {
        while let Some(request) = served.request() {
            served.write(&ok(&String::from_utf8(request.body).unwrap(), false));
        }
    })
}

#[test]
fn a_request_cut_at_any_byte_arrives_the_same() {
    let upstream = echoing();
    let proxy = Flags::to(&[&upstream]).start();
    let (mut client, mut other) = (proxy.client(), proxy.client());
    for upload in UPLOADS {
        for cut in 1..upload.len() {
            client.send(&upload[..cut]);
            other.get("/other").expect(200);
            client.send(&upload[cut..]);
            let response = client.read_response("POST").expect(200);
            assert_eq!(response.text(), "hello world", "cut at {cut} of {upload:?}");
        }
    }
    let targets = upstream
        .requests()
        .into_iter()
        .filter(|request| request.head.target() == "/split?q")
        .count();
    assert_eq!(targets, UPLOADS[0].len() + UPLOADS[1].len() - 2);
}

#[test]
fn a_request_sent_byte_by_byte_arrives_the_same() {
    let upstream = echoing();
    let proxy = Flags::to(&[&upstream]).start();
    let (mut client, mut other) = (proxy.client(), proxy.client());
    for upload in UPLOADS {
        for byte in upload.as_bytes() {
            client.send([*byte]);
            other.get("/other").expect(200);
        }
        assert_eq!(client.read_response("POST").expect(200).text(), "hello world");
    }
}

#[test]
fn pipelined_requests_cut_at_any_byte_are_answered_in_order() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).start();
    let (mut client, mut other) = (proxy.client(), proxy.client());
    let pair = "POST /1 HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: t\r\n\r\n";
    for cut in 1..pair.len() {
        client.send(&pair[..cut]);
        other.get("/other").expect(200);
        client.send(&pair[cut..]);
        assert_eq!(client.read_response("POST").expect(200).text(), "/1", "cut at {cut}");
        assert_eq!(client.read_response("GET").expect(200).text(), "/2", "cut at {cut}");
    }
}

/// Answers `GET /CUT` with `answer`, its first CUT bytes apart from the rest.
fn cutting(answer: &'static str) -> (Upstream, Arc<OnceLock<SocketAddr>>) {
    let proxy: Arc<OnceLock<SocketAddr>> = Arc::default();
    let other: Mutex<Option<Client>> = Mutex::new(None);
    let upstream = Upstream::scripted({
        let proxy = proxy.clone();
        move |served| {
            while let Some(request) = served.request() {
                let Ok(cut) = request.head.target()[1..].parse::<usize>() else {
                    served.write(&ok("other", false));
                    continue;
                };
                served.write(&answer.as_bytes()[..cut]);
                let addr = *proxy.get().expect("the test has set it");
                let mut other = other.lock().unwrap();
                other.get_or_insert_with(|| Client::connect(addr)).get("/other").expect(200);
                served.write(&answer.as_bytes()[cut..]);
            }
        }
    });
    (upstream, proxy)
}

#[test]
fn an_answer_cut_at_any_byte_arrives_the_same() {
    let answers = [
        "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 11\r\n\r\nhello world",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: 1\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
    ];
    for answer in answers {
        let (upstream, addr) = cutting(answer);
        let proxy = Flags::to(&[&upstream]).start();
        addr.set(proxy.addr()).unwrap();
        let mut client = proxy.client();
        for cut in 1..answer.len() {
            let response = client.get(&format!("/{cut}")).expect(200);
            assert_eq!(response.text(), "hello world", "cut at {cut} of {answer:?}");
        }
    }
}
