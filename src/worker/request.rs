//! Turns the bytes of a client into a request whose head is already written for a backend.
//!
//! One synchronous pass from bytes to bytes: what borrows the client's buffer never waits. The
//! head does not depend on the endpoint, so a retry sends the same bytes. Called by `connection`.

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use httparse::Header;

use crate::clock;
use crate::config::{
    BalanceConfig, ForwardConfig, HEADERS_LIMIT, Policy, PoolConfig, TraceParents,
};
use crate::error::{Cause, Fate};
use crate::http1::chunked::Output;
use crate::http1::client;
use crate::http1::forward::{self, Additions};
use crate::http1::framing::{Body, Framing};
use crate::http1::key;
use crate::http1::request::{self, RequestHead};
use crate::http1::response::AnswerTo;
use crate::http1::trace::{self, TraceParent};
use crate::metrics::Counter;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::hash;
use crate::upstream::route::{self, Way};
use crate::upstream::snapshot::{Held, Pool, PoolId, Snapshot};
use crate::worker::buffer::{Buffer, Scratch};
use crate::worker::progress::Facts;
use crate::worker::record::Record;
use crate::worker::state::Worker;

/// A request whose head was read; `scratch.request` holds that head as backends get it, and as much
/// of the body as had arrived.
#[derive(Debug)]
pub struct Request {
    /// When its head was complete.
    pub at: Instant,
    /// What relaying needs to know.
    pub facts: Facts,
    /// The part of the body that is not in `scratch.request`.
    pub body: Body,
    /// The buffers of this exchange.
    pub scratch: Scratch,
    /// Bytes of its head in `scratch.request`.
    pub head_bytes: usize,
    /// Whether it may be sent twice.
    pub is_idempotent: bool,
    /// Whether all of it that was read is in `scratch.request`, within the limit for that.
    pub is_held: bool,
    /// The hash of its key, where the policy wants one.
    pub hash: u64,
    /// The index of the endpoint that its session is on.
    pub session: Option<usize>,
    /// What its attempt is placed by.
    pub snapshot: Rc<Held>,
    /// Where it goes.
    pub pool: PoolId,
    /// What corelane itself answers, if it goes nowhere.
    pub refusal: Option<Refusal>,
}

/// What corelane itself answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What the table in `error` says.
    Cause(Cause),
    /// A redirect of this status; where to stands in `scratch.request` in place of the head.
    Redirect(u16),
}

/// Where a request goes.
struct Destination {
    pool: PoolId,
    refusal: Option<Refusal>,
    hash: u64,
    session: Option<usize>,
}

impl Destination {
    fn nowhere(refusal: Refusal) -> Destination {
        Destination { pool: POOL_OF_NONE, refusal: Some(refusal), hash: 0, session: None }
    }
}

/// What decides where a request goes, beside its head.
struct Asked<'a> {
    snapshot: &'a Snapshot,
    /// Whether its client may send one.
    is_allowed: bool,
    /// The protocol it is upgraded to, by its index.
    upgrade: Option<usize>,
}

