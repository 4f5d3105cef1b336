//! Passes bytes both ways between each client and its backend connection, and reads none of them.

use std::io;
use std::net::{Shutdown, SocketAddr};

use corelane::worker::buffer::BUFFER_BYTES;
use socket2::{SockAddr, Socket};

use crate::ring::{Ring, Service, Table, socket};

/// The pairs of connections.
pub(crate) struct Relay {
    backend: Box<SockAddr>,
    /// The size of the buffers for what comes from the backend.
    buffer_bytes: usize,
    pairs: Table<Pair>,
}

/// Dropped when both directions are over, which closes both sockets.
struct Pair {
    client: Socket,
    backend: Socket,
    up: Way,
    down: Way,
}

/// One direction, which has one operation under way until it is over.
struct Way {
    buf: Box<[u8]>,
    /// Received and not sent yet; while there are such bytes, a send is under way, else a receive.
    begin: usize,
    end: usize,
    is_over: bool,
}

impl Relay {
    /// `buffer_bytes` is for what comes from the backend, and for what a client sends if it is more
    /// than corelane's buffer for heads.
    pub(crate) fn new(backend: SocketAddr, buffer_bytes: usize) -> Relay {
        Relay { backend: Box::new(backend.into()), buffer_bytes, pairs: Table::new() }
    }

    /// The bytes of a buffer for what comes from a client: corelane's, unless bodies are large.
    fn up_bytes(&self) -> usize {
        self.buffer_bytes.max(BUFFER_BYTES)
    }
}

impl Service for Relay {
    fn accepted(&mut self, client: Socket, ring: &mut Ring) -> io::Result<()> {
        let (up, down) = (Way::new(self.up_bytes()), Way::new(self.buffer_bytes));
        let number = self.pairs.insert(Pair { client, backend: socket()?, up, down });
        let pair = self.pairs.row(number);
        // SAFETY: the address lives as long as the relay, the pair until both its ways are over.
        unsafe { ring.connect(&pair.backend, &self.backend, tag_of(number, CONNECT)) }
    }

    fn completed(&mut self, tag: u64, result: i32, ring: &mut Ring) -> io::Result<()> {
        let number = usize::try_from(tag >> OPERATION_BITS).expect("made of a usize");
        let pair = self.pairs.row(number);
        let Pair { client, backend, up, down } = pair;
        match tag & OPERATION_MASK {
            UP => up.step(result, client, backend, tag, ring)?,
            DOWN => down.step(result, backend, client, tag, ring)?,
            _ if result < 0 => {
                eprintln!(
                    "floor: no connection to the backend: {}",
                    io::Error::from_raw_os_error(-result)
                );
                self.pairs.remove(number);
                return Ok(());
            }
            _ => {
                up.receive(client, tag_of(number, UP), ring)?;
                down.receive(backend, tag_of(number, DOWN), ring)?;
            }
        }
        let pair = self.pairs.row(number);
        if pair.up.is_over && pair.down.is_over {
            self.pairs.remove(number);
        }
        Ok(())
    }
}

impl Way {
    fn new(bytes: usize) -> Way {
        Way { buf: vec![0; bytes].into_boxed_slice(), begin: 0, end: 0, is_over: false }
    }

    /// Takes the result of the operation under way and starts the next one.
    fn step(
        &mut self,
        result: i32,
        from: &Socket,
        to: &Socket,
        tag: u64,
        ring: &mut Ring,
    ) -> io::Result<()> {
        let was_sending = self.begin < self.end;
        match usize::try_from(result) {
            Ok(count) if count > 0 && was_sending => self.begin += count,
            Ok(count) if count > 0 => (self.begin, self.end) = (0, count),
            Ok(_end) if !was_sending => {
                self.is_over = true;
                // The peer may have left: then its direction ends by itself.
                shut_down(to, Shutdown::Write);
                return Ok(());
            }
            _error => {
                self.is_over = true;
                shut_down(from, Shutdown::Both);
                shut_down(to, Shutdown::Both);
                return Ok(());
            }
        }
        if self.begin == self.end {
            return self.receive(from, tag, ring);
        }
        // SAFETY: the pair, with sockets and buffer, is there until this way is over, which it is
        // not while an operation is under way; the next one starts when this one has ended.
        unsafe { ring.send(to, &self.buf[self.begin..self.end], tag) }
    }

    fn receive(&mut self, from: &Socket, tag: u64, ring: &mut Ring) -> io::Result<()> {
        // SAFETY: as in `step`.
        unsafe { ring.recv(from, &mut self.buf, tag) }
    }
}

/// An error says that the connection has ended already, as was wanted.
fn shut_down(socket: &Socket, how: Shutdown) {
    socket.shutdown(how).unwrap_or(());
}

fn tag_of(number: usize, operation: u64) -> u64 {
    (number as u64) << OPERATION_BITS | operation
}

const OPERATION_BITS: u32 = 2;
const OPERATION_MASK: u64 = 3;
const UP: u64 = 0;
const DOWN: u64 = 1;
const CONNECT: u64 = 2;
