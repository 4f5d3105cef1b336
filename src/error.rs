//! Every way a request, a connection or the start of the process can fail.
//!
//! `Cause` names what went wrong on the request path; `Cause::verdict` is the one table that
//! says what the client is answered, whether its connection lives on, and whether another
//! endpoint may be tried. `StartError` is what stops the process before it serves.

mod start;

use std::fmt;

pub use start::{EXIT_SYSTEM, EXIT_USAGE, StartError};

/// Whether another endpoint may be tried after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another endpoint would fail alike, or the request may have taken effect.
    Never,
    /// No request byte was written: safe for every method.
    Always,
    /// The request may have taken effect: safe for idempotent methods alone (RFC 9110 §9.2.2).
    IfIdempotent,
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
    /// All places for client connections are taken; accepting waits.
    ClientsMax,
    /// No descriptor or memory for another connection; accepting waits.
    AcceptExhausted,
    /// No endpoint is eligible.
    NoEndpoint,
    /// `connect()` to the endpoint failed.
    ConnectFailed,
    /// `connect()` to the endpoint took too long.
    ConnectTimeout,
    /// The endpoint's connection ended before the first byte of an answer.
    BackendLost,
    /// The endpoint's response head breaks the grammar or its framing is in doubt.
    ResponseInvalid,
    /// The endpoint's response head is longer than `--head-bytes-max`, or has too many headers.
    ResponseHeadTooLarge,
    /// The endpoint sent no complete response head in time.
    ResponseTimeout,
    /// The endpoint's answer ended early.
    ResponseTruncated,
    /// A chunk or a trailer of the endpoint's answer breaks the grammar.
    ResponseChunkInvalid,
    /// The endpoint's answer made no progress in time.
    ResponseBodyTimeout,
    /// corelane itself failed: a connection's task panicked.
    Internal,
}

impl Cause {
    /// Every cause, in the order of its number.
    pub const ALL: [Cause; 46] = [
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
        Cause::ClientsMax,
        Cause::AcceptExhausted,
        Cause::NoEndpoint,
        Cause::ConnectFailed,
        Cause::ConnectTimeout,
        Cause::BackendLost,
        Cause::ResponseInvalid,
        Cause::ResponseHeadTooLarge,
        Cause::ResponseTimeout,
        Cause::ResponseTruncated,
        Cause::ResponseChunkInvalid,
        Cause::ResponseBodyTimeout,
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
        self as u8 >= Cause::NoEndpoint as u8
    }

