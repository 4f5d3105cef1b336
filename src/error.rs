//! Every way a request, a connection or the start of the process can fail.
//!
//! `Cause` names what went wrong on the request path; `Cause::verdict` is the one table that
//! says what the client is answered, whether its connection lives on, and whether another
//! endpoint may be tried. `StartError` is what stops the process before it serves.

mod start;
mod verdict;

use std::fmt;

pub use start::{EXIT_SYSTEM, EXIT_USAGE, StartError};

/// Whether another endpoint may be tried after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another endpoint would fail alike, or the request may have taken effect.
    Never,
    /// No request byte was written: safe for every method.
    Always,
    /// The request may have taken effect: safe for idempotent methods alone (RFC 9110 §9.2.2), and
    /// done where `--retry-on` names this class of failures.
    IfIdempotent(Class),
}

/// What `--retry-on` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A connection lost before an answer began.
    Lost,
    /// An endpoint that went down before an answer began.
    Down,
    /// An answer whose head did not come in time.
    TimedOut,
    /// An answer that breaks the grammar.
    Invalid,
    /// An answer of a status that was named.
    Status,
}

/// What becomes of the client's connection after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It serves the next request, if this one's body was read whole.
    Keep,
    /// It is closed after the answer, if there is one.
    Close,
}

/// What a cause leads to: one row of the table of corelane's own answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The status of corelane's own answer; `None` closes without one.
    pub status: Option<u16>,
    /// What becomes of the client's connection.
    pub fate: Fate,
    /// Whether another endpoint may be tried first.
    pub retry: Retry,
    /// The name in logs, metrics and `Proxy-Status` details.
    pub name: &'static str,
    /// The `error` parameter of `Proxy-Status` (RFC 9209 §2.3).
    pub proxy_error: &'static str,
    /// One line for a person, without the status.
    pub message: &'static str,
}

/// What ended a request or a connection before its regular end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// A TLS handshake where plain HTTP is served (RFC 8446 §5.1).
    RequestIsTls,
    /// The request line or a header line breaks the grammar (RFC 9112 §2.2, §3, §5).
    RequestSyntax,
    /// A line ends in LF alone, or a CR stands alone (RFC 9112 §2.2).
    RequestBareLineEnd,
    /// The method is no token (RFC 9110 §9.1).
    RequestMethod,
    /// The target is in none of the four forms (RFC 9112 §3.2).
    RequestTarget,
    /// A field name is no token or is followed by white space (RFC 9112 §5.1).
    RequestHeaderName,
    /// A field value holds a control character (RFC 9110 §5.5).
    RequestHeaderValue,
    /// HTTP/1.1 without Host (RFC 9112 §3.2).
    HostMissing,
    /// More than one Host (RFC 9112 §3.2).
    HostRepeated,
    /// A Host that is no authority (RFC 9112 §3.2).
    HostInvalid,
    /// A Content-Length that is no plain number (RFC 9110 §8.6).
    RequestLengthInvalid,
    /// Content-Length values that differ (RFC 9112 §6.3).
    RequestLengthsDiffer,
    /// Content-Length together with Transfer-Encoding (RFC 9112 §6.1).
    RequestLengthAndCoding,
    /// A Transfer-Encoding that does not end in exactly one `chunked` (RFC 9112 §6.1).
    RequestCodingInvalid,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1).
    RequestCodingInHttp10,
    /// A transfer coding other than chunked (RFC 9112 §6.1).
    RequestCodingUnknown,
    /// `Connection` names a header that the message cannot do without (RFC 9110 §7.6.1).
    RequestConnection,
    /// A version other than 1.0 and 1.1 (RFC 9110 §15.6.6).
    RequestVersion,
    /// CONNECT, which is off.
    ConnectOff,
    /// CONNECT with a body, which would be read as the tunnel's first bytes (RFC 9110 §9.3.6).
    ConnectBody,
    /// The head is longer than `--head-bytes-max` (RFC 6585 §5).
    RequestHeadTooLarge,
    /// More headers than `--headers-max` (RFC 6585 §5).
    RequestHeadersTooMany,
    /// The target is longer than `--target-bytes-max` (RFC 9110 §15.5.15).
    RequestTargetTooLong,
    /// The body is longer than `--body-bytes-max` (RFC 9110 §15.5.14).
    RequestBodyTooLarge,
    /// A chunk of the request body breaks the grammar (RFC 9112 §7.1).
    RequestChunkInvalid,
    /// A trailer of the request breaks the grammar or is too long (RFC 9112 §7.1.2).
    RequestTrailerInvalid,
    /// A head began and was not complete in time.
    ClientHeadTimeout,
    /// Nothing arrived on a connection in time.
    ClientIdleTimeout,
    /// The request's body, or the reading of the answer, made no progress in time.
    ClientBodyTimeout,
    /// The request's body came slower than `--body-rate-min`.
    ClientBodySlow,
    /// The client's address sent more requests than `--client-rate-max`.
    ClientRate,
    /// The client's address has more connections than `--client-conns-per-address-max`.
    ClientConns,
    /// The client closed or reset before its answer was complete.
    ClientLeft,
    /// Nothing passed through a tunnel in time.
    TunnelIdle,
    /// The client did not read its answer in time.
    ClientReadTimeout,
    /// All places for client connections are taken; accepting waits.
    ClientsMax,
    /// No descriptor or memory for another connection; accepting waits.
    AcceptExhausted,
    /// The path can be read in ways that lead to different routes.
    RequestPathAmbiguous,
    /// corelane was told to end, or this worker does, before the request was over.
    Stopped,
    /// No route takes the request.
    NoRoute,
    /// No endpoint is eligible.
    NoEndpoint,
    /// Every eligible endpoint has as many requests as it may.
    EndpointsBusy,
    /// All places on endpoints are taken, and as many requests wait for one as may.
    QueueFull,
    /// A request waited for a place on an endpoint for as long as it may.
    QueueTimeout,
    /// `connect()` to the endpoint failed.
    ConnectFailed,
    /// `connect()` to the endpoint took too long.
    ConnectTimeout,
    /// The endpoint's connection ended before the first byte of an answer.
    BackendLost,
    /// The endpoint went down before the first byte of an answer.
    BackendDown,
    /// The endpoint's response head breaks the grammar or its framing is in doubt.
    ResponseInvalid,
    /// The endpoint's response head is longer than `--head-bytes-max`, or has too many headers.
    ResponseHeadTooLarge,
    /// The endpoint sent no complete response head in time.
    ResponseTimeout,
    /// The endpoint's answer has a status that is tried elsewhere.
    ResponseStatus,
    /// The endpoint's answer ended early.
    ResponseTruncated,
    /// A chunk or a trailer of the endpoint's answer breaks the grammar.
    ResponseChunkInvalid,
    /// The endpoint's answer made no progress in time.
    ResponseBodyTimeout,
    /// The backend's side of a tunnel was reset.
    TunnelCut,
    /// corelane itself failed: a connection's task panicked.
    Internal,
}

