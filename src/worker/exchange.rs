//! One request and its response: pick an endpoint, get a connection, relay, and try another
//! endpoint where the table in `error` allows it.
//!
//! Called by `connection` for each request.

use std::rc::Rc;
use std::time::Instant;

use crate::error::{Cause, Fate, Retry};
use crate::metrics::Counter;
use crate::sys::Pending;
use crate::upstream::connect;
use crate::upstream::endpoint::{Address, Slot};
use crate::worker::answer;
use crate::worker::buffer::{self, Buffer, Sink};
use crate::worker::peer::Peer;
use crate::worker::progress::{After, End, Failure, Progress};
use crate::worker::relay;
use crate::worker::request::Request;
use crate::worker::state::{InFlight, Worker};
use crate::worker::stream::Stream;
use crate::worker::tunnel;

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
        if let Some(refusal) = request.refusal {
            break answer(worker, client, peer, &mut request, refusal).await;
        }
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
    let timeout = worker.config.backend.body_timeout;
    let mut sink = Sink::new(&mut backend.sender, &backend.deadline, timeout);
    let result = buffer::send_all(&mut request.scratch.out, &mut sink).await;
    let sent = sink.sent;
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
    if relayed.opens_tunnel {
        let from_backend = &mut request.scratch.from_backend;
        let ended = tunnel::run(worker, client, &mut backend, buffer, from_backend).await;
        if let Err(cause) = ended {
            worker.note(cause, &peer.addr);
        }
        backend.close();
    } else if relayed.backend_is_reusable && result.is_ok() {
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
    // A body that was not read whole would be taken for the next request.
    let keeps =
        cause.verdict().fate == Fate::Keep && request.body.is_complete() && !worker.is_draining();
    let (facts, out) = (request.facts, &mut request.scratch.out);
    let side = facts.client_side(keeps);
    let sink = Sink::new(&mut client.sender, &client.deadline, worker.config.client.body_timeout);
    let is_sent = answer::send(cause, side, facts.is_head(), sink, out).await;
    match (is_sent, side.keep_alive) {
        (true, true) => After::Keep,
        (true, false) => After::End(End::Linger),
        (false, _) => After::End(End::Close),
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
