//! Bytes between a socket and whoever reads them, and a worker's store of such buffers.
//!
//! The only place that appends to a buffer through monoio: a plain `read(vec)` starts at byte 0.
//! A buffer that an operation has borrowed comes back with the operation's result; a future that
//! is dropped before loses it, and its stream must not live on.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use monoio::BufResult;
use monoio::buf::{IoBuf, SliceMut};

use crate::worker::deadline::{Deadline, Wait};
use crate::worker::silence::Silence;
use crate::worker::stream::{Receiver, Sender};

/// Bytes read and not used yet, with room behind them.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Buffer {
        Buffer { bytes: Vec::with_capacity(capacity), start: 0 }
    }

    /// The bytes not used yet.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The bytes not used yet, for a scan that moves what it keeps to the front.
    pub fn unread_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Whether there is no room behind the unread bytes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() == self.bytes.capacity()
    }

    /// Whether all bytes were used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Marks `count` bytes at the front as used.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets all bytes.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Room for all bytes that this buffer can hold, used ones included.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes room behind the unread bytes: by moving them to the front, else by growing up to
    /// `capacity_max`. Whether there is room now.
    pub fn make_room(&mut self, capacity_max: usize) -> bool {
        if self.start > 0 {
            let end = self.bytes.len();
            self.bytes.copy_within(self.start..end, 0);
            self.bytes.truncate(end - self.start);
            self.start = 0;
        }
        if self.bytes.len() == self.bytes.capacity() && self.bytes.len() < capacity_max {
            let room = self.bytes.len().min(capacity_max - self.bytes.len()).max(1);
            self.bytes.reserve_exact(room);
        }
        self.bytes.len() < self.bytes.capacity()
    }

    /// Reads once, to the end of the bytes at hand; 0 says that the peer sent its last byte.
    /// The caller sees to it that there is room.
    ///
    /// # Errors
    /// What the socket reports.
    pub async fn fill(&mut self, from: &mut Receiver) -> io::Result<usize> {
        let (begin, room) = self.lend();
        let returned = from.read(room).await;
        self.take_back(begin, returned)
    }

    /// The same into an empty buffer, until `silence` ends the read (`silence::is_ended`).
    ///
    /// # Errors
    /// What the socket reports.
    pub async fn fill_first(
        &mut self,
        from: &mut Receiver,
        silence: &Silence,
    ) -> io::Result<usize> {
        let read = silence.begin();
        let (begin, room) = self.lend();
        let returned = from.read_until(room, read.handle()).await;
        self.take_back(begin, returned)
    }

    /// The room behind the bytes at hand, for one read, and where it begins.
    fn lend(&mut self) -> (usize, SliceMut<Vec<u8>>) {
        let bytes = std::mem::take(&mut self.bytes);
        let (begin, end) = (bytes.len(), bytes.capacity());
        debug_assert!(begin < end, "a read needs room");
        (begin, SliceMut::new(bytes, begin, end))
    }

    fn take_back(
        &mut self,
        begin: usize,
        (result, slice): BufResult<usize, SliceMut<Vec<u8>>>,
    ) -> io::Result<usize> {
        self.bytes = slice.into_inner();
        // The socket's bytes replaced the length with what the operation saw.
        if !matches!(result, Ok(count) if count > 0) {
            self.bytes.truncate(begin);
        }
        result
    }

    /// Writes the first `count` unread bytes; the caller marks them as used.
    ///
    /// # Errors
    /// What the socket reports.
    pub async fn send(&mut self, to: &mut Sink<'_>, count: usize) -> io::Result<()> {
        let begin = self.start;
        send_range(&mut self.bytes, begin, begin + count, to).await
    }
}

/// Where bytes go, and how long the peer may take none.
#[derive(Debug)]
pub struct Sink<'a> {
    /// The direction to the peer.
    pub sender: &'a mut Sender,
    /// The connection's deadlines.
    pub deadline: &'a Deadline,
    /// How long a write may make no progress.
    pub timeout: Duration,
    /// Where the bytes that the kernel took are counted, also when a write failed.
    pub sent: &'a Cell<u64>,
}

impl<'a> Sink<'a> {
    /// A sink whose bytes are counted in `sent`.
    #[must_use]
    pub fn new(
        sender: &'a mut Sender,
        deadline: &'a Deadline,
        timeout: Duration,
        sent: &'a Cell<u64>,
    ) -> Sink<'a> {
        Sink { sender, deadline, timeout, sent }
    }

    /// Counts bytes that the kernel took.
    pub fn count(&self, count: usize) {
        self.sent.set(self.sent.get() + count as u64);
    }
}

/// Writes the bytes of `out` and leaves them in place.
///
/// # Errors
/// What the socket reports.
pub async fn send_all(out: &mut Vec<u8>, to: &mut Sink<'_>) -> io::Result<()> {
    let end = out.len();
    send_range(out, 0, end, to).await
}

