//! A backend on a thread of its own, and a client that writes raw requests.
//!
//! Every read and write is under `DEADLINE`, so that a test that waits in vain
//! fails rather than hangs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::super::{Backend, BackendConfig, run};

pub(super) const NAME: &str = "b1";
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

pub(super) struct Demo {
    pub(super) addr: SocketAddr,
    pub(super) agent_addr: Option<SocketAddr>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Demo {
    pub(super) fn start() -> Self {
        Self::with(|_| {})
    }

    /// One whose configuration is changed first.
    pub(super) fn with(change: impl FnOnce(&mut BackendConfig)) -> Self {
        let mut config = config(any_port());
        change(&mut config);
        let backend = Backend::bind(&config).expect("bind");
        let (addr, agent_addr) = (backend.local_addr(), backend.agent_addr());
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || run(backend, stopped));
        Self { addr, agent_addr, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn tell_to_stop(&mut self) {
        self.stop.take().expect("told once").send(()).expect("the backend listens for the stop");
    }

    pub(super) fn join(&mut self) {
        self.thread.take().expect("joined once").join().expect("no panic").expect("served");
    }

    /// One request on a connection of its own, which it asks to close.
    pub(super) fn ask(&self, method: &str, target: &str) -> Reply {
        self.send(
            &format!("{method} {target} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n"),
            &[],
        )
    }

    /// Sends a head and a body while it reads the reply up to its end.
    pub(super) fn send(&self, head: &str, body: &[u8]) -> Reply {
        let mut stream = self.connect();
        let mut writer = stream.try_clone().expect("clone");
        let mut received = Vec::new();
        thread::scope(|scope| {
            scope.spawn(move || {
                writer.write_all(head.as_bytes()).expect("write the head");
                writer.write_all(body).expect("write the body");
            });
            stream.read_to_end(&mut received).expect("read the reply");
        });
        Reply::parse(&received)
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.addr, DEADLINE).expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).expect("read timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("write timeout");
        stream
    }
}

impl Drop for Demo {
    /// A test that fails stops its backend all the same: dropping the sender does.
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || matches!(ended, Ok(Ok(()))), "{ended:?}");
        }
    }
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn parse(received: &[u8]) -> Self {
        let end = b"\r\n\r\n";
        let at =
            received.windows(end.len()).position(|window| window == end).expect("a whole head");
        let head = String::from_utf8(received[..at].to_vec()).expect("an ASCII head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Self { status, head, body: received[at + end.len()..].to_vec() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }

    pub(super) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.text().lines().count(), 1, "one line: {}", self.text());
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The data of each chunk, and the trailers as they stand.
    pub(super) fn chunks(&self) -> (Vec<Vec<u8>>, String) {
        assert_eq!(self.header("transfer-encoding"), Some("chunked"));
        let mut rest = self.body.as_slice();
        let mut chunks = Vec::new();
        loop {
            let line_end =
                rest.windows(2).position(|window| window == b"\r\n").expect("a size line");
            let size = std::str::from_utf8(&rest[..line_end]).expect("ASCII digits");
            let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal");
            rest = &rest[line_end + 2..];
            if size == 0 {
                return (chunks, String::from_utf8(rest.to_vec()).expect("ASCII trailers"));
            }
            chunks.push(rest[..size].to_vec());
            rest = &rest[size + 2..];
        }
    }
}

pub(super) fn config(listen: SocketAddr) -> BackendConfig {
    BackendConfig::good(listen, NAME)
}

pub(super) fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub(super) fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut received = Vec::new();
    let mut byte = [0];
    while !received.ends_with(end.as_bytes()) {
        stream.read_exact(&mut byte).expect("more bytes");
        received.extend_from_slice(&byte);
    }
    String::from_utf8(received).expect("text")
}
