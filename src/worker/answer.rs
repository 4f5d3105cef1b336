//! Sends corelane's own answers to a client.

use crate::config::ClientLimits;
use crate::error::Cause;
use crate::http1::forward::ClientSide;
use crate::http1::reply;
use crate::worker::buffer;
use crate::worker::deadline::{Deadline, Wait};
use crate::worker::stream::Sender;

/// Sends the answer for `cause`, if the table in `error` has one; whether the client took it.
/// `out` is overwritten.
pub async fn send(
    cause: Cause,
    side: ClientSide,
    to_head_request: bool,
    limits: &ClientLimits,
    (deadline, sender): (&Deadline, &mut Sender),
    out: &mut Vec<u8>,
) -> bool {
    out.clear();
    reply::write(cause, side, to_head_request, out);
    if out.is_empty() {
        return false;
    }
    deadline.arm(Wait::Write, limits.body_timeout);
    let sent = buffer::send_all(out, sender, &mut 0).await;
    deadline.disarm(Wait::Write);
    sent.is_ok()
}
