//! One connection's place in the table of deadlines: what it waits for, and what happens when that
//! takes too long.

use std::os::fd::RawFd;

use crate::sys::{self, Pending, Side, shutdown};
use crate::upstream::endpoint::Slot as Endpoint;
use crate::worker::deadline::Role;

/// A place in the table; times are in milliseconds of the coarse clock, 0 is never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) fd: RawFd,
    pub(super) generation: u32,
    pub(super) role: Role,
    pub(super) in_use: bool,
    pub(super) idle: bool,
    pub(super) closing: bool,
    pub(super) gone: bool,
    pub(super) read_expired: bool,
    pub(super) write_expired: bool,
    pub(super) read_at: u64,
    /// How long a write may make no progress, 0 where none is waited for; when it last made some,
    /// and how much was unacknowledged then.
    pub(super) write_timeout: u64,
    pub(super) write_progress: u64,
    pub(super) write_queue: u32,
    /// The slot number of the endpoint that a backend's connection is to, while its request would
    /// rather be tried on another one than wait for one that is down.
    pub(super) may_leave: Option<Endpoint>,
    /// Whether that has happened.
    pub(super) has_left: bool,
    /// Since when a client waits for a backend, and for which.
    pub(super) waiting_since: u64,
    pub(super) waiting_for: (usize, u32),
}

impl Slot {
    /// The place of a connection that waits for nothing.
    pub(super) fn new(fd: RawFd, generation: u32, role: Role) -> Slot {
        Slot {
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
            may_leave: None,
            has_left: false,
            waiting_since: 0,
            waiting_for: NOBODY,
        }
    }

    /// Ends an idle client's read, unless it has just sent something. Bytes that the read has
    /// already taken from the socket come with its result: its owner decides by that.
    pub(super) fn close_idle(&mut self) {
        if sys::peek(self.fd) == Pending::Nothing {
            self.closing = true;
            self.read_at = 0;
            shutdown(self.fd, Side::Read);
        }
    }

    pub(super) fn expire(&mut self, now: u64) {
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
    pub(super) fn cut(&self) {
        if self.idle {
            shutdown(self.fd, Side::Both);
        } else {
            sys::reset(self.fd);
        }
    }
}

/// Stands for the backend of a client that waits for a place.
pub(super) const NOBODY: (usize, u32) = (usize::MAX, 0);
