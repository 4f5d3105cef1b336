//! One request and its response: find an endpoint, attempt it there, and try another endpoint where
//! the table in `error` and the operator allow it.
//!
//! Called by `connection` for each request.

use crate::error::{Cause, Fate};
use crate::http1::forward::ClientSide;
use crate::http1::reply;
use crate::worker::answer;
use crate::worker::attempt::{self, MayRepeat};
use crate::worker::buffer::{self, Buffer, Scratch, Sink};
use crate::worker::placement;
use crate::worker::progress::{After, End, Progress};
use crate::worker::record::Record;
use crate::worker::request::{Refusal, Request};
use crate::worker::retry::{self, Repeatable, Retries};
use crate::worker::stream::Stream;
use crate::worker::tried::Tried;

/// Takes a request through its attempts and answers it.
pub async fn run(
    record: &Record<'_>,
    client: &mut Stream,
    buffer: &mut Buffer,
    request: &mut Request,
) -> After {
    match request.refusal {
        Some(Refusal::Cause(cause)) => {
            record.note(cause);
            answer(record, client, request, cause).await
        }
        Some(Refusal::Redirect(status)) => redirect(record, client, request, status).await,
        None => try_endpoints(record, client, buffer, request).await,
    }
}

async fn try_endpoints(
    record: &Record<'_>,
    client: &mut Stream,
    buffer: &mut Buffer,
    request: &mut Request,
) -> After {
    let (mut tried, mut retries) = (Tried::none(), Retries::default());
    let mut placed = placement::find(record, client, request, &tried).await;
    // Where there was an attempt, its failure says more than the want of another endpoint.
    let mut last = None;
    let cause = loop {
        let placement = match placed {
            Ok(placement) => placement,
            Err(shortage) => break last.unwrap_or(shortage),
        };
        let (index, slot) = (placement.index, placement.slot);
        tried.add(slot);
        let may_repeat = may_repeat(request, &tried, retries);
        let attempt = attempt::run(record, client, buffer, request, placement, may_repeat).await;
        let failure = match attempt {
            Ok(after) => return after,
            Err(failure) => failure,
        };
        let snapshot = request.snapshot.clone();
        let endpoint = snapshot.pool(request.pool).endpoints.get(index);
        let repeatable =
            Repeatable { is_idempotent: request.is_idempotent, is_held: request.is_held };
        let may_follow = retry::may_follow(failure, repeatable, retries, &request.config().retry);
        // An answer, or the wait for one, is given up only after the budget was asked.
        let is_given_up = matches!(failure.cause, Cause::ResponseStatus | Cause::BackendDown);
        let is_afforded = || is_given_up || record.affords_retry(&request.config().retry);
        if !may_follow || record.worker.is_stopping() || !is_afforded() {
            let cause = record.note_backend(failure.cause, endpoint);
            return answer(record, client, request, cause).await;
        }
        record.note_retry(failure.cause, endpoint);
        retries.count += 1;
        retries.after_sent += u32::from(failure.progress != Progress::Untouched);
        request.scratch.answer.from_backend.clear();
        request.renew(record.worker);
        placed = placement::find(record, client, request, &tried).await;
        // A lost connection says little about its endpoint: rather that one than none.
        let may_be_same = matches!(failure.cause, Cause::BackendLost | Cause::BackendDown);
        if may_be_same && matches!(placed, Err(Cause::NoEndpoint)) {
            placed = placement::find_again(record, client, request, slot).await;
        }
        last = Some(failure.cause);
    };
    let cause = record.note(cause);
    answer(record, client, request, cause).await
}

/// Whether an attempt may be followed by another, as far as that is known before it.
fn may_repeat(request: &Request, tried: &Tried, retries: Retries) -> MayRepeat {
    let retry = &request.config().retry;
    let after_sent = retry::may_follow_sent(request.is_idempotent, retries, retry);
    let elsewhere = after_sent && tried.has_other(request.endpoints());
    MayRepeat { after_sent, elsewhere }
}

/// Answers for corelane, after every attempt failed.
async fn answer(
    record: &Record<'_>,
    client: &mut Stream,
    request: &mut Request,
    cause: Cause,
) -> After {
    let may_keep = cause.verdict().fate == Fate::Keep;
    let (facts, side) = (request.facts, side_of(record, client, request, may_keep));
    let timeout = record.worker.config.client.body_timeout;
    let sink = Sink::new(&mut client.sender, &client.deadline, timeout, record.sent());
    let out = &mut request.scratch.answer.out;
    let is_sent = answer::send(record, cause, side, facts.is_head(), sink, out).await;
    after(is_sent, side)
}

/// Sends the client elsewhere.
async fn redirect(
    record: &Record<'_>,
    client: &mut Stream,
    request: &mut Request,
    status: u16,
) -> After {
    record.redirected(status);
    let (facts, side) = (request.facts, side_of(record, client, request, true));
    let Scratch { request: location, answer } = &mut request.scratch;
    location.truncate(request.head_bytes);
    answer.out.clear();
    reply::write_redirect(status, location, side, facts.is_head(), &mut answer.out);
    record.head_goes_out(answer::head_bytes(&answer.out));
    let timeout = record.worker.config.client.body_timeout;
    let mut sink = Sink::new(&mut client.sender, &client.deadline, timeout, record.sent());
    let is_sent = buffer::send_all(&mut answer.out, &mut sink).await.is_ok();
    after(is_sent, side)
}

/// What corelane's own answer says about the client's connection.
fn side_of(record: &Record<'_>, client: &Stream, request: &Request, may_keep: bool) -> ClientSide {
    // A body that was not read whole would be taken for the next request.
    let keeps = may_keep
        && request.body.is_complete()
        && !record.worker.is_draining()
        && !client.deadline.is_closing();
    request.facts.client_side(keeps)
}

/// What becomes of a client that got corelane's own answer.
fn after(is_sent: bool, side: ClientSide) -> After {
    match (is_sent, side.keep_alive) {
        (true, true) => After::Keep,
        (true, false) => After::End(End::Linger),
        (false, _) => After::End(End::Close),
    }
}