impl<'a> Asked<'a> {
    /// Finds where a request goes, and writes its head for a backend there, or the location of a
    /// redirect, to `out`.
    ///
    /// # Errors
    /// What ends its connection.
    fn direct(
        &self,
        record: &Record<'_>,
        head: &mut RequestHead<'_, 'a>,
        out: &mut Vec<u8>,
    ) -> Result<Destination, Cause> {
        let (worker, peer) = (record.worker, record.peer);
        if !self.is_allowed {
            return Ok(Destination::nowhere(Refusal::Cause(Cause::ClientRate)));
        }
        let way = self.snapshot.routes.select(peer.address.listener, head, out);
        out.clear();
        let (pool, rewrite) = match way {
            Ok(Way::Pool(pool, rewrite)) => (pool, rewrite),
            Ok(Way::Redirect(redirect, rewrite)) => {
                route::write_location(redirect, rewrite, head, out)?;
                return Ok(Destination::nowhere(Refusal::Redirect(redirect.status)));
            }
            Err(cause) if cause.verdict().fate == Fate::Keep => {
                return Ok(Destination::nowhere(Refusal::Cause(cause)));
            }
            Err(cause) => return Err(cause),
        };
        let forward = &worker.config.forward;
        let client =
            || client::address_of(head.headers, peer.address.client.ip(), &forward.trusted_proxies);
        let hash = hash_of(&self.snapshot.pool(pool).config.balance, head, client);
        let session = session_of(self.snapshot, pool, head.headers);
        if let Some(rewrite) = rewrite {
            head.target = rewrite.of(head.target);
        }
        let upgrade = self.upgrade.and_then(|index| forward.upgrades.get(index));
        let additions = Additions {
            provenance: &peer.provenance,
            upgrade: upgrade.map(String::as_str),
            request_id: forward.request_id.then(|| fastrand::u128(..)),
            traceparent: traceparent_for(forward, head),
        };
        record.keep_ids(head, &additions);
        forward::request(head, &additions, out);
        Ok(Destination { pool, refusal: None, hash, session })
    }
}

/// Reads the request at the front of `buffer` and writes its head for a backend; `None` while
/// the head is incomplete.
///
/// # Errors
/// The rule that the request breaks.
pub fn read(record: &Record<'_>, buffer: &mut Buffer) -> Result<Option<Request>, Cause> {
    let (worker, peer) = (record.worker, record.peer);
    let config = &worker.config;
    let mut space = [MaybeUninit::uninit(); HEADERS_LIMIT];
    let parsed = request::parse(buffer.unread(), &mut space, &config.head, config.forward.connect)?;
    let Some(mut head) = parsed else { return Ok(None) };
    worker.lane().add(Counter::Requests);
    let at = clock::now();
    record.received_head(&head, at);
    let bytes_max = config.client.body_bytes_max.unwrap_or(u64::MAX);
    if matches!(head.framing, Framing::Length(length) if length > bytes_max) {
        return Err(Cause::RequestBodyTooLarge);
    }
    let upgrade = head.upgrade.and_then(|asked| granted(asked, &config.forward.upgrades));
    let trusted = &config.forward.trusted_proxies;
    let is_allowed = worker
        .allows_request(|| client::address_of(head.headers, peer.address.client.ip(), trusted));
    let snapshot = worker.snapshot();
    let mut scratch = worker.buffers.take_scratch();
    let asked = Asked { snapshot: &snapshot, is_allowed, upgrade };
    let destination = match asked.direct(record, &mut head, &mut scratch.request) {
        Ok(destination) => destination,
        Err(cause) => {
            worker.buffers.give_scratch(scratch);
            return Err(cause);
        }
    };
    let Destination { pool, refusal, hash, session } = destination;
    if refusal.is_none() {
        record.routed(pool, &snapshot);
        worker.lane().add_to_pool(pool.0);
    }
    let head_bytes = scratch.request.len();
    let facts = facts_of(&head, upgrade);
    let is_idempotent = head.is_idempotent() && upgrade.is_none();
    let mut body = Body::new(head.framing, Output::of(head.names_headers), bytes_max);
    let read_bytes = head.bytes;
    buffer.consume(read_bytes);
    record.received(read_bytes);
    let taken = match body.take(buffer.unread_mut()) {
        Ok(taken) => taken,
        Err(fault) => {
            worker.buffers.give_scratch(scratch);
            return Err(fault.in_request());
        }
    };
    scratch.request.extend_from_slice(&buffer.unread()[..taken.kept]);
    buffer.consume(taken.used);
    record.received(taken.used);
    let is_held = taken.kept <= snapshot.pool(pool).config.retry.body_bytes_max;
    Ok(Some(Request {
        at,
        facts,
        body,
        scratch,
        head_bytes,
        is_idempotent,
        is_held,
        hash,
        session,
        snapshot,
        pool,
        refusal,
    }))
}

