//! What each path answers, to requests in order and to those that are not.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{DEADLINE, Demo, NAME};

const MEBIBYTE: usize = 1024 * 1024;
const PERIOD: usize = 251;

/// A body that differs at any two positions less than a period apart.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i % PERIOD) as u8).collect()
}

#[test]
fn every_answer_carries_the_name_and_the_status_of_its_case() {
    let demo = Demo::start();
    let cases = [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/health", 200),
        ("GET", "/work?ms=1", 200),
        ("GET", "/sleep?ms=1", 200),
        ("GET", "/sleep?other=x&ms=1", 200),
        ("GET", "/bytes/0", 200),
        ("GET", "/bytes/1", 200),
        ("HEAD", "/bytes/10737418240", 200),
        ("GET", "/stream?chunks=1&interval_ms=0", 200),
        ("GET", "/stream?chunks=0&interval_ms=0", 200),
        ("POST", "/echo", 200),
        ("PUT", "/echo", 200),
        ("POST", "/upload", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/bytes", 404),
        ("GET", "/work/", 404),
        ("OPTIONS", "*", 404),
        ("DELETE", "/", 405),
        ("GET", "/health/fail", 405),
        ("POST", "/health", 405),
        ("POST", "/bytes/1", 405),
        ("GET", "/echo", 405),
        ("GET", "/upload", 405),
        ("GET", "/work", 400),
        ("GET", "/work?ms=", 400),
        ("GET", "/work?ms=-1", 400),
        ("GET", "/work?ms=+1", 400),
        ("GET", "/work?ms=10001", 400),
        ("GET", "/sleep?ms=60001", 400),
        ("GET", "/sleep?ms=18446744073709551616", 400),
        ("GET", "/bytes/", 400),
        ("GET", "/bytes/1/2", 400),
        ("GET", "/bytes/10737418241", 400),
        ("GET", "/stream?chunks=1", 400),
        ("GET", "/stream?interval_ms=1", 400),
        ("GET", "/stream?chunks=100001&interval_ms=0", 400),
        ("GET", "/stream?chunks=1&interval_ms=60001", 400),
    ];
    for (method, target, status) in cases {
        let reply = demo.ask(method, target);
        assert_eq!(reply.status, status, "{method} {target}: {}", reply.head);
        assert_eq!(reply.header("x-backend"), Some(NAME), "{method} {target}");
    }
}

#[test]
fn unknown_path_names_the_known_ones() {
    let reply = Demo::start().ask("GET", "/nowhere").json();
    let paths = reply["paths"].as_array().expect("paths");
    assert!(paths.contains(&Value::from("/bytes/N")), "{paths:?}");
}

#[test]
fn wrong_method_is_told_the_right_ones() {
    let demo = Demo::start();
    for (method, target, allow) in [
        ("POST", "/", "GET, HEAD"),
        ("GET", "/health/recover", "POST"),
        ("GET", "/echo", "POST, PUT"),
    ] {
        assert_eq!(demo.ask(method, target).header("allow"), Some(allow), "{method} {target}");
    }
}

#[test]
fn refused_number_says_why_and_what_would_do() {
    let demo = Demo::start();
    for (target, reason) in [
        ("/work", "ms is missing: give 0 to 10000"),
        ("/work?ms=1.5", "ms is not a whole number: give 0 to 10000"),
        ("/bytes/99999999999", "N is above its limit: give 0 to 10737418240"),
    ] {
        assert_eq!(demo.ask("GET", target).json()["error"], reason, "{target}");
    }
}

#[test]
fn health_fails_and_recovers_on_request() {
    let demo = Demo::start();
    let check = |status, text| {
        let reply = demo.ask("GET", "/health");
        assert_eq!((reply.status, reply.text()), (status, text));
    };
    check(200, "ok\n");
    assert_eq!(demo.ask("POST", "/health/fail").json()["health"], "failing");
    check(503, "failing\n");
    assert_eq!(demo.ask("POST", "/health/recover").json()["health"], "ok");
    check(200, "ok\n");
}

#[test]
fn root_describes_the_request_as_it_arrived() {
    let demo = Demo::start();
    assert_eq!(demo.ask("GET", "/health").status, 200);
    let head = "GET /?a=1 HTTP/1.1\r\nHost: demo\r\nX-One: 1\r\nX-Two: 2\r\nX-One: \u{e9}\r\nConnection: close\r\n\r\n";
    let reply = demo.send(head, &[]).json();
    assert_eq!(reply["backend"], NAME);
    assert_eq!(reply["method"], "GET");
    assert_eq!(reply["path"], "/?a=1");
    assert_eq!(reply["version"], "HTTP/1.1");
    assert_eq!(reply["served"], 1, "the probe of /health does not count");
    let headers = serde_json::json!([
        ["host", "demo"],
        ["x-one", "1"],
        ["x-one", "\u{e9}"],
        ["x-two", "2"],
        ["connection", "close"],
    ]);
    assert_eq!(reply["headers"], headers);
    let remote = reply["remote"].as_str().expect("an address");
    assert!(remote.starts_with("127.0.0.1:"), "{remote}");
    assert_eq!(demo.ask("GET", "/").json()["served"], 2);
}

#[test]
fn head_gets_the_length_without_the_body() {
    let demo = Demo::start();
    for (target, length) in
        [("/bytes/0", Some("0")), ("/bytes/70000", Some("70000")), ("/health", Some("3"))]
    {
        let reply = demo.ask("HEAD", target);
        assert_eq!(reply.header("content-length"), length, "{target}");
        assert!(reply.body.is_empty(), "{target}");
    }
}

#[test]
fn bytes_repeat_with_their_period_across_chunks() {
    let demo = Demo::start();
    for count in [0, 1, 250, 251, 252, 65_535, 65_536, 65_537, 100_000, 3 * MEBIBYTE] {
        let reply = demo.ask("GET", &format!("/bytes/{count}"));
        assert_eq!(reply.header("content-length"), Some(count.to_string().as_str()));
        assert!(reply.body == pattern(count), "{count} bytes");
    }
}

#[test]
fn echo_of_a_mebibyte_with_a_length_is_equal_and_keeps_the_length() {
    let sent = pattern(MEBIBYTE);
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: demo\r\nContent-Type: image/x-test\r\nContent-Length: {MEBIBYTE}\r\nConnection: close\r\n\r\n",
    );
    let reply = Demo::start().send(&head, &sent);
    assert_eq!(reply.header("content-length"), Some(MEBIBYTE.to_string().as_str()));
    assert_eq!(reply.header("content-type"), Some("image/x-test"));
    assert!(reply.body == sent);
}

