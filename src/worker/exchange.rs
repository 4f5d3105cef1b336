//! One request and its response: pick an endpoint, get a connection, relay, and try another
//! endpoint where the table in `error` allows it.
//!
//! `read_request` turns bytes into a request whose head for the backend is already written;
//! `run` takes it through its attempts. Called by `connection` for each request.

use std::mem::MaybeUninit;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{ClientLimits, HEADERS_LIMIT};
use crate::error::{Cause, Fate, Retry};
use crate::http1::chunked::{Fault, Output};
use crate::http1::forward::{self, ClientSide};
use crate::http1::framing::Body;
use crate::http1::{Version, reply, request};
use crate::metrics::Counter;
use crate::sys::Pending;
use crate::upstream::connect;
use crate::upstream::endpoint::{Address, Slot};
use crate::upstream::route;
use crate::upstream::snapshot::{PoolId, Snapshot};
use crate::worker::buffer::{self, Buffer, Scratch};
use crate::worker::connection::{End, Peer};
use crate::worker::deadline::{Deadline, Wait};
use crate::worker::relay;
use crate::worker::stream::{Sender, Stream};
use crate::worker::{InFlight, Worker};

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
    is_idempotent: bool,
    snapshot: Rc<Arc<Snapshot>>,
    pool: PoolId,
}

/// What a response's way to the client depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The version the client speaks.
    pub version: Version,
    /// Whether the client wants its connection to outlive the response.
    pub keep_alive: bool,
    /// Whether the response has no body whatever its head says.
    pub is_head: bool,
    /// Whether the client may wait for a 100 before it sends its body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
}

impl Facts {
    /// What the client is told about its connection.
    #[must_use]
    pub fn client_side(&self, keep_alive: bool) -> ClientSide {
        ClientSide { version: self.version, keep_alive: keep_alive && self.keep_alive }
    }
}

/// What becomes of the client's connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It serves the next request.
    Keep,
    /// It ends so.
    End(End),
}

/// How far an attempt had come when it failed, which decides whether another may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No byte was sent.
    Untouched,
    /// The request may have taken effect; all of it that was sent is still held.
    Sent,
    /// The backend has begun to answer.
    ResponseStarted,
}

/// An attempt that failed before the client saw anything of it.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// How far it had come.
    pub progress: Progress,
}

/// Reads the request at the front of `buffer` and writes its head for a backend; `None` while
/// the head is incomplete.
///
/// # Errors
/// The rule that the request breaks.
pub fn read_request(
    worker: &Worker,
    peer: &Peer,
    buffer: &mut Buffer,
) -> Result<Option<Request>, Cause> {
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
    let taken = body.take(buffer.unread_mut()).map_err(request_fault)?;
    scratch.out.extend_from_slice(&buffer.unread()[..taken.kept]);
    buffer.consume(taken.used);
    Ok(Some(Request { facts, body, scratch, is_idempotent, snapshot, pool }))
}

/// Takes a request through its attempts and answers it.
pub async fn run(
    worker: &Rc<Worker>,
    client: &mut Stream,
    peer: &Peer,
    buffer: &mut Buffer,
    mut request: Request,
) -> After {
    let mut tried: [Slot; RETRIES_MAX] = [NO_SLOT; RETRIES_MAX];
    let mut attempts = 0;
    let mut cause = Cause::NoEndpoint;
    let after = loop {
        let picked = worker
            .pick(&request.snapshot, request.pool, &tried[..attempts])
            // A lost connection says little about its endpoint: rather that one than none.
            .or_else(|| {
                let is_worth_it = cause == Cause::BackendLost;
                is_worth_it.then(|| worker.pick(&request.snapshot, request.pool, &[])).flatten()
            });
        let Some((slot, address)) = picked else {
            break answer(worker, client, peer, &mut request, cause).await;
        };
        let in_flight = InFlight::new(worker, slot);
        let outcome = attempt(worker, client, peer, buffer, (slot, address), &mut request).await;
        drop(in_flight);
        let failure = match outcome {
            Ok(after) => break after,
            Err(failure) => failure,
        };
        cause = failure.cause;
        if attempts == RETRIES_MAX || !may_retry(failure, request.is_idempotent) {
            break answer(worker, client, peer, &mut request, cause).await;
        }
        worker.lane().add(Counter::Retries);
        tracing::debug!(cause = cause.name(), client = %peer.addr, "another endpoint is tried");
        tried[attempts] = slot;
        attempts += 1;
        request.scratch.from_backend.clear();
    };
    worker.buffers.give_scratch(request.scratch);
    after
}

