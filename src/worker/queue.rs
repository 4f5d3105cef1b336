//! The requests of a worker that wait for a place on an endpoint: for each pool a line of its own,
//! first come, first served.
//!
//! Whenever a place of a pool may be free, the first request that takes any is called, and of those
//! that wait for one endpoint alone the first whose endpoint has one. A called request looks for
//! itself; one that found a place lets the next be called. Called by `placement` and `state`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use crate::upstream::endpoint::Slot;
use crate::upstream::snapshot::PoolId;
use crate::worker::deadline::Watched;
use crate::worker::event::Event;
use crate::worker::mailbox::Message;
use crate::worker::waitlist::Entry;

/// The requests that wait.
#[derive(Debug, Default)]
pub struct Queue {
    /// By pool, as far as anybody has waited.
    lines: RefCell<Vec<Line>>,
    joined: Cell<u64>,
}

/// Those that wait for one pool, the first of each kind at the front.
#[derive(Debug, Default)]
struct Line {
    /// Any endpoint will do.
    any: VecDeque<Rc<Waiter>>,
    /// One alone will do.
    alone: VecDeque<Rc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    /// Counts up along the queue.
    number: u64,
    until: Instant,
    client: Watched,
    pool: PoolId,
    /// The only endpoint that will do.
    wanted: Option<Slot>,
    called: Cell<bool>,
    event: Event,
    _entry: Entry,
}

/// A request's place in the queue, until it is dropped.
#[derive(Debug)]
pub struct Ticket<'q> {
    queue: &'q Queue,
    waiter: Rc<Waiter>,
}

impl Queue {
    /// Puts a request of this client at the end of a pool's line, until it is time to give up; it
    /// may want a place on one endpoint alone.
    pub fn join(
        &self,
        pool: PoolId,
        client: Watched,
        until: Instant,
        wanted: Option<Slot>,
        entry: Entry,
    ) -> Ticket<'_> {
        let number = self.joined.replace(self.joined.get() + 1);
        let (called, event) = (Cell::new(false), Event::default());
        let _entry = entry;
        let waiter = Rc::new(Waiter { number, until, client, pool, wanted, called, event, _entry });
        let mut lines = self.lines.borrow_mut();
        if lines.len() <= pool.0 {
            lines.resize_with(pool.0 + 1, Line::default);
        }
        lines[pool.0].of(&waiter).push_back(waiter.clone());
        Ticket { queue: self, waiter }
    }

    /// Whether somebody waits, before this number, who would take a place on this endpoint of this
    /// pool.
    #[must_use]
    pub fn is_waited_for(&self, pool: PoolId, slot: Slot, number: u64) -> bool {
        let lines = self.lines.borrow();
        let Some(line) = lines.get(pool.0) else { return false };
        let is_before = |waiter: &&Rc<Waiter>| waiter.number < number;
        line.any.front().is_some_and(|first| is_before(&first))
            || line.alone.iter().take_while(is_before).any(|waiter| waiter.wanted == Some(slot))
    }

    /// Places of this pool may be free: calls the first that takes any, if one `has_place`, and of
    /// those that wait for one endpoint alone the first for each that has. Whether one that takes
    /// any is called, now or before: it sees to whatever is free.
    pub fn call(&self, pool: PoolId, has_place: impl Fn(Option<Slot>) -> bool) -> bool {
        let lines = self.lines.borrow();
        let Some(line) = lines.get(pool.0) else { return false };
        let mut called: Vec<Option<Slot>> = Vec::new();
        for waiter in line.alone.iter().filter(|waiter| !waiter.called.get()) {
            if !called.contains(&waiter.wanted) && has_place(waiter.wanted) {
                called.push(waiter.wanted);
                waiter.call();
            }
        }
        match line.any.iter().find(|waiter| !waiter.called.get()) {
            None => !line.any.is_empty(),
            Some(_) if !has_place(None) => false,
            Some(first) => {
                first.call();
                true
            }
        }
    }

    /// Calls all: the worker ends, or other endpoints are in force.
    pub fn call_all(&self) {
        self.lines.borrow().iter().flat_map(Line::all).for_each(|waiter| waiter.call());
    }

    /// Wakes those whose time is over or whose client has left, and the first of each line to look
    /// for what it is not told of.
    pub fn sweep(&self, now: Instant, is_gone: impl Fn(Watched) -> bool) {
        let lines = self.lines.borrow();
        let is_over = |waiter: &&Rc<Waiter>| now >= waiter.until || is_gone(waiter.client);
        let over = lines.iter().flat_map(Line::all).filter(is_over);
        let first = lines.iter().filter_map(|line| line.any.front());
        over.chain(first).for_each(|waiter| waiter.event.notify());
    }

    /// What other workers are asked for: what those that take any, and the first few that wait for
    /// one endpoint alone, want.
    #[must_use]
    pub fn wants(&self) -> Vec<Message> {
        let lines = self.lines.borrow();
        let mut alone: Vec<Slot> = Vec::new();
        for slot in lines.iter().flat_map(|line| &line.alone).filter_map(|waiter| waiter.wanted) {
            if alone.len() < WANTS_MAX && !alone.contains(&slot) {
                alone.push(slot);
            }
        }
        let any = lines.iter().enumerate().filter(|(_, line)| !line.any.is_empty());
        let any = any.map(|(pool, _)| Message::CloseIdleOf(PoolId(pool)));
        any.chain(alone.into_iter().map(Message::CloseIdle)).collect()
    }
}

impl Line {
    /// Where one like this stands.
    fn of(&mut self, waiter: &Waiter) -> &mut VecDeque<Rc<Waiter>> {
        if waiter.wanted.is_some() { &mut self.alone } else { &mut self.any }
    }