impl Cause {
    /// Every cause, in the order of its number.
    pub const ALL: [Cause; 57] = [
        Cause::RequestIsTls,
        Cause::RequestSyntax,
        Cause::RequestBareLineEnd,
        Cause::RequestMethod,
        Cause::RequestTarget,
        Cause::RequestHeaderName,
        Cause::RequestHeaderValue,
        Cause::HostMissing,
        Cause::HostRepeated,
        Cause::HostInvalid,
        Cause::RequestLengthInvalid,
        Cause::RequestLengthsDiffer,
        Cause::RequestLengthAndCoding,
        Cause::RequestCodingInvalid,
        Cause::RequestCodingInHttp10,
        Cause::RequestCodingUnknown,
        Cause::RequestConnection,
        Cause::RequestVersion,
        Cause::ConnectOff,
        Cause::ConnectBody,
        Cause::RequestHeadTooLarge,
        Cause::RequestHeadersTooMany,
        Cause::RequestTargetTooLong,
        Cause::RequestBodyTooLarge,
        Cause::RequestChunkInvalid,
        Cause::RequestTrailerInvalid,
        Cause::ClientHeadTimeout,
        Cause::ClientIdleTimeout,
        Cause::ClientBodyTimeout,
        Cause::ClientBodySlow,
        Cause::ClientRate,
        Cause::ClientConns,
        Cause::ClientLeft,
        Cause::TunnelIdle,
        Cause::ClientReadTimeout,
        Cause::ClientsMax,
        Cause::AcceptExhausted,
        Cause::RequestPathAmbiguous,
        Cause::Stopped,
        Cause::NoRoute,
        Cause::NoEndpoint,
        Cause::EndpointsBusy,
        Cause::QueueFull,
        Cause::QueueTimeout,
        Cause::ConnectFailed,
        Cause::ConnectTimeout,
        Cause::BackendLost,
        Cause::BackendDown,
        Cause::ResponseInvalid,
        Cause::ResponseHeadTooLarge,
        Cause::ResponseTimeout,
        Cause::ResponseStatus,
        Cause::ResponseTruncated,
        Cause::ResponseChunkInvalid,
        Cause::ResponseBodyTimeout,
        Cause::TunnelCut,
        Cause::Internal,
    ];

    /// The name in logs, metrics and `Proxy-Status` details.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.verdict().name
    }

    /// Whether a backend, or the want of one, is at fault.
    #[must_use]
    pub fn is_backends(self) -> bool {
        self as u8 >= Cause::NoEndpoint as u8 && self != Cause::Internal
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict().message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_stands_at_its_number_and_has_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for (number, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number);
            assert!(names.insert(cause.name()), "{} twice", cause.name());
        }
    }

    #[test]
    fn only_failures_before_an_answer_may_be_retried() {
        for cause in Cause::ALL {
            let verdict = cause.verdict();
            if verdict.retry != Retry::Never {
                assert!(matches!(verdict.status, Some(502 | 504)), "{}", verdict.name);
                assert_eq!(verdict.fate, Fate::Keep);
            }
        }
    }
}
