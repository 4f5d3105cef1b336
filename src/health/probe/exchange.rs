//! One HTTP/1.1 request on a fresh connection, and what its answer decides.
//!
//! The connection is polled beside whatever waits for it, in the same task: dropping the future
//! closes it.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::HeaderMap;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Passed, ProbeError, Wanted};
use crate::health::load;

type Connection = http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>;

/// A connection that is driven while something waits for it.
struct Driven {
    /// `None` once it has ended,
    conn: Option<Connection>,
    /// by this error, if by any.
    error: Option<hyper::Error>,
}

impl Driven {
    /// Drives the connection until this work is done, and lets the work end without it when it
    /// ends: its last act may have been to hand over what the work waits for.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(conn) = &mut self.conn {
            tokio::select! {
                biased;
                done = &mut work => return done,
                ended = conn => self.error = ended.err(),
            }
        }
        self.conn = None;
        work.await
    }
}

/// Sends the request and judges the answer.
pub(super) async fn run(
    stream: TcpStream,
    address: SocketAddr,
    wanted: &Wanted,
) -> Result<Passed, ProbeError> {
    let protocol = |error| ProbeError::Protocol(address, error);
    let (mut sender, conn) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(protocol)?;
    let mut driven = Driven { conn: Some(conn), error: None };
    let answer = driven.beside(sender.send_request(wanted.request.clone())).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Err(protocol(driven.error.take().unwrap_or(error))),
    };
    let status = answer.status().as_u16();
    let share = share_of(answer.headers(), address);
    let mut body = answer.into_body();
    let verdict = if !wanted.statuses.contains(status) {
        Err(ProbeError::Status(address, status))
    } else if let Some(text) = &wanted.body {
        match driven.beside(contains(&mut body, text)).await {
            Ok(true) => Ok(Passed { share }),
            Ok(false) => Err(ProbeError::Body(address)),
            Err(error) => Err(protocol(driven.error.take().unwrap_or(error))),
        }
    } else {
        Ok(Passed { share })
    };
    if driven.conn.is_some() && !body.is_end_stream() {
        tokio::spawn(read_rest(body, driven));
    }
    verdict
}

/// The share that the answer's `X-Load` leaves the backend.
fn share_of(headers: &HeaderMap, address: SocketAddr) -> Option<u32> {
    let value = headers.get(LOAD)?;
    let share = value.to_str().ok().and_then(load::share_of);
    if share.is_none() {
        tracing::debug!(%address, ?value, "X-Load is no number from 0.0 to 1.0, and is ignored");
    }
    share
}

/// Whether this text stands in the body's first `BODY_BYTES_MAX`; decided as soon as it is found.
async fn contains(body: &mut Incoming, text: &str) -> Result<bool, hyper::Error> {
    let mut read = Vec::new();
    loop {
        // The text may have begun in what was searched before.
        let from = read.len().saturating_sub(text.len());
        let Some(frame) = body.frame().await else { return Ok(text.is_empty()) };
        if let Some(bytes) = frame?.data_ref() {
            let left = BODY_BYTES_MAX - read.len();
            read.extend_from_slice(&bytes[..bytes.len().min(left)]);
        }
        if memmem::find(&read[from..], text.as_bytes()).is_some() {
            return Ok(true);
        }
        if read.len() >= BODY_BYTES_MAX {
            return Ok(false);
        }
    }
}

/// Reads what no verdict depends on: closing a socket with unread bytes resets it, and the backend
/// would log an error for each probe.
async fn read_rest(mut body: Incoming, mut driven: Driven) {
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > BODY_BYTES_MAX {
                return;
            }
        }
    };
    if timeout(REST_TIMEOUT, driven.beside(read)).await.is_err() {
        tracing::debug!("the body of a probe's answer took longer than {REST_TIMEOUT:?}");
    }
}

/// The header in which a backend tells its load.
const LOAD: &str = "x-load";
/// Bytes of an answer's head; a longer one is a protocol error.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a body that are searched, or else read before the connection is closed.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a body is read after the probe has decided.
const REST_TIMEOUT: Duration = Duration::from_secs(1);
