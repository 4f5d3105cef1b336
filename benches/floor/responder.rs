//! The backend of `bench-scripts/compare`: whole responses made beforehand, sent from memory.
//!
//! It costs the core that it shares with the load generator less than nginx would, so that the
//! proxy is what is saturated. `/N` is answered with N bytes, `/chunked/N` with N bytes in chunks
//! of 4 KiB, `/received` with how many bytes of bodies have come, anything else with 100 bytes; a request's body is read to its end first. It knows no
//! more of HTTP than wrk, oha and the proxies send.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use memchr::memmem;
use socket2::Socket;

use crate::ring::{Ring, Service, Table};

/// The clients, and the responses by target.
pub(crate) struct Responder {
    /// Bytes of requests' bodies that have come.
    received: u64,
    conns: Table<Conn>,
    responses: HashMap<Vec<u8>, Responses>,
}

#[derive(Clone)]
struct Responses {
    kept: Rc<[u8]>,
    closing: Rc<[u8]>,
}

struct Conn {
    socket: Socket,
    buf: Box<[u8]>,
    /// The bytes of a head that has not ended.
    len: usize,
    /// The answer to the request under way.
    response: Option<Rc<[u8]>>,
    /// The bytes of the request's body that are still to come; then the answer is sent.
    body_left: u64,
    sent: usize,
    is_sending: bool,
    closes: bool,
}

impl Responder {
    pub(crate) fn new() -> Responder {
        Responder { received: 0, conns: Table::new(), responses: HashMap::new() }
    }
}

impl Service for Responder {
    fn accepted(&mut self, socket: Socket, ring: &mut Ring) -> io::Result<()> {
        let number = self.conns.insert(Conn {
            socket,
            buf: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            len: 0,
            response: None,
            body_left: 0,
            sent: 0,
            is_sending: false,
            closes: false,
        });
        self.conns.row(number).receive(number as u64, ring)
    }

    fn completed(&mut self, tag: u64, result: i32, ring: &mut Ring) -> io::Result<()> {
        let number = usize::try_from(tag).expect("made of a usize");
        let conn = self.conns.row(number);
        let (responses, received) = (&mut self.responses, &mut self.received);
        let is_alive = match usize::try_from(result) {
            Ok(count) if count > 0 && conn.is_sending => conn.have_sent(count),
            Ok(count) if count > 0 => conn.have_received(count, responses, received),
            _end => false,
        };
        if !is_alive {
            self.conns.remove(number);
            return Ok(());
        }
        match &conn.response {
            Some(response) if conn.body_left == 0 => {
                conn.is_sending = true;
                // SAFETY: the connection is removed, or given another response, only when its one
                // operation has ended.
                unsafe { ring.send(&conn.socket, &response[conn.sent..], tag) }
            }
            _ => conn.receive(tag, ring),
        }
    }
}

impl Conn {
    fn receive(&mut self, tag: u64, ring: &mut Ring) -> io::Result<()> {
        // SAFETY: the connection is removed only when its one operation has ended.
        unsafe { ring.recv(&self.socket, &mut self.buf[self.len..], tag) }
    }

    /// Whether the connection lives on.
    fn have_sent(&mut self, count: usize) -> bool {
        self.sent += count;
        if self.response.as_ref().is_some_and(|response| self.sent < response.len()) {
            return true;
        }
        (self.response, self.sent, self.is_sending) = (None, 0, false);
        !self.closes
    }

    /// Whether the connection lives on.
    fn have_received(
        &mut self,
        count: usize,
        responses: &mut HashMap<Vec<u8>, Responses>,
        received: &mut u64,
    ) -> bool {
        if self.body_left > 0 {
            *received += count as u64;
            return match self.body_left.checked_sub(count as u64) {
                Some(left) => {
                    self.body_left = left;
                    true
                }
                None => false,
            };
        }
        self.len += count;
        let bytes = &mut self.buf[..self.len];
        let Some(end) = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
            return self.len < RECEIVE_BYTES;
        };
        let (head, body) = bytes.split_at_mut(end);
        let Some(target) = head.split(|byte| *byte == b' ').nth(1).map(<[u8]>::to_vec) else {
            return false;
        };
        head.make_ascii_lowercase();
        let length: u64 = value_of(head, b"\r\ncontent-length: ").unwrap_or(0);
        let Some(left) = length.checked_sub(body.len() as u64) else { return false };
        if memmem::find(head, b"\r\ntransfer-encoding:").is_some() {
            return false;
        }
        self.closes = memmem::find(head, b"\r\nconnection: close").is_some();
        *received += body.len() as u64;
        if target == b"/received" {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{received:20}");
            (self.len, self.response) = (0, Some(text.into_bytes().into()));
            return true;
        }
        let made = responses.entry(target).or_insert_with_key(|target| Responses::of(target));
        let response = if self.closes { &made.closing } else { &made.kept };
        (self.len, self.body_left, self.response) = (0, left, Some(response.clone()));
        true
    }
}

impl Responses {
    fn of(target: &[u8]) -> Responses {
        let chunked = target.strip_prefix(b"/chunked");
        let number = chunked.unwrap_or(target).strip_prefix(b"/").unwrap_or_default();
        let bytes = str::from_utf8(number).ok().and_then(|digits| digits.parse().ok());
        let body = vec![b'x'; bytes.unwrap_or(BODY_BYTES_DEFAULT).min(BODY_BYTES_MAX)];
        let response = |connection: &str| {
            let mut out = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n".to_vec();
            out.extend_from_slice(connection.as_bytes());
            if chunked.is_none() {
                out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                out.extend_from_slice(&body);
                return out.into();
            }
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(CHUNK_BYTES) {
                out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
            out.into()
        };
        Responses { kept: response(""), closing: response("Connection: close\r\n") }
    }
}

/// The number behind `name`.
fn value_of(head: &[u8], name: &[u8]) -> Option<u64> {
    let rest = &head[memmem::find(head, name)? + name.len()..];
    let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
    str::from_utf8(digits).ok()?.parse().ok()
}

const RECEIVE_BYTES: usize = 64 * 1024;
const BODY_BYTES_DEFAULT: usize = 100;
const BODY_BYTES_MAX: usize = 100_000_000;
const CHUNK_BYTES: usize = 4096;
