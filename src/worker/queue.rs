//! The requests of a worker that wait for a place on an endpoint: for each pool a line of its own,
//! first come, first served.
//!
//! Some take any endpoint but those they were tried on, some one alone. A place that may be free is
//! for the first in line who takes it: that one is called, and looks for itself; once it has found
//! one, the next is called. Called by `placement` and `state`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::upstream::endpoint::{Endpoint, Slot};
use crate::upstream::limit::Limits;
use crate::upstream::snapshot::PoolId;
use crate::worker::deadline::Watched;
use crate::worker::event::Event;
use crate::worker::mailbox::Message;
use crate::worker::tried::Tried;
use crate::worker::waitlist::Entry;

/// The requests that wait.
#[derive(Debug, Default)]
pub struct Queue {
    /// By pool, as far as anybody has waited, the first of each at the front.
    lines: RefCell<Vec<VecDeque<Rc<Waiter>>>>,
    joined: Cell<u64>,
}

#[derive(Debug)]
struct Waiter {
    /// Counts up along the queue.
    number: u64,
    until: Instant,
    client: Watched,
    tried: Tried,
    /// The only endpoint that will do.
    only: Cell<Option<Slot>>,
    event: Event,
}

/// A request's place in the queue, until it is dropped.
#[derive(Debug)]
pub struct Ticket<'q> {
    queue: &'q Queue,
    waiter: Rc<Waiter>,
    entry: Entry,
}

impl Queue {
    /// Puts a request of this client at the end of its pool's line, until it is time to give up. It
    /// takes a place on any endpoint that it was not tried on, or on one alone.
    pub fn join(
        &self,
        client: Watched,
        until: Instant,
        tried: Tried,
        only: Option<Slot>,
        entry: Entry,
    ) -> Ticket<'_> {
        let number = self.joined.replace(self.joined.get() + 1);
        let (only, event) = (Cell::new(only), Event::default());
        let waiter = Rc::new(Waiter { number, until, client, tried, only, event });
        let mut lines = self.lines.borrow_mut();
        if lines.len() <= entry.pool.0 {
            lines.resize_with(entry.pool.0 + 1, VecDeque::new);
        }
        lines[entry.pool.0].push_back(waiter.clone());
        Ticket { queue: self, waiter, entry }
    }

    /// Whether somebody waits, before this number, who takes a place on this endpoint of this pool.
    #[must_use]
    pub fn is_waited_for(&self, pool: PoolId, endpoint: &Endpoint, number: u64) -> bool {
        let lines = self.lines.borrow();
        let first = lines.get(pool.0).and_then(|line| first_for(line, endpoint));
        first.is_some_and(|first| first.number < number)
    }

    /// A place on this endpoint of this pool may be free: calls the first who takes it. Whether
    /// there is one.
    pub fn call(&self, pool: PoolId, endpoint: &Endpoint) -> bool {
        let lines = self.lines.borrow();
        let first = lines.get(pool.0).and_then(|line| first_for(line, endpoint));
        first.inspect(|first| first.event.notify()).is_some()
    }

    /// Calls all: the worker ends, or other endpoints are in force.
    pub fn call_all(&self) {
        self.lines.borrow().iter().flatten().for_each(|waiter| waiter.event.notify());
    }

    /// Whether nobody waits for this pool.
    #[must_use]
    pub fn is_empty(&self, pool: PoolId) -> bool {
        self.lines.borrow().get(pool.0).is_none_or(VecDeque::is_empty)
    }

    /// Wakes those whose time is over or whose client has left, and the first of each line that
    /// takes any endpoint to look for what it is not told of.
    pub fn sweep(&self, now: Instant, is_gone: impl Fn(Watched) -> bool) {
        let lines = self.lines.borrow();
        let is_over = |waiter: &&Rc<Waiter>| now >= waiter.until || is_gone(waiter.client);
        let over = lines.iter().flatten().filter(is_over);
        let first = lines.iter().filter_map(|line| line.iter().find(|it| it.takes_any()));
        over.chain(first).for_each(|waiter| waiter.event.notify());
    }

    /// What other workers are asked for: what those that take any, and the first few that wait for
    /// one endpoint alone, want.
    #[must_use]
    pub fn wants(&self) -> Vec<Message> {
        let lines = self.lines.borrow();
        let mut alone: Vec<Slot> = Vec::new();
        for slot in lines.iter().flatten().filter_map(|waiter| waiter.only.get()) {
            if alone.len() < WANTS_MAX && !alone.contains(&slot) {
                alone.push(slot);
            }
        }
        let any = lines.iter().enumerate().filter(|(_, line)| line.iter().any(|it| it.takes_any()));
        let any = any.map(|(pool, _)| Message::CloseIdleOf(PoolId(pool)));
        any.chain(alone.into_iter().map(Message::CloseIdle)).collect()
    }
}

