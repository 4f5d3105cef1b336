//! Turns the bytes of a client into a request whose head is already written for a backend.
//!
//! One synchronous pass from bytes to bytes: what borrows the client's buffer never waits. The
//! head does not depend on the endpoint, so a retry sends the same bytes. Called by `connection`.

use std::mem::MaybeUninit;
use std::rc::Rc;

use crate::config::HEADERS_LIMIT;
use crate::error::Cause;
use crate::http1::chunked::Output;
use crate::http1::client;
use crate::http1::forward::{self, Additions};
use crate::http1::framing::{Body, Framing};
use crate::http1::request;
use crate::http1::response::AnswerTo;
use crate::metrics::Counter;
use crate::upstream::route;
use crate::upstream::snapshot::{Held, PoolId};
use crate::worker::buffer::{Buffer, Scratch};
use crate::worker::peer::Peer;
use crate::worker::progress::Facts;
use crate::worker::state::Worker;

/// A request whose head was read; `scratch.out` holds that head as backends get it, and as much
/// of the body as had arrived.
#[derive(Debug)]
pub struct Request {
    /// What relaying needs to know.
    pub facts: Facts,
    /// The part of the body that is not in `scratch.out`.
    pub body: Body,
    /// The buffers of this exchange.
    pub scratch: Scratch,
    /// Whether it may be sent twice.
    pub is_idempotent: bool,
    /// What it is placed by, through all its attempts.
    pub snapshot: Rc<Held>,
    /// Where it goes.
    pub pool: PoolId,
    /// Why it goes nowhere, if it does not.
    pub refusal: Option<Cause>,
}

/// Reads the request at the front of `buffer` and writes its head for a backend; `None` while
/// the head is incomplete.
///
/// # Errors
/// The rule that the request breaks.
pub fn read(worker: &Worker, peer: &Peer, buffer: &mut Buffer) -> Result<Option<Request>, Cause> {
    let config = &worker.config;
    let mut space = [MaybeUninit::uninit(); HEADERS_LIMIT];
    let parsed = request::parse(buffer.unread(), &mut space, &config.head, config.forward.connect)?;
    let Some(head) = parsed else { return Ok(None) };
    worker.lane().add(Counter::Requests);
    let bytes_max = config.client.body_bytes_max.unwrap_or(u64::MAX);
    if matches!(head.framing, Framing::Length(length) if length > bytes_max) {
        return Err(Cause::RequestBodyTooLarge);
    }
    let upgrade = head.upgrade.and_then(|asked| granted(asked, &config.forward.upgrades));
    let trusted = &config.forward.trusted_proxies;
    let is_allowed =
        worker.allows_request(|| client::address_of(head.headers, peer.addr.ip(), trusted));
    let refusal = (!is_allowed).then_some(Cause::ClientRate);
    let snapshot = worker.snapshot();
    let pool = route::select(&snapshot, peer.listener);
    let mut scratch = worker.buffers.take_scratch();
    let additions = Additions {
        provenance: &peer.provenance,
        upgrade: upgrade.and_then(|index| config.forward.upgrades.get(index)).map(String::as_str),
        request_id: config.forward.request_id.then(|| fastrand::u128(..)),
    };
    forward::request(&head, &additions, &mut scratch.out);
    let facts = Facts {
        version: head.version,
        keep_alive: head.keep_alive,
        to: match head.method {
            "HEAD" => AnswerTo::Head,
            "CONNECT" => AnswerTo::Connect,
            _ => AnswerTo::Other,
        },
        upgrade,
        expects_continue: head.expects_continue,
    };
    let is_idempotent = head.is_idempotent() && upgrade.is_none();
    let mut body = Body::new(head.framing, Output::Chunks, bytes_max);
    let head_bytes = head.bytes;
    buffer.consume(head_bytes);
    let taken = match body.take(buffer.unread_mut()) {
        Ok(taken) => taken,
        Err(fault) => {
            worker.buffers.give_scratch(scratch);
            return Err(fault.in_request());
        }
    };
    scratch.out.extend_from_slice(&buffer.unread()[..taken.kept]);
    buffer.consume(taken.used);
    Ok(Some(Request { facts, body, scratch, is_idempotent, snapshot, pool, refusal }))
}

/// The first protocol of an `Upgrade` header that is let through, as an index in `upgrades`
/// (RFC 9110 §7.8).
fn granted(asked: &[u8], upgrades: &[String]) -> Option<usize> {
    asked.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).find_map(|protocol| {
        upgrades.iter().position(|known| known.as_bytes().eq_ignore_ascii_case(protocol))
    })
}
