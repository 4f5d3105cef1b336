//! The state file: what was changed through a `Handle`, and what etcd told last, as JSON.
//!
//! Read once, at start; a file that is broken is refused, since what it kept would be lost without
//! a word. Written by `saver`. Knows the registry, and nothing of endpoints.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Source;
use crate::control::handle::Name;
use crate::control::registry::{Registry, SAID_MAX, Said, Turn};
use crate::discovery::{Entry, Mark, SavedBackend, Update};

/// All that is kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    version: u32,
    /// What the API says.
    changes: Vec<SavedChange>,
    /// What etcd told last.
    etcd: Vec<SavedSet>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedChange {
    pool: String,
    /// `host:port`.
    backend: String,
    said: SavedSaid,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SavedSaid {
    Added(Entry),
    Changed(Entry),
    Removed,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSet {
    origin: String,
    /// Left out in files of versions that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
    backends: Vec<SavedBackend>,
}

impl Kept {
    /// What is to be kept of a registry.
    pub(super) fn of(registry: &Registry) -> Kept {
        let change = |(name, said): (&Name, &Said)| SavedChange {
            pool: name.pool.clone(),
            backend: name.authority.clone(),
            said: match said {
                Said::Added(backend) => SavedSaid::Added(Entry::of(backend)),
                Said::Changed(backend) => SavedSaid::Changed(Entry::of(backend)),
                Said::Removed => SavedSaid::Removed,
            },
        };
        let set = |update: Update| SavedSet {
            origin: update.origin,
            mark: update.mark,
            backends: update.backends.iter().map(SavedBackend::of).collect(),
        };
        Kept {
            version: VERSION,
            changes: registry.api().iter().map(change).collect(),
            etcd: registry.said_by(Source::Etcd).map(set).collect(),
        }
    }

    /// Reads the file at `path`; where there is none, nothing was kept.
    ///
    /// # Errors
    /// What is wrong with it, and the next step.
    pub(super) fn read(path: &Path) -> Result<Option<Kept>, String> {
        let refused = |reason: String| {
            let path = path.display();
            format!(
                "--state-file {path}: {reason}; mend it, or move it away to begin without what was \
                 changed through the admin API"
            )
        };
        // Opening a pipe would wait for whoever writes to it.
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(refused("it is no regular file".to_owned()));
        }
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| refused(error.to_string()))?,
        };
        let mut text = String::new();
        let read = file.take(STATE_BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|error| refused(error.to_string()))?;
        Kept::parse(&text).map(Some).map_err(refused)
    }

    fn parse(text: &str) -> Result<Kept, String> {
        if text.len() as u64 > STATE_BYTES_MAX {
            return Err(format!("it is longer than {STATE_BYTES_MAX} bytes"));
        }
        let state: Kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if state.version != VERSION {
            let version = state.version;
            return Err(format!("it has version {version}, this corelane reads {VERSION}"));
        }
        if state.changes.len() > SAID_MAX {
            return Err(format!("it has more than {SAID_MAX} changes"));
        }
        Ok(state)
    }

    /// The file's contents.
    pub(super) fn text(&self) -> String {
        // Of strings and numbers alone, in vectors: it cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Lets the registry know what was kept, of etcd only what came from this origin.
    ///
    /// # Errors
    /// What is no backend.
    pub(super) fn recall(
        self,
        registry: &mut Registry,
        etcd: Option<&str>,
    ) -> Result<Vec<Turn>, String> {
        let mut turns = Vec::new();
        for SavedSet { origin, mark, backends } in self.etcd {
            if Some(origin.as_str()) == etcd {
                let found = backends.iter().map(SavedBackend::found);
                let backends = found.collect::<Result<Vec<_>, _>>()?;
                let source = Source::Etcd;
                turns.extend(registry.hear(Update { source, origin, backends, mark, told: None }));
            }
        }
        for SavedChange { pool, backend, said } in self.changes {
            let said = match said {
                SavedSaid::Added(entry) => Said::Added(entry.backend()?),
                SavedSaid::Changed(entry) => Said::Changed(entry.backend()?),
                SavedSaid::Removed => Said::Removed,
            };
            let named = match &said {
                Said::Added(config) | Said::Changed(config) => config.authority(),
                Said::Removed => backend.clone(),
            };
            if named != backend {
                return Err(format!("backend {backend:?} has the URL of {named:?}"));
            }
            turns.extend(registry.recall(Name { pool, authority: backend }, said));
        }
        Ok(turns)
    }
}

