//! Where an attempt goes: the session's endpoint or the one that the policy picks, with what its
//! limits demand, and an unused connection to it, if there is one.
//!
//! A request that finds every place taken waits in the worker's queue. Called by `exchange` for
//! each attempt; decides on one snapshot, without a lock.

use std::sync::Arc;
use std::time::Instant;

use crate::clock;
use crate::error::Cause;
use crate::metrics::Counter;
use crate::sys::Pending;
use crate::upstream::endpoint::{Address, Endpoint, Slot, Standing};
use crate::upstream::limit::{Limit, Limits};
use crate::upstream::pool::Part;
use crate::upstream::snapshot::Pool;
use crate::worker::mailbox::Message;
use crate::worker::queue::Ticket;
use crate::worker::record::Record;
use crate::worker::request::Request;
use crate::worker::state::Worker;
use crate::worker::stream::Stream;
use crate::worker::tried::Tried;
use crate::worker::waitlist::{Place, Waitlist};

/// An endpoint for one attempt, and all that the attempt may use of it.
#[derive(Debug)]
pub struct Placement {
    /// The endpoint's index in its pool.
    pub index: usize,
    /// Its place in counters and pools.
    pub slot: Slot,
    /// Where it is reached.
    pub address: Address,
    /// How the connection to it is had.
    pub way: Way,
    /// One of the requests that it may have in flight, where that is limited.
    pub in_flight: Option<Share>,
    /// When it was found.
    pub at: Instant,
}

/// How the connection to an endpoint is had.
#[derive(Debug)]
pub enum Way {
    /// It is made; with a place for it and one of those that may be in the making, where these are
    /// limited.
    Connect(Option<Box<Place>>, Option<Share>),
    /// It lay in the pool.
    Reuse(Stream),
}

/// A part of one of an endpoint's limits, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    limits: Arc<Limits>,
    which: fn(&Limits) -> Option<&Limit>,
}

/// Why no endpoint can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortage {
    /// None is eligible that was not tried.
    Nothing,
    /// Those that are have as many requests as they may.
    Busy,
    /// All places on them are taken, on this one for instance.
    Full(Slot),
    /// All places on this one are taken, and no other will do.
    FullAlone(Slot),
}

/// What a request looks for.
struct Search<'a> {
    record: &'a Record<'a>,
    request: &'a mut Request,
    tried: &'a Tried,
    /// The only endpoint that will do.
    only: Option<Slot>,
}

/// Finds an endpoint for an attempt, and waits for a place on one if need be.
///
/// # Errors
/// `NoEndpoint`, `EndpointsBusy`, `QueueFull`, `QueueTimeout`, or `ClientLeft` for one that left
/// while it waited.
pub async fn find(
    record: &Record<'_>,
    client: &Stream,
    request: &mut Request,
    tried: &Tried,
) -> Result<Placement, Cause> {
    Search { record, request, tried, only: None }.run(client).await
}

/// The same endpoint once more, on a new connection; waits for a place on it if need be.
///
/// # Errors
/// As `find`.
pub async fn find_again(
    record: &Record<'_>,
    client: &Stream,
    request: &mut Request,
    slot: Slot,
) -> Result<Placement, Cause> {
    let tried = &Tried::of(slot);
    Search { record, request, tried, only: Some(slot) }.run(client).await
}

