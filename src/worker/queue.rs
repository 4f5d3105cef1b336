//! The requests of a worker that wait for a place on an endpoint, first come, first served.
//!
//! Whenever a place may be free, of each pool the first request that takes any is called, and of
//! those that wait for one endpoint alone the first whose endpoint has one. A called request looks for itself;
//! one that found a place lets the next be called. Called by `placement`, mailbox and sweep.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use crate::upstream::endpoint::Slot;
use crate::upstream::snapshot::PoolId;
use crate::worker::deadline::Watched;
use crate::worker::event::Event;
use crate::worker::waitlist::Entry;

/// The requests that wait, the first at the front.
#[derive(Debug, Default)]
pub struct Queue {
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    joined: Cell<u64>,
    /// How many of them wait for one endpoint alone,
    alone: Cell<usize>,
    /// and how many take any of a pool, by the pool.
    lines: RefCell<Vec<Line>>,
}

/// Those that take any place of a pool.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    count: usize,
    /// Whether one of them was called last.
    is_called: bool,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A place on any endpoint of this pool.
    Any(PoolId),
    /// A place on this one.
    Alone(Slot),
}

#[derive(Debug)]
struct Waiter {
    /// Counts up along the queue.
    number: u64,
    until: Instant,
    client: Watched,
    wanted: Wanted,
    called: Cell<bool>,
    event: Event,
}

/// A request's place in the queue, until it is dropped.
#[derive(Debug)]
pub struct Ticket<'q> {
    queue: &'q Queue,
    waiter: Rc<Waiter>,
    _entry: Entry,
}

impl Queue {
    /// Puts a request of this client at the end, until it is time to give up.
    pub fn join(
        &self,
        client: Watched,
        until: Instant,
        wanted: Wanted,
        entry: Entry,
    ) -> Ticket<'_> {
        let number = self.joined.replace(self.joined.get() + 1);
        let (called, event) = (Cell::new(false), Event::default());
        let waiter = Rc::new(Waiter { number, until, client, wanted, called, event });
        self.count(wanted, true);
        self.waiters.borrow_mut().push_back(waiter.clone());
        Ticket { queue: self, waiter, _entry: entry }
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.borrow().is_empty()
    }

    /// Whether somebody waits, before this number, who would take a place on this endpoint.
    #[must_use]
    pub fn is_waited_for(&self, pool: PoolId, slot: Slot, number: u64) -> bool {
        let waiters = self.waiters.borrow();
        let mut before = waiters.iter().take_while(|waiter| waiter.number < number);
        before.any(|waiter| match waiter.wanted {
            Wanted::Any(wanted) => wanted == pool,
            Wanted::Alone(wanted) => wanted == slot,
        })
    }

    /// A place may be free: of each pool calls the first that takes any, and of those that wait for
    /// one endpoint alone the first for each that `has_place`.
    pub fn call(&self, has_place: impl Fn(Slot) -> bool) {
        let (mut lines, mut alone) = (self.lines.borrow_mut(), self.alone.get());
        let mut uncalled = 0;
        for line in lines.iter_mut() {
            line.is_called = false;
            uncalled += usize::from(line.count > 0);
        }
        let mut called: Vec<Slot> = Vec::new();
        for waiter in self.waiters.borrow().iter() {
            if uncalled == 0 && alone == 0 {
                break;
            }
            let is_first = match waiter.wanted {
                Wanted::Any(PoolId(index)) => lines.get_mut(index).is_some_and(|line| {
                    let is_first = !waiter.called.get() && !line.is_called;
                    line.is_called |= is_first;
                    uncalled -= usize::from(is_first);
                    is_first
                }),
                Wanted::Alone(slot) => {
                    alone -= 1;
                    let is_first =
                        !waiter.called.get() && !called.contains(&slot) && has_place(slot);
                    called.extend(is_first.then_some(slot));
                    is_first
                }
            };
            if is_first {
                waiter.called.set(true);
                waiter.event.notify();
            }
        }
    }

    /// Whether the last `call` called one that takes any place of this pool.
    #[must_use]
    pub fn has_called(&self, PoolId(index): PoolId) -> bool {
        self.lines.borrow().get(index).is_some_and(|line| line.is_called)
    }

    /// Counts one that waits in or out.
    fn count(&self, wanted: Wanted, is_in: bool) {
        let step = |count: usize| if is_in { count + 1 } else { count.saturating_sub(1) };
        match wanted {
            Wanted::Alone(_) => self.alone.set(step(self.alone.get())),
            Wanted::Any(PoolId(index)) => {
                let mut lines = self.lines.borrow_mut();
                if lines.len() <= index {
                    lines.resize(index + 1, Line::default());
                }
                lines[index].count = step(lines[index].count);
            }
        }
    }

    /// Calls all: the worker ends, or other endpoints are in force.
    pub fn call_all(&self) {
        for waiter in self.waiters.borrow().iter() {
            waiter.called.set(true);
            waiter.event.notify();
        }
    }

    /// Wakes those whose time is over or whose client has left.
    pub fn sweep(&self, now: Instant, is_gone: impl Fn(Watched) -> bool) {
        for waiter in self.waiters.borrow().iter() {
            if now >= waiter.until || is_gone(waiter.client) {
                waiter.event.notify();
            }
        }
    }

    /// What the first that takes any, and the first few that wait for one endpoint alone, want.
    #[must_use]
    pub fn wants(&self) -> (bool, Vec<Slot>) {
        let waiters = self.waiters.borrow();
        let mut alone: Vec<Slot> = Vec::new();
        let mut wants_any = false;
        for waiter in waiters.iter() {
            match waiter.wanted {
                Wanted::Any(_) => wants_any = true,
                Wanted::Alone(slot) if alone.len() < WANTS_MAX && !alone.contains(&slot) => {
                    alone.push(slot);
                }
                Wanted::Alone(_) => {}
            }
        }
        (wants_any, alone)
    }
}

impl Ticket<'_> {
    /// Those before whom it must not take a place: all who stand before it, unless it was called.
    #[must_use]
    pub fn rank(&self) -> u64 {
        if self.waiter.called.get() { 0 } else { self.waiter.number }
    }

    /// Waits until it is called, or there is no use in waiting any longer.
    pub async fn called(&self) {
        self.waiter.event.wait().await;
    }

    /// There was no place for it.
    pub fn wait_on(&self) {
        self.waiter.called.set(false);
    }

    /// Whether it has waited for as long as it may.
    #[must_use]
    pub fn is_late(&self, now: Instant) -> bool {
        now >= self.waiter.until
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.queue.count(self.waiter.wanted, false);
        self.queue.waiters.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
    }
}

/// The most endpoints that others are asked for at once.
const WANTS_MAX: usize = 8;
