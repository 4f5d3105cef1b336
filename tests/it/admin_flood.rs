//! Clients of the admin API that hardly read, or not at all: others are answered within seconds, what
//! is kept for them is bounded, and they are cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::admin::{Events, TOKEN, admin, json_of, status};
use crate::support::client::Client;
use crate::support::proxy::Flags;
use crate::support::upstream::{Upstream, ok};
use crate::support::{SOON, Scratch, wait_until};

/// A connection whose kernel keeps but a few kB of what comes, and that has sent this.
fn narrow(addr: SocketAddr, request: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(request.as_bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Clients that ask for the page many times at once and take a little of it every now and then, until
/// this is dropped; one that is cut comes again.
struct SlowReaders {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SlowReaders {
    fn start(addr: SocketAddr, count: usize) -> SlowReaders {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let requests = format!("GET / HTTP/1.1\r\nHost: {addr}\r\n\r\n").repeat(100);
        let thread = thread::spawn(move || {
            let mut clients: Vec<_> = (0..count).map(|_| narrow(addr, &requests)).collect();
            while !seen.load(Ordering::Relaxed) {
                for client in &mut clients {
                    let is_cut = match client.read(&mut [0; 1024]) {
                        Ok(count) => count == 0,
                        Err(error) => error.kind() != ErrorKind::WouldBlock,
                    };
                    if is_cut {
                        *client = narrow(addr, &requests);
                    }
                }
                let round = Instant::now();
                wait_until("the next round", SOON, || round.elapsed() > ROUND);
            }
        });
        SlowReaders { is_over, thread: Some(thread) }
    }
}

impl Drop for SlowReaders {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

#[test]
fn two_hundred_slow_readers_without_a_token_shut_nobody_out() {
    let upstream = Upstream::answering(ok("", false));
    let scratch = Scratch::new("flood");
    let file = scratch.join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let proxy = Flags::to(&[&upstream])
        .with("--admin", "0.0.0.0:0")
        .with("--admin-token-file", file.to_str().unwrap())
        .with("--health-interval", QUIET)
        .start();
    let addr = SocketAddr::from(([127, 0, 0, 1], proxy.admin_addr().port()));
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let mut events = Events::listen_as(addr, &token);
    let files = proxy.open_files();
    let _readers = SlowReaders::start(addr, 200);
    wait_until("they have all places", SOON, || proxy.open_files() >= files + 127);
    let start = Instant::now();
    let mut clients =
        [("/healthz", ""), ("/api/v1/status", token.as_str())].map(|(path, token)| {
            let mut client = Client::connect(addr);
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n{token}\r\n"));
            client
        });
    let [_, status] = clients.each_mut().map(|client| client.read_response("GET").expect(200));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    // Whoever takes events keeps its place.
    check_goes_on(&mut events, &json_of(&status));
    assert!(proxy.log().contains("some lose their places"), "{}", proxy.log());
}

#[test]
fn listeners_that_stop_reading_are_cut_cost_little_and_hold_nobody_up() {
    let upstream = Upstream::answering(ok("", false));
    // A status of some 200 kB: more than the kernel keeps of it.
    let unchecked = |port: u16| format!("http://127.0.0.1:{port},maintenance");
    let flags = admin(&[&upstream]).with("--health-interval", QUIET);
    let proxy =
        (1..=500).fold(flags, |flags, port| flags.and("--backend", &unchecked(port))).start();
    let addr = proxy.admin_addr();
    let mut reader = Events::listen(addr);
    reader.next("status");
    let (files, memory) = (proxy.open_files(), proxy.memory());
    let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    let _deaf: Vec<TcpStream> = (0..31).map(|_| narrow(addr, &request)).collect();
    wait_until("they all listen", SOON, || proxy.open_files() == files + 31);
    wait_until("they are cut", SOON * 2, || {
        reader.next("status");
        proxy.open_files() == files
    });
    let grown = proxy.memory().saturating_sub(memory);
    assert!(grown < MEMORY_MAX, "{grown} bytes more");
    let log = proxy.log();
    assert!(!log.contains("the control thread was late"), "{log}");
    check_goes_on(&mut reader, &status(addr));
}

/// There are events that are newer than this status.
#[track_caller]
fn check_goes_on(events: &mut Events, status: &Value) {
    let now = status["uptime_seconds"].as_f64();
    wait_until("events go on", SOON, || events.next("status")["uptime_seconds"].as_f64() > now);
}

/// No probe comes and goes while descriptors are counted.
const QUIET: &str = "1m";
/// How often a slow reader takes 1 kB: a page of 50 kB takes it more than a second.
const ROUND: Duration = Duration::from_millis(25);
/// What 31 listeners that do not read may cost: 1 MB each.
const MEMORY_MAX: u64 = 32 * 1024 * 1024;
