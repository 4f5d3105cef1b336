//! One attempt of a request on one endpoint: connect, send, relay the answer, and keep the
//! connection if it can be used again.
//!
//! Called by `exchange`; says how far a failed attempt had come, and tells the control thread how
//! the endpoint did.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Cause;
use crate::metrics::{Counter, Latency};
use crate::upstream::connect;
use crate::upstream::endpoint::{Address, Slot};
use crate::upstream::limit::Limits;
use crate::upstream::outcome::Kind;
use crate::worker::buffer::{self, Buffer, Sink};
use crate::worker::placement::{Placement, Way};
use crate::worker::progress::{After, Failure, Progress, Seen, Terms};
use crate::worker::record::Record;
use crate::worker::relay::{self, Relayed};
use crate::worker::request::Request;
use crate::worker::state::{InFlight, Kept, Worker};
use crate::worker::stream::Stream;
use crate::worker::tunnel;
use crate::worker::waitlist::Place;

/// Takes a request through an attempt.
///
/// # Errors
/// When no final answer has reached the client.
pub async fn run(
    record: &Record<'_>,
    client: &mut Stream,
    buffer: &mut Buffer,
    request: &mut Request,
    placement: Placement,
    may_repeat: MayRepeat,
) -> Result<After, Failure> {
    let worker = record.worker;
    let Placement { index, slot, address, way, in_flight: _share, at: started } = placement;
    let is_reused = matches!(way, Way::Reuse(_));
    record.placed(request, (slot, index), is_reused, started);
    let _in_flight = InFlight::new(record, slot);
    let seen = Cell::new(None);
    let snapshot = request.snapshot.clone();
    let is_reused = matches!(way, Way::Reuse(_));
    let config = &*snapshot.pool(request.pool).config;
    let terms = Terms {
        config,
        set_cookie: request.cookie_for(&snapshot, index),
        is_reused,
        is_retryable: may_repeat.after_sent,
        has_other: may_repeat.elsewhere,
        seen: &seen,
        record,
    };
    let connected = connect(worker, address, way, config.limits.connect_timeout).await;
    if !is_reused {
        record.connected(started, slot, connected.is_ok());
    }
    let relayed = match connected {
        Ok(mut backend) => {
            let is_whole = request.body.is_complete() && request.is_held;
            let may_leave = is_whole && may_repeat.elsewhere && config.retry.on.down;
            backend.deadline.set_may_leave(may_leave.then_some(slot));
            let relayed = relay(client, &mut backend, buffer, request, terms).await;
            relayed.map(|relayed| (backend, relayed))
        }
        Err(cause) => Err(Failure { cause, progress: Progress::Untouched }),
    };
    let cause = match &relayed {
        Ok((_, relayed)) => relayed.cause,
        Err(failure) => Some(failure.cause),
    };
    let cause = cause.map(|cause| record.true_cause(cause));
    let fared = how_it_fared(cause, seen.get(), is_reused);
    report(worker, request, slot, fared, (started, seen.get()));
    let (mut backend, relayed) = relayed?;
    let endpoint = snapshot.pool(request.pool).endpoints.get(index);
    match cause {
        Some(cause) => _ = record.note_backend(cause, endpoint),
        None => {
            worker.lane().add(Counter::Relayed);
            let passed = clock::now().duration_since(request.at);
            worker.lane().record(Latency::Total, passed);
        }
    }
    if relayed.opens_tunnel {
        let from_backend = &mut request.scratch.answer.from_backend;
        let tunnel = tunnel::run(record, client, &mut backend, buffer, from_backend);
        let ended = Box::pin(tunnel).await;
        if let Err(cause) = ended {
            record.note_backend(cause, endpoint);
        }
        backend.close();
    } else if relayed.backend_is_reusable {
        keep(worker, request, slot, backend, seen.get());
    } else {
        backend.close();
    }
    Ok(relayed.after)
}

/// Whether an attempt may be followed by another, as far as that is known before it.
#[derive(Clone, Copy, Debug)]
pub struct MayRepeat {
    /// After the request was sent,
    pub after_sent: bool,
    /// on an endpoint that was not tried.
    pub elsewhere: bool,
}

