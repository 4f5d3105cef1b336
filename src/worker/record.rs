//! What is known of the request that a connection is at, gathered on its way and told once.
//!
//! `connection` begins it with the request's first byte; each step of the way adds what it learns.
//! It ends when the answer does, also for what was refused, cut, or ended by a panic: whoever drops
//! it tells it. Never reads a clock that is not held, and allocates nothing once it is warm.

mod log;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::access_log::Captured;
use crate::clock;
use crate::config::RetryConfig;
use crate::error::Cause;
use crate::http1::Version;
use crate::http1::request::RequestHead;
use crate::metrics::{By, Finished, Latency, Method};
use crate::sys;
use crate::upstream::endpoint::{Endpoint, Slot};
use crate::upstream::snapshot::{Held, PoolId};
use crate::worker::deadline::Deadline;
use crate::worker::peer::Peer;
use crate::worker::progress::Seen;
use crate::worker::request::Request;
use crate::worker::state::Worker;

/// The record of a connection's requests, one after the other.
pub struct Record<'c> {
    /// The worker that serves it.
    pub worker: &'c Worker,
    /// Who the client is.
    pub peer: &'c Peer,
    facts: Rc<Facts>,
}

/// What is known of one request. Times of what has not happened are `None`.
#[derive(Debug, Default)]
pub struct Facts {
    /// When its first byte had come; `None` between two requests.
    pub begun_at: Cell<Option<Instant>>,
    /// When its head was complete.
    pub head_at: Cell<Option<Instant>>,
    /// When its last attempt began.
    pub placed_at: Cell<Option<Instant>>,
    /// When the head of the backend's final answer had come.
    pub answered_at: Cell<Option<Instant>>,
    /// The class of its method.
    pub method: Cell<Method>,
    /// The client's address by what trusted proxies say, once the head was read; only where there
    /// is an access log.
    pub client: Cell<Option<IpAddr>>,
    /// Its version, once the head was read.
    pub version: Cell<Option<Version>>,
    /// The status of the final answer; 0 where the client got none.
    pub status: Cell<u16>,
    /// Whether that answer is corelane's own.
    pub is_own_answer: Cell<bool>,
    /// What ended it before its regular end, or was answered for.
    pub cause: Cell<Option<Cause>>,
    /// Where it was routed to.
    pub pool: Cell<Option<PoolId>>,
    /// The endpoint of the last attempt, and its index in the pool of that attempt's snapshot.
    pub endpoint: Cell<Option<(Slot, usize)>>,
    /// The epoch of the snapshot that it was last placed by.
    pub epoch: Cell<u64>,
    /// The attempts after the first.
    pub retries: Cell<u16>,
    /// How long it waited for places on endpoints, in all.
    pub queued: Cell<Option<Duration>>,
    /// How long the last attempt's connect took; `None` where the connection lay in the pool.
    pub connecting: Cell<Option<Duration>>,
    /// Whether the last attempt's connection lay in the pool.
    pub is_reused: Cell<bool>,
    /// Bytes from the client, as they came: the head and what was read of the body or tunnel.
    pub received: Cell<u64>,
    /// Bytes to the client that the kernel took: heads, interim ones too, body or tunnel.
    pub sent: Cell<u64>,
    /// Of them, bytes of heads.
    pub sent_in_heads: Cell<u64>,
    /// Bytes to backends that the kernel took, over all attempts.
    pub sent_to_backend: Cell<u64>,
    /// Bytes that came from backends, over all attempts.
    pub from_backend: Cell<u64>,
    /// Bytes to and from backends before the last attempt.
    pub bytes_before: Cell<[u64; 2]>,
    /// The requests of this connection until now, since it was last parked.
    pub number: Cell<u32>,
    /// The snapshot that it was last placed by, while there is an access log.
    snapshot: RefCell<Option<Rc<Held>>>,
    /// What a line of the access log needs of its head.
    captured: RefCell<Captured>,
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl<'c> Record<'c> {
    /// For the requests of this client; nothing is known yet.
    #[must_use]
    pub fn new(worker: &'c Worker, peer: &'c Peer) -> Record<'c> {
        let facts = worker.facts.take().unwrap_or_default();
        facts.number.set(0);
        Record { worker, peer, facts }
    }