/// The first in line who takes a place on this endpoint.
fn first_for<'l>(line: &'l VecDeque<Rc<Waiter>>, endpoint: &Endpoint) -> Option<&'l Rc<Waiter>> {
    let is_eligible = endpoint.is_eligible();
    line.iter().find(|waiter| match waiter.only.get() {
        Some(only) => only == endpoint.slot,
        None => is_eligible && !waiter.tried.contains(endpoint.slot),
    })
}

impl Waiter {
    fn takes_any(&self) -> bool {
        self.only.get().is_none()
    }
}

impl Ticket<'_> {
    /// Those with a lower one stand before it.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.waiter.number
    }

    /// The only endpoint that will do, if there is one.
    #[must_use]
    pub fn only(&self) -> Option<Slot> {
        self.waiter.only.get()
    }

    /// From now on it takes a place on this endpoint, with these limits, alone, or on any. It keeps
    /// its place in line, and looks once more before it waits.
    pub fn change(&mut self, only: Option<Slot>, limits: Option<Arc<Limits>>) {
        self.waiter.only.set(only);
        self.entry.change(limits);
    }

    /// Waits until it is called, or there is no use in waiting any longer.
    pub async fn called(&self) {
        self.waiter.event.wait().await;
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
        let line = &mut lines[self.entry.pool.0];
        if let Ok(place) = line.binary_search_by_key(&self.waiter.number, |it| it.number) {
            line.remove(place);
        }
    }
}