impl Search<'_> {
    async fn run(mut self, client: &Stream) -> Result<Placement, Cause> {
        match self.look(LAST) {
            Ok(placement) => Ok(placement),
            Err(full @ (Shortage::Full(_) | Shortage::FullAlone(_))) => {
                self.wait(client, full.only()).await
            }
            Err(shortage) => Err(shortage.cause()),
        }
    }

    /// Waits in the queue until there is a place; on this one, if no other will do.
    async fn wait(&mut self, client: &Stream, only: Option<Slot>) -> Result<Placement, Cause> {
        let (worker, pool) = (self.record.worker, self.request.pool);
        let Some(entry) =
            Waitlist::enter(&worker.waitlist, worker.id(), pool, self.limits_of(only))
        else {
            return Err(Cause::QueueFull);
        };
        worker.lane().add(Counter::Queued);
        let _waiting = worker.lane().raise(Counter::Waiting);
        let began = clock::now();
        let until = began + self.request.config().queue_timeout;
        let client_waits = client.deadline.wait_in_queue();
        let mut ticket = worker.queue.join(client_waits, until, *self.tried, only, entry);
        self.ask_for(only);
        let found = loop {
            // Endpoints may have come and gone since.
            self.request.renew(worker);
            match self.look(ticket.number()) {
                Ok(placement) => break Ok(placement),
                Err(full @ (Shortage::Full(_) | Shortage::FullAlone(_))) => {
                    if full.only() != ticket.only() {
                        self.change(&mut ticket, full.only());
                        continue;
                    }
                }
                Err(shortage) => break Err(shortage.cause()),
            }
            ticket.called().await;
            if client.deadline.is_gone() || worker.is_stopping() {
                break Err(Cause::ClientLeft);
            }
            if ticket.is_late(clock::now()) {
                break Err(Cause::QueueTimeout);
            }
        };
        client.deadline.wait_over();
        drop(ticket);
        self.record.waited_since(began);
        // There may be another place, or the one that it was called for is still free.
        worker.call_waiting_for(pool);
        found
    }

    /// Its session is now on this endpoint alone, or on none that counts: it waits for that, where
    /// it stands, and what it was called for is for those behind it.
    fn change(&self, ticket: &mut Ticket<'_>, only: Option<Slot>) {
        ticket.change(only, self.limits_of(only));
        self.ask_for(only);
        self.record.worker.call_waiting_for(self.request.pool);
    }

    /// Asks the other workers for an unused connection to this endpoint, or to any of the pool's.
    fn ask_for(&self, only: Option<Slot>) {
        let any = Message::CloseIdleOf(self.request.pool);
        let worker = self.record.worker;
        worker.waitlist.ask(only.map_or(any, Message::CloseIdle), worker.id());
    }

    /// The limits of the only endpoint that will do, if there is one.
    fn limits_of(&self, only: Option<Slot>) -> Option<Arc<Limits>> {
        let pool = self.request.endpoints();
        let index = only.and_then(|slot| pool.index_of(slot))?;
        pool.endpoints.get(index).map(|it| it.limits.clone())
    }

    /// One look at the endpoints; those who wait with a lower number go first.
    fn look(&self, number: u64) -> Result<Placement, Shortage> {
        let Search { record, request, tried, only } = self;
        let worker = record.worker;
        let pool = request.endpoints();
        let now = clock::now();
        let attempt = Attempt { worker, request, pool, tried, number, now };
        if let Some(slot) = *only {
            let index = pool.index_of(slot).ok_or(Shortage::Nothing)?;
            return attempt.enter(index, &pool.endpoints[index]).map_err(Shortage::alone);
        }
        attempt.on_session_endpoint().unwrap_or_else(|| attempt.by_policy())
    }
}

struct Attempt<'a> {
    worker: &'a Worker,
    request: &'a Request,
    pool: &'a Pool,
    tried: &'a Tried,
    /// Who comes later does not overtake those who wait for a place with a lower number.
    number: u64,
    now: Instant,
}

