//! When a connection has waited long enough: a table that one sweep per worker walks.
//!
//! Arming a deadline stores a time; no timer is made and no operation is cancelled. The sweep
//! shuts the socket of an overdue connection down, which completes the operation that waits on
//! it, and that operation's owner asks `expired` before it looks at the result. The sweep also
//! finds clients that left while they waited for a backend.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::sys::{self, Pending, Side, shutdown};
use crate::worker::event::Event;

/// Whose end of the connection the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client's: an overdue read leaves the socket writable, so that it can be answered.
    Client,
    /// A backend's.
    Backend,
}

/// The direction that a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For bytes from the peer.
    Read,
    /// For the peer to take bytes.
    Write,
}

/// The connections of a worker and when they are overdue.
#[derive(Debug)]
pub struct Deadlines {
    start: Instant,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    used: Cell<usize>,
    /// Told when the table stops being empty, so that no sweep runs while it is.
    filled: Event,
}

/// A place in the table; milliseconds count from the table's start, 0 is never.
#[derive(Clone, Copy, Debug)]
struct Slot {
    fd: RawFd,
    generation: u32,
    role: Role,
    in_use: bool,
    idle: bool,
    closing: bool,
    gone: bool,
    read_expired: bool,
    write_expired: bool,
    read_at: u64,
    /// How long a write may make no progress, 0 where none is waited for; when it last made some,
    /// and how much was unacknowledged then.
    write_timeout: u64,
    write_progress: u64,
    write_queue: u32,
    /// Since when a client waits for a backend, and for which.
    waiting_since: u64,
    waiting_for: (usize, u32),
}

/// A connection's place in the table, released when it is dropped.
#[derive(Debug)]
pub struct Deadline {
    table: Rc<Deadlines>,
    index: usize,
    fd: RawFd,
}

/// A client that somebody else looks after, by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    index: usize,
    generation: u32,
}

impl Deadlines {
    /// An empty table.
    #[must_use]
    pub fn new(start: Instant) -> Rc<Deadlines> {
        Rc::new(Deadlines {
            start,
            slots: RefCell::default(),
            free: RefCell::default(),
            used: Cell::new(0),
            filled: Event::default(),
        })
    }

    /// Gives the connection on `fd` a place.
    #[must_use]
    pub fn enter(table: &Rc<Deadlines>, fd: RawFd, role: Role) -> Deadline {
        let mut slots = table.slots.borrow_mut();
        let index = table.free.borrow_mut().pop().unwrap_or(slots.len());
        let generation = slots.get(index).map_or(0, |slot| slot.generation.wrapping_add(1));
        let slot = Slot {
            fd,
            generation,
            role,
            in_use: true,
            idle: false,
            closing: false,
            gone: false,
            read_expired: false,
            write_expired: false,
            read_at: 0,
            write_timeout: 0,
            write_progress: 0,
            write_queue: 0,
            waiting_since: 0,
            waiting_for: (0, 0),
        };
        match slots.get_mut(index) {
            Some(place) => *place = slot,
            None => slots.push(slot),
        }
        table.used.set(table.used.get() + 1);
        table.filled.notify();
        Deadline { table: table.clone(), index, fd }
    }

    /// Waits until there is something to sweep.
    pub async fn filled(&self) {
        while self.used.get() == 0 {
            self.filled.wait().await;
        }
    }

    /// Shuts down what is overdue at `now`, and the backends of clients that left.
    pub fn sweep(&self, now: Instant, half_close_counts: bool) {
        let now = self.millis(now);
        let watch_after = u64::try_from(WATCH_AFTER.as_millis()).unwrap_or(u64::MAX);
        let (mut waiting, mut fds) = (Vec::new(), Vec::new());
        let mut slots = self.slots.borrow_mut();
        for (index, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| slot.in_use) {
            slot.expire(now);
            // Ended reads look like a half-close of the client's.
            let is_watched = slot.waiting_since != 0 && !slot.closing;
            if is_watched && now.saturating_sub(slot.waiting_since) > watch_after {
                waiting.push(index);
                fds.push(slot.fd);
            }
        }
        if waiting.is_empty() {
            return;
        }
        sys::for_each_gone(&fds, half_close_counts, |position| {
            let client = &mut slots[waiting[position]];
            client.gone = true;
            client.waiting_since = 0;
            let (backend, generation) = client.waiting_for;
            let backend = slots.get(backend);
            if let Some(backend) =
                backend.filter(|slot| slot.in_use && slot.generation == generation)
            {
                shutdown(backend.fd, Side::Both);
            }
        });
    }