    /// What is known.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Has the processor fetch what is known of the request, which goes on, and of these connections.
    pub fn prefetch(&self, conns: &[&Deadline]) {
        sys::prefetch(self.facts());
        conns.iter().for_each(|conn| conn.prefetch());
    }

    /// A byte of a request has come, if it is the first one.
    pub fn begin(&self) {
        if self.facts.begun_at.get().is_none() {
            self.facts.begun_at.set(Some(clock::now()));
            self.facts.number.set(self.facts.number.get().saturating_add(1));
        }
    }

    /// The head was read.
    pub fn received_head(&self, head: &RequestHead<'_, '_>, at: Instant) {
        self.capture(head);
        self.facts.head_at.set(Some(at));
        self.facts.method.set(Method::of(head.method));
        self.facts.version.set(Some(head.version));
    }

    /// So many bytes of the client's were used for it.
    pub fn received(&self, count: usize) {
        add(&self.facts.received, count);
    }

    /// It goes to a pool of this snapshot.
    pub fn routed(&self, pool: PoolId, snapshot: &Rc<Held>) {
        self.facts.pool.set(Some(pool));
        self.facts.epoch.set(snapshot.epoch);
        if self.worker.access_log.is_some() {
            self.facts.snapshot.replace(Some(snapshot.clone()));
        }
    }

    /// It waited for a place since `began`.
    pub fn waited_since(&self, began: Instant) {
        let before = self.facts.queued.get().unwrap_or_default();
        let waited = clock::now().saturating_duration_since(began);
        self.facts.queued.set(Some(before + waited));
    }

    /// An attempt on an endpoint begins.
    pub fn placed(&self, request: &Request, endpoint: (Slot, usize), is_reused: bool, at: Instant) {
        self.routed(request.pool, &request.snapshot);
        self.facts.placed_at.set(Some(at));
        self.facts.endpoint.set(Some(endpoint));
        self.facts.is_reused.set(is_reused);
        self.facts.connecting.set(None);
        self.facts.answered_at.set(None);
    }

    /// The attempt on this slot, which began at `began`, has made a connection, or has failed to.
    pub fn connected(&self, began: Instant, slot: Slot, is_made: bool) {
        let time = clock::now().saturating_duration_since(began);
        self.facts.connecting.set(Some(time));
        if is_made {
            self.worker.lane().add_connect(slot.number, time);
        }
    }

    /// The client gets this answer of the backend's.
    pub fn answered(&self, seen: Seen) {
        self.facts.answered_at.set(Some(seen.at));
        self.facts.status.set(seen.status);
        self.facts.is_own_answer.set(false);
    }

    /// So many bytes of the answer are a head's.
    pub fn head_goes_out(&self, count: usize) {
        add(&self.facts.sent_in_heads, count);
    }

    /// The client gets corelane's own answer for this cause, if there is one.
    pub fn answered_for(&self, cause: Cause) {
        let status = cause.verdict().status;
        self.facts.status.set(status.unwrap_or(0));
        self.facts.is_own_answer.set(status.is_some());
        self.facts.cause.set(Some(cause));
    }

    /// The client gets a redirect of this status.
    pub fn redirected(&self, status: u16) {
        self.facts.status.set(status);
        self.facts.is_own_answer.set(true);
    }

    /// Counts and logs what ended the request.
    pub fn note(&self, cause: Cause) -> Cause {
        let cause = self.true_cause(cause);
        self.facts.cause.set(Some(cause));
        self.worker.note(cause, &self.peer.address.client);
        cause
    }

    /// The same for a request that went to this endpoint.
    pub fn note_backend(&self, cause: Cause, endpoint: Option<&Endpoint>) -> Cause {
        let cause = self.true_cause(cause);
        self.facts.cause.set(Some(cause));
        self.worker.note_backend(cause, &self.peer.address.client, endpoint);
        cause
    }

