//! Sends corelane's own answers to a client.

use crate::error::Cause;
use crate::http1::forward::ClientSide;
use crate::http1::reply;
use crate::worker::buffer::{self, Sink};
use crate::worker::record::Record;

/// Sends the answer for `cause`, if the table in `error` has one; whether the client took it.
/// `out` is overwritten.
pub async fn send(
    record: &Record<'_>,
    cause: Cause,
    side: ClientSide,
    to_head_request: bool,
    mut client: Sink<'_>,
    out: &mut Vec<u8>,
) -> bool {
    out.clear();
    reply::write(cause, side, to_head_request, out);
    record.answered_for(cause);
    record.head_goes_out(head_bytes(out));
    !out.is_empty() && buffer::send_all(out, &mut client).await.is_ok()
}

/// The bytes of the head that an answer of corelane's begins with.
pub fn head_bytes(answer: &[u8]) -> usize {
    let end = answer.windows(HEAD_END.len()).position(|bytes| bytes == HEAD_END);
    end.map_or(0, |at| at + HEAD_END.len())
}

/// The empty line behind a head, with the end of the line before it.
const HEAD_END: &[u8] = b"\r\n\r\n";
