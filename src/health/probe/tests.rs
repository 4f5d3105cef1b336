//! One probe against servers that answer, refuse, hang and talk nonsense.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::time::timeout;

use super::exchange::HEAD_BYTES_MAX;
use super::*;
use crate::config::HealthHeader;
use crate::health::tests::{backend, config};

/// Far more than any probe here takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn health(path: Option<&str>) -> HealthConfig {
    HealthConfig { path: path.map(str::to_owned), ..config(PATIENCE) }
}

fn probe(path: Option<&str>, address: SocketAddr) -> Result<Passed, ProbeError> {
    probe_with(&health(path), address)
}

fn probe_with(health: &HealthConfig, address: SocketAddr) -> Result<Passed, ProbeError> {
    let probe = Probe::new(&backend("127.0.0.1", address.port()), health).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, probe.run(address)).await.unwrap() })
}

/// A server that takes one request head, answers with these bytes and closes; gives the head.
fn serve(answer: &'static [u8]) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            head.push(byte[0]);
        }
        stream.write_all(answer).unwrap();
        String::from_utf8(head).unwrap()
    });
    (address, server)
}

/// What a probe makes of an answer: `passed`, `status N`, `body` or `protocol`.
fn check(answer: &'static [u8], expected: &str) {
    check_with(&health(Some("/")), answer, expected);
}

fn check_with(health: &HealthConfig, answer: &'static [u8], expected: &str) {
    let (address, server) = serve(answer);
    let outcome = match probe_with(health, address) {
        Ok(Passed { share: None }) => "passed".to_owned(),
        Ok(Passed { share: Some(share) }) => format!("passed, {share} %"),
        Err(ProbeError::Body(_)) => "body".to_owned(),
        Err(ProbeError::Status(_, status)) => format!("status {status}"),
        Err(ProbeError::Protocol(..)) => "protocol".to_owned(),
        Err(error) => error.to_string(),
    };
    server.join().unwrap();
    assert_eq!(outcome, expected, "answer {:?}", String::from_utf8_lossy(answer));
}

