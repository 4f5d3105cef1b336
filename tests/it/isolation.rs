//! One client's trouble stays its own: stalls, crowds, floods, a log that nobody reads, panics.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{Client, Ended, Fate};
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::Server;
use crate::support::upstream::{Upstream, ok};
use crate::support::{Gate, SOON, raise_open_files, wait_until};

const LARGE: usize = 200_000_000;

/// The times of so many requests one after the other, sorted.
fn times(client: &mut Client, count: usize) -> Vec<Duration> {
    let mut times: Vec<_> = (0..count)
        .map(|_| {
            let start = Instant::now();
            client.get("/bytes/100").expect(200);
            start.elapsed()
        })
        .collect();
    times.sort();
    times
}

/// Nine of ten requests within 50 ms: the rest is left to what else runs on this machine.
#[track_caller]
fn check_served_promptly(client: &mut Client) {
    let times = times(client, 50);
    assert!(times[44] < Duration::from_millis(50), "{times:?}");
}

#[test]
fn a_client_that_stops_reading_delays_nobody_else() {
    let server = Server::demo("backend");
    let proxy = Flags::to_addrs(&[server.addr]).start();
    let mut other = proxy.client();
    let mut stalled: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut stalled {
        client.send(format!("GET /bytes/{LARGE} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!(client.wire.head().unwrap().status(), 200);
    }
    check_served_promptly(&mut other);
    // And it is still served when it reads on.
    let mut length = 0;
    let framing = crate::support::wire::Framing::Length(LARGE as u64);
    stalled[0].wire.body(framing, &mut |piece| length += piece.len()).unwrap();
    assert_eq!(length, LARGE);
    check_served_promptly(&mut other);
    assert!(proxy.peak_memory() < 64_000_000, "{}", proxy.peak_memory());
}

#[test]
fn a_backend_that_stops_reading_delays_nobody_else() {
    let gate = Gate::default();
    let upstream = Upstream::scripted({
        let gate = gate.clone();
        move |served| {
            while let Some(head) = served.head() {
                if head.method() == "POST" {
                    gate.wait();
                    return;
                }
                served.write(&ok("small", false));
            }
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let mut other = proxy.client();
    other.get("/").expect(200);
    let stalled = proxy.client();
    let writer = std::thread::spawn(move || {
        let mut stalled = stalled;
        stalled.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {LARGE}\r\n\r\n"));
        // Ends when the proxy closes: nobody reads so much.
        while stalled.wire.write(&[b'x'; 65536]).is_ok() {}
    });
    wait_until("the upload has begun", SOON, || {
        upstream.raw().iter().any(|raw| raw.windows(5).any(|bytes| bytes == b"POST "))
    });
    check_served_promptly(&mut other);
    gate.open();
    drop(proxy);
    writer.join().unwrap();
}

#[test]
fn a_client_that_sends_a_byte_a_second_delays_nobody_else() {
    let server = Server::demo("backend");
    let proxy = Flags::to_addrs(&[server.addr]).start();
    let (mut other, mut slow) = (proxy.client(), proxy.client());
    for byte in b"GET " {
        slow.send([*byte]);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            check_served_promptly(&mut other);
        }
    }
    slow.send("/bytes/3 HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(slow.read_response("GET").expect(200).body.len(), 3);
}

/// How many clients a test can have at once, and its turn to have them.
fn crowd() -> (usize, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let allowed = raise_open_files();
    // Some room for the rest of this process and of the proxy.
    let crowd = allowed.saturating_sub(2000).min(10_000);
    assert!(crowd >= 1000, "ulimit -n is too low for this test: {allowed}");
    (crowd, turn)
}

#[test]
fn ten_thousand_half_heads_cost_no_more_than_their_buffers_and_delay_nobody() {
    let (crowd, _alone) = crowd();
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).with("--client-header-timeout", "60s");
    let proxy = flags.with("--client-conns-max", "20000").start();
    let mut fast = proxy.client();
    fast.get("/").expect(200);
    let before = proxy.peak_memory();
    let slow: Vec<_> = (0..crowd)
        .map(|_| {
            let mut client = proxy.client();
            client.send("GET / HTTP/1.1\r\nHost: t\r\nX: ");
            client
        })
        .collect();
    let mut times: Vec<_> = (0..100)
        .map(|_| {
            let started = Instant::now();
            fast.get("/").expect(200);
            started.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[50] < Duration::from_millis(50), "{times:?}");
    let each = (proxy.peak_memory() - before) / slow.len() as u64;
    assert!(each < 16 * 1024, "{each} bytes a client");
}

#[test]
fn new_clients_are_served_while_ten_thousand_old_ones_expire() {
    let (crowd, _alone) = crowd();
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).with("--workers", "2");
    let proxy = flags.with("--client-header-timeout", "1s").start();
    let mut old = Vec::with_capacity(crowd);
    let mut served = 0;
    let serve_new_one = || {
        let mut client = proxy.client();
        assert_eq!(client.get("/new").expect(200).text(), "/new");
        assert_eq!(client.get("/again").expect(200).text(), "/again");
    };
    for number in 0..crowd {
        old.push(proxy.client());
        if number % 20 == 0 {
            serve_new_one();
            served += 1;
        }
    }
    for mut client in old {
        let mut fate = client.fate(Duration::from_millis(100));
        while fate == Fate::Open {
            serve_new_one();
            served += 1;
            fate = client.fate(Duration::from_millis(100));
        }
        assert_eq!(fate, Fate::CleanClose);
    }
    assert!(served > 100, "{served}");
}

#[test]
fn without_file_descriptors_it_waits_and_does_not_spin() {
    // accept-exhausted
    let upstream = Upstream::naming_targets();
    let mut proxy = Flags::to(&[&upstream]).with("--workers", "1").start();
    proxy.client().get("/warm").expect(200);
    // The log is written beside the work.
    wait_until("its first lines are written", SOON, || proxy.log().contains("ready on"));
    let lines = proxy.log().lines().count();
    proxy.limit_open_files(proxy.open_files() + 8);
    let mut clients: Vec<_> = (0..40).map(|_| proxy.client()).collect();
    let last = clients.last_mut().unwrap();
    last.send("GET /last HTTP/1.1\r\nHost: t\r\n\r\n");
    let before = proxy.processor_time();
    assert_eq!(last.fate(Duration::from_secs(1)), Fate::Open, "it cannot have been accepted");
    let spent = proxy.processor_time() - before;
    assert!(spent < Duration::from_millis(300), "{spent:?} in a second of waiting");
    assert!(proxy.log().lines().count() - lines <= 5, "{}", proxy.log());
    proxy.limit_open_files(1000);
    assert_eq!(clients.last_mut().unwrap().read_response("GET").expect(200).text(), "/last");
    drop(clients);
    proxy.drain();
}

#[test]
fn at_rest_it_uses_next_to_no_processor_time() {
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).with("--workers", "2");
    let proxy = flags.start();
    let mut idle: Vec<_> = (0..50).map(|_| proxy.client()).collect();
    idle.iter_mut().for_each(|client| drop(client.get("/").expect(200)));
    let before = proxy.processor_time();
    assert_eq!(idle[0].fate(Duration::from_secs(2)), Fate::Open);
    let spent = proxy.processor_time() - before;
    assert!(spent < Duration::from_millis(100), "{spent:?} in two seconds");
}

/// A pipe that is full already and that nobody reads: the first byte of log would block its writer.
fn full_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while (&writer).write(&[b'.'; 4096]).is_ok() {}
    while (&writer).write(b".").is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader, Stdio::from(OwnedFd::from(writer)))
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let upstream = Upstream::naming_targets();
    let (_reader, stderr) = full_pipe();
    let mut proxy = Flags::to(&[&upstream]).with("--log-level", "trace").stderr(stderr).start();
    let mut client = proxy.client();
    for _ in 0..2000 {
        client.get("/").expect(200);
    }
    for _ in 0..200 {
        proxy.client().request("bad\r\n\r\n").expect(400);
    }
    client.get("/").expect(200);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait_exit(SOON).code(), Some(0));
}