impl Attempt<'_> {
    /// The endpoint that the request's session is on; `None` where that cannot decide.
    fn on_session_endpoint(&self) -> Option<Result<Placement, Shortage>> {
        let index = self.request.session?;
        let endpoint = self.pool.endpoints.get(index)?;
        if !endpoint.keeps_sessions() || self.tried.contains(endpoint.slot) {
            return None;
        }
        match self.enter(index, endpoint) {
            Err(Shortage::Busy) => None,
            entered => Some(entered.map_err(Shortage::alone)),
        }
    }

    fn by_policy(&self) -> Result<Placement, Shortage> {
        for _ in 0..PICKS_MAX {
            let is_free = |index: usize| self.is_free(index);
            let picked = self.worker.pick(self.pool, self.request, self.now, is_free);
            let Some(index) = picked else { break };
            let Some(endpoint) = self.pool.endpoints.get(index) else { break };
            // Another worker may have been quicker.
            if let Ok(placement) = self.enter(index, endpoint) {
                return Ok(placement);
            }
        }
        Err(self.shortage())
    }

    /// Whether the endpoint was not tried and could be entered just now.
    fn is_free(&self, index: usize) -> bool {
        let endpoint = self.pool.endpoints.get(index);
        endpoint.is_some_and(|it| !self.tried.contains(it.slot) && self.shortage_on(it).is_none())
    }

    fn shortage_on(&self, endpoint: &Endpoint) -> Option<Shortage> {
        let limits = &endpoint.limits;
        let is_used_up =
            |limit: &Option<Arc<Limit>>| limit.as_ref().is_some_and(|it| !it.has_room());
        let is_tried_out = endpoint.standing == Standing::Trial && !limits.has_trial();
        if is_tried_out || is_used_up(&limits.requests) {
            return Some(Shortage::Busy);
        }
        if limits.conns.is_none() && limits.pending.is_none() {
            return None;
        }
        let has_unused = || self.worker.idle.borrow().has(endpoint.slot);
        let (queue, pool) = (&self.worker.queue, self.request.pool);
        let is_queued_for = || queue.is_waited_for(pool, endpoint, self.number);
        if limits.conns.is_some() && is_queued_for() {
            return Some(Shortage::Full(endpoint.slot));
        }
        if is_used_up(&limits.conns) && !has_unused() {
            return Some(Shortage::Full(endpoint.slot));
        }
        (is_used_up(&limits.pending) && !has_unused()).then_some(Shortage::Busy)
    }

    /// Takes all that an attempt on this endpoint needs.
    fn enter(&self, index: usize, endpoint: &Endpoint) -> Result<Placement, Shortage> {
        let Some(address) = endpoint.address else { return Err(Shortage::Nothing) };
        if let Some(shortage) = self.shortage_on(endpoint) {
            return Err(shortage);
        }
        let in_flight = Share::take(&endpoint.limits, |limits| limits.requests.as_deref())?;
        let way = self.way_to(endpoint)?;
        if endpoint.standing == Standing::Trial && !endpoint.limits.take_trial() {
            return Err(Shortage::Busy);
        }
        let (slot, at) = (endpoint.slot, self.now);
        Ok(Placement { index, slot, address, way, in_flight, at })
    }

    fn way_to(&self, endpoint: &Endpoint) -> Result<Way, Shortage> {
        // What made one pooled connection fail may have met the others too.
        let is_retry = !self.tried.is_empty();
        if !is_retry && let Some(stream) = self.checkout(endpoint.slot) {
            return Ok(Way::Reuse(stream));
        }
        let limits = &endpoint.limits;
        let pending = Share::take(limits, |limits| limits.pending.as_deref())?;
        if limits.conns.is_none() {
            return Ok(Way::Connect(None, pending));
        }
        let take = || Waitlist::take_place(&self.worker.waitlist, self.request.pool, limits);
        let make_room = || self.worker.idle.borrow_mut().evict_from(endpoint.slot);
        let place = take().or_else(|| make_room().then(take).flatten());
        let place = place.ok_or(Shortage::Full(endpoint.slot))?;
        Ok(Way::Connect(Some(place), pending))
    }

    /// A pooled connection to the endpoint that is alive and silent. A request that cannot be sent
    /// twice takes none that its backend may be about to close.
    fn checkout(&self, slot: Slot) -> Option<Stream> {
        let (worker, now) = (self.worker, self.now);
        let part = if self.request.is_idempotent { Part::Whole } else { Part::Half };
        loop {
            let (kept, age) = worker.idle.borrow_mut().checkout(slot, part, now)?;
            let stream = kept.stream;
            // One that has sent something without being asked would answer the wrong request.
            let pending = stream.pending();
            if pending == Pending::Nothing {
                worker.lane().add_reuse(slot.number);
                return Some(stream);
            }
            worker.lane().add(Counter::PoolStale);
            if pending == Pending::End {
                worker.idle.borrow_mut().found_closed(slot, age, now);
            }
            stream.close();
        }
    }

    /// Why none could be picked: it is best to wait, where that can help.
    fn shortage(&self) -> Shortage {
        let mut found = Shortage::Nothing;
        for endpoint in &self.pool.endpoints {
            if self.tried.contains(endpoint.slot) || !endpoint.is_eligible() {
                continue;
            }
            match self.shortage_on(endpoint) {
                Some(full @ Shortage::Full(_)) => return full,
                // A place became free since it was picked: who waits looks once more.
                None if endpoint.limits.conns.is_some() => return Shortage::Full(endpoint.slot),
                _ => found = Shortage::Busy,
            }
        }
        found
    }
}

impl Shortage {
    /// The same where no other endpoint will do.
    fn alone(self) -> Shortage {
        match self {
            Shortage::Full(slot) => Shortage::FullAlone(slot),
            shortage => shortage,
        }
    }

    /// The only endpoint that will do, if there is one.
    fn only(self) -> Option<Slot> {
        if let Shortage::FullAlone(slot) = self { Some(slot) } else { None }
    }

    fn cause(self) -> Cause {
        match self {
            Shortage::Nothing => Cause::NoEndpoint,
            Shortage::Busy | Shortage::Full(_) | Shortage::FullAlone(_) => Cause::EndpointsBusy,
        }
    }
}

impl Share {
    /// Takes a part of this limit, where there is one.
    fn take(
        limits: &Arc<Limits>,
        which: fn(&Limits) -> Option<&Limit>,
    ) -> Result<Option<Share>, Shortage> {
        let Some(limit) = which(limits) else { return Ok(None) };
        let share = || Share { limits: limits.clone(), which };
        limit.take().then(share).map(Some).ok_or(Shortage::Busy)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(limit) = (self.which)(&self.limits) {
            limit.give();
        }
    }
}

/// The number of a request that comes behind all who wait.
const LAST: u64 = u64::MAX;
/// How often an endpoint is picked that another worker was quicker on, before a request waits.
const PICKS_MAX: usize = 8;
