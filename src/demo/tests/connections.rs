//! What a backend does with its connections: keeping, refusing, draining.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::super::{Backend, BackendConfig, DRAIN};
use super::client::{DEADLINE, Demo, NAME, any_port, config, read_until};

#[test]
fn connection_is_kept_for_the_next_request() {
    let demo = Demo::start();
    let mut stream = demo.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: demo\r\n\r\n").expect("write");
        let reply = read_until(&mut stream, "\r\n\r\nok\n");
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    }
}

#[test]
fn malformed_requests_leave_the_backend_serving() {
    let demo = Demo::start();
    for request in [
        "\r\r\r\r",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ] {
        let mut stream = demo.connect();
        stream.write_all(request.as_bytes()).expect("write");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("the connection is closed");
        assert!(!received.starts_with(b"HTTP/1.1 2"), "{request:?}");
    }
    let mut broken_off = demo.connect();
    broken_off.write_all(b"POST /upload HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc").expect("write");
    drop(broken_off);
    assert_eq!(demo.ask("GET", "/health").status, 200);
}

#[test]
fn stop_refuses_the_next_client_and_finishes_the_request_in_flight() {
    let mut demo = Demo::start();
    let mut idle = demo.connect();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: demo\r\n\r\n").expect("write");
    read_until(&mut idle, "\r\n\r\nok\n");
    let mut in_flight = demo.connect();
    in_flight
        .write_all(b"GET /stream?chunks=2&interval_ms=300 HTTP/1.1\r\nHost: demo\r\n\r\n")
        .expect("write");
    read_until(&mut in_flight, "chunk 1 of 2\n\r\n");
    demo.tell_to_stop();
    assert_eq!(idle.read(&mut [0]).expect("closed in order"), 0);
    read_until(&mut in_flight, "chunk 2 of 2\n\r\n0\r\n\r\n");
    demo.join();
    TcpStream::connect_timeout(&demo.addr, DEADLINE).expect_err("nobody listens");
}

#[test]
fn stop_cuts_a_request_that_outlasts_the_drain() {
    let mut demo = Demo::start();
    let mut in_flight = demo.connect();
    in_flight
        .write_all(b"GET /stream?chunks=2&interval_ms=60000 HTTP/1.1\r\nHost: demo\r\n\r\n")
        .expect("write");
    read_until(&mut in_flight, "chunk 1 of 2\n\r\n");
    let told = Instant::now();
    demo.tell_to_stop();
    demo.join();
    assert!((DRAIN..DEADLINE).contains(&told.elapsed()), "{:?}", told.elapsed());
    assert_eq!(in_flight.read(&mut [0]).expect("closed"), 0);
}

#[test]
fn backend_stops_when_its_owner_is_gone() {
    let mut demo = Demo::start();
    demo.stop = None;
    demo.join();
}

#[test]
fn bind_errors_name_the_backend_and_the_remedy() {
    let first = Backend::bind(&config(any_port())).expect("bind");
    let error = Backend::bind(&config(first.local_addr())).expect_err("the port is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let message = error.to_string();
    assert!(message.contains(NAME) && message.contains("a free port"), "{message}");
    let bad_name = BackendConfig::good(any_port(), "a\nb");
    let error = Backend::bind(&bad_name).expect_err("no header can carry the name");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
