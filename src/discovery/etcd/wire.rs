//! etcd's JSON: what its gateway is sent and answers.
//!
//! Keys and values are in base64, 64-bit numbers in text, and what has its default is left out.
//! Pure; `client` calls it.

use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// What every answer begins with.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Header {
    /// Which cluster answered.
    #[serde(default, deserialize_with = "number")]
    pub(super) cluster_id: u64,
    /// How many changes it had seen.
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: i64,
}

/// The keys of a range.
#[derive(Debug, Deserialize)]
pub(super) struct Range {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    /// How many keys the range has, asked for or not.
    #[serde(default, deserialize_with = "number")]
    pub(super) count: usize,
}

/// A key and what it holds.
#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    /// The revision that changed it last.
    #[serde(default, deserialize_with = "number")]
    pub(super) mod_revision: i64,
}

/// One message of a stream: a result or an error.
#[derive(Debug, Deserialize)]
pub(super) struct Line<T> {
    pub(super) result: Option<T>,
    pub(super) error: Option<Value>,
}

/// What a watch tells.
#[derive(Debug, Deserialize)]
pub(super) struct Watched {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) created: bool,
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) cancel_reason: String,
    /// The first revision that is still there, where the one asked for is not.
    #[serde(default, deserialize_with = "number")]
    pub(super) compact_revision: i64,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

/// A change of one key.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(default, rename = "type")]
    kind: String,
    pub(super) kv: KeyValue,
}