    fn all(&self) -> impl Iterator<Item = &Rc<Waiter>> {
        self.any.iter().chain(&self.alone)
    }
}

impl Waiter {
    fn call(&self) {
        self.called.set(true);
        self.event.notify();
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
        let mut lines = self.queue.lines.borrow_mut();
        let waiters = lines[self.waiter.pool.0].of(&self.waiter);
        if let Ok(place) = waiters.binary_search_by_key(&self.waiter.number, |it| it.number) {
            waiters.remove(place);
        }
    }
}

/// The most endpoints that others are asked for at once.
const WANTS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::upstream::limit::Limits;
    use crate::worker::deadline::{Deadline, Deadlines, Role};
    use crate::worker::mailbox::Mailbox;
    use crate::worker::waitlist::Waitlist;

    /// A queue, and a client that joins it again and again.
    struct Bench {
        queue: Queue,
        list: Arc<Waitlist>,
        client: Deadline,
    }

    impl Bench {
        fn new() -> Bench {
            let list = Waitlist::new(vec![Mailbox::new().unwrap().0], 99);
            let client = Deadlines::enter(&Deadlines::new(Instant::now()), -1, Role::Client);
            Bench { queue: Queue::default(), list, client }
        }

        /// Joins the line of this pool, and may want this slot alone.
        fn join(&self, pool: usize, wanted: Option<u32>) -> Ticket<'_> {
            let alone = wanted.map(|_| Arc::new(Limits::new(None, None, None)));
            let entry = Waitlist::enter(&self.list, 0, PoolId(pool), alone).unwrap();
            let (client, until) = (self.client.wait_in_queue(), Instant::now());
            self.queue.join(PoolId(pool), client, until, wanted.map(slot), entry)
        }

        /// Says that all of this pool's endpoints have places.
        fn call(&self, pool: usize) -> bool {
            self.queue.call(PoolId(pool), |_| true)
        }

        fn is_waited_for(&self, pool: usize, number: u32, rank: u64) -> bool {
            self.queue.is_waited_for(PoolId(pool), slot(number), rank)
        }
    }

    fn slot(number: u32) -> Slot {
        Slot { number, generation: 0 }
    }

    fn called(tickets: &[Ticket<'_>]) -> Vec<bool> {
        tickets.iter().map(|ticket| ticket.waiter.called.get()).collect()
    }

    #[test]
    fn of_each_pool_the_first_is_called_and_holds_up_no_other() {
        let bench = Bench::new();
        let tickets = [0, 0, 3, 3].map(|pool| bench.join(pool, None));
        assert!(!bench.call(1) && !bench.call(99), "nobody waits there");
        assert!(bench.call(3));
        assert_eq!(called(&tickets), [false, false, true, false]);
        assert!(bench.call(0));
        assert_eq!(called(&tickets), [true, false, true, false]);
        for (pool, is_waited_for) in [(0, true), (1, false), (3, true), (99, false)] {
            assert_eq!(bench.is_waited_for(pool, 1, u64::MAX), is_waited_for, "{pool}");
        }
        assert!(!bench.is_waited_for(3, 1, 2), "the others came later, or wait elsewhere");
    }

    #[test]
    fn places_are_called_out_to_one_after_the_other() {
        let bench = Bench::new();
        let mut tickets: Vec<_> = (0..3).map(|_| bench.join(0, None)).collect();
        assert!(!bench.queue.call(PoolId(0), |_| false), "no place");
        assert_eq!(called(&tickets), [false, false, false]);
        assert!(bench.call(0) && bench.call(0));
        assert_eq!(called(&tickets), [true, true, false]);
        tickets[0].wait_on();
        drop(tickets.remove(1));
        assert!(bench.call(0) && bench.call(0));
        assert_eq!(called(&tickets), [true, true]);
        assert!(bench.call(0), "those that were called see to it");
        drop(tickets);
        assert!(!bench.call(0) && !bench.is_waited_for(0, 1, u64::MAX));
    }

    #[test]
    fn who_waits_for_one_endpoint_is_called_for_that_and_holds_up_no_other() {
        let bench = Bench::new();
        let tickets = [Some(1), Some(1), Some(2), None].map(|wanted| bench.join(0, wanted));
        assert!(bench.is_waited_for(0, 1, 1) && !bench.is_waited_for(0, 1, 0));
        assert!(!bench.is_waited_for(0, 2, 2) && bench.is_waited_for(0, 2, 3));
        assert!(!bench.is_waited_for(0, 3, 3) && bench.is_waited_for(0, 3, 4));
        assert!(!bench.queue.call(PoolId(0), |wanted| wanted == Some(slot(1))));
        assert_eq!(called(&tickets), [true, false, false, false]);
        assert!(bench.call(0));
        assert_eq!(called(&tickets), [true, true, true, true]);
    }

    #[test]
    fn others_are_asked_for_the_pools_and_endpoints_that_are_waited_for() {
        let bench = Bench::new();
        assert_eq!(bench.queue.wants(), []);
        let many = (0..20).map(|number| Some(number / 2));
        let tickets: Vec<_> = many.map(|wanted| bench.join(5, wanted)).collect();
        let slots = (0..8).map(|number| Message::CloseIdle(slot(number)));
        assert_eq!(bench.queue.wants(), slots.collect::<Vec<_>>());
        drop(tickets);
        let _any = [2, 7, 7].map(|pool| bench.join(pool, None));
        let asked = [2, 7].map(|pool| Message::CloseIdleOf(PoolId(pool)));
        assert_eq!(bench.queue.wants(), asked);
    }
}
