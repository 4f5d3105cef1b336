//! The requests of a worker that wait for a place on an endpoint, first come, first served.
//!
//! Whenever a place may be free, the first request that takes any is called, and of those that
//! wait for one endpoint alone the first whose endpoint has one. A called request looks for itself;
//! one that found a place lets the next be called. Called by `placement`, mailbox and sweep.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use crate::upstream::endpoint::Slot;
use crate::worker::deadline::Watched;
use crate::worker::event::Event;
use crate::worker::waitlist::Entry;

/// The requests that wait, the first at the front.
#[derive(Debug, Default)]
pub struct Queue {
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    joined: Cell<u64>,
    /// How many of them wait for one endpoint alone.
    alone: Cell<usize>,
}

#[derive(Debug)]
struct Waiter {
    /// Counts up along the queue.
    number: u64,
    until: Instant,
    client: Watched,
    /// The only endpoint that will do.
    wanted: Option<Slot>,
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
    /// Puts a request of this client at the end, until it is time to give up; it may want a place
    /// on one endpoint alone.
    pub fn join(
        &self,
        client: Watched,
        until: Instant,
        wanted: Option<Slot>,
        entry: Entry,
    ) -> Ticket<'_> {
        let number = self.joined.replace(self.joined.get() + 1);
        let (called, event) = (Cell::new(false), Event::default());
        let waiter = Rc::new(Waiter { number, until, client, wanted, called, event });
        self.alone.set(self.alone.get() + usize::from(wanted.is_some()));
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
    pub fn is_waited_for(&self, slot: Slot, number: u64) -> bool {
        let waiters = self.waiters.borrow();
        let mut before = waiters.iter().take_while(|waiter| waiter.number < number);
        before.any(|waiter| waiter.wanted.is_none_or(|wanted| wanted == slot))
    }

    /// A place may be free: calls the first that takes any, and of those that wait for one endpoint
    /// alone the first for each that `has_place`. Whether one that takes any was called.
    pub fn call(&self, has_place: impl Fn(Slot) -> bool) -> bool {
        let (mut is_any_called, mut alone) = (false, self.alone.get());
        let mut called: Vec<Slot> = Vec::new();
        for waiter in self.waiters.borrow().iter() {
            alone -= usize::from(waiter.wanted.is_some());
            let is_for_it = !waiter.called.get()
                && match waiter.wanted {
                    None => !std::mem::replace(&mut is_any_called, true),
                    Some(slot) => !called.contains(&slot) && has_place(slot),
                };
            if is_for_it {
                called.extend(waiter.wanted);
                waiter.called.set(true);
                waiter.event.notify();
            }
            if is_any_called && alone == 0 {
                break;
            }
        }
        is_any_called
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
        for slot in waiters.iter().filter_map(|waiter| waiter.wanted) {
            if alone.len() < WANTS_MAX && !alone.contains(&slot) {
                alone.push(slot);
            }
        }
        (waiters.iter().any(|waiter| waiter.wanted.is_none()), alone)
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
        let alone = &self.queue.alone;
        alone.set(alone.get() - usize::from(self.waiter.wanted.is_some()));
        self.queue.waiters.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
    }
}

/// The most endpoints that others are asked for at once.
const WANTS_MAX: usize = 8;
