//! How far an exchange has come and how it ends: the words that `connection`, `exchange` and
//! `relay` share.
//!
//! What the client has seen decides whether a request may be tried again and how its connection
//! ends.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::config::PoolConfig;
use crate::error::Cause;
use crate::http1::Version;
use crate::http1::forward::ClientSide;
use crate::http1::response::AnswerTo;
use crate::worker::record::Record;

/// What a response's way to the client depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The version the client speaks.
    pub version: Version,
    /// Whether the client wants its connection to outlive the response.
    pub keep_alive: bool,
    /// What the response answers.
    pub to: AnswerTo,
    /// The protocol that the connection may be upgraded to: an index in the configured ones.
    pub upgrade: Option<usize>,
    /// Whether the client may wait for a 100 before it sends its body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
}

impl Facts {
    /// Whether the response has no body whatever its head says.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.to == AnswerTo::Head
    }

    /// What the client is told about its connection.
    #[must_use]
    pub fn client_side(&self, keep_alive: bool) -> ClientSide {
        ClientSide { version: self.version, keep_alive: keep_alive && self.keep_alive }
    }
}

/// What becomes of the client's connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It serves the next request.
    Keep,
    /// It ends so.
    End(End),
}

/// How far an attempt had come when it failed, which decides whether another may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No byte was sent.
    Untouched,
    /// The request may have taken effect.
    Sent,
    /// The backend has begun to answer; the client has seen nothing of it.
    ResponseStarted,
    /// The client has seen an interim answer.
    Shown,
}

/// An attempt that failed before the client saw anything of it.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// How far it had come.
    pub progress: Progress,
}

/// What an attempt makes of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The settings of the request's pool.
    pub config: &'a PoolConfig,
    /// A header line that the answer gets, or nothing.
    pub set_cookie: &'a [u8],
    /// Whether the connection had lain unused: the backend may have been about to close it.
    pub is_reused: bool,
    /// Whether another attempt may follow one that has sent the request,
    pub is_retryable: bool,
    /// on an endpoint that was not tried.
    pub has_other: bool,
    /// Where the final head is told of, once it has come.
    pub seen: &'a Cell<Option<Seen>>,
    /// Where the request's facts are gathered.
    pub record: &'a Record<'a>,
}

/// A final answer's head, as far as others need to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its status.
    pub status: u16,
    /// When it had come.
    pub at: Instant,
    /// How long the backend says it keeps an unused connection.
    pub keeps_for: Option<Duration>,
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At once: the client has closed, or has got all there is.
    Close,
    /// The sending side first; then what the client still sends is read and dropped for a while,
    /// since closing with unread bytes resets the connection and can destroy the last answer.
    Linger,
    /// With a reset: the answer is cut and could be taken for complete.
    Reset,
}

/// How long a client may still send after its last answer.
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// How often a read is tried again after reads were ended.
pub const CLOSING_POLL: Duration = Duration::from_millis(5);
/// How many bytes are read and dropped after the last answer.
pub const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