/// The most endpoints that others are asked for at once.
const WANTS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::{Address, Standing, Tier, WEIGHT_UNIT};
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
            let client = Deadlines::enter(&Deadlines::new(), -1, Role::Client);
            Bench { queue: Queue::default(), list, client }
        }

        /// Joins the line of this pool, and may want this slot alone.
        fn join(&self, pool: usize, only: Option<u32>) -> Ticket<'_> {
            self.join_after(Tried::none(), pool, only)
        }

        fn join_after(&self, tried: Tried, pool: usize, only: Option<u32>) -> Ticket<'_> {
            let alone = only.map(|_| limits());
            let entry = Waitlist::enter(&self.list, 0, PoolId(pool), alone).unwrap();
            let (client, until) = (self.client.wait_in_queue(), Instant::now());
            self.queue.join(client, until, tried, only.map(slot), entry)
        }

        /// Says that this endpoint of this pool has a place; whether somebody takes it.
        fn call(&self, pool: usize, number: u32) -> bool {
            self.queue.call(PoolId(pool), &endpoint(number, Standing::Open))
        }

        fn is_waited_for(&self, pool: usize, number: u32, before: u64) -> bool {
            let endpoint = endpoint(number, Standing::Open);
            self.queue.is_waited_for(PoolId(pool), &endpoint, before)
        }
    }

    fn limits() -> Arc<Limits> {
        Arc::new(Limits::new(None, None, None))
    }

    fn slot(number: u32) -> Slot {
        Slot { number, generation: 0 }
    }

    fn endpoint(number: u32, standing: Standing) -> Endpoint {
        Endpoint {
            slot: slot(number),
            id: format!("pool/127.0.0.1:{number}"),
            address: Some(Address::Tcp(([127, 0, 0, 1], 80).into())),
            weight: WEIGHT_UNIT,
            tier: Tier::Primary,
            standing,
            is_sick: false,
            limits: limits(),
        }
    }

    /// Which were called since the last look.
    fn called(tickets: &[Ticket<'_>]) -> Vec<bool> {
        tickets.iter().map(|ticket| ticket.waiter.event.take()).collect()
    }

    #[test]
    fn of_each_pool_the_first_is_called_and_holds_up_no_other() {
        let bench = Bench::new();
        let tickets = [0, 0, 3, 3].map(|pool| bench.join(pool, None));
        assert!(!bench.call(1, 1) && !bench.call(99, 1), "nobody waits there");
        assert!(bench.call(3, 1));
        assert_eq!(called(&tickets), [false, false, true, false]);
        assert!(bench.call(0, 1));
        assert_eq!(called(&tickets), [true, false, false, false]);
        for (pool, is_waited_for) in [(0, true), (1, false), (3, true), (99, false)] {
            assert_eq!(bench.is_waited_for(pool, 1, u64::MAX), is_waited_for, "{pool}");
            assert_eq!(bench.queue.is_empty(PoolId(pool)), !is_waited_for, "{pool}");
        }
        assert!(!bench.is_waited_for(3, 1, 2), "the others came later, or wait elsewhere");
    }

    #[test]
    fn places_are_called_out_to_one_after_the_other() {
        let bench = Bench::new();
        let mut tickets: Vec<_> = (0..3).map(|_| bench.join(0, None)).collect();
        for expected in [vec![true, false, false], vec![true, false], vec![true]] {
            assert!(bench.call(0, 1) && bench.call(0, 2));
            assert_eq!(called(&tickets), expected);
            // It has found a place.
            tickets.remove(0);
        }
        assert!(!bench.call(0, 1) && !bench.is_waited_for(0, 1, u64::MAX));
    }

    #[test]
    fn who_waits_for_one_endpoint_is_called_for_that_and_holds_up_no_other() {
        let bench = Bench::new();
        let tickets = [Some(1), Some(1), Some(2), None].map(|only| bench.join(0, only));
        assert!(bench.is_waited_for(0, 1, 1) && !bench.is_waited_for(0, 1, 0));
        assert!(!bench.is_waited_for(0, 2, 2) && bench.is_waited_for(0, 2, 3));
        assert!(!bench.is_waited_for(0, 3, 3) && bench.is_waited_for(0, 3, 4));
        for (number, first) in [(1, 0), (2, 2), (3, 3)] {
            assert!(bench.call(0, number));
            let expected: Vec<_> = (0..4).map(|place| place == first).collect();
            assert_eq!(called(&tickets), expected, "{number}");
        }
    }

    #[test]
    fn who_was_tried_on_an_endpoint_holds_up_no_one_who_waits_for_it() {
        let bench = Bench::new();
        let tickets = [bench.join_after(Tried::of(slot(1)), 0, None), bench.join(0, None)];
        for (number, expected) in [(1, [false, true]), (2, [true, false])] {
            assert!(bench.call(0, number));
            assert_eq!(called(&tickets), expected, "{number}");
        }
        let [tried, next] = tickets;
        assert!(!bench.is_waited_for(0, 1, next.number()));
        assert!(bench.is_waited_for(0, 2, next.number()));
        drop(next);
        assert!(!bench.call(0, 1) && !bench.is_waited_for(0, 1, u64::MAX));
        drop(tried);
    }

    #[test]
    fn who_takes_any_endpoint_takes_none_that_only_keeps_its_sessions() {
        let bench = Bench::new();
        let tickets = [None, Some(1)].map(|only| bench.join(0, only));
        let draining = endpoint(1, Standing::Draining);
        assert!(!bench.queue.is_waited_for(PoolId(0), &draining, tickets[1].number()));
        assert!(bench.queue.call(PoolId(0), &draining));
        assert_eq!(called(&tickets), [false, true]);
    }

    #[test]
    fn who_waits_for_something_else_from_now_on_keeps_its_place_in_line() {
        let bench = Bench::new();
        let mut tickets = [Some(1), None].map(|only| bench.join(0, only));
        tickets[0].change(None, None);
        assert!(bench.call(0, 2));
        assert_eq!(called(&tickets), [true, false]);
        tickets[0].change(Some(slot(3)), Some(limits()));
        assert!(bench.call(0, 2));
        assert_eq!(called(&tickets), [false, true]);
        assert!(bench.call(0, 3));
        assert_eq!(called(&tickets), [true, false]);
    }

    #[test]
    fn others_are_asked_for_the_pools_and_endpoints_that_are_waited_for() {
        let bench = Bench::new();
        assert_eq!(bench.queue.wants(), []);
        let many = (0..20).map(|number| Some(number / 2));
        let tickets: Vec<_> = many.map(|only| bench.join(5, only)).collect();
        let slots = (0..8).map(|number| Message::CloseIdle(slot(number)));
        assert_eq!(bench.queue.wants(), slots.collect::<Vec<_>>());
        drop(tickets);
        let _any = [2, 7, 7].map(|pool| bench.join(pool, None));
        let asked = [2, 7].map(|pool| Message::CloseIdleOf(PoolId(pool)));
        assert_eq!(bench.queue.wants(), asked);
    }
}
