//! Moves a response to the client, and a request's body to the backend at the same time.
//!
//! `answer_only` is for requests that were sent whole, `both_ways` for those whose body is still
//! coming. Bodies are never held whole. What ends early never looks complete to the client.

use crate::error::Cause;
use crate::sys::{self, Side};
use crate::worker::buffer::Buffer;
use crate::worker::deadline::Wait;
use crate::worker::download::{Delivered, Downlink, Lost};
use crate::worker::join::join;
use crate::worker::peer::Peer;
use crate::worker::progress::{After, End, Failure, LINGER_TIME, Progress};
use crate::worker::request::Request;
use crate::worker::state::Worker;
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
    worker: &Worker,
    client: &mut Stream,
    backend: &mut Stream,
    request: &mut Request,
) -> Result<Relayed, Failure> {
    let uplink = Uplink::new(UplinkState::Sent);
    let mut downlink = Downlink {
        worker,
        facts: request.facts,
        uplink: &uplink,
        client: &client.deadline,
        sender: &mut client.sender,
        backend: &backend.deadline,
        receiver: &mut backend.receiver,
    };
    match downlink.run(&mut request.scratch).await {
        Ok(delivered) => Ok(Relayed {
            after: if delivered.opens_tunnel {
                After::End(End::Close)
            } else if delivered.client_is_kept && request.body.is_complete() {
                After::Keep
            } else {
                // What is left of the body would be taken for the next request.
                After::End(End::Linger)
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
/// When nothing of a final response has reached the client and the request was sent whole after
/// all; else the client is answered here, while its body is read and dropped.
pub async fn both_ways(
    worker: &Worker,
    client: &mut Stream,
    peer: &Peer,
    backend: &mut Stream,
    buffer: &mut Buffer,
    request: &mut Request,
) -> Result<Relayed, Failure> {
    let uplink = Uplink::new(UplinkState::Sending);
    let (client_fd, backend_fd) = (client.deadline.fd(), backend.deadline.fd());
    let (facts, scratch) = (request.facts, &mut request.scratch);
    let mut upload = Upload {
        worker,
        uplink: &uplink,
        client: &client.deadline,
        receiver: &mut client.receiver,
        backend: &backend.deadline,
        sender: &mut backend.sender,
    };
    let mut downlink = Downlink {
        worker,
        facts,
        uplink: &uplink,
        client: &client.deadline,
        sender: &mut client.sender,
        backend: &backend.deadline,
        receiver: &mut backend.receiver,
    };
    let down = async {
        let mut result = downlink.run(scratch).await;
        if uplink.state.get() == UplinkState::Sent {
            return result;
        }
        // The answer is complete, or will never be, and the body is still coming.
        if let Err(Lost::BeforeHead(failure)) = &mut result {
            failure.cause = uplink.fault.get().unwrap_or(failure.cause);
            downlink.refuse(failure.cause, &mut scratch.out).await;
        }
        if uplink.state.get() != UplinkState::Failed {
            uplink.state.set(UplinkState::Dropping);
            client.deadline.arm(Wait::Read, LINGER_TIME);
            sys::shutdown(backend_fd, Side::Both);
            if !matches!(result, Ok(Delivered { client_is_kept: true, .. })) {
                sys::shutdown(client_fd, Side::Write);
            }
        }
        result
    };
    let (result, ()) = join(down, upload.run(buffer, &mut request.body)).await;
    let is_read_whole = request.body.is_complete();
    let fault = uplink.fault.get();
    match result {
        Ok(delivered) => {
            let keeps = delivered.client_is_kept && is_read_whole;
            let end = if is_read_whole { End::Linger } else { End::Close };
            Ok(Relayed {
                after: if keeps { After::Keep } else { After::End(end) },
                backend_is_reusable: delivered.backend_is_reusable
                    && uplink.state.get() == UplinkState::Sent,
                opens_tunnel: false,
                cause: fault,
            })
        }
        Err(Lost::BeforeHead(failure)) if uplink.state.get() == UplinkState::Sent => {
            Err(Failure { progress: Progress::ResponseStarted, ..failure })
        }
        Err(Lost::BeforeHead(failure)) => {
            tracing::debug!(client = %peer.addr, cause = failure.cause.name(), "refused in its body");
            let end = if fault == Some(Cause::ClientLeft) { End::Close } else { End::Linger };
            Ok(cut(failure.cause, end))
        }
        Err(Lost::InBody(cause, end)) => Ok(cut(fault.unwrap_or(cause), end)),
    }
}