/// The version of the file's grammar.
const VERSION: u32 = 1;
/// The longest file that is read: 2,048 changes take about 400 kB.
const STATE_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::control::handle::{Patch, What, Write};
    use crate::control::tests::backend;
    use crate::discovery::Found;

    fn name(port: u16) -> Name {
        Name { pool: "default".to_owned(), authority: format!("h:{port}") }
    }

    fn found(port: u16) -> Found {
        Found { pool: "default".to_owned(), backend: backend("h", port, Mode::Ready) }
    }

    /// A registry to which flags named two backends, before or after a restart.
    fn registry() -> Registry {
        let mut registry = Registry::new(["default".to_owned()], 0);
        let (source, origin) = (Source::Flags, "flags".to_owned());
        let backends = vec![found(1), found(2)];
        registry.hear(Update { source, origin, backends, mark: None, told: None });
        registry
    }

    fn etcd(origin: &str, ports: &[u16]) -> Update {
        let backends = ports.iter().map(|port| found(*port)).collect();
        let mark = Some(Mark { cluster_id: u64::MAX, revision: 7 });
        Update { source: Source::Etcd, origin: origin.to_owned(), backends, mark, told: mark }
    }

    #[test]
    fn what_was_changed_comes_back() {
        let mut before = registry();
        before.hear(etcd("here", &[3, 4]));
        before.hear(etcd("there", &[5]));
        let patch = Patch { weight: Some(9), mode: Some(Mode::Drain), ..Patch::default() };
        for (port, what) in [
            (1, What::Remove),
            (2, What::Patch(patch)),
            (6, What::Add(backend("h", 6, Mode::Maintenance))),
            (3, What::Remove),
        ] {
            before.write(Write { name: name(port), what, expected: None }).unwrap();
        }
        let state = Kept::parse(&Kept::of(&before).text()).unwrap();
        assert_eq!(state, Kept::of(&before));
        let mut after = registry();
        state.recall(&mut after, Some("here")).unwrap();
        for port in [1, 2, 3, 4, 6] {
            let [before, after] = [&before, &after].map(|it| it.get(&name(port)));
            let [before, after] =
                [before, after].map(|it| it.map(|it| (it.backend.clone(), it.source)));
            assert_eq!(after, before, "{port}");
        }
        assert_eq!(after.get(&name(5)), None, "of an etcd that is asked no more");
        let marks = |of: &Registry| of.said_by(Source::Etcd).next().unwrap().mark;
        assert!(marks(&after).is_some() && marks(&after) == marks(&before));
    }

    #[test]
    fn what_is_broken_is_refused() {
        for (text, word) in [
            ("", "EOF"),
            ("{}", "version"),
            (r#"{"version":2,"changes":[],"etcd":[]}"#, "version 2"),
            (r#"{"version":1,"changes":[],"etcd":[],"more":1}"#, "more"),
            (r#"{"version":1,"changes":[{"pool":"a","backend":"b:1"}],"etcd":[]}"#, "said"),
        ] {
            let reason = Kept::parse(text).unwrap_err();
            assert!(reason.contains(word), "{text}: {reason}");
        }
        let other = r#"{"version":1,"changes":[{"pool":"default","backend":"h:9","said":
            {"added":{"url":"http://h:8"}}}],"etcd":[]}"#;
        let reason = Kept::parse(other).unwrap().recall(&mut registry(), None).unwrap_err();
        assert!(reason.contains("h:9") && reason.contains("h:8"), "{reason}");
    }
}