/// Sends the request to one endpoint and relays its answer.
async fn attempt(
    worker: &Rc<Worker>,
    client: &mut Stream,
    peer: &Peer,
    buffer: &mut Buffer,
    (slot, address): (Slot, Address),
    request: &mut Request,
) -> Result<After, Failure> {
    let untouched = |cause| Failure { cause, progress: Progress::Untouched };
    let mut backend = match checkout(worker, slot) {
        Some(stream) => stream,
        None => {
            let timeout = worker.config.backend.connect_timeout;
            let connected = connect::connect(address, timeout, &worker.deadlines).await;
            worker.lane().add(Counter::Connects);
            connected.map_err(untouched)?
        }
    };
    let mut sent = 0;
    backend.deadline.arm(Wait::Write, worker.config.backend.body_timeout);
    let result = buffer::send_all(&mut request.scratch.out, &mut backend.sender, &mut sent).await;
    backend.deadline.disarm(Wait::Write);
    if result.is_err() && sent == 0 {
        return Err(untouched(Cause::BackendLost));
    }
    // A write that failed half-way may still have an answer: a refusal, then a close.
    client.deadline.wait_for(&backend.deadline);
    let relayed = if request.body.is_complete() || result.is_err() {
        relay::answer_only(worker, client, &mut backend, request).await
    } else {
        relay::both_ways(worker, client, peer, &mut backend, buffer, request).await
    };
    client.deadline.wait_over();
    let relayed = relayed.inspect_err(|_failure| backend.abort())?;
    if let Some(cause) = relayed.cause {
        worker.note(cause, &peer.addr);
    } else {
        worker.lane().add(Counter::Relayed);
    }
    if relayed.backend_is_reusable && result.is_ok() {
        worker.idle.borrow_mut().checkin(slot, backend, Instant::now());
    } else {
        backend.close();
    }
    Ok(relayed.after)
}

/// A pooled connection to the endpoint that is alive and silent.
fn checkout(worker: &Worker, slot: Slot) -> Option<Stream> {
    let now = Instant::now();
    loop {
        let stream = worker.idle.borrow_mut().checkout(slot, now)?;
        // One that has sent something without being asked would answer the wrong request.
        if stream.pending() == Pending::Nothing {
            worker.lane().add(Counter::Reuses);
            return Some(stream);
        }
        worker.lane().add(Counter::PoolStale);
        stream.close();
    }
}

/// Whether another endpoint may be tried after this failure.
fn may_retry(failure: Failure, is_idempotent: bool) -> bool {
    match (failure.cause.verdict().retry, failure.progress) {
        (Retry::Never, _) | (_, Progress::ResponseStarted) => false,
        (_, Progress::Untouched) => true,
        (Retry::Always | Retry::IfIdempotent, Progress::Sent) => is_idempotent,
    }
}

/// Answers for corelane, after every attempt failed.
async fn answer(
    worker: &Worker,
    client: &mut Stream,
    peer: &Peer,
    request: &mut Request,
    cause: Cause,
) -> After {
    worker.note(cause, &peer.addr);
    if cause.verdict().status.is_none() {
        return After::End(End::Close);
    }
    // A body that was not read whole would be taken for the next request.
    let keep = cause.verdict().fate == Fate::Keep
        && request.body.is_complete()
        && request.facts.keep_alive
        && !worker.is_draining();
    let side = request.facts.client_side(keep);
    request.scratch.out.clear();
    reply::write(cause, side, request.facts.is_head, &mut request.scratch.out);
    let (deadline, sender) = (&client.deadline, &mut client.sender);
    let limits = &worker.config.client;
    let is_sent = send_reply(limits, deadline, sender, &mut request.scratch.out).await;
    match (is_sent, keep) {
        (true, true) => After::Keep,
        (true, false) => After::End(End::Linger),
        (false, _) => After::End(End::Close),
    }
}

/// Answers a request that is not forwarded, or not further; whether there was an answer and the
/// client took it. The connection must end then.
pub async fn refuse(
    cause: Cause,
    limits: &ClientLimits,
    deadline: &Deadline,
    sender: &mut Sender,
    out: &mut Vec<u8>,
) -> bool {
    out.clear();
    let closing = ClientSide { version: Version::Http11, keep_alive: false };
    reply::write(cause, closing, false, out);
    !out.is_empty() && send_reply(limits, deadline, sender, out).await
}

async fn send_reply(
    limits: &ClientLimits,
    deadline: &Deadline,
    sender: &mut Sender,
    out: &mut Vec<u8>,
) -> bool {
    deadline.arm(Wait::Write, limits.body_timeout);
    let sent = buffer::send_all(out, sender, &mut 0).await;
    deadline.disarm(Wait::Write);
    sent.is_ok()
}

/// The cause for a request body that breaks the grammar.
#[must_use]
pub fn request_fault(fault: Fault) -> Cause {
    match fault {
        Fault::Chunk => Cause::RequestChunkInvalid,
        Fault::Trailer => Cause::RequestTrailerInvalid,
    }
}

/// How often a request is tried on another endpoint.
const RETRIES_MAX: usize = 1;
/// Stands where no endpoint was tried yet.
const NO_SLOT: Slot = Slot { number: u32::MAX, generation: u32::MAX };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_runs_twice_only_where_that_is_safe() {
        for (cause, progress, if_idempotent, if_not) in [
            (Cause::ConnectFailed, Progress::Untouched, true, true),
            (Cause::ConnectTimeout, Progress::Untouched, true, true),
            (Cause::BackendLost, Progress::Untouched, true, true),
            (Cause::BackendLost, Progress::Sent, true, false),
            (Cause::BackendLost, Progress::ResponseStarted, false, false),
            (Cause::ResponseTimeout, Progress::Sent, false, false),
            (Cause::ResponseInvalid, Progress::ResponseStarted, false, false),
            (Cause::ClientLeft, Progress::Sent, false, false),
        ] {
            let failure = Failure { cause, progress };
            assert_eq!(may_retry(failure, true), if_idempotent, "{failure:?}");
            assert_eq!(may_retry(failure, false), if_not, "{failure:?}");
        }
    }
}
