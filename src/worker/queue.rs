//! The requests of a worker that wait for a place on an endpoint, first come, first served.
//!
//! A free place calls the first that was not called yet; one that cannot use it (its session is on
//! another endpoint) passes the call on to those behind it. Called by `placement`, and by the
//! worker's mailbox and sweep.

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
        self.waiters.borrow_mut().push_back(waiter.clone());
        Ticket { queue: self, waiter, _entry: entry }
    }

    /// Whether somebody waits who would take a place on this endpoint.
    #[must_use]
    pub fn is_waited_for(&self, slot: Slot) -> bool {
        let waiters = self.waiters.borrow();
        waiters.iter().any(|waiter| waiter.wanted.is_none_or(|wanted| wanted == slot))
    }

    /// A place may be free: calls the first that was not called yet.
    pub fn call_first(&self) {
        self.call_from(0);
    }

    /// Calls all: the worker ends, or other endpoints are in force.
    pub fn call_all(&self) {
        for waiter in self.waiters.borrow().iter() {
            waiter.called.set(true);
            waiter.event.notify();
        }
    }

    /// Wakes those whose time is over or whose client has left, and calls the first, in case it
    /// was not told of a place.
    pub fn sweep(&self, now: Instant, is_gone: impl Fn(Watched) -> bool) {
        for waiter in self.waiters.borrow().iter() {
            if now >= waiter.until || is_gone(waiter.client) {
                waiter.event.notify();
            }
        }
        self.call_first();
    }

    fn call_from(&self, number: u64) {
        let waiters = self.waiters.borrow();
        let next = waiters.iter().find(|it| it.number >= number && !it.called.get());
        if let Some(waiter) = next {
            waiter.called.set(true);
            waiter.event.notify();
        }
    }
}

impl Ticket<'_> {
    /// Whether it is this request's turn to look for a place: it is the first, or was called.
    #[must_use]
    pub fn is_turn(&self) -> bool {
        let waiters = self.queue.waiters.borrow();
        self.waiter.called.get() || waiters.front().is_some_and(|it| Rc::ptr_eq(it, &self.waiter))
    }

    /// Waits until it is called, or there is no use in waiting any longer.
    pub async fn called(&self) {
        self.waiter.event.wait().await;
    }

    /// There was no place for it: who waits behind it may have use for the one it was called for.
    pub fn pass_on(&self) {
        if self.waiter.called.replace(false) {
            self.queue.call_from(self.waiter.number + 1);
        }
    }

    /// Whether it has waited for as long as it may.
    #[must_use]
    pub fn is_late(&self, now: Instant) -> bool {
        now >= self.waiter.until
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.queue.waiters.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
    }
}