#[test]
fn echo_of_chunks_is_chunked_and_passes_trailers_that_are_asked_for() {
    let demo = Demo::start();
    let check = |te: &str, trailers: &str| {
        let head = format!(
            "PUT /echo HTTP/1.1\r\nHost: demo\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n{te}Connection: close\r\n\r\n",
        );
        let reply = demo.send(&head, b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n");
        let (chunks, found) = reply.chunks();
        assert_eq!(chunks.concat(), b"abcde");
        assert_eq!(found, trailers);
    };
    check("TE: trailers\r\n", "x-sum: 5\r\n\r\n");
    check("", "\r\n");
}

#[test]
fn upload_counts_the_bytes() {
    let demo = Demo::start();
    let sent = pattern(MEBIBYTE);
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: demo\r\nContent-Length: {MEBIBYTE}\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(demo.send(&head, &sent).json()["bytes"], MEBIBYTE);
    let head = "POST /upload HTTP/1.1\r\nHost: demo\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    assert_eq!(demo.send(head, b"3\r\nabc\r\n0\r\n\r\n").json()["bytes"], 3);
}

#[test]
fn stream_sends_each_line_as_a_chunk_an_interval_apart() {
    let start = Instant::now();
    let (chunks, _) = Demo::start().ask("GET", "/stream?chunks=3&interval_ms=50").chunks();
    assert_eq!(chunks, [b"chunk 1 of 3\n", b"chunk 2 of 3\n", b"chunk 3 of 3\n"]);
    assert!(start.elapsed() >= Duration::from_millis(2 * 50));
}

#[test]
fn sleep_answers_after_its_time() {
    let start = Instant::now();
    assert_eq!(Demo::start().ask("GET", "/sleep?ms=100").json()["ms"], 100);
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[test]
fn work_takes_its_time_and_lets_other_requests_through() {
    let demo = Demo::start();
    let start = Instant::now();
    thread::scope(|scope| {
        let worker = scope.spawn(|| demo.ask("GET", "/work?ms=2000").json());
        // The work is on its way once a request is counted that is not one of these.
        let under_way = (1..)
            .take_while(|_| start.elapsed() < DEADLINE)
            .any(|asked| demo.ask("GET", "/").json()["served"] != asked);
        assert!(under_way, "the work was counted");
        assert!(!worker.is_finished(), "the other request came through during the work");
        let work = worker.join().expect("no panic");
        assert!(start.elapsed() >= Duration::from_millis(2000));
        assert!(work["rounds"].as_u64() > Some(0), "{work}");
    });
}

#[test]
fn upload_that_breaks_its_framing_is_refused() {
    let head = "POST /upload HTTP/1.1\r\nHost: demo\r\nTransfer-Encoding: chunked\r\n\r\n";
    let reply = Demo::start().send(head, b"3\r\nabc\r\nnot hexadecimal\r\n");
    assert_eq!(reply.status, 400);
    let error = reply.json()["error"].to_string();
    assert!(error.contains("broke off"), "{error}");
}
