//! What the admin API answers when it refuses: one row a kind, one shape for all (RFC 9457).
//!
//! Each says in `detail` what to do next. Made by `guard`, `serve` and every handler.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::control::Refusal;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    /// What is wrong here, and the next step.
    detail: String,
    /// The field of the body, or the parameter of the query, that is wrong.
    field: Option<String>,
}

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request that breaks a rule of HTTP, or whose query or JSON cannot be read.
    Malformed,
    /// No token.
    TokenMissing,
    /// Another token.
    TokenWrong,
    /// A name in `Host` that is not expected.
    HostForeign,
    /// A page of another origin wants a change.
    OriginForeign,
    /// No such path.
    PathUnknown,
    /// No such pool, backend or snapshot.
    Unknown,
    /// A method that the path does not have.
    Method,
    /// The request did not come whole in time.
    TimedOut,
    /// It cannot be done as things are.
    Conflict,
    /// Somebody else was first.
    Changed,
    /// A body of too many bytes.
    TooLarge,
    /// A body that is not said to be JSON.
    NoJson,
    /// A field or parameter with a value that cannot be.
    Invalid,
    /// Too much at once.
    Busy,
    /// etcd, which is to take the change, cannot be had.
    EtcdAway,
    /// etcd refuses the change.
    EtcdRefused,
    /// Something that should work does not.
    Failed,
}

impl Kind {
    #[cfg(test)]
    pub(super) const ALL: [Kind; 18] = [
        Kind::Malformed,
        Kind::TokenMissing,
        Kind::TokenWrong,
        Kind::HostForeign,
        Kind::OriginForeign,
        Kind::PathUnknown,
        Kind::Unknown,
        Kind::Method,
        Kind::TimedOut,
        Kind::Conflict,
        Kind::Changed,
        Kind::TooLarge,
        Kind::NoJson,
        Kind::Invalid,
        Kind::Busy,
        Kind::EtcdAway,
        Kind::EtcdRefused,
        Kind::Failed,
    ];

    /// The status, the name in `type`, and the title.
    pub(super) fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Kind::Malformed => (S::BAD_REQUEST, "malformed", "The request cannot be read"),
            Kind::TokenMissing => (S::UNAUTHORIZED, "token-missing", "A token is needed"),
            Kind::TokenWrong => (S::UNAUTHORIZED, "token-wrong", "The token is not the right one"),
            Kind::HostForeign => (S::FORBIDDEN, "host-foreign", "The Host is not expected here"),
            Kind::OriginForeign => {
                (S::FORBIDDEN, "origin-foreign", "A page of another origin may change nothing")
            }
            Kind::PathUnknown => (S::NOT_FOUND, "path-unknown", "There is nothing at this path"),
            Kind::Unknown => (S::NOT_FOUND, "unknown", "There is no such thing"),
            Kind::Method => (S::METHOD_NOT_ALLOWED, "method", "The path has no such method"),
            Kind::TimedOut => (S::REQUEST_TIMEOUT, "timed-out", "The request took too long"),
            Kind::Conflict => (S::CONFLICT, "conflict", "It cannot be done as things are"),
            Kind::Changed => (S::PRECONDITION_FAILED, "changed", "Somebody else changed it first"),
            Kind::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            Kind::NoJson => (S::UNSUPPORTED_MEDIA_TYPE, "no-json", "The body must be JSON"),
            Kind::Invalid => (S::UNPROCESSABLE_ENTITY, "invalid", "A value cannot be"),
            Kind::Busy => (S::SERVICE_UNAVAILABLE, "busy", "Too much is asked at once"),
            Kind::EtcdAway => (S::SERVICE_UNAVAILABLE, "etcd-away", "etcd has not answered"),
            Kind::EtcdRefused => (S::BAD_GATEWAY, "etcd-refused", "etcd has refused it"),
            Kind::Failed => (S::INTERNAL_SERVER_ERROR, "failed", "The control thread failed"),
        }
    }
}

/// As it is written.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem { kind, detail: detail.into(), field: None }
    }

    /// A value of this field that cannot be.
    pub(super) fn field(field: impl Into<String>, detail: impl Into<String>) -> Problem {
        Problem { kind: Kind::Invalid, detail: detail.into(), field: Some(field.into()) }
    }

    /// The document, for whoever writes the answer without axum.
    pub(super) fn text(&self) -> String {
        let (status, name, title) = self.kind.row();
        let document = Document {
            r#type: format!("{TYPE_PREFIX}{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
        };
        // Strings and numbers can always be written.
        serde_json::to_string(&document).unwrap_or_default() + "\n"
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let kind = match &refusal {
            Refusal::UnknownPool(_) | Refusal::UnknownBackend(_) | Refusal::UnknownEpoch(_) => {
                Kind::Unknown
            }
            Refusal::Exists(_)
            | Refusal::TooMany
            | Refusal::TooManyPools
            | Refusal::Elsewhere(..)
            | Refusal::KeyTaken(_)
            | Refusal::NotInEtcd(_) => Kind::Conflict,
            Refusal::Conflict(_) | Refusal::Overtaken(_) => Kind::Changed,
            Refusal::EtcdAway(_) | Refusal::EtcdUnknown(_) => Kind::EtcdAway,
            Refusal::EtcdRefused(_) => Kind::EtcdRefused,
            Refusal::Invalid(_) => Kind::Invalid,
            Refusal::Gone => Kind::Failed,
        };
        Problem::new(kind, refusal.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, ..) = self.kind.row();
        let mut response = (status, self.text()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.kind {
            Kind::TokenMissing | Kind::TokenWrong => {
                let challenge = HeaderValue::from_static("Bearer realm=\"corelane\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Kind::Busy | Kind::EtcdAway => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// The media type of a problem document (RFC 9457 §6.1).
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// What stands before a kind's name in `type`: a name, not a place to fetch anything from.
const TYPE_PREFIX: &str = "urn:corelane:problem:";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_problem_says_what_where_and_the_next_step() {
        let problem = Problem::field("weight", "it is 0; give 1 to 256");
        let document: serde_json::Value = serde_json::from_str(&problem.text()).unwrap();
        let expected = serde_json::json!({
            "type": "urn:corelane:problem:invalid", "title": "A value cannot be", "status": 422,
            "detail": "it is 0; give 1 to 256", "field": "weight",
        });
        assert_eq!(document, expected);
        let response = problem.into_response();
        assert_eq!(response.status().as_u16(), 422);
        assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE);
    }

    #[test]
    fn names_tell_the_kinds_apart() {
        let names: HashSet<_> = Kind::ALL.map(|kind| kind.row().1).into_iter().collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
