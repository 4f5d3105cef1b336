//! The grammar of the backends file: a list `backends` of tables, in TOML or JSON by its name's
//! ending.
//!
//! An error names the line. Pure; `file` calls it.

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::config::{
    BACKENDS_MAX, BackendConfig, DEFAULT_POOL, Mode, WEIGHT_MAX, parse_backend_url, parse_pool_name,
};
use crate::discovery::{EntryMode, Found};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    backends: Vec<Line>,
}

/// One backend; its fields are named as the options of `--backend`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Line {
    url: Url,
    #[serde(default = "weight_by_default", deserialize_with = "weight")]
    weight: NonZeroU16,
    #[serde(default)]
    max_conns: Option<NonZeroU32>,
    #[serde(default)]
    backup: bool,
    #[serde(default)]
    mode: EntryMode,
    #[serde(default = "pool_by_default", deserialize_with = "pool")]
    pool: String,
}

/// A backend's host and port.
#[derive(Debug)]
struct Url(String, u16);

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (host, port) = parse_backend_url(&text)
            .map_err(|reason| D::Error::custom(format!("url {text:?}: {reason}")))?;
        Ok(Url(host, port))
    }
}

/// The backends that a file of this name and these contents says.
///
/// # Errors
/// What is wrong with it, and in which line.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Found>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|it| **it == b'\n').count();
        format!("line {line}: it is no UTF-8")
    })?;
    if text.trim().is_empty() {
        return Err("line 1: it is empty; if there are to be none, write backends = []".to_owned());
    }
    let document: Document = match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => serde_json::from_str(text).map_err(|error| {
            let told = error.to_string();
            let reason = told.rsplit_once(" at line ").map_or(told.as_str(), |(reason, _)| reason);
            format!("line {}: {reason}", error.line())
        })?,
        Some("toml") => toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            format!("line {line}: {}", error.message().replace('\n', "; "))
        })?,
        _ => return Err("its name ends in neither .toml nor .json".to_owned()),
    };
    if document.backends.len() > BACKENDS_MAX {
        return Err(format!("it names more than {BACKENDS_MAX} backends"));
    }
    let mut seen = HashSet::new();
    let mut found = Vec::with_capacity(document.backends.len());
    for (number, line) in (1..).zip(document.backends) {
        let one = line.found();
        let authority = one.backend.authority();
        if !seen.insert((one.pool.clone(), authority.clone())) {
            let pool = one.pool;
            return Err(format!("backend {number}: http://{authority} is in pool {pool} already"));
        }
        found.push(one);
    }
    Ok(found)
}

impl Line {
    fn found(self) -> Found {
        let Line { url: Url(host, port), weight, max_conns, backup, mode, pool } = self;
        let mode = match mode {
            EntryMode::Ready => Mode::Ready,
            EntryMode::Drain => Mode::Drain,
            EntryMode::Maintenance => Mode::Maintenance,
        };
        let (conns_max, is_backup) = (max_conns, backup);
        Found { pool, backend: BackendConfig { host, port, weight, conns_max, is_backup, mode } }
    }
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU16, D::Error> {
    let weight = u16::deserialize(deserializer).ok().and_then(NonZeroU16::new);
    let weight = weight.filter(|weight| weight.get() <= WEIGHT_MAX);
    weight.ok_or_else(|| D::Error::custom(format!("the weight is not 1 to {WEIGHT_MAX}")))
}

fn weight_by_default() -> NonZeroU16 {
    NonZeroU16::MIN
}

fn pool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parse_pool_name(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn pool_by_default() -> String {
    DEFAULT_POOL.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<Vec<Found>, String> {
        parse(Path::new("/etc/backends.toml"), text.as_bytes())
    }

    fn json(text: &str) -> Result<Vec<Found>, String> {
        parse(Path::new("backends.json"), text.as_bytes())
    }

    #[test]
    fn both_grammars_say_the_same() {
        let from_toml = toml(
            "# Ours.\n[[backends]]\nurl = \"http://A:80\"\n\n[[backends]]\nurl = \"http://[::1]:81\"\n\
             weight = 7\nmax-conns = 9\nbackup = true\nmode = \"drain\"\npool = \"api\"\n",
        )
        .unwrap();
        let from_json = json(
            r#"{"backends": [{"url": "http://A:80"},
                {"url": "http://[::1]:81", "weight": 7, "max-conns": 9, "backup": true,
                 "mode": "drain", "pool": "api"}]}"#,
        )
        .unwrap();
        assert_eq!(from_toml, from_json);
        let [a, b] = &from_toml[..] else { panic!("{from_toml:?}") };
        assert_eq!((a.pool.as_str(), a.backend.authority().as_str()), ("default", "a:80"));
        assert_eq!((b.pool.as_str(), b.backend.authority().as_str()), ("api", "[::1]:81"));
        assert_eq!((b.backend.weight.get(), b.backend.mode), (7, Mode::Drain));
        assert_eq!(toml("backends = []").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, word) in [
            ("", "line 1", "backends = []"),
            ("\n \n", "line 1", "empty"),
            ("[[backends]]\nurl = \"http://a:80\"\nurl", "line 3", ""),
            ("[[backends]]\nurl = \"a:80\"", "line 2", "http://"),
            ("[[backends]]\nurl = \"http://a:80\"\nweight = 0", "line 3", "1 to 256"),
            ("[[backends]]\nurl = \"http://a:80\"\nweight = \"2\"", "line 3", "1 to 256"),
            ("[[backends]]\nurl = \"http://a:80\"\ncolour = 1", "line 3", "colour"),
            ("[[backends]]\nurl = \"http://a:80\"\npool = \"a b\"", "line 3", "no pool"),
            ("[[backends]]\nurl = \"http://a:80\"\nmode = \"off\"", "line 3", "maintenance"),
            ("[[backends]]\n\n[[backends]]\nurl = \"http://a:80\"", "line 1", "url"),
            ("[[backend]]\nurl = \"http://a:80\"", "line 1", "backends"),
        ] {
            let reason = toml(text).unwrap_err();
            assert!(reason.contains(line) && reason.contains(word), "{text:?}: {reason}");
        }
        for (text, line, word) in [
            ("{", "line 1", "EOF"),
            ("{\"backends\": [\n{\"url\": \"a:80\"}]}", "line 2", "http://"),
            ("{\"backends\": [\n{\"url\": \"http://a:80\",\n\"weight\": 257}]}", "line 3", "256"),
        ] {
            let reason = json(text).unwrap_err();
            assert!(reason.contains(line) && reason.contains(word), "{text:?}: {reason}");
        }
        let twice = "[[backends]]\nurl = \"http://a:80\"\n[[backends]]\nurl = \"http://A:80/\"";
        assert!(toml(twice).unwrap_err().contains("backend 2: http://a:80"));
        assert!(parse(Path::new("backends.yaml"), b"a").unwrap_err().contains(".json"));
        assert!(parse(Path::new("b.toml"), b"a\n\xff").unwrap_err().contains("line 2"));
    }
}
