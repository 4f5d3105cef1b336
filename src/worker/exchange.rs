//! One request and its response: find an endpoint, attempt it there, and try another endpoint where
//! the table in `error` and the operator allow it.
//!
//! Called by `connection` for each request.

use std::rc::Rc;

use crate::error::{Cause, Fate};
use crate::worker::answer;
use crate::worker::attempt::{self, MayRepeat};
use crate::worker::buffer::{Buffer, Sink};
use crate::worker::peer::Peer;
use crate::worker::placement::{self, Tried};
use crate::worker::progress::{After, End, Progress};
use crate::worker::request::Request;
use crate::worker::retry::{self, Repeatable, Retries};
use crate::worker::state::Worker;
use crate::worker::stream::Stream;

/// Takes a request through its attempts and answers it.
pub async fn run(
    worker: &Rc<Worker>,
    client: &mut Stream,
    peer: &Peer,
    buffer: &mut Buffer,
    request: &mut Request,
) -> After {
    match request.refusal {
        Some(cause) => {
            worker.note(cause, &peer.address.client);
            answer(worker, client, request, cause).await
        }
        None => try_endpoints(worker, client, peer, buffer, request).await,
    }
}

async fn try_endpoints(
    worker: &Rc<Worker>,
    client: &mut Stream,
    peer: &Peer,
    buffer: &mut Buffer,
    request: &mut Request,
) -> After {
    let (mut tried, mut retries) = (Tried::none(), Retries::default());
    let mut placed = placement::find(worker, client, request, &tried).await;
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
        let attempt =
            attempt::run(worker, client, peer, buffer, request, placement, may_repeat).await;
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
        let is_afforded = || is_given_up || worker.affords_retry(&request.config().retry);
        if !may_follow || !is_afforded() {
            worker.note_backend(failure.cause, &peer.address.client, endpoint);
            return answer(worker, client, request, failure.cause).await;
        }
        worker.note_retry(failure.cause, &peer.address.client, endpoint);
        retries.count += 1;
        retries.after_sent += u32::from(failure.progress != Progress::Untouched);
        request.scratch.answer.from_backend.clear();
        request.renew(worker);
        placed = placement::find(worker, client, request, &tried).await;
        // A lost connection says little about its endpoint: rather that one than none.
        let may_be_same = matches!(failure.cause, Cause::BackendLost | Cause::BackendDown);
        if may_be_same && matches!(placed, Err(Cause::NoEndpoint)) {
            placed = placement::find_again(worker, client, request, slot).await;
        }
        last = Some(failure.cause);
    };
    worker.note(cause, &peer.address.client);
    answer(worker, client, request, cause).await
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
    let (facts, out) = (request.facts, &mut request.scratch.answer.out);
    let side = facts.client_side(keeps);
    let sink = Sink::new(&mut client.sender, &client.deadline, worker.config.client.body_timeout);
    let is_sent = answer::send(cause, side, facts.is_head(), sink, out).await;
    match (is_sent, side.keep_alive) {
        (true, true) => After::Keep,
        (true, false) => After::End(End::Linger),
        (false, _) => After::End(End::Close),
    }
}