    /// What ended the request where its sockets say `cause`: a worker that stops has cut them, and
    /// neither the client nor the backend is at fault.
    #[must_use]
    pub fn true_cause(&self, cause: Cause) -> Cause {
        if self.worker.is_stopping() { Cause::Stopped } else { cause }
    }

    /// Counts and logs what ended an attempt, after which another follows.
    pub fn note_retry(&self, cause: Cause, endpoint: Option<&Endpoint>) {
        self.facts.retries.set(self.facts.retries.get().saturating_add(1));
        self.worker.note_retry(cause, &self.peer.address.client, endpoint);
        if let Some(pool) = self.facts.pool.get() {
            self.worker.lane().add_retry_in_pool(pool.0);
        }
    }

    /// Whether the budget of its pool leaves room for one more retry.
    #[must_use]
    pub fn affords_retry(&self, config: &RetryConfig) -> bool {
        self.facts.pool.get().is_some_and(|pool| self.worker.affords_retry(pool, config))
    }

    /// Where bytes to the client are counted.
    #[must_use]
    pub fn sent(&self) -> &Cell<u64> {
        &self.facts.sent
    }

    /// Where bytes to backends are counted.
    #[must_use]
    pub fn sent_to_backend(&self) -> &Cell<u64> {
        &self.facts.sent_to_backend
    }

    /// The request is over, if one had begun: tells it, and is ready for the next.
    pub fn finish(&self) {
        if let Some(begun) = self.facts.begun_at.get() {
            self.count();
            self.log(begun);
            self.facts.forget();
        }
    }
}

impl Record<'_> {
    /// Counts the request, which is over, on the worker's lane.
    fn count(&self) {
        let (facts, lane) = (&*self.facts, self.worker.lane());
        if let Some(queued) = facts.queued.get() {
            lane.record(Latency::Queue, queued);
        }
        let status = facts.status.get();
        let endpoint = facts.endpoint.get().filter(|_| status != 0 && !facts.is_own_answer.get());
        let by = match (endpoint, facts.pool.get()) {
            (Some((slot, _)), _) => By::Endpoint(slot.number),
            (None, Some(pool)) => By::Pool(pool.0),
            (None, None) => By::None,
        };
        lane.finish(&Finished {
            method: facts.method.get(),
            status,
            by,
            received: facts.received.get(),
            sent: facts.sent.get(),
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.facts.cause.set(Some(Cause::Internal));
        }
        self.finish();
        self.worker.facts.give(self.facts.clone());
    }
}

impl Facts {
    /// The bytes to and from backends until now.
    #[must_use]
    pub fn backend_bytes(&self) -> [u64; 2] {
        [self.sent_to_backend.get(), self.from_backend.get()]
    }

    /// As before a request; the connection's own number stays.
    fn forget(&self) {
        let Facts { begun_at, head_at, placed_at, answered_at, .. } = self;
        let Facts { method, version, status, is_own_answer, snapshot, captured, .. } = self;
        let Facts { cause, pool, endpoint, epoch, retries, queued, connecting, .. } = self;
        let Facts { is_reused, received, sent, sent_in_heads, sent_to_backend, .. } = self;
        let Facts { from_backend, client, .. } = self;
        for at in [begun_at, head_at, placed_at, answered_at] {
            at.set(None);
        }
        for time in [queued, connecting] {
            time.set(None);
        }
        for bytes in [received, sent, sent_in_heads, sent_to_backend, from_backend] {
            bytes.set(0);
        }
        is_own_answer.set(false);
        is_reused.set(false);
        method.set(Method::Other);
        client.set(None);
        version.set(None);
        status.set(0);
        cause.set(None);
        pool.set(None);
        endpoint.set(None);
        epoch.set(0);
        retries.set(0);
        snapshot.take();
        captured.borrow_mut().clear();
    }
}

/// Adds to a count of bytes.
pub fn add(counted: &Cell<u64>, count: usize) {
    counted.set(counted.get() + count as u64);
}