    /// Whether this client has left.
    #[must_use]
    pub fn is_gone(&self, client: Watched) -> bool {
        let slots = self.slots.borrow();
        let slot = slots.get(client.index).filter(|slot| slot.generation == client.generation);
        slot.is_none_or(|slot| slot.gone || !slot.in_use)
    }

    /// Ends the reads of the clients that lie idle and have sent nothing: the worker drains.
    pub fn close_idle(&self) {
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot.in_use && slot.idle && !slot.closing {
                slot.close_idle();
            }
        }
    }

    /// Ends everything: the worker stops.
    pub fn abort_all(&self) {
        for slot in self.slots.borrow().iter().filter(|slot| slot.in_use) {
            slot.cut();
        }
    }

    /// Closes what is still open after the worker's runtime died, whose tasks are never dropped.
    pub fn close_leaked(&self) {
        for slot in self.slots.borrow_mut().iter_mut().filter(|slot| slot.in_use) {
            slot.in_use = false;
            sys::close_leaked(slot.fd);
        }
    }

    /// Milliseconds since the table's start, rounded up to at least 1.
    fn millis(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.start).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }
}

impl Slot {
    /// Ends an idle client's read, unless it has just sent something. Bytes that the read has
    /// already taken from the socket come with its result: its owner decides by that.
    fn close_idle(&mut self) {
        if sys::peek(self.fd) == Pending::Nothing {
            self.closing = true;
            self.read_at = 0;
            shutdown(self.fd, Side::Read);
        }
    }

    fn expire(&mut self, now: u64) {
        if self.read_at != 0 && self.read_at <= now {
            if self.idle && !self.closing {
                self.close_idle();
                return;
            }
            self.read_at = 0;
            self.read_expired = true;
            let side = if self.role == Role::Client { Side::Read } else { Side::Both };
            shutdown(self.fd, side);
        }
        if self.write_timeout != 0 && self.write_progress < now {
            // A peer that reads slowly has made progress when its kernel took something, though
            // ours takes no more before much of its queue is empty.
            let queue = sys::unacknowledged(self.fd);
            if queue < self.write_queue {
                self.write_progress = now;
            } else if now - self.write_progress >= self.write_timeout {
                self.write_timeout = 0;
                self.write_expired = true;
                self.cut();
            }
            self.write_queue = queue;
        }
    }

    /// Ends the connection; a peer that is owed bytes sees a reset, so that it cannot take what it
    /// got for complete.
    fn cut(&self) {
        if self.idle {
            shutdown(self.fd, Side::Both);
        } else {
            sys::reset(self.fd);
        }
    }
}

impl Deadline {
    /// The connection's descriptor.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// From now on the peer has `timeout` to make the wait end.
    pub fn arm(&self, wait: Wait, timeout: Duration) {
        let now = self.table.millis(Instant::now());
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX / 2).max(1);
        self.with(|slot| match wait {
            Wait::Read => slot.read_at = now + millis,
            Wait::Write => {
                slot.write_timeout = millis;
                slot.write_progress = now;
                slot.write_queue = 0;
            }
        });
    }

    /// The peer may take its time.
    pub fn disarm(&self, wait: Wait) {
        self.with(|slot| match wait {
            Wait::Read => slot.read_at = 0,
            Wait::Write => slot.write_timeout = 0,
        });
    }

    /// Whether the sweep has ended the wait: the operation's result means nothing then.
    #[must_use]
    pub fn expired(&self, wait: Wait) -> bool {
        self.with(|slot| match wait {
            Wait::Read => slot.read_expired,
            Wait::Write => slot.write_expired,
        })
    }

    /// Says whether the client lies idle between requests, and may be closed by a drain.
    pub fn set_idle(&self, idle: bool) {
        self.with(|slot| slot.idle = idle);
    }

    /// Whether this client's reads were ended while it lay idle. From then on a read returns 0
    /// while nothing is there, also when the client sends more later.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.with(|slot| slot.closing)
    }

    /// From now on this client waits for `backend`, whose connection ends if the client leaves.
    pub fn wait_for(&self, backend: &Deadline) {
        let generation = backend.with(|slot| slot.generation);
        let now = self.table.millis(Instant::now());
        self.with(|slot| {
            slot.waiting_since = now;
            slot.waiting_for = (backend.index, generation);
        });
    }

    /// From now on this client waits for no connection in particular; `Deadlines::is_gone` says
    /// whether it has left.
    #[must_use]
    pub fn wait_in_queue(&self) -> Watched {
        let now = self.table.millis(Instant::now());
        let generation = self.with(|slot| {
            slot.waiting_since = now;
            slot.waiting_for = NOBODY;
            slot.generation
        });
        Watched { index: self.index, generation }
    }

    /// The client waits no more.
    pub fn wait_over(&self) {
        self.with(|slot| slot.waiting_since = 0);
    }

    /// Whether the client left while it waited.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.with(|slot| slot.gone)
    }

    fn with<T>(&self, read: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots = self.table.slots.borrow_mut();
        read(slots.get_mut(self.index).expect("a slot lives as long as its guard"))
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // A runtime that unwinds closes nothing: the peer would wait for ever.
        if std::thread::panicking() {
            self.with(|slot| slot.cut());
        }
        self.with(|slot| slot.in_use = false);
        self.table.free.borrow_mut().push(self.index);
        self.table.used.set(self.table.used.get() - 1);
    }
}

