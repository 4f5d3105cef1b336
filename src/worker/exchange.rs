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
    let after = match request.refusal {
        Some(cause) => {
            worker.note(cause, &peer.addr);
            answer(worker, client, &mut request, cause).await
        }
        None => try_endpoints(worker, client, peer, buffer, &mut request).await,
    };
    worker.buffers.give_scratch(request.scratch);
    after
}

async fn try_endpoints(
    worker: &Rc<Worker>,
    client: &mut Stream,
    peer: &Peer,
    buffer: &mut Buffer,
    request: &mut Request,
) -> After {
    let snapshot = request.snapshot.clone();
    let mut tried: [Slot; RETRIES_MAX] = [NO_SLOT; RETRIES_MAX];
    let mut retries = 0;
    let Some(mut picked) = worker.pick(&snapshot, request.pool, &[]) else {
        worker.note(Cause::NoEndpoint, &peer.addr);
        return answer(worker, client, request, Cause::NoEndpoint).await;
    };
    loop {
        let (slot, _) = picked;
        let in_flight = InFlight::new(worker, slot);
        let outcome = attempt(worker, client, peer, buffer, picked, request, retries > 0).await;
        drop(in_flight);
        let failure = match outcome {
            Ok(after) => return after,
            Err(failure) => failure,
        };
        let endpoint = snapshot.endpoint(request.pool, slot);
        let next = may_retry(failure, request.is_idempotent, retries)
            .then(|| {
                tried[retries] = slot;
                let others = worker.pick(&snapshot, request.pool, &tried[..=retries]);
                // A lost connection says little about its endpoint: rather that one than none.
                let is_worth_it = failure.cause == Cause::BackendLost;
                others.or_else(|| is_worth_it.then_some(picked))
            })
            .flatten();
        let Some(next) = next else {
            worker.note_backend(failure.cause, &peer.addr, endpoint);
            return answer(worker, client, request, failure.cause).await;
        };
        worker.log_backend(failure.cause, &peer.addr, endpoint);
        worker.lane().add(Counter::Retries);
        retries += 1;
        picked = next;
        request.scratch.from_backend.clear();
    }
}

/// Sends the request to one endpoint and relays its answer.
async fn attempt(
    worker: &Rc<Worker>,
    client: &mut Stream,
    peer: &Peer,
    buffer: &mut Buffer,
    (slot, address): (Slot, Address),
    request: &mut Request,
    is_retry: bool,
) -> Result<After, Failure> {
    let untouched = |cause| Failure { cause, progress: Progress::Untouched };
    // What made one pooled connection fail may have met the others too.
    let pooled = if is_retry { None } else { checkout(worker, slot, request.is_idempotent) };
    let mut backend = match pooled {
        Some(stream) => stream,
        None => {
            let timeout = worker.config.backend.connect_timeout;
            let connected = connect::connect(address, timeout, &worker.deadlines).await;
            let stream = connected.map_err(untouched)?;
            worker.lane().add(Counter::Connects);
            stream
        }
    };
    let timeout = worker.config.backend.body_timeout;
    let mut sink = Sink::new(&mut backend.sender, &backend.deadline, timeout);
    let result = buffer::send_all(&mut request.scratch.out, &mut sink).await;
    if result.is_err() && sink.sent == 0 {
        return Err(untouched(Cause::BackendLost));
    }
    client.deadline.wait_for(&backend.deadline);
    // A write that failed half-way may still have an answer: a refusal, then a close.
    let relayed = if request.body.is_complete() || result.is_err() {
        relay::answer_only(worker, client, &mut backend, request, result.is_ok()).await
    } else {
        relay::both_ways(worker, client, peer, &mut backend, buffer, request).await
    };
    client.deadline.wait_over();
    let relayed = relayed?;
    match relayed.cause {
        Some(cause) => {
            let endpoint = request.snapshot.endpoint(request.pool, slot);
            worker.note_backend(cause, &peer.addr, endpoint);
        }
        None => worker.lane().add(Counter::Relayed),
    }
    if relayed.opens_tunnel {
        let from_backend = &mut request.scratch.from_backend;
        let ended = tunnel::run(worker, client, &mut backend, buffer, from_backend).await;
        if let Err(cause) = ended {
            let endpoint = request.snapshot.endpoint(request.pool, slot);
            worker.note_backend(cause, &peer.addr, endpoint);
        }
        backend.close();
    } else if relayed.backend_is_reusable {
        worker.idle.borrow_mut().checkin(slot, backend, Instant::now());
    } else {
        backend.close();
    }
    Ok(relayed.after)
}

/// A pooled connection to the endpoint that is alive and silent. A request that cannot be sent
/// twice takes none that its backend may be about to close.
fn checkout(worker: &Worker, slot: Slot, is_idempotent: bool) -> Option<Stream> {
    let now = Instant::now();
    let idle_timeout = worker.config.backend.idle_timeout;
    let age_max = if is_idempotent { idle_timeout } else { idle_timeout / 2 };
    loop {
        let stream = worker.idle.borrow_mut().checkout(slot, age_max, now)?;
        // One that has sent something without being asked would answer the wrong request.
        if stream.pending() == Pending::Nothing {
            worker.lane().add(Counter::Reuses);
            return Some(stream);
        }
        worker.lane().add(Counter::PoolStale);
        stream.close();
    }
}

/// Whether another endpoint may be tried after this failure and so many retries.
fn may_retry(failure: Failure, is_idempotent: bool, retries: usize) -> bool {
    match (failure.cause.verdict().retry, failure.progress) {
        (Retry::Never, _) | (_, Progress::ResponseStarted) => false,
        (_, Progress::Untouched) => retries < RETRIES_MAX,
        (Retry::Always | Retry::IfIdempotent, Progress::Sent) => {
            is_idempotent && retries < RETRIES_AFTER_SENT_MAX
        }
    }
}

/// Answers for corelane, after every attempt failed.
async fn answer(
    worker: &Worker,
    client: &mut Stream,
    request: &mut Request,
    cause: Cause,
) -> After {
    // A body that was not read whole would be taken for the next request.
    let keeps = cause.verdict().fate == Fate::Keep
        && request.body.is_complete()
        && !worker.is_draining()
        && !client.deadline.is_closing();
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

/// How often a request of which no byte was sent is tried on another endpoint,
const RETRIES_MAX: usize = 3;
/// and one that was sent, if it is idempotent.
const RETRIES_AFTER_SENT_MAX: usize = 1;
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
            assert_eq!(may_retry(failure, true, 0), if_idempotent, "{failure:?}");
            assert_eq!(may_retry(failure, false, 0), if_not, "{failure:?}");
        }
    }
    #[test]
    fn retries_end() {
        let untouched = Failure { cause: Cause::ConnectFailed, progress: Progress::Untouched };
        let sent = Failure { cause: Cause::BackendLost, progress: Progress::Sent };
        assert_eq!([2, 3].map(|retries| may_retry(untouched, false, retries)), [true, false]);
        assert_eq!([0, 1].map(|retries| may_retry(sent, true, retries)), [true, false]);
    }
}
