//! When a connection has waited long enough: a table that one sweep per worker walks.
//!
//! Arming a deadline stores a time; no timer is made and no operation is cancelled. The sweep
//! shuts the socket of an overdue connection down, which completes the operation that waits on
//! it, and that operation's owner asks `expired` before it looks at the result. The sweep also
//! finds clients that left while they waited for a backend.

mod slot;

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use crate::clock;
use crate::sys::{self, Side, shutdown};
use crate::upstream::endpoint::Slot as Endpoint;
use crate::worker::event::Event;
use slot::{NOBODY, Slot};

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
    /// How much the coarse clock, which its times are of, may be late.
    tick_millis: u64,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    used: Cell<usize>,
    /// Told when the table stops being empty, so that no sweep runs while it is.
    filled: Event,
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
    pub fn new() -> Rc<Deadlines> {
        Rc::new(Deadlines {
            tick_millis: clock::tick_millis(),
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
        let slot = Slot::new(fd, generation, role);
        match slots.get_mut(index) {
            Some(place) => *place = slot,
            None => slots.push(slot),
        }
        table.used.set(table.used.get() + 1);
        table.filled.notify();
        Deadline { table: table.clone(), index, fd }
    }

    /// Whether no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used.get() == 0
    }

    /// Waits until there is something to sweep.
    pub async fn filled(&self) {
        while self.used.get() == 0 {
            self.filled.wait().await;
        }
    }

    /// Shuts down what is overdue at `now`, in milliseconds of the coarse clock, and the backends of
    /// clients that left.
    pub fn sweep(&self, now: u64, half_close_counts: bool) {
        let watch_after = clock::millis(WATCH_AFTER);
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

    /// Ends the waits for endpoints that are down, where another one may be tried instead;
    /// `waits_max` of them.
    pub fn leave(&self, waits_max: u64, is_down: impl Fn(Endpoint) -> bool) {
        let mut left = waits_max;
        for slot in self.slots.borrow_mut().iter_mut().filter(|slot| slot.in_use) {
            if left > 0 && slot.may_leave.is_some_and(&is_down) {
                left -= 1;
                slot.may_leave = None;
                slot.has_left = true;
                shutdown(slot.fd, Side::Both);
            }
        }
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
}

impl Deadline {
    /// The connection's descriptor.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Has the processor fetch what the table holds of the connection, which something came on.
    pub fn prefetch(&self) {
        self.with(|slot| sys::prefetch(slot));
    }

    /// From now on the peer has `timeout` to make the wait end.
    pub fn arm(&self, wait: Wait, timeout: Duration) {
        let now = clock::coarse_millis();
        // So that none fires early, where the kernel's ticks come in time.
        let millis = clock::millis(timeout).min(u64::MAX / 2) + self.table.tick_millis;
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
        let now = clock::coarse_millis();
        self.with(|slot| {
            slot.waiting_since = now;
            slot.waiting_for = (backend.index, generation);
        });
    }

    /// From now on this client waits for no connection in particular; `Deadlines::is_gone` says
    /// whether it has left.
    #[must_use]
    pub fn wait_in_queue(&self) -> Watched {
        let now = clock::coarse_millis();
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

    /// Says whether the wait for this backend's answer may be ended when its endpoint, in this
    /// slot, goes down: the request can be tried on another one.
    pub fn set_may_leave(&self, endpoint: Option<Endpoint>) {
        self.with(|slot| slot.may_leave = endpoint);
    }

    /// Whether the wait for this backend's answer was ended because its endpoint went down.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.with(|slot| slot.has_left)
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

/// How long a client waits for a backend before the sweep looks whether it is still there.
const WATCH_AFTER: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