    /// The row of this cause in the table of corelane's own answers.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one table, a row a cause")]
    pub fn verdict(self) -> Verdict {
        use Cause as C;
        match self {
            C::RequestSyntax => refuse(400, "request-syntax", "the request breaks the grammar"),
            C::RequestBareLineEnd => {
                refuse(400, "request-bare-line-end", "a line does not end in CRLF")
            }
            C::RequestMethod => refuse(400, "request-method", "the method is no token"),
            C::RequestTarget => {
                refuse(400, "request-target", "the request target has no valid form")
            }
            C::RequestHeaderName => refuse(400, "request-header-name", "a header name is no token"),
            C::RequestHeaderValue => {
                refuse(400, "request-header-value", "a header value holds a forbidden byte")
            }
            C::HostMissing => refuse(400, "host-missing", "the Host header is missing"),
            C::HostRepeated => refuse(400, "host-repeated", "there is more than one Host header"),
            C::HostInvalid => refuse(400, "host-invalid", "the Host header is no authority"),
            C::RequestLengthInvalid => {
                refuse(400, "request-length-invalid", "Content-Length is no plain number")
            }
            C::RequestLengthsDiffer => {
                refuse(400, "request-lengths-differ", "there are several Content-Length values")
            }
            C::RequestLengthAndCoding => refuse(
                400,
                "request-length-and-coding",
                "Content-Length and Transfer-Encoding exclude each other",
            ),
            C::RequestCodingInvalid => {
                refuse(400, "request-coding-invalid", "Transfer-Encoding is not exactly chunked")
            }
            C::RequestCodingInHttp10 => {
                refuse(400, "request-coding-in-http10", "HTTP/1.0 has no Transfer-Encoding")
            }
            C::RequestCodingUnknown => {
                refuse(501, "request-coding-unknown", "only the chunked transfer coding is known")
            }
            C::RequestConnection => {
                refuse(400, "request-connection", "Connection names a header of the message itself")
            }
            C::RequestVersion => {
                refuse(505, "request-version", "only HTTP/1.0 and HTTP/1.1 are served")
            }
            C::ConnectOff => refuse(405, "connect-off", "CONNECT is not served"),
            C::RequestHeadTooLarge => {
                refuse(431, "request-head-too-large", "the request head is too large")
            }
            C::RequestHeadersTooMany => {
                refuse(431, "request-headers-too-many", "the request has too many headers")
            }
            C::RequestChunkInvalid => {
                refuse(400, "request-chunk-invalid", "a chunk of the body breaks the grammar")
            }
            C::RequestTrailerInvalid => refuse(
                400,
                "request-trailer-invalid",
                "a trailer breaks the grammar or is too long",
            ),
            C::ClientHeadTimeout => {
                refuse(408, "client-head-timeout", "the request head did not arrive in time")
            }
            C::ClientIdleTimeout => silent("client-idle-timeout", "no request arrived in time"),
            C::ClientBodyTimeout => {
                refuse(408, "client-body-timeout", "the request body did not arrive in time")
            }
            C::ClientLeft => {
                silent("client-left", "the client left before its answer was complete")
            }
            C::RequestTargetTooLong => {
                refuse(414, "request-target-too-long", "the request target is too long")
            }
            C::RequestBodyTooLarge => {
                refuse(413, "request-body-too-large", "the request body is too large")
            }
            C::ClientBodySlow => {
                refuse(408, "client-body-slow", "the request body came too slowly")
            }
            C::ClientRate => limit("client-rate", "too many requests from this address"),
            C::ClientConns => limit("client-conns", "too many connections from this address"),
            C::TunnelIdle => silent("tunnel-idle", "nothing passed through the tunnel in time"),
            C::ConnectBody => refuse(400, "connect-body", "CONNECT has no body"),
            C::ClientsMax => {
                silent("clients-max", "accepting waits: --client-conns-max is reached")
            }
            C::AcceptExhausted => silent(
                "accept-exhausted",
                "accepting waits for want of descriptors: raise ulimit -n",
            ),
            C::NoEndpoint => fail(
                503,
                Retry::Never,
                "no-endpoint",
                "destination_unavailable",
                "no backend is available",
            ),
            C::ConnectFailed => fail(
                502,
                Retry::Always,
                "connect-failed",
                "connection_refused",
                "no connection to the backend could be made",
            ),
            C::ConnectTimeout => fail(
                504,
                Retry::Always,
                "connect-timeout",
                "connection_timeout",
                "the backend did not accept a connection in time",
            ),
            C::BackendLost => fail(
                502,
                Retry::IfIdempotent,
                "backend-lost",
                "connection_terminated",
                "the backend closed the connection before it answered",
            ),
            C::ResponseInvalid => fail(
                502,
                Retry::Never,
                "response-invalid",
                "http_protocol_error",
                "the backend's answer breaks the grammar",
            ),
            C::ResponseHeadTooLarge => fail(
                502,
                Retry::Never,
                "response-head-too-large",
                "http_response_header_section_size",
                "the head of the backend's answer is too large",
            ),
            C::ResponseTimeout => fail(
                504,
                Retry::Never,
                "response-timeout",
                "http_response_timeout",
                "the backend did not answer in time",
            ),
            C::ResponseTruncated => cut("response-truncated", "the backend's answer ended early"),
            C::ResponseChunkInvalid => {
                cut("response-chunk-invalid", "a chunk of the backend's answer breaks the grammar")
            }
            C::ResponseBodyTimeout => cut("response-body-timeout", "the backend's answer stalled"),
            C::Internal => cut("internal", "a fault in corelane ended the connection"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict().message)
    }
}

/// The client's fault: answered and closed, since what follows cannot be trusted.
fn refuse(status: u16, name: &'static str, message: &'static str) -> Verdict {
    Verdict {
        status: Some(status),
        fate: Fate::Close,
        retry: Retry::Never,
        name,
        proxy_error: "http_request_error",
        message,
    }
}

/// The backend's fault before its answer began: answered, and the client stays.
fn fail(
    status: u16,
    retry: Retry,
    name: &'static str,
    proxy_error: &'static str,
    message: &'static str,
) -> Verdict {
    Verdict { status: Some(status), fate: Fate::Keep, retry, name, proxy_error, message }
}

/// The client's address has more than its share; the client may try again later.
fn limit(name: &'static str, message: &'static str) -> Verdict {
    Verdict {
        status: Some(429),
        fate: Fate::Keep,
        retry: Retry::Never,
        name,
        proxy_error: "http_request_denied",
        message,
    }
}

/// The client is gone or never asked: closed without an answer.
fn silent(name: &'static str, message: &'static str) -> Verdict {
    Verdict {
        status: None,
        fate: Fate::Close,
        retry: Retry::Never,
        name,
        proxy_error: "connection_terminated",
        message,
    }
}

/// The answer has begun and cannot be completed: the client's connection ends with it.
fn cut(name: &'static str, message: &'static str) -> Verdict {
    Verdict {
        status: None,
        fate: Fate::Close,
        retry: Retry::Never,
        name,
        proxy_error: "http_response_incomplete",
        message,
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