/// The connection to the endpoint.
async fn connect(
    worker: &Worker,
    address: Address,
    way: Way,
    timeout: Duration,
) -> Result<Stream, Cause> {
    let (place, pending) = match way {
        Way::Reuse(stream) => return Ok(stream),
        Way::Connect(place, pending) => (place, pending),
    };
    let make_room = || worker.give_up_idle();
    let mut stream = connect::connect(address, timeout, &worker.deadlines, make_room).await?;
    drop(pending);
    stream.place = place;
    Ok(stream)
}

/// Sends what there is of the request, and relays the rest and the answer.
async fn relay(
    client: &mut Stream,
    backend: &mut Stream,
    buffer: &mut Buffer,
    request: &mut Request,
    terms: Terms<'_>,
) -> Result<Relayed, Failure> {
    let worker = terms.record.worker;
    let timeout = terms.config.limits.body_timeout;
    let (sent, before) = (terms.record.sent_to_backend(), terms.record.sent_to_backend().get());
    let mut sink = Sink::new(&mut backend.sender, &backend.deadline, timeout, sent);
    let result = buffer::send_all(&mut request.scratch.request, &mut sink).await;
    if result.is_err() && sent.get() == before {
        return Err(Failure { cause: Cause::BackendLost, progress: Progress::Untouched });
    }
    client.deadline.wait_for(&backend.deadline);
    // Where the client sends nothing more, its buffer takes the answer: half the memory of a busy
    // connection, and what was just used is in the processor's cache.
    let is_lent = buffer.is_empty() && request.body.is_complete() && !request.may_open_tunnel();
    if is_lent {
        std::mem::swap(buffer, &mut request.scratch.answer.from_backend);
    } else if request.scratch.answer.from_backend.capacity() == 0 {
        request.scratch.answer.from_backend = worker.buffers.take();
    }
    // A write that failed half-way may still have an answer: a refusal, then a close.
    let relayed = if request.body.is_complete() || result.is_err() {
        relay::answer_only(client, backend, request, terms, result.is_ok()).await
    } else {
        // On the heap, as the tunnel: its state would be a third of every connection's.
        Box::pin(relay::both_ways(client, backend, buffer, request, terms)).await
    };
    client.deadline.wait_over();
    if is_lent {
        // What a backend sent beyond its answer must never be taken for a client's request.
        request.scratch.answer.from_backend.clear();
        std::mem::swap(buffer, &mut request.scratch.answer.from_backend);
    }
    relayed
}

/// How a request fared on its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fared {
    Well,
    Badly(Kind),
    /// Its end says nothing about the endpoint.
    Unknown,
}

/// What an attempt that ended so says about its endpoint.
fn how_it_fared(cause: Option<Cause>, seen: Option<Seen>, is_reused: bool) -> Fared {
    let kind = match cause {
        Some(Cause::ConnectFailed | Cause::ConnectTimeout) => Some(Kind::NotConnected),
        // It may close a connection that lay unused whenever it likes.
        Some(Cause::BackendLost) if is_reused => return Fared::Unknown,
        Some(Cause::BackendLost | Cause::ResponseTruncated) => Some(Kind::Lost),
        Some(Cause::ResponseTimeout | Cause::ResponseBodyTimeout) => Some(Kind::TimedOut),
        Some(
            Cause::ResponseInvalid | Cause::ResponseHeadTooLarge | Cause::ResponseChunkInvalid,
        ) => Some(Kind::Invalid),
        _ => None,
    };
    match (kind, seen.map(|seen| seen.status)) {
        (Some(kind), _) => Fared::Badly(kind),
        (None, Some(status @ SERVER_ERROR..)) => Fared::Badly(Kind::Status(status)),
        (None, Some(_)) => Fared::Well,
        (None, None) => Fared::Unknown,
    }
}

