//! One probe against servers that answer, refuse, hang and talk nonsense.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::thread::JoinHandle;

use socket2::{Domain, Socket, Type};

use super::*;

/// Far more than any probe here takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn health(path: Option<&str>) -> HealthConfig {
    HealthConfig {
        path: path.map(str::to_owned),
        interval: PATIENCE,
        timeout: PATIENCE,
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
    }
}

fn backend(port: u16) -> BackendConfig {
    BackendConfig { host: "127.0.0.1".to_owned(), port, weight: std::num::NonZeroU16::MIN }
}

fn probe(path: Option<&str>, address: SocketAddr) -> Result<(), ProbeError> {
    let probe = Probe::new(&backend(address.port()), &health(path)).unwrap();
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

/// What a probe makes of an answer: `passed`, `status N` or `protocol`.
fn check(answer: &'static [u8], expected: &str) {
    let (address, server) = serve(answer);
    let outcome = match probe(Some("/"), address) {
        Ok(()) => "passed".to_owned(),
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
        let refused = Probe::new(&backend(1), &health(Some(path)));
        assert!(matches!(refused, Err(StartError::Usage(_))), "{path:?}");
    }
}
