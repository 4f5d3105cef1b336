//! A request allocates nothing: an allocator that counts by thread watches one worker in process.
//! A binary of its own, since an allocator is the whole process's. Where a worker allocates that
//! must not, the test prints the places.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
#![expect(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corelane::cli::{Cli, Machine};
use corelane::error::StartError;
use corelane::server::{Server, Stopper};

#[test]
fn requests_of_16_connections_allocate_nothing() {
    let worker = Worker::start();
    let mut clients = Clients::warmed(16, worker.addr);
    let count = worker.allocations_of(TRACES_MAX, || clients.ask(100_000));
    assert_eq!(count, 0, "allocations in 100,000 requests");
}

#[test]
fn requests_that_are_logged_allocate_nothing() {
    let path = std::env::temp_dir().join(format!("corelane-alloc-{}.log", std::process::id()));
    let flags = ["--access-log", path.to_str().unwrap(), "--access-log-format", "json"];
    let worker = Worker::start_with(&flags);
    let mut clients = Clients::warmed(16, worker.addr);
    let count = worker.allocations_of(TRACES_MAX, || clients.ask(100_000));
    drop(worker);
    let lines = std::fs::read_to_string(&path).unwrap().lines().count();
    std::fs::remove_file(&path).unwrap();
    // A chunk is made when the writer has not given one back yet.
    assert!(count <= CHUNKS_MADE_MAX, "{count} allocations in 100,000 requests");
    assert!(lines >= 110_000, "{lines} lines");
}

#[test]
fn requests_of_200_connections_allocate_once_in_a_thousand_at_most() {
    let worker = Worker::start();
    let mut clients = Clients::warmed(200, worker.addr);
    let count = worker.allocations_of(TRACES_MAX, || clients.ask(100_000));
    assert!(count <= 100, "{count} allocations in 100,000 requests");
}

#[test]
fn a_new_connection_allocates_a_few_times() {
    let worker = Worker::start();
    let come_and_go = |count: usize| {
        for _ in 0..count {
            Clients::connect(1, worker.addr).ask(1);
        }
    };
    come_and_go(1000);
    let count = worker.allocations_of(0, || come_and_go(1000));
    println!("{count} allocations for 1000 connections");
    let bound = ALLOCATIONS_PER_CONNECTION_MAX * 1000;
    assert!(count <= bound, "{count} allocations for 1000 connections, and {bound} are allowed");
}

#[test]
fn an_idle_client_that_wakes_allocates_a_few_times() {
    let worker = Worker::start();
    let mut clients = Clients::warmed(WAKING, worker.addr);
    let mut sleep_and_wake = || {
        pause(IDLE);
        clients.ask(WAKING);
    };
    // What grows once for all idle clients.
    sleep_and_wake();
    let count = worker.allocations_of(TRACES_MAX, || (0..2).for_each(|_| sleep_and_wake()));
    let bound = ALLOCATIONS_PER_WAKE_MAX * 2 * WAKING as u64;
    println!("{count} allocations in {} wakes", 2 * WAKING);
    assert!(count <= bound, "{count} allocations in {} wakes, {bound} are allowed", 2 * WAKING);
}

