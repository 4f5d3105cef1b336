//! A backend as files, etcd and the state file write it: names, units and limits of its fields.
//!
//! What cannot be is refused with the field's name. Pure; every source that reads text calls it.

use std::num::{NonZeroU16, NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::config::{BackendConfig, Mode, WEIGHT_MAX, parse_backend_url};
use crate::discovery::Found;

/// A backend's fields, named as the options of `--backend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// `http://HOST:PORT`.
    pub url: String,
    /// Its share of requests, 1 to `WEIGHT_MAX`.
    #[serde(default = "weight_by_default")]
    pub weight: u16,
    /// The most connections to it, over all workers, if there is a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<NonZeroU32>,
    /// Whether it takes requests only while no other backend can.
    #[serde(default)]
    pub backup: bool,
    /// What its operator wants of it.
    #[serde(default)]
    pub mode: EntryMode,
}

/// What an operator wants of a backend, in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryMode {
    /// It takes requests while it is healthy.
    #[default]
    Ready,
    /// It takes requests of its sticky sessions alone.
    Drain,
    /// It takes none.
    Maintenance,
}

impl Entry {
    /// The fields of this backend.
    #[must_use]
    pub fn of(backend: &BackendConfig) -> Entry {
        Entry {
            url: format!("http://{}", backend.authority()),
            weight: backend.weight.get(),
            max_conns: backend.conns_max,
            backup: backend.is_backup,
            mode: match backend.mode {
                Mode::Ready => EntryMode::Ready,
                Mode::Drain => EntryMode::Drain,
                Mode::Maintenance => EntryMode::Maintenance,
            },
        }
    }

    /// The backend that these fields make.
    ///
    /// # Errors
    /// The field that cannot be, and what would be right.
    pub fn backend(&self) -> Result<BackendConfig, String> {
        let (host, port) = parse_backend_url(&self.url)
            .map_err(|reason| format!("url {:?}: {reason}", self.url))?;
        let weight = NonZeroU16::new(self.weight).filter(|weight| weight.get() <= WEIGHT_MAX);
        Ok(BackendConfig {
            host,
            port,
            weight: weight.ok_or_else(|| format!("the weight is not 1 to {WEIGHT_MAX}"))?,
            conns_max: self.max_conns,
            is_backup: self.backup,
            mode: match self.mode {
                EntryMode::Ready => Mode::Ready,
                EntryMode::Drain => Mode::Drain,
                EntryMode::Maintenance => Mode::Maintenance,
            },
        })
    }
}

/// A found backend as the state file keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBackend {
    /// The pool it belongs to.
    pub pool: String,
    /// Its fields.
    pub backend: Entry,
}

impl SavedBackend {
    /// What is kept of a found backend.
    #[must_use]
    pub fn of(found: &Found) -> SavedBackend {
        SavedBackend { pool: found.pool.clone(), backend: Entry::of(&found.backend) }
    }

    /// The backend that was kept.
    ///
    /// # Errors
    /// The field that cannot be.
    pub fn found(&self) -> Result<Found, String> {
        Ok(Found { pool: self.pool.clone(), backend: self.backend.backend()? })
    }
}

fn weight_by_default() -> u16 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BackendConfig, String> {
        serde_json::from_str::<Entry>(text).map_err(|error| error.to_string())?.backend()
    }

    #[test]
    fn what_is_left_out_has_the_default_of_the_flag() {
        let backend = read(r#"{"url":"http://[::1]:80"}"#).unwrap();
        assert_eq!((backend.host.as_str(), backend.port, backend.weight.get()), ("::1", 80, 1));
        assert_eq!(
            (backend.conns_max, backend.is_backup, backend.mode),
            (None, false, Mode::Ready)
        );
    }

    #[test]
    fn a_backend_survives_being_written_and_read() {
        let text = r#"{"url":"http://a:80","weight":7,"max-conns":9,"backup":true,"mode":"drain"}"#;
        let found = Found { pool: "p".to_owned(), backend: read(text).unwrap() };
        let saved = serde_json::to_string(&SavedBackend::of(&found)).unwrap();
        let read: SavedBackend = serde_json::from_str(&saved).unwrap();
        assert_eq!(read.found().unwrap(), found);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let cases = [
            (r#"{}"#, "url"),
            (r#"{"url":"a:80"}"#, "http://"),
            (r#"{"url":"http://a:80","weight":0}"#, "weight"),
            (r#"{"url":"http://a:80","weight":257}"#, "weight"),
            (r#"{"url":"http://a:80","weight":-1}"#, "-1"),
            (r#"{"url":"http://a:80","max-conns":0}"#, "nonzero"),
            (r#"{"url":"http://a:80","mode":"asleep"}"#, "asleep"),
            (r#"{"url":"http://a:80","colour":"red"}"#, "colour"),
        ];
        for (text, named) in cases {
            let reason = read(text).unwrap_err();
            assert!(reason.contains(named), "{text}: {reason}");
        }
    }
}
