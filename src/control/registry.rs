//! Merges what the sources of backends say: which backends there are, and whose word counts.
//!
//! Of sources that name the same backend the first in the order of `config::Source` decides, by
//! the whole entry. Pure: it probes, publishes and logs nothing; `pools` does what it decides.

mod write;

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{BACKENDS_MAX, BackendConfig, Source};
use crate::control::handle::Name;
use crate::control::view::Revision;
use crate::discovery::{Found, Mark, Update};
pub(super) use write::{SAID_MAX, patched};

/// What the sources say, and what follows.
#[derive(Debug)]
pub(super) struct Registry {
    /// The names of the pools.
    pools: BTreeSet<String>,
    /// What each origin says, but the API; by precedence.
    said: BTreeMap<Origin, BTreeMap<Name, BackendConfig>>,
    /// Up to where those said it that know.
    marks: BTreeMap<Origin, Mark>,
    /// What the API says; it decides.
    api: BTreeMap<Name, Said>,
    /// The backends that there are.
    decided: BTreeMap<Name, Entry>,
    /// Backends that are named and for which there is no pool or no room.
    left_out: BTreeSet<Name>,
    /// The revision that was given last.
    revision: u64,
}

/// A source and which of its kind.
pub(super) type Origin = (Source, String);

/// What the API says of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// There is one.
    Added(BackendConfig),
    /// If another source names it, it is this one.
    Changed(BackendConfig),
    /// There is none, whoever names it.
    Removed,
}

/// A backend, and who decides about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) backend: BackendConfig,
    pub(super) source: Source,
    pub(super) origin: String,
    pub(super) revision: Revision,
}

/// A backend that comes, changes or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) name: Name,
    pub(super) before: Option<Entry>,
    pub(super) after: Option<Entry>,
}

impl Registry {
    /// A registry of pools without backends; `seed` is above each revision of earlier processes.
    pub(super) fn new(pools: impl IntoIterator<Item = String>, seed: u64) -> Registry {
        Registry {
            pools: pools.into_iter().collect(),
            said: BTreeMap::new(),
            marks: BTreeMap::new(),
            api: BTreeMap::new(),
            decided: BTreeMap::new(),
            left_out: BTreeSet::new(),
            revision: seed,
        }
    }

    /// Takes the whole set of an origin over; what follows.
    pub(super) fn hear(&mut self, update: Update) -> Vec<Turn> {
        let origin = (update.source, update.origin);
        if let Some(mark) = update.mark {
            self.marks.insert(origin.clone(), mark);
        }
        let name = |pool, backend: &BackendConfig| Name { pool, authority: backend.authority() };
        // In its order, in which they are added.
        let mut names = Vec::with_capacity(update.backends.len());
        let mut now = BTreeMap::new();
        for found in update.backends {
            let name = name(found.pool, &found.backend);
            names.push(name.clone());
            now.insert(name, found.backend);
        }
        let before = match now.is_empty() {
            true => self.said.remove(&origin),
            false => self.said.insert(origin, now),
        };
        let gone = before.into_iter().flat_map(BTreeMap::into_keys);
        // Those that go make room for those that come.
        let affected: Vec<Name> = gone.chain(names).collect();
        let mut turns = Vec::new();
        let mut seen = BTreeSet::new();
        for name in affected {
            if seen.insert(name.clone()) {
                turns.extend(self.decide(name));
            }
        }
        self.let_in(&mut turns);
        turns
    }

    /// From now on there are these pools; what follows.
    pub(super) fn set_pools(&mut self, pools: impl IntoIterator<Item = String>) -> Vec<Turn> {
        self.pools = pools.into_iter().collect();
        let gone = self.decided.keys().filter(|name| !self.pools.contains(&name.pool));
        let gone: Vec<Name> = gone.cloned().collect();
        let mut turns: Vec<Turn> = gone.into_iter().filter_map(|name| self.decide(name)).collect();
        self.let_in(&mut turns);
        turns
    }

    /// The backend of this name.
    pub(super) fn get(&self, name: &Name) -> Option<&Entry> {
        self.decided.get(name)
    }

    /// Backends that are named and for which there is no pool or no room.
    pub(super) fn left_out(&self) -> impl Iterator<Item = &Name> {
        self.left_out.iter()
    }

    /// What the API says.
    pub(super) fn api(&self) -> &BTreeMap<Name, Said> {
        &self.api
    }

    /// What each origin of a kind said last.
    pub(super) fn said_by(&self, source: Source) -> impl Iterator<Item = Update> {
        let of_kind = self.said.iter().filter(move |((kind, _), _)| *kind == source);
        of_kind.map(|(origin, said)| {
            let found = |(name, backend): (&Name, &BackendConfig)| Found {
                pool: name.pool.clone(),
                backend: backend.clone(),
            };
            let backends = said.iter().map(found).collect();
            let mark = self.marks.get(origin).copied();
            let (source, origin) = origin.clone();
            Update { source, origin, backends, mark, told: None }
        })
    }

    /// Works out again what is with a name; what turned.
    fn decide(&mut self, name: Name) -> Option<Turn> {
        self.left_out.remove(&name);
        let before = self.decided.get(&name);
        let has_room = before.is_some() || self.decided.len() < BACKENDS_MAX;
        let found = match self.find(&name) {
            Some(found) if self.pools.contains(&name.pool) && has_room => found,
            found => {
                if found.is_some() {
                    self.left_out.insert(name.clone());
                }
                let before = self.decided.remove(&name)?;
                return Some(Turn { name, before: Some(before), after: None });
            }
        };
        let (backend, source, origin) = found;
        let is_same =
            |it: &Entry| it.backend == *backend && it.source == source && it.origin == *origin;
        if before.is_some_and(is_same) {
            return None;
        }
        let (backend, origin) = (backend.clone(), origin.to_owned());
        self.revision += 1;
        let entry = Entry { backend, source, origin, revision: Revision(self.revision) };
        let before = self.decided.insert(name.clone(), entry.clone());
        Some(Turn { name, before, after: Some(entry) })
    }

    /// What the first source that speaks says.
    fn find(&self, name: &Name) -> Option<(&BackendConfig, Source, &str)> {
        let mut others = self.said.iter().filter_map(|((source, origin), said)| {
            said.get(name).map(|backend| (backend, *source, origin.as_str()))
        });
        match self.api.get(name) {
            None => others.next(),
            Some(Said::Removed) => None,
            Some(Said::Added(backend)) => Some((backend, Source::Api, ORIGIN_API)),
            Some(Said::Changed(backend)) => {
                others.next().map(|_| (backend, Source::Api, ORIGIN_API))
            }
        }
    }

    /// Whether a source beside the API names this backend.
    fn is_named(&self, name: &Name) -> bool {
        self.said.values().any(|said| said.contains_key(name))
    }

    /// Lets those in that were left out, as far as there is room now.
    fn let_in(&mut self, turns: &mut Vec<Turn>) {
        if self.decided.len() >= BACKENDS_MAX {
            return;
        }
        for name in std::mem::take(&mut self.left_out) {
            turns.extend(self.decide(name));
        }
    }
}

/// The API's only origin.
const ORIGIN_API: &str = "api";

#[cfg(test)]
mod tests;
