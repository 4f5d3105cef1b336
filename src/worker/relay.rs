//! Moves a response to the client, and a request's body to the backend at the same time.
//!
//! `answer_only` is for requests that were sent whole, `both_ways` for those whose body is still
//! coming. Bodies are never held whole. What ends early never looks complete to the client.

use std::cell::Cell;
use std::pin::pin;

use crate::error::Cause;
use crate::worker::buffer::Buffer;
use crate::worker::deadline::Wait;
use crate::worker::download::{Downlink, Lost};
use crate::worker::join::join;
use crate::worker::progress::{After, End, Failure, Terms};
use crate::worker::request::Request;
use crate::worker::stream::Stream;
use crate::worker::upload::{Uplink, UplinkState, Upload};

/// What came of an attempt that the client has seen something of.
#[derive(Clone, Copy, Debug)]
pub struct Relayed {
    /// What becomes of the client's connection.
    pub after: After,
    /// Whether the backend's connection is between two messages.
    pub backend_is_reusable: bool,
    /// Whether the connections are a tunnel from now on.
    pub opens_tunnel: bool,
    /// What went wrong, if anything.
    pub cause: Option<Cause>,
}

/// Relays the response to a request that was sent whole, or of which no more will be sent.
///
/// # Errors
/// When nothing of a final response has reached the client.
pub async fn answer_only(
    client: &mut Stream,
    backend: &mut Stream,
    request: &mut Request,
    terms: Terms<'_>,
    is_sent_whole: bool,
) -> Result<Relayed, Failure> {
    let state = if is_sent_whole { UplinkState::Sent } else { UplinkState::Failed };
    let uplink = Uplink::new(state, false, request.is_held);
    let mut downlink = Downlink::new(
        (request.facts, terms, &uplink),
        (&client.deadline, &mut client.sender),
        (&backend.deadline, &mut backend.receiver),
    );
    let result = downlink.run(&mut request.scratch.answer).await;
    match result {
        Ok(delivered) => Ok(Relayed {
            after: match (delivered.opens_tunnel, delivered.client_is_kept) {
                (true, _) => After::End(End::Close),
                (false, true) => After::Keep,
                (false, false) => After::End(End::Linger),
            },
            backend_is_reusable: delivered.backend_is_reusable,
            opens_tunnel: delivered.opens_tunnel,
            cause: None,
        }),
        Err(Lost::BeforeHead(failure)) => Err(failure),
        Err(Lost::InBody(cause, end)) => Ok(cut(cause, end)),
    }
}

fn cut(cause: Cause, end: End) -> Relayed {
    Relayed {
        after: After::End(end),
        backend_is_reusable: false,
        opens_tunnel: false,
        cause: Some(cause),
    }
}

/// Relays a response while the request's body is still coming from the client.
///
/// # Errors
/// When nothing of a final response has reached the client, and the request was sent whole or its
/// body is held whole for another attempt; else the client is answered here, while its body is
/// read and dropped.
pub async fn both_ways(
    client: &mut Stream,
    backend: &mut Stream,
    buffer: &mut Buffer,
    request: &mut Request,
    terms: Terms<'_>,
) -> Result<Relayed, Failure> {
    let awaits_continue = request.facts.expects_continue;
    let uplink = Uplink::new(UplinkState::Sending, awaits_continue, request.may_hold_body());
    let (facts, scratch) = (request.facts, &mut request.scratch);
    let mut upload = Upload {
        record: terms.record,
        limits: &terms.config.limits,
        uplink: &uplink,
        client: &client.deadline,
        receiver: &mut client.receiver,
        backend: &backend.deadline,
        sender: &mut backend.sender,
        held: &mut scratch.request,
        held_bytes_max: request.head_bytes + terms.config.retry.body_bytes_max,
    };
    let mut downlink = Downlink::new(
        (facts, terms, &uplink),
        (&client.deadline, &mut client.sender),
        (&backend.deadline, &mut backend.receiver),
    );
    let is_held_back = Cell::new(false);
    let down = async {
        let result = downlink.run(&mut scratch.answer).await;
        match (uplink.state.get(), &result) {
            (UplinkState::Sent, _) => result,
            (_, Err(Lost::BeforeHead(failure))) if downlink.may_follow(*failure) => {
                is_held_back.set(true);
                downlink.give_up();
                result
            }
            // The answer is complete, or will never be, and the body is still coming.
            _ => downlink.settle(result, &mut scratch.answer.out).await,
        }
    };
    // The upload goes first, so that an answer finds it as far as it is.
    let ((), result) = join(pin!(upload.run(buffer, &mut request.body)), pin!(down)).await;
    if is_held_back.get() {
        client.deadline.disarm(Wait::Read);
    }
    let (state, fault) = (uplink.state.get(), uplink.fault.get());
    let is_sent_whole = state == UplinkState::Sent;
    let is_read_whole = request.body.is_complete();
    request.is_held = uplink.is_held.get() && is_read_whole;
    match result {
        Ok(delivered) => Ok(Relayed {
            after: match (is_read_whole, delivered.client_is_kept) {
                (true, true) => After::Keep,
                (true, false) => After::End(End::Linger),
                // It was read and dropped for long enough.
                (false, _) => After::End(End::Close),
            },
            backend_is_reusable: delivered.backend_is_reusable && is_sent_whole,
            opens_tunnel: false,
            cause: fault,
        }),
        Err(Lost::BeforeHead(failure)) if is_sent_whole || is_held_back.get() => {
            Err(Failure { cause: fault.unwrap_or(failure.cause), ..failure })
        }
        Err(Lost::BeforeHead(failure)) => {
            let client = terms.record.peer.address.client;
            tracing::debug!(%client, cause = failure.cause.name(), "ended in its body");
            let is_gone = failure.cause == Cause::ClientLeft;
            Ok(cut(failure.cause, if is_gone { End::Close } else { End::Linger }))
        }
        Err(Lost::InBody(cause, end)) => Ok(cut(cause, end)),
    }
}