async fn send_range(
    bytes: &mut Vec<u8>,
    mut begin: usize,
    end: usize,
    to: &mut Sink<'_>,
) -> io::Result<()> {
    while begin < end {
        to.deadline.arm(Wait::Write, to.timeout);
        let (result, slice) = to.sender.write(std::mem::take(bytes).slice(begin..end)).await;
        *bytes = slice.into_inner();
        to.deadline.disarm(Wait::Write);
        match result? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                begin += count;
                to.count(count);
            }
        }
    }
    Ok(())
}

/// What one exchange needs.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The request as backends get it: its head and what is held of its body.
    pub request: Vec<u8>,
    /// What becomes the answer.
    pub answer: AnswerBuffers,
}

/// What an answer needs: a head to write and bytes from the backend.
#[derive(Debug, Default)]
pub struct AnswerBuffers {
    /// The head, and the body's first bytes, where they do not go out as they came.
    pub out: Vec<u8>,
    /// What came from the backend; without room until an attempt gives it some.
    pub from_backend: Buffer,
}

/// A worker's store of buffers; what it has none of is made.
#[derive(Debug)]
pub struct Buffers {
    messages: Store<Buffer>,
    scratches: Store<Scratch>,
    bodies: Store<Buffer>,
}

/// What is kept of one kind.
#[derive(Debug)]
pub struct Store<T> {
    kept: RefCell<Vec<T>>,
    /// How many stay though nobody needs them: the next burst begins before memory is asked for.
    kept_min: usize,
    kept_max: usize,
    /// The fewest that there were since the last trim: so many were of no use.
    unused: Cell<usize>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers {
            messages: Store::new(KEPT_MESSAGES_MIN, KEPT_MAX),
            scratches: Store::new(KEPT_MIN, KEPT_MAX),
            bodies: Store::new(KEPT_BODIES_MIN, KEPT_BODIES_MAX),
        }
    }
}

impl Buffers {
    /// A buffer for heads and short bodies, from either side.
    pub fn take(&self) -> Buffer {
        self.messages.take().unwrap_or_else(|| Buffer::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back.
    pub fn give(&self, mut buffer: Buffer) {
        if buffer.capacity() == BUFFER_BYTES {
            buffer.clear();
            self.messages.give(buffer);
        }
    }

    /// The buffers of one exchange, all empty.
    pub fn take_scratch(&self) -> Scratch {
        self.scratches.take().unwrap_or_else(|| Scratch {
            request: Vec::with_capacity(REQUEST_BYTES),
            // Most heads go out as they came, from the buffer of the client's connection.
            answer: AnswerBuffers::default(),
        })
    }

    /// Takes the buffers of an exchange back.
    pub fn give_scratch(&self, mut scratch: Scratch) {
        self.give(std::mem::take(&mut scratch.answer.from_backend));
        let is_intact = (1..=SCRATCH_OUT_BYTES_MAX).contains(&scratch.request.capacity())
            && scratch.answer.out.capacity() <= SCRATCH_OUT_BYTES_MAX;
        if is_intact {
            scratch.request.clear();
            scratch.answer.out.clear();
            self.scratches.give(scratch);
        }
    }

    /// A large buffer for a long body.
    pub fn take_body(&self) -> Buffer {
        self.bodies.take().unwrap_or_else(|| Buffer::with_capacity(BODY_BYTES))
    }

    /// Takes a large buffer back.
    pub fn give_body(&self, mut buffer: Buffer) {
        if buffer.capacity() == BODY_BYTES {
            buffer.clear();
            self.bodies.give(buffer);
        }
    }

    /// Drops what nobody has needed since the last time; how many that was.
    pub fn trim(&self) -> usize {
        self.messages.trim() + self.scratches.trim() + self.bodies.trim()
    }

    /// Whether there is nothing that `trim` might drop.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.messages.is_small() && self.scratches.is_small() && self.bodies.is_small()
    }
}

impl<T> Store<T> {
    /// An empty store; `kept_min` outlive every `trim`, and no more than `kept_max` are kept.
    #[must_use]
    pub fn new(kept_min: usize, kept_max: usize) -> Store<T> {
        Store { kept: RefCell::default(), kept_min, kept_max, unused: Cell::new(0) }
    }

    /// Whether there is nothing that `trim` might drop.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.kept.borrow().len() <= self.kept_min
    }

    /// One of those kept.
    pub fn take(&self) -> Option<T> {
        let mut kept = self.kept.borrow_mut();
        let taken = kept.pop();
        self.unused.set(self.unused.get().min(kept.len()));
        taken
    }