#[test]
fn a_flood_of_bad_requests_writes_a_few_lines_with_counts() {
    let upstream = Upstream::naming_targets();
    let mut proxy = Flags::to(&[&upstream]).with("--workers", "2").start();
    let before = proxy.log().lines().count();
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_secs(3) {
        proxy.client().request("GET / HTTP/1.1\r\n\r\n").expect(400);
        sent += 1;
    }
    assert!(sent > 500, "only {sent} requests");
    proxy.drain();
    let log = proxy.log();
    let lines: Vec<_> =
        log.lines().skip(before).filter(|line| line.contains("host-missing")).collect();
    assert!(
        !lines.is_empty() && lines.len() <= 12,
        "{} lines for {sent} requests: {lines:#?}",
        lines.len()
    );
    let count = |line: &&str| {
        line.split("count=").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let counts: Vec<usize> = lines.iter().filter_map(count).collect();
    assert_eq!(counts.iter().sum::<usize>(), sent, "{lines:#?}");
}

/// Whether a new client is served; if not, it must at least be told.
fn is_served(proxy: &Proxy) -> bool {
    let Ok(mut client) = Client::try_connect(proxy.addr()) else { return false };
    if client.wire.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").is_err() {
        return false;
    }
    let ended = client.read_response("GET").ended;
    assert_ne!(ended, Ended::Timeout, "a client was left hanging");
    ended == Ended::Complete
}

#[test]
fn a_panic_in_one_of_a_hundred_connections_leaves_the_others_whole() {
    // internal
    let upstream = Upstream::naming_targets();
    let mut proxy = Flags::to(&[&upstream]).with("--fault", "panic-connection=50").start();
    let mut clients: Vec<_> = (0..100).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    let ended: Vec<_> =
        clients.iter_mut().map(|client| client.read_response("GET").ended).collect();
    assert_eq!(ended.iter().filter(|ended| **ended == Ended::Complete).count(), 99, "{ended:?}");
    assert_eq!(ended.iter().filter(|ended| **ended != Ended::Timeout).count(), 100, "{ended:?}");
    // All of the others live on.
    let again = clients.iter_mut().zip(&ended).filter(|(_, ended)| **ended == Ended::Complete);
    again.for_each(|(client, _)| drop(client.get("/again").expect(200)));
    proxy.drain();
    assert!(proxy.log().contains("panic"), "a panic is logged");
}

#[test]
fn a_panic_of_a_worker_ends_its_connections_and_not_the_service() {
    for workers in ["1", "2"] {
        let upstream = Upstream::naming_targets();
        let mut proxy = Flags::to(&[&upstream])
            .with("--workers", workers)
            .with("--fault", "panic-worker=5")
            .start();
        let mut clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
        for _ in 0..20 {
            is_served(&proxy);
        }
        wait_until("the worker has panicked", SOON, || proxy.log().contains("panic"));
        wait_until("a new one has taken over", SOON, || (0..20).all(|_| is_served(&proxy)));
        // None is left hanging: its connections ended with the worker, the others are served.
        for client in &mut clients {
            client.wire.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").ok();
            assert_ne!(client.read_response("GET").ended, Ended::Timeout);
        }
        assert!(proxy.is_running());
        proxy.drain();
    }
}