/// Stands for the backend of a client that waits for a place.
const NOBODY: (usize, u32) = (usize::MAX, 0);
/// How long a client waits for a backend before the sweep looks whether it is still there.
const WATCH_AFTER: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn an_overdue_read_ends_and_leaves_a_client_writable() {
        let (mut client, mut server) = pair();
        let start = Instant::now();
        let table = Deadlines::new(start);
        let deadline = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
        deadline.arm(Wait::Read, Duration::from_millis(100));
        table.sweep(start + Duration::from_millis(50), false);
        assert!(!deadline.expired(Wait::Read));
        table.sweep(start + Duration::from_secs(1), false);
        assert!(deadline.expired(Wait::Read) && !deadline.expired(Wait::Write));
        assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
        std::io::Write::write_all(&mut server, b"late").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"late");
    }

    #[test]
    fn a_released_slot_is_never_shut_down() {
        let (_client, server) = pair();
        let start = Instant::now();
        let table = Deadlines::new(start);
        let old = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
        old.arm(Wait::Read, Duration::ZERO);
        drop(old);
        let new = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
        table.sweep(start + Duration::from_secs(1), false);
        assert!(!new.expired(Wait::Read));
        assert_eq!(sys::peek(server.as_raw_fd()), Pending::Nothing);
    }

    #[test]
    fn a_client_that_resets_while_it_waits_ends_its_backend() {
        let (client, server) = pair();
        let (mut backend, upstream) = pair();
        let start = Instant::now();
        let table = Deadlines::new(start);
        let waiting = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
        let waited_for = Deadlines::enter(&table, upstream.as_raw_fd(), Role::Backend);
        waiting.wait_for(&waited_for);
        let later = Instant::now() + Duration::from_secs(1);
        table.sweep(later, false);
        assert!(!waiting.is_gone());
        sys::reset_on_close(client.as_raw_fd()).unwrap();
        drop(client);
        table.sweep(later, false);
        assert!(waiting.is_gone());
        assert_eq!(backend.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn an_idle_client_that_is_overdue_can_be_told_apart() {
        let (mut client, mut server) = pair();
        let start = Instant::now();
        let table = Deadlines::new(start);
        let deadline = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
        deadline.set_idle(true);
        deadline.arm(Wait::Read, Duration::from_millis(1));
        table.sweep(start + Duration::from_secs(1), false);
        assert!(deadline.is_closing() && !deadline.expired(Wait::Read));
        assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
        std::io::Write::write_all(&mut client, b"late").unwrap();
        assert_eq!(server.read(&mut [0; 8]).unwrap(), 4);
    }

    #[test]
    fn a_drain_ends_idle_clients_and_spares_those_that_have_spoken() {
        let (client, server) = pair();
        let (mut speaking, busy) = pair();
        std::io::Write::write_all(&mut speaking, b"G").unwrap();
        let table = Deadlines::new(Instant::now());
        let idle = Deadlines::enter(&table, server.as_raw_fd(), Role::Client);
        let spoken = Deadlines::enter(&table, busy.as_raw_fd(), Role::Client);
        idle.set_idle(true);
        spoken.set_idle(true);
        table.close_idle();
        assert_eq!((idle.is_closing(), spoken.is_closing()), (true, false));
        assert_eq!(sys::peek(client.as_raw_fd()), Pending::Nothing);
    }
}