/// Counts how a request fared, tells the control thread of a failure, and remembers how long the
/// answer took.
fn report(
    worker: &Worker,
    request: &Request,
    slot: Slot,
    fared: Fared,
    (started, seen): (Instant, Option<Seen>),
) {
    let answered = seen.map(|seen| (seen.at.saturating_duration_since(started), seen.at));
    if let Some((latency, _)) = answered {
        worker.lane().record_first_byte(slot.number, latency);
    }
    let now = clock::now();
    let observed = match fared {
        Fared::Well => answered,
        // An endpoint that fails quickly is no quick one.
        Fared::Badly(_) => Some((now.duration_since(started).max(FAILURE_LATENCY), now)),
        Fared::Unknown => return,
    };
    if let Some((latency, now)) = observed {
        worker.observe(request, slot, latency, now);
    }
    worker.report(slot, if let Fared::Badly(kind) = fared { Some(kind) } else { None });
}

/// Keeps a connection that is between two messages, for this worker's next request or, where
/// another worker's has waited for a place, for that one; unless its endpoint is gone by now, or may
/// have fewer.
fn keep(worker: &Worker, request: &Request, slot: Slot, backend: Stream, seen: Option<Seen>) {
    let is_anothers = |it: &Place| worker.waitlist.is_anothers_turn(worker.id(), it);
    let counted = backend.counted_in();
    let admits = |limits: &Limits| limits.admits(counted);
    let snapshot = worker.snapshot();
    let may_stay_now = || {
        let endpoints = snapshot.pools.get(request.pool.0).map(|pool| &pool.endpoints);
        let endpoint = endpoints.and_then(|all| all.iter().find(|it| it.slot == slot));
        endpoint.is_some_and(|it| admits(&it.limits))
    };
    let is_as_before = snapshot.epoch == request.snapshot.epoch;
    let may_stay = counted.is_none_or(admits) && (is_as_before || may_stay_now());
    if !may_stay || backend.place.as_deref().is_some_and(is_anothers) {
        return backend.close();
    }
    let limits = request.config().limits.idle;
    let limited_pool = backend.place.as_ref().map(|it| it.pool);
    let mut idle = worker.idle.borrow_mut();
    if let Some(timeout) = seen.and_then(|seen| seen.keeps_for) {
        idle.announce(slot, timeout);
    }
    idle.checkin(slot, Kept::new(worker, slot, backend), limits, clock::now());
    drop(idle);
    if let Some(pool) = limited_pool {
        worker.call_waiting_for(pool);
    }
}

/// The first status that says the endpoint is at fault (RFC 9110 §15.6).
const SERVER_ERROR: u16 = 500;
/// How long a failure is taken to have lasted, at least.
const FAILURE_LATENCY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cause: Option<Cause>, status: Option<u16>, is_reused: bool, fared: Fared) {
        let at = clock::now();
        let seen = status.map(|status| Seen { status, at, keeps_for: None });
        assert_eq!(how_it_fared(cause, seen, is_reused), fared, "{cause:?} {status:?}");
    }

    #[test]
    fn an_endpoint_is_judged_by_what_is_its_own_doing() {
        check(None, Some(200), false, Fared::Well);
        check(None, Some(404), false, Fared::Well);
        check(None, Some(500), true, Fared::Badly(Kind::Status(500)));
        check(Some(Cause::ResponseStatus), Some(503), false, Fared::Badly(Kind::Status(503)));
        check(Some(Cause::ResponseStatus), Some(429), false, Fared::Well);
        check(Some(Cause::ConnectFailed), None, false, Fared::Badly(Kind::NotConnected));
        check(Some(Cause::BackendLost), None, false, Fared::Badly(Kind::Lost));
        check(Some(Cause::BackendLost), None, true, Fared::Unknown);
        check(Some(Cause::ResponseTruncated), Some(200), false, Fared::Badly(Kind::Lost));
        check(Some(Cause::ResponseTimeout), None, true, Fared::Badly(Kind::TimedOut));
        check(Some(Cause::ClientLeft), None, false, Fared::Unknown);
        check(Some(Cause::ClientReadTimeout), Some(200), false, Fared::Well);
    }
}
