//! An open loop: requests at fixed times, whether or not the earlier ones were answered.
//!
//! oha can send half of what a proxy can serve only with a core of its own; this shares one with
//! the backend. A request's latency counts from when it was due, also if no connection was free
//! then, so that a proxy which stalls is not spared the requests that it held up.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memchr::memmem;
use socket2::Socket;

use crate::ring::{Ring, socket};

/// What is sent, where, and how often.
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) target: String,
    pub(crate) conns: usize,
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
}

struct Conn {
    socket: Socket,
    buf: Box<[u8]>,
    len: usize,
    /// When the request under way was due.
    due: Instant,
    /// Operations under way; a connection is used again when there are none.
    operations: u8,
    is_answered: bool,
}

struct Run {
    request: Box<[u8]>,
    conns: Vec<Conn>,
    free: Vec<usize>,
    waiting: VecDeque<Instant>,
    micros: Vec<u64>,
    failed: u64,
}

/// Sends, waits for the last answers, and prints what it found as JSON.
pub(crate) fn run(load: &Load) -> io::Result<()> {
    // The kernel wakes a thread up to 50 µs late by default.
    std::fs::write("/proc/self/timerslack_ns", "1")?;
    let mut ring = Ring::new()?;
    let mut run = Run::new(load)?;
    let interval = Duration::from_secs_f64(1.0 / load.rate);
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(load.seconds);
    let mut next = start;
    loop {
        let now = Instant::now();
        while next <= now && next < end {
            run.waiting.push_back(next);
            next += interval;
        }
        run.send(&mut ring)?;
        let is_over = next >= end;
        if is_over && run.waiting.is_empty() && run.free.len() == run.conns.len()
            || now > end + PATIENCE
        {
            break;
        }
        let until = if is_over { now + PATIENCE } else { next };
        ring.wait(until.saturating_duration_since(Instant::now()))?;
        for (tag, result) in ring.completed() {
            run.completed(tag, result, &mut ring)?;
        }
    }
    let unanswered = run.conns.len() - run.free.len() + run.waiting.len();
    run.failed += unanswered as u64;
    run.print(start.elapsed());
    Ok(())
}

impl Run {
    fn new(load: &Load) -> io::Result<Run> {
        let conn = |_| {
            let socket = socket()?;
            socket.connect(&load.to.into())?;
            let buf = vec![0; RECEIVE_BYTES].into_boxed_slice();
            Ok(Conn { socket, buf, len: 0, due: Instant::now(), operations: 0, is_answered: false })
        };
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", load.target, load.to);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "room, no more"
        )]
        let room = (load.rate * load.seconds) as usize + 1;
        Ok(Run {
            request: request.into_bytes().into_boxed_slice(),
            conns: (0..load.conns).map(conn).collect::<io::Result<_>>()?,
            free: (0..load.conns).collect(),
            waiting: VecDeque::with_capacity(room),
            micros: Vec::with_capacity(room),
            failed: 0,
        })
    }

    /// Sends what is due as far as connections are free.
    fn send(&mut self, ring: &mut Ring) -> io::Result<()> {
        while !self.waiting.is_empty()
            && let Some(number) = self.free.pop()
        {
            let conn = &mut self.conns[number];
            conn.due = self.waiting.pop_front().unwrap_or(conn.due);
            (conn.len, conn.operations, conn.is_answered) = (0, 2, false);
            let tag = (number as u64) << 1;
            // SAFETY: request, sockets and buffers live as long as the run, which `run` keeps
            // longer than the ring is used; this connection has no other operation under way.
            unsafe {
                ring.send(&conn.socket, &self.request, tag)?;
                ring.recv(&conn.socket, &mut conn.buf, tag | RECEIVED)?;
            }
        }
        Ok(())
    }

    fn completed(&mut self, tag: u64, result: i32, ring: &mut Ring) -> io::Result<()> {
        let number = usize::try_from(tag >> 1).expect("made of a usize");
        let conn = &mut self.conns[number];
        conn.operations -= 1;
        let count = usize::try_from(result).unwrap_or(0);
        if count == 0 || (tag & RECEIVED == 0 && count < self.request.len()) {
            // The connection is lost, and stays out of use.
            self.failed += 1;
            conn.operations = u8::MAX;
            return Ok(());
        }
        if tag & RECEIVED != 0 {
            conn.len += count;
            match rest_of(&conn.buf[..conn.len]) {
                Some(0) => conn.is_answered = true,
                Some(_) if conn.len < conn.buf.len() => {
                    conn.operations += 1;
                    // SAFETY: as in `send`.
                    unsafe { ring.recv(&conn.socket, &mut conn.buf[conn.len..], tag)? };
                }
                _ => {
                    self.failed += 1;
                    conn.operations = u8::MAX;
                    return Ok(());
                }
            }
        }
        if conn.operations == 0 && conn.is_answered {
            let micros = u64::try_from(conn.due.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.micros.push(micros);
            self.free.push(number);
        }
        Ok(())
    }

    fn print(&mut self, took: Duration) {
        self.micros.sort_unstable();
        let millis = |per_mille: usize| {
            let at =
                (self.micros.len() * per_mille / 1000).min(self.micros.len().saturating_sub(1));
            self.micros
                .get(at)
                .map_or(0.0, |micros| Duration::from_micros(*micros).as_secs_f64() * 1e3)
        };
        println!(
            "FIGURES {{\"requests\": {}, \"seconds\": {}, \"p50\": {}, \"p99\": {}, \"p99.9\": {}, \
             \"failed\": {}}}",
            self.micros.len(),
            took.as_secs_f64(),
            millis(500),
            millis(990),
            millis(999),
            self.failed,
        );
    }
}

/// How many bytes of the answer at hand are still to come, at least; `None` for no 200.
fn rest_of(bytes: &[u8]) -> Option<usize> {
    let Some(head) = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else { return Some(1) };
    let is_ok = bytes.starts_with(b"HTTP/1.1 200 ");
    let length =
        [&b"\r\nContent-Length: "[..], b"\r\ncontent-length: "].into_iter().find_map(|name| {
            let rest = &bytes[memmem::find(&bytes[..head], name)? + name.len()..];
            let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
            str::from_utf8(digits).ok()?.parse::<usize>().ok()
        })?;
    is_ok.then(|| (head + length).saturating_sub(bytes.len()))
}

const RECEIVED: u64 = 1;
const RECEIVE_BYTES: usize = 16 * 1024;
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(5);