    /// Keeps one more, if there is room.
    pub fn give(&self, value: T) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < self.kept_max {
            kept.push(value);
        }
    }

    /// Drops what nobody has needed since the last time; how many that was.
    pub fn trim(&self) -> usize {
        let mut kept = self.kept.borrow_mut();
        let excess = self.unused.get().min(kept.len().saturating_sub(self.kept_min));
        kept.drain(..excess);
        self.unused.set(kept.len());
        excess
    }
}

/// Puts a large buffer in the place of a small one while a long body passes.
#[derive(Debug)]
pub struct LargeBuffer<'w> {
    buffers: &'w Buffers,
    small: Option<Buffer>,
}

impl<'w> LargeBuffer<'w> {
    /// For one body; nothing is exchanged yet.
    #[must_use]
    pub fn new(buffers: &'w Buffers) -> LargeBuffer<'w> {
        LargeBuffer { buffers, small: None }
    }

    /// The buffer to read into: exchanged when it is empty and much is still to come, which is
    /// known, or to be expected after a read that filled it.
    pub fn replace<'b>(
        &mut self,
        buffer: &'b mut Buffer,
        bytes_left: u64,
        was_filled: bool,
    ) -> &'b mut Buffer {
        let is_worth_it = bytes_left > LARGE_BODY_BYTES || was_filled;
        if self.small.is_none() && buffer.is_empty() && is_worth_it {
            let large = self.buffers.take_body();
            self.small = Some(std::mem::replace(buffer, large));
        }
        buffer
    }

    /// Puts the small buffer back, with what is left in the large one.
    pub fn restore(self, buffer: &mut Buffer) {
        let Some(mut small) = self.small else { return };
        small.clear();
        // More than fits is rare: a pipeline behind a large body.
        small.bytes.extend_from_slice(buffer.unread());
        self.buffers.give_body(std::mem::replace(buffer, small));
    }
}

/// The size of a buffer; a larger head makes it grow to `--head-bytes-max`.
pub const BUFFER_BYTES: usize = 16 * 1024;
/// The first size of a buffer for a request's head; it grows as it must.
const REQUEST_BYTES: usize = 2560;
/// The size of a buffer for a long body, either way.
pub const BODY_BYTES: usize = 256 * 1024;
/// The largest buffer for outgoing heads that is stored.
const SCRATCH_OUT_BYTES_MAX: usize = 32 * 1024;
/// From how many bytes still to come a body is moved through a large buffer.
const LARGE_BODY_BYTES: u64 = 64 * 1024;
/// How many buffers of a kind a worker keeps: 4 MiB, and for requests 1 MiB, or more where long
/// heads made them grow,
const KEPT_MAX: usize = 256;
/// and large ones: 4 MiB.
const KEPT_BODIES_MAX: usize = 16;
/// How many it keeps though nobody needed them for a while.
const KEPT_MIN: usize = 16;
const KEPT_BODIES_MIN: usize = 1;
/// Few: what is around each one that stays cannot be given back, 128 KiB when measured.
const KEPT_MESSAGES_MIN: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer_of(bytes: &[u8], capacity: usize) -> Buffer {
        let mut buffer = Buffer::with_capacity(capacity);
        buffer.bytes.extend_from_slice(bytes);
        buffer
    }

    #[test]
    fn used_bytes_make_room_before_the_buffer_grows() {
        let mut buffer = buffer_of(b"abcd", 4);
        buffer.consume(3);
        assert!(buffer.make_room(4));
        assert_eq!((buffer.unread(), buffer.capacity()), (&b"d"[..], 4));
    }

    #[test]
    fn a_full_buffer_grows_to_its_limit_and_no_further() {
        let mut buffer = buffer_of(b"abcd", 4);
        assert!(buffer.make_room(6));
        assert_eq!(buffer.capacity(), 6);
        buffer.bytes.extend_from_slice(b"ef");
        assert!(!buffer.make_room(6));
    }

    #[test]
    fn only_buffers_of_the_regular_size_are_kept() {
        let buffers = Buffers::default();
        buffers.give(Buffer::with_capacity(BUFFER_BYTES * 2));
        assert_eq!(buffers.messages.kept.borrow().len(), 0);
        buffers.give(buffer_of(b"left", BUFFER_BYTES));
        assert!(buffers.take().is_empty());
    }

    #[test]
    fn what_was_not_needed_for_a_while_is_dropped() {
        let store = Store::new(KEPT_MIN, 2 * KEPT_MIN + 2);
        (0..2 * KEPT_MIN + 2).for_each(|number| store.give(number));
        assert_eq!(store.trim(), 0, "they have just come");
        let taken: Vec<_> = (0..KEPT_MIN + 1).filter_map(|_| store.take()).collect();
        taken.into_iter().for_each(|number| store.give(number));
        assert_eq!(store.trim(), KEPT_MIN + 1);
        assert_eq!(store.kept.borrow().len(), KEPT_MIN + 1, "as many as were needed at once");
        assert_eq!((store.trim(), store.trim()), (1, 0));
        assert!(store.is_small());
    }
}
