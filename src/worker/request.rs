//! Turns the bytes of a client into a request whose head is already written for a backend.
//!
//! One synchronous pass from bytes to bytes: what borrows the client's buffer never waits. The
//! head does not depend on the endpoint, so a retry sends the same bytes. Called by `connection`.

use std::mem::MaybeUninit;
use std::rc::Rc;

use crate::config::HEADERS_LIMIT;
use crate::error::Cause;
use crate::http1::chunked::{Fault, Output};
use crate::http1::framing::Body;
use crate::http1::{forward, request};
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
}

/// Reads the request at the front of `buffer` and writes its head for a backend; `None` while
/// the head is incomplete.
///
/// # Errors
/// The rule that the request breaks.
pub fn read(worker: &Worker, peer: &Peer, buffer: &mut Buffer) -> Result<Option<Request>, Cause> {
    let mut space = [MaybeUninit::uninit(); HEADERS_LIMIT];
    let Some(head) = request::parse(buffer.unread(), &mut space, &worker.config.head)? else {
        return Ok(None);
    };
    worker.lane().add(Counter::Requests);
    let snapshot = worker.snapshot();
    let pool = route::select(&snapshot, peer.listener);
    let mut scratch = worker.buffers.take_scratch();
    forward::request(&head, &peer.provenance, &mut scratch.out);
    let facts = Facts {
        version: head.version,
        keep_alive: head.keep_alive,
        is_head: head.method == "HEAD",
        expects_continue: head.expects_continue,
    };
    let is_idempotent = head.is_idempotent();
    let (mut body, head_bytes) = (Body::new(head.framing, Output::Chunks), head.bytes);
    buffer.consume(head_bytes);
    let taken = body.take(buffer.unread_mut()).map_err(Fault::in_request)?;
    scratch.out.extend_from_slice(&buffer.unread()[..taken.kept]);
    buffer.consume(taken.used);
    Ok(Some(Request { facts, body, scratch, is_idempotent, snapshot, pool }))
}