#[test]
fn the_status_decides() {
    check(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "passed");
    check(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "passed");
    check(b"HTTP/1.1 204 No Content\r\n\r\n", "passed");
    check(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "passed");
    check(b"HTTP/1.1 399 Odd\r\nContent-Length: 0\r\n\r\n", "passed");
    check(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "passed");
    check(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "status 101");
    check(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "status 400");
    check(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nsick", "status 503");
}

#[test]
fn a_body_that_breaks_off_or_is_malformed_changes_nothing() {
    check(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "passed");
    check(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n", "passed");
    check(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", "status 503");
}

#[test]
fn what_is_not_http_is_a_protocol_error() {
    check(b"", "protocol");
    check(b"HTTP/1.1 200 OK\r\nContent-Le", "protocol");
    check(b"SSH-2.0-OpenSSH_9.6\r\n", "protocol");
    check(b"\x15\x03\x01\x00\x02\x02\x32", "protocol");
    check(b"HTTP/1.1 OK\r\n\r\n", "protocol");
    check(&[b'a'; HEAD_BYTES_MAX + 1], "protocol");
}

#[test]
fn a_head_above_its_limit_is_a_protocol_error() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nX: ";
    static ANSWER: [u8; HEAD.len() + HEAD_BYTES_MAX] = {
        let mut answer = [b'x'; HEAD.len() + HEAD_BYTES_MAX];
        let mut index = 0;
        while index < HEAD.len() {
            answer[index] = HEAD[index];
            index += 1;
        }
        answer
    };
    check(&ANSWER, "protocol");
}

#[test]
fn the_request_names_the_backend_and_corelane() {
    let (address, server) = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    probe(Some("/health?deep=1"), address).unwrap();
    let head = server.join().unwrap();
    let port = address.port();
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "GET /health?deep=1 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\
         user-agent: corelane-health/{version}\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(head, expected);
}

#[test]
fn a_closed_port_is_refused() {
    // Bound, so that nobody else gets the port, and not listening.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    for path in [None, Some("/")] {
        let error = probe(path, address).unwrap_err();
        assert!(matches!(error, ProbeError::Refused(..)), "{error:?}");
        assert_eq!(error.to_string(), format!("{address} refused the connection"));
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn a_connection_is_enough_where_there_is_no_path() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    probe(None, listener.local_addr().unwrap()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap(), 0);
}

#[test]
fn a_path_without_its_slash_is_a_usage_error() {
    for path in ["health", "http://other/health", "*", "/a b", "/\r\nX: y", ""] {
        let refused = Probe::new(&backend("a", 1), &health(Some(path)));
        assert!(matches!(refused, Err(StartError::Usage(_))), "{path:?}");
    }
}

#[test]
fn what_cannot_stand_in_a_request_is_a_usage_error() {
    let header = |name: &str, value: &str| {
        vec![HealthHeader { name: name.to_owned(), value: value.to_owned() }]
    };
    let well = || health(Some("/"));
    for health in [
        HealthConfig { method: "GE T".to_owned(), ..well() },
        HealthConfig { method: String::new(), ..well() },
        HealthConfig { host: Some("a\r\nb".to_owned()), ..well() },
        HealthConfig { headers: header("a b", "c"), ..well() },
        HealthConfig { headers: header("a", "b\nc"), ..well() },
    ] {
        let refused = Probe::new(&backend("a", 1), &health);
        assert!(matches!(refused, Err(StartError::Usage(_))), "{health:?}");
    }
}

#[test]
fn method_host_and_headers_are_as_configured() {
    let (address, server) = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let header =
        |name: &str, value: &str| HealthHeader { name: name.to_owned(), value: value.to_owned() };
    let health = HealthConfig {
        method: "OPTIONS".to_owned(),
        host: Some("web.example".to_owned()),
        headers: vec![header("X-Key", "1"), header("X-Key", "2"), header("User-Agent", "me")],
        ..health(Some("/"))
    };
    probe_with(&health, address).unwrap();
    let head = server.join().unwrap();
    let expected = "OPTIONS / HTTP/1.1\r\nhost: web.example\r\nuser-agent: me\r\n\
                    connection: close\r\nx-key: 1\r\nx-key: 2\r\n\r\n";
    assert_eq!(head, expected);
}

#[test]
fn the_configured_statuses_pass() {
    let health =
        HealthConfig { statuses: Statuses(vec![200..=200, 500..=503]), ..health(Some("/")) };
    check_with(&health, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "passed");
    check_with(&health, b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "passed");
    check_with(&health, b"HTTP/1.1 204 No Content\r\n\r\n", "status 204");
}

#[test]
fn the_body_decides_where_it_has_to() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    let health = HealthConfig { body: Some("all is well".to_owned()), ..health(Some("/")) };
    let check = |rest: &str, expected| {
        let answer = Box::leak(format!("{OK}{rest}").into_boxed_str());
        check_with(&health, answer.as_bytes(), expected);
    };
    check("Content-Length: 14\r\n\r\nso all is well", "passed");
    check("Content-Length: 8\r\n\r\nnot well", "body");
    check("Content-Length: 0\r\n\r\n", "body");
    check("\r\nuntil the end: all is well", "passed");
    check("\r\nuntil the end", "body");
    check("Transfer-Encoding: chunked\r\n\r\n6\r\nall is\r\n5\r\n well\r\n0\r\n\r\n", "passed");
    check("Transfer-Encoding: chunked\r\n\r\n6\r\nall is\r\nnonsense", "protocol");
    check("Content-Length: 100\r\n\r\nall is", "protocol");
    check(&format!("\r\n{}all is well", " ".repeat(BODY_BYTES_MAX - 11)), "passed");
    check(&format!("\r\n{}all is well", " ".repeat(BODY_BYTES_MAX - 10)), "body");
    check_with(&health, b"HTTP/1.1 503 No\r\n\r\nall is well", "status 503");
}

#[test]
fn a_load_is_read_where_there_is_one() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nX-Load: 0.25\r\nContent-Length: 0\r\n\r\n";
    check(OK, "passed, 75 %");
    check(b"HTTP/1.1 200 OK\r\nx-load: 7\r\nContent-Length: 0\r\n\r\n", "passed");
    check(b"HTTP/1.1 200 OK\r\nx-load: \xff\r\nContent-Length: 0\r\n\r\n", "passed");
}
