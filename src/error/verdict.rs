//! The table of corelane's own answers: what each cause leads to.

use crate::error::{Cause, Class, Fate, Retry, Verdict};

impl Cause {
    /// The row of this cause in the table of corelane's own answers.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one table, a row a cause")]
    pub fn verdict(self) -> Verdict {
        use Cause as C;
        match self {
            C::RequestIsTls => {
                refuse(400, "request-is-tls", "this is TLS; corelane serves plain HTTP here")
            }
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
            C::ClientReadTimeout => {
                silent("client-read-timeout", "the client did not read its answer in time")
            }
            C::RequestPathAmbiguous => {
                refuse(400, "request-path-ambiguous", "the path can be read in more than one way")
            }
            C::Stopped => silent("stopped", "corelane ended before the request was over"),
            C::NoRoute => fail(
                404,
                Retry::Never,
                "no-route",
                "destination_not_found",
                "no route takes this host, path and method",
            ),
            C::NoEndpoint => fail(
                503,
                Retry::Never,
                "no-backend",
                "destination_unavailable",
                "no backend is available",
            ),
            C::EndpointsBusy => {
                busy("backends-busy", "every backend has as many requests as it may")
            }
            C::QueueFull => busy(
                "queue-full",
                "every backend has all its connections in use, and no more requests may wait",
            ),
            C::QueueTimeout => busy("queue-timeout", "no backend had a place in time"),
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
                Retry::IfIdempotent(Class::Lost),
                "backend-lost",
                "connection_terminated",
                "the backend closed the connection before it answered",
            ),
            C::BackendDown => fail(
                502,
                Retry::IfIdempotent(Class::Down),
                "backend-down",
                "destination_unavailable",
                "the backend went down before it answered",
            ),
            C::ResponseInvalid => fail(
                502,
                Retry::IfIdempotent(Class::Invalid),
                "response-invalid",
                "http_protocol_error",
                "the backend's answer breaks the grammar",
            ),
            C::ResponseHeadTooLarge => fail(
                502,
                Retry::IfIdempotent(Class::Invalid),
                "response-head-too-large",
                "http_response_header_section_size",
                "the head of the backend's answer is too large",
            ),
            C::ResponseTimeout => fail(
                504,
                Retry::IfIdempotent(Class::TimedOut),
                "response-timeout",
                "http_response_timeout",
                "the backend did not answer in time",
            ),
            C::ResponseStatus => fail(
                502,
                Retry::IfIdempotent(Class::Status),
                "response-status",
                "http_protocol_error",
                "the backend answered with a status that is tried again",
            ),
            C::ResponseTruncated => cut("response-truncated", "the backend's answer ended early"),
            C::ResponseChunkInvalid => {
                cut("response-chunk-invalid", "a chunk of the backend's answer breaks the grammar")
            }
            C::ResponseBodyTimeout => cut("response-body-timeout", "the backend's answer stalled"),
            C::TunnelCut => cut("tunnel-cut", "the backend reset its side of a tunnel"),
            C::Internal => cut("internal", "a fault in corelane ended the connection"),
        }
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

/// No backend takes the request just now; the client may try again later.
fn busy(name: &'static str, message: &'static str) -> Verdict {
    fail(503, Retry::Never, name, "connection_limit_reached", message)
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