/// A proxy with one worker in this process, which alone is counted.
struct Worker {
    addr: SocketAddr,
    row: &'static Row,
    stopper: Stopper,
    server: Option<JoinHandle<Result<u8, StartError>>>,
    /// One at a time: the workers of two would share a name, and a core.
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Worker {
    fn start() -> Worker {
        Worker::start_with(&[])
    }

    fn start_with(more: &[&str]) -> Worker {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        wait_until("the last worker has ended", || thread_id_of(WORKER).is_none());
        let backend = format!("http://{}", backend());
        let flags =
            ["corelane", "--listen", "127.0.0.1:0", "--workers", "1", "--backend", &backend];
        let cli = Cli::read_flags(flags.iter().chain(more).map(|flag| (*flag).to_owned())).unwrap();
        let cores = core_affinity::get_core_ids().unwrap().iter().map(|core| core.id).collect();
        let machine = Machine { cores, parallelism: 1, descriptors: 1024 };
        let server = Server::bind(cli.proxy.into_config(&machine).unwrap()).unwrap();
        let (addr, stopper) = (server.addrs()[0], server.stopper());
        let server = std::thread::spawn(move || server.run());
        wait_until("the worker answers", || is_answered(addr));
        let id = thread_id_of(WORKER).unwrap();
        let row = ROWS.iter().find(|row| row.thread.load(Ordering::Relaxed) == id).unwrap();
        Worker { addr, row, stopper, server: Some(server), _turn: turn }
    }

    /// How often the worker allocates while `act` runs; prints the first `traces` places.
    fn allocations_of(&self, traces: u64, act: impl FnOnce()) -> u64 {
        self.row.traces.store(traces, Ordering::Relaxed);
        let before = self.row.count.load(Ordering::Relaxed);
        act();
        let count = self.row.count.load(Ordering::Relaxed) - before;
        self.row.traces.store(0, Ordering::Relaxed);
        count
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.server.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(Ok(0)))), "{ended:?}");
        }
    }
}

/// Clients that ask together: all send, then all read.
struct Clients(Vec<TcpStream>);

impl Clients {
    fn connect(count: usize, addr: SocketAddr) -> Clients {
        let client = |_| {
            let client = TcpStream::connect(addr).unwrap();
            client.set_nodelay(true).unwrap();
            client.set_read_timeout(Some(SOON)).unwrap();
            client
        };
        Clients((0..count).map(client).collect())
    }

    /// Clients that have made 10,000 requests, among them one each at the same time: the worker has
    /// a connection to the backend for every one.
    fn warmed(count: usize, addr: SocketAddr) -> Clients {
        let mut clients = Clients::connect(count, addr);
        clients.ask_for(SLOW_REQUEST, count);
        clients.ask(10_000);
        // What finds silent clients has two halves, which take turns about once a second: both grow
        // to the number of clients once.
        let begin = Instant::now();
        while begin.elapsed() < HALVES_HAVE_TURNED {
            clients.ask(1_000);
        }
        clients
    }

    /// `count` requests, and some more where they are not the same for all.
    fn ask(&mut self, count: usize) {
        self.ask_for(REQUEST, count);
    }

    fn ask_for(&mut self, request: &[u8], count: usize) {
        for _ in 0..count.div_ceil(self.0.len()) {
            for client in &mut self.0 {
                client.write_all(request).unwrap();
            }
            for client in &mut self.0 {
                assert!(read_answer(client).unwrap(), "the answer is a 200");
            }
        }
    }
}

/// A 503 while no backend was probed keeps its connection open, and ends otherwise.
fn is_answered(addr: SocketAddr) -> bool {
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    client.write_all(REQUEST).unwrap();
    read_answer(&mut client).unwrap_or(false)
}

/// Reads to the end of the backend's answer; whether it is one.
fn read_answer(client: &mut TcpStream) -> std::io::Result<bool> {
    let (mut buf, mut len) = ([0; 1024], 0);
    while !buf[..len].ends_with(b"\r\n\r\nbody") {
        match client.read(&mut buf[len..])? {
            0 => return Ok(false),
            count => len += count,
        }
    }
    Ok(buf.starts_with(b"HTTP/1.1 200 OK\r\n"))
}

/// A backend with a thread for each connection, which answers whatever a read brings.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || answer(client?));
        }
    });
    addr
}

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let (mut buf, mut len) = ([0; 4096], 0);
    loop {
        match client.read(&mut buf[len..])? {
            0 => return Ok(()),
            count => len += count,
        }
        if buf[..len].ends_with(b"\r\n\r\n") {
            if buf.starts_with(b"GET /slow ") {
                pause(LATENCY);
            }
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")?;
            len = 0;
        }
    }
}

