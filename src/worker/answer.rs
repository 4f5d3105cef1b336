//! Sends corelane's own answers to a client.

use crate::error::Cause;
use crate::http1::forward::ClientSide;
use crate::http1::reply;
use crate::worker::buffer::{self, Sink};

/// Sends the answer for `cause`, if the table in `error` has one; whether the client took it.
/// `out` is overwritten.
pub async fn send(
    cause: Cause,
    side: ClientSide,
    to_head_request: bool,
    mut client: Sink<'_>,
    out: &mut Vec<u8>,
) -> bool {
    out.clear();
    reply::write(cause, side, to_head_request, out);
    !out.is_empty() && buffer::send_all(out, &mut client).await.is_ok()
}