impl Request {
    /// Whether the rest of its body can be held while it is sent, for another attempt.
    #[must_use]
    pub fn may_hold_body(&self) -> bool {
        let held = (self.scratch.request.len() - self.head_bytes) as u64;
        let bytes_max = self.config().retry.body_bytes_max as u64;
        self.is_idempotent && self.is_held && held + self.body.bytes_left() <= bytes_max
    }

    /// Whether bytes may pass both ways after its answer's head.
    #[must_use]
    pub fn may_open_tunnel(&self) -> bool {
        self.facts.upgrade.is_some() || self.facts.to == AnswerTo::Connect
    }

    /// From now on it is placed by the snapshot in force: what was known when it came may be old.
    pub fn renew(&mut self, worker: &Worker) {
        let latest = worker.snapshot();
        if !Rc::ptr_eq(&latest, &self.snapshot) {
            let session = self.session.and_then(|index| self.endpoints().endpoints.get(index));
            let slot = session.map(|endpoint| endpoint.slot);
            self.snapshot = latest;
            self.session = slot.and_then(|slot| self.endpoints().index_of(slot));
        }
    }

    /// The pool it goes to.
    #[must_use]
    pub fn endpoints(&self) -> &Pool {
        self.snapshot.pool(self.pool)
    }

    /// The settings of the pool it goes to.
    #[must_use]
    pub fn config(&self) -> &PoolConfig {
        &self.endpoints().config
    }

    /// The header line that puts its session on this endpoint of the request's snapshot, or
    /// nothing: a session moves only when the endpoint that it is on cannot serve it.
    #[must_use]
    pub fn cookie_for<'s>(&self, snapshot: &'s Snapshot, index: usize) -> &'s [u8] {
        let pool = snapshot.pool(self.pool);
        let Some(sticky) = &pool.sticky else { return b"" };
        let is_on = self.session.and_then(|session| pool.endpoints.get(session));
        if is_on.is_some_and(Endpoint::keeps_sessions) { b"" } else { sticky.line_of(index) }
    }
}

/// What relaying its answer depends on.
fn facts_of(head: &RequestHead<'_, '_>, upgrade: Option<usize>) -> Facts {
    Facts {
        version: head.version,
        keep_alive: head.keep_alive,
        to: match head.method {
            "HEAD" => AnswerTo::Head,
            "CONNECT" => AnswerTo::Connect,
            _ => AnswerTo::Other,
        },
        upgrade,
        expects_continue: head.expects_continue,
    }
}

/// What stands for a `traceparent` that is not there or not valid, where one is to be made.
fn traceparent_for(config: &ForwardConfig, head: &RequestHead<'_, '_>) -> Option<TraceParent> {
    let TraceParents::Make { is_sampled } = config.traceparent else { return None };
    let make = || trace::made(fastrand::u128(1..), fastrand::u64(1..), is_sampled);
    trace::of(head.headers, head.names_headers).is_none().then(make)
}

/// The hash of a request's key; a request without one gets any.
fn hash_of(
    balance: &BalanceConfig,
    head: &RequestHead<'_, '_>,
    client: impl FnOnce() -> IpAddr,
) -> u64 {
    if balance.policy != Policy::Maglev {
        return 0;
    }
    let hash = hash::of_request(&balance.hash_key, head, client, balance.hash_seed);
    hash.unwrap_or_else(|| fastrand::u64(..))
}

/// What stands for the pool of a request that goes to none: there is always one.
const POOL_OF_NONE: PoolId = PoolId(0);

/// The endpoint that a request's cookie names.
fn session_of(snapshot: &Snapshot, pool: PoolId, headers: &[Header<'_>]) -> Option<usize> {
    let sticky = snapshot.pool(pool).sticky.as_ref()?;
    sticky.endpoint_of(key::cookie(headers, sticky.name())?)
}

/// The first protocol of an `Upgrade` header that is let through, as an index in `upgrades`
/// (RFC 9110 §7.8).
fn granted(asked: &[u8], upgrades: &[String]) -> Option<usize> {
    asked.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).find_map(|protocol| {
        upgrades.iter().position(|known| known.as_bytes().eq_ignore_ascii_case(protocol))
    })
}
