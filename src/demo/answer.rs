//! The answers: one constructor for each status and shape of body.
//!
//! Sets the status, the body and the headers that describe it. The header
//! `X-Backend` is the business of `service`, which calls these.

use std::fmt::Display;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRAILER};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{AnswerBody, Lines, Pattern};

pub(super) type Answer = Response<AnswerBody>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// 200 with a line of JSON.
pub(super) fn ok(value: &Value) -> Answer {
    json_line(StatusCode::OK, value)
}

/// 200 `ok`: a probe may send requests here.
pub(super) fn healthy() -> Answer {
    with_type(StatusCode::OK, TEXT, whole("ok\n"))
}

/// 503 `failing`: a probe should take this backend out.
pub(super) fn failing() -> Answer {
    with_type(StatusCode::SERVICE_UNAVAILABLE, TEXT, whole("failing\n"))
}

/// 200 with `count` bytes of the pattern.
pub(super) fn pattern(count: u64) -> Answer {
    let mut answer = with_type(StatusCode::OK, BINARY, AnswerBody::Pattern(Pattern::new(count)));
    // hyper would leave the length out of the answer to a HEAD for 0 bytes.
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(count));
    answer
}

/// 200 with `count` lines, chunked, `interval` apart.
pub(super) fn lines(count: u64, interval: Duration) -> Answer {
    with_type(StatusCode::OK, TEXT, AnswerBody::Lines(Lines::new(count, interval)))
}

/// 200 with the request's body as it arrives, of the same type, and of the same
/// length or chunked. Trailers follow if the request announced them in
/// `Trailer` and takes them (`TE: trailers`, RFC 9110 section 6.5.1).
pub(super) fn echo(request_headers: &HeaderMap, body: Incoming) -> Answer {
    let mut answer = Response::new(AnswerBody::Echo(body));
    for name in [CONTENT_TYPE, TRAILER] {
        for value in request_headers.get_all(&name) {
            answer.headers_mut().append(&name, value.clone());
        }
    }
    answer
}

/// 400 with the reason.
pub(super) fn bad_request(reason: &dyn Display) -> Answer {
    json_line(StatusCode::BAD_REQUEST, &json!({ "error": reason.to_string() }))
}

/// 500: the failure that `Behaviour` asked for.
pub(super) fn failed() -> Answer {
    json_line(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": "failed as told" }))
}

/// 507 with the reason.
pub(super) fn no_room(reason: &dyn Display) -> Answer {
    json_line(StatusCode::INSUFFICIENT_STORAGE, &json!({ "error": reason.to_string() }))
}

/// 404 with the paths there are.
pub(super) fn not_found(paths: &[&str]) -> Answer {
    json_line(StatusCode::NOT_FOUND, &json!({ "error": "no such path", "paths": paths }))
}

/// 405 with the methods that the path takes, as in the `Allow` header.
pub(super) fn method_not_allowed(allow: &'static str) -> Answer {
    let value = json!({ "error": format!("method not allowed: use {allow}") });
    let mut answer = json_line(StatusCode::METHOD_NOT_ALLOWED, &value);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

fn json_line(status: StatusCode, value: &Value) -> Answer {
    with_type(status, JSON, whole(format!("{value}\n")))
}

fn whole(body: impl Into<Bytes>) -> AnswerBody {
    AnswerBody::Whole(Full::new(body.into()))
}

fn with_type(status: StatusCode, content_type: HeaderValue, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