/// The id of this process's thread of this name.
fn thread_id_of(name: &str) -> Option<i32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let mut paths = threads.filter_map(Result::ok).map(|entry| entry.path());
    let found = paths.find(|path| {
        // A thread may end meanwhile.
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    })?;
    found.file_name()?.to_str()?.parse().ok()
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        pause(Duration::from_millis(2));
    }
}

#[expect(clippy::disallowed_methods, reason = "a polling interval and a backend's latency")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The system's allocator, which notes whom it serves.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator as it came; noting it changes no memory
// that an allocation is of.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// What is known of a thread. Aligned, so that threads do not slow each other down.
#[repr(align(128))]
struct Row {
    /// By the kernel's number; 0 for nobody.
    thread: AtomicI32,
    /// How often it has allocated.
    count: AtomicU64,
    /// How many of its next allocations are printed.
    traces: AtomicU64,
}

/// Counts an allocation of this thread. Allocates nothing itself but for a trace.
fn note() {
    // A thread that ends has no number any more, and is not the worker.
    let number = ROW.try_with(|row| {
        if row.get() == NO_ROW {
            row.set(ROWS_TAKEN.fetch_add(1, Ordering::Relaxed));
            if let Some(row) = ROWS.get(row.get()) {
                let id = rustix::thread::gettid().as_raw_nonzero().get();
                row.thread.store(id, Ordering::Relaxed);
            }
        }
        row.get()
    });
    let Some(row) = number.ok().and_then(|number| ROWS.get(number)) else { return };
    row.count.fetch_add(1, Ordering::Relaxed);
    let traces = row.traces.load(Ordering::Relaxed);
    if traces > 0 {
        // Printing allocates.
        row.traces.store(0, Ordering::Relaxed);
        let before = row.count.load(Ordering::Relaxed);
        eprintln!("allocated at\n{}", Backtrace::force_capture());
        row.count.store(before, Ordering::Relaxed);
        row.traces.store(traces - 1, Ordering::Relaxed);
    }
}

thread_local! {
    static ROW: Cell<usize> = const { Cell::new(NO_ROW) };
}

static ROWS: [Row; ROWS_MAX] = [const {
    Row { thread: AtomicI32::new(0), count: AtomicU64::new(0), traces: AtomicU64::new(0) }
}; ROWS_MAX];
static ROWS_TAKEN: AtomicUsize = AtomicUsize::new(0);

const NO_ROW: usize = usize::MAX;
/// Threads of this process over its whole life; the backends have one for each connection.
const ROWS_MAX: usize = 8192;
const TRACES_MAX: u64 = 3;
const WORKER: &str = "corelane-0";
const HALVES_HAVE_TURNED: Duration = Duration::from_millis(2_500);
const SOON: Duration = Duration::from_secs(10);
const REQUEST: &[u8] =
    b"GET /path?with=query HTTP/1.1\r\nHost: example.org\r\nUser-Agent: tests/alloc\r\n\
    Accept: */*\r\n\r\n";
/// Chunks of log lines that are made while earlier ones are being written.
const CHUNKS_MADE_MAX: u64 = 16;
const SLOW_REQUEST: &[u8] = b"GET /slow HTTP/1.1\r\nHost: example.org\r\n\r\n";
/// Of a slow request: long enough for all clients' to be there at once.
const LATENCY: Duration = Duration::from_millis(300);
/// 9 when measured: among them its descriptor, its two halves, three for what its requests say of the
/// client, its task, and the boundary for its panics.
const ALLOCATIONS_PER_CONNECTION_MAX: u64 = 10;
/// Clients that fall idle and wake together.
const WAKING: usize = 100;
/// Longer than any time after which a worker may take something from an idle client.
const IDLE: Duration = Duration::from_secs(4);
/// From one answer over `IDLE` to the next one, 9 when measured: a silent client is parked and has
/// its task made again.
const ALLOCATIONS_PER_WAKE_MAX: u64 = 12;