impl Event {
    /// Whether the key went.
    pub(super) fn is_delete(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// What became of a change.
#[derive(Debug, Deserialize)]
pub(super) struct Swapped {
    pub(super) header: Header,
    /// Whether the keys still had the versions that it was made for.
    #[serde(default)]
    pub(super) succeeded: bool,
}

/// A lease as it was granted or kept alive.
#[derive(Debug, Deserialize)]
pub(super) struct Lease {
    #[serde(default, rename = "ID", deserialize_with = "number")]
    pub(super) id: i64,
    /// Seconds that it has left; 0 for one that is gone.
    #[serde(default, rename = "TTL", deserialize_with = "number")]
    pub(super) ttl: i64,
}

/// A user that is logged in.
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    pub(super) token: String,
}

/// An answer of which nothing is wanted.
#[derive(Debug, Deserialize)]
pub(super) struct Ignored {}

/// What an error answer says, in whatever form the version of etcd gives it.
pub(super) fn message_of(body: &[u8]) -> String {
    // A stream's error may be followed by trailers.
    let first = serde_json::Deserializer::from_slice(body).into_iter::<Value>().next();
    let text = match &first {
        Some(Ok(value)) => text_of(value),
        _ => None,
    };
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    text.chars().filter(|char| !char.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

/// The message of an error in JSON.
pub(super) fn text_of(error: &Value) -> Option<String> {
    let error = error.get("error").filter(|inner| inner.is_object()).unwrap_or(error);
    let text = error.get("message").or_else(|| error.get("error"))?;
    text.as_str().map(str::to_owned)
}

/// Asks for all keys that begin so, in order, and no more than `limit`.
pub(super) fn range(prefix: &str, limit: usize) -> Value {
    json!({
        "key": BASE64_STANDARD.encode(prefix),
        "range_end": end_of(prefix),
        "limit": limit.to_string(),
        "sort_order": "ASCEND",
        "sort_target": "KEY",
    })
}

/// Asks how many keys begin so, and for the one that changed last.
pub(super) fn newest(prefix: &str) -> Value {
    json!({
        "key": BASE64_STANDARD.encode(prefix),
        "range_end": end_of(prefix),
        "limit": "1",
        "keys_only": true,
        "sort_order": "DESCEND",
        "sort_target": "MOD",
    })
}

/// Watches all keys that begin so, from this revision on.
pub(super) fn watch(prefix: &str, revision: i64) -> Value {
    json!({ "create_request": {
        "key": BASE64_STANDARD.encode(prefix),
        "range_end": end_of(prefix),
        "start_revision": revision.to_string(),
    } })
}

/// Writes a key that goes with this lease.
pub(super) fn put(key: &str, value: &str, lease: i64) -> Value {
    json!({
        "key": BASE64_STANDARD.encode(key),
        "value": BASE64_STANDARD.encode(value),
        "lease": lease.to_string(),
    })
}

/// Writes the key that still has this version, 0 for none at all; its lease stays.
pub(super) fn swap((key, version): &(Vec<u8>, i64), value: &str) -> Value {
    let mut put = json!({
        "key": BASE64_STANDARD.encode(key),
        "value": BASE64_STANDARD.encode(value),
    });
    // Only a key that is there can keep its lease.
    put["ignore_lease"] = (*version > 0).into();
    json!({ "compare": [has_version(key, *version)], "success": [{ "request_put": put }] })
}

/// Deletes these keys, if all of them still have these versions.
pub(super) fn delete(keys: &[(Vec<u8>, i64)]) -> Value {
    let delete = |key| json!({ "request_delete_range": { "key": BASE64_STANDARD.encode(key) } });
    json!({
        "compare": keys.iter().map(|(key, version)| has_version(key, *version)).collect::<Vec<_>>(),
        "success": keys.iter().map(|(key, _)| delete(key)).collect::<Vec<_>>(),
    })
}

fn has_version(key: &[u8], version: i64) -> Value {
    json!({
        "key": BASE64_STANDARD.encode(key),
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": version.to_string(),
    })
}

/// Grants a lease of so many seconds.
pub(super) fn grant(seconds: u64) -> Value {
    json!({ "TTL": seconds.to_string() })
}

/// Names a lease.
pub(super) fn lease(id: i64) -> Value {
    json!({ "ID": id.to_string() })
}

/// Logs in.
pub(super) fn login(user: &str, password: &str) -> Value {
    json!({ "name": user, "password": password })
}

/// The first key behind all that begin so, in base64: the prefix, its last byte one more. Prefixes
/// are ASCII, so that it never overflows.
fn end_of(prefix: &str) -> String {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    BASE64_STANDARD.encode(end)
}

/// A number in text, or as it is.
fn number<'de, D: Deserializer<'de>, T: FromStr>(from: D) -> Result<T, D::Error> {
    let text = match Value::deserialize(from)? {
        Value::String(text) => text,
        other => other.to_string(),
    };
    text.parse().map_err(|_no| Error::custom(format!("{text:?} is not the number expected")))
}

/// Bytes in base64.
fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    BASE64_STANDARD.decode(&text).map_err(|error| Error::custom(format!("base64: {error}")))
}

/// The most characters of an error's text that are told.
const MESSAGE_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_with_its_defaults() {
        let text = r#"{"header":{"cluster_id":"14841639068965178418","revision":"7"},
            "kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"3","value":"eA==","lease":"5"},
            {"key":"Yg==","mod_revision":4}],"count":"9"}"#;
        let range: Range = serde_json::from_str(text).unwrap();
        assert_eq!(
            (range.header.cluster_id, range.header.revision),
            (14_841_639_068_965_178_418, 7)
        );
        let read: Vec<_> =
            range.kvs.iter().map(|kv| (&kv.key[..], &kv.value[..], kv.mod_revision)).collect();
        assert_eq!(read, [(&b"a"[..], &b"x"[..], 3), (b"b", b"", 4)]);
        assert_eq!(range.count, 9);
        let empty: Range = serde_json::from_str(r#"{"header":{"revision":"1"}}"#).unwrap();
        assert_eq!((empty.kvs.len(), empty.count), (0, 0));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"header":{"revision":"x"}}"#,
            r#"{"header":{},"kvs":[{"key":"!"}]}"#,
            r#"{"header":{},"count":-1}"#,
        ] {
            assert!(serde_json::from_str::<Range>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn events_and_cancellations_are_read() {
        let text = r#"{"result":{"header":{"revision":"3"},"events":[
            {"kv":{"key":"YQ==","mod_revision":"2","value":"eA=="}},
            {"type":"DELETE","kv":{"key":"YQ==","mod_revision":"3"}}]}}"#;
        let line: Line<Watched> = serde_json::from_str(text).unwrap();
        let events = line.result.unwrap().events;
        assert_eq!(events.iter().map(Event::is_delete).collect::<Vec<_>>(), [false, true]);
        let text = r#"{"result":{"header":{},"canceled":true,"compact_revision":"5"}}"#;
        let watched = serde_json::from_str::<Line<Watched>>(text).unwrap().result.unwrap();
        assert_eq!((watched.canceled, watched.compact_revision), (true, 5));
    }

    #[test]
    fn errors_are_read_in_each_of_their_forms() {
        for (text, expected) in [
            (
                r#"{"error":"etcdserver: x","message":"etcdserver: x","code":5}Grpc-Trailer"#,
                "etcdserver: x",
            ),
            (r#"{"error":{"grpc_code":1,"message":"gone"}}"#, "gone"),
            (r#"{"error":"old"}"#, "old"),
            ("plain\ntext", "plaintext"),
        ] {
            assert_eq!(message_of(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_range_ends_behind_all_that_begins_with_its_prefix() {
        assert_eq!(end_of("/a/"), BASE64_STANDARD.encode("/a0"));
    }
}
