//! Reads the JSON objects and the queries that clients send: each field once, of the right type, and
//! none that is not known. Pure; called by the handlers that take any.

use std::fmt;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::problem::{Kind, Problem};

/// The fields of a body that are yet to be read.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, Value)>);

impl Fields {
    fn parse(body: &[u8]) -> Result<Fields, Problem> {
        serde_json::from_slice(body).map_err(|error| {
            let detail = format!("the body is no JSON object: {error}; send one, as in {{}}");
            Problem::new(Kind::Malformed, detail)
        })
    }

    /// The value of a field, as `read` understands it; it says what would be right.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let Some(at) = self.0.iter().position(|(known, _)| known == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(at);
        let refused = |reason| Problem::field(name, format!("it is {}; {reason}", short(&value)));
        read(&value).map(Some).map_err(refused)
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self, known: &str) -> Result<(), Problem> {
        match self.0.into_iter().next() {
            Some((name, _)) => {
                Err(Problem::field(name, format!("there is no such field; there are {known}")))
            }
            None => Ok(()),
        }
    }
}

/// A value as a refusal shows it.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl<S: Sync + Send> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Fields, Problem> {
        Fields::parse(&body_of(request, state).await?)
    }
}

async fn body_of<S: Sync + Send>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let body = Bytes::from_request(request, state).await;
    body.map_err(|error: BytesRejection| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let most = super::BODY_BYTES_MAX;
            Problem::new(Kind::TooLarge, format!("send {most} bytes at most"))
        }
        _ => Problem::new(Kind::Malformed, "the body did not come whole; send it again"),
    })
}

/// The body of what takes no fields: none, or `{}`.
#[derive(Debug)]
pub(super) struct NoFields;

impl<S: Sync + Send> FromRequest<S> for NoFields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<NoFields, Problem> {
        let body = body_of(request, state).await?;
        if !body.is_empty() {
            Fields::parse(&body)?.finish("none")?;
        }
        Ok(NoFields)
    }
}

/// Keeps the fields in their order and refuses one that comes twice, which two readers could take
/// for either.
impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields: Vec<(String, Value)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!("{name:?} is there twice")));
            }
            if fields.len() >= FIELDS_MAX {
                return Err(A::Error::custom(format!("there are more than {FIELDS_MAX} fields")));
            }
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }
}

/// The most fields of a body, twice those that any has.
const FIELDS_MAX: usize = 16;

/// The parameters of a query that are yet to be read.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// The value of a parameter.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// The parameters whose names begin so, without that.
    pub(super) fn take_all(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, rest) =
            std::mem::take(&mut self.0).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.0 = rest;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(name, value)| (name[prefix.len()..].to_owned(), value)).collect()
    }

    /// A number that must be there.
    pub(super) fn number(&mut self, name: &str) -> Result<u64, Problem> {
        let text = self.take(name);
        let number = text.as_deref().and_then(|text| text.parse().ok());
        number.ok_or_else(|| match text {
            Some(text) => Problem::field(name, format!("{text:?} is no number; give one")),
            None => Problem::field(name, "it is missing; give a number"),
        })
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self, known: &str) -> Result<(), Problem> {
        match self.0.into_iter().next() {
            Some((name, _)) => {
                let detail = format!("there is no such parameter, or it is given twice: {known}");
                Err(Problem::field(name, detail))
            }
            None => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query, Problem> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let refused = |error| Problem::new(Kind::Malformed, format!("the query: {error}"));
        pairs.map(|pairs| Query(pairs.0)).map_err(refused)
    }
}

/// Characters of a wrong value that are shown.
const SHOWN_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: &Value) -> Result<u64, String> {
        value.as_u64().ok_or_else(|| "give a number".to_owned())
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "[]", "1", "{", "{\"a\":1,\"a\":2}", "{} x", "null", "\u{0}"] {
            let problem = Fields::parse(body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind, Kind::Malformed, "{body}");
        }
        let deep = "[".repeat(10_000);
        assert!(Fields::parse(format!("{{\"a\":{deep}").as_bytes()).is_err());
    }

    #[test]
    fn fields_are_read_once_and_the_rest_is_refused() {
        let mut fields = Fields::parse(br#"{"a":1,"b":"x","c":null}"#).unwrap();
        assert_eq!(fields.take("a", number).unwrap(), Some(1));
        assert_eq!(fields.take("a", number).unwrap(), None);
        let problem = fields.take("b", number).unwrap_err();
        assert!(problem.text().contains("it is \\\"x\\\"; give a number"), "{}", problem.text());
        let problem = fields.finish("a, b").unwrap_err();
        assert!(problem.text().contains("there are a, b") && problem.text().contains("\"c\""));
    }
}
