//! What a change through a handle does to the registry, or why it is refused.

use std::num::{NonZeroU16, NonZeroU32};

use super::{Entry, Registry, Said, Turn};
use crate::config::{BACKENDS_MAX, BackendConfig, Source, WEIGHT_MAX};
use crate::control::handle::{Name, Patch, What, Write};
use crate::control::refusal::Refusal;

impl Registry {
    /// Does what is asked, or refuses and changes nothing; what follows of it, the backend that
    /// was written to first.
    pub(in crate::control) fn write(&mut self, write: Write) -> Result<Vec<Turn>, Refusal> {
        let entry = self.seen_by(&write)?;
        let Write { name, what, .. } = write;
        let said = match what {
            What::Add(backend) => Some(self.add(&name, backend)?),
            What::Patch(patch) => match self.patch(&name, &patch)? {
                Some(said) => Some(said),
                None => return Ok(Vec::new()),
            },
            What::Remove if entry.is_none() => {
                return Err(Refusal::UnknownBackend(name.to_string()));
            }
            What::Remove => self.is_named(&name).then_some(Said::Removed),
            What::Reset if self.api.contains_key(&name) => None,
            What::Reset if entry.is_some() => return Ok(Vec::new()),
            What::Reset => return Err(Refusal::UnknownBackend(name.to_string())),
        };
        self.make_room_to_say(&name)?;
        Ok(self.say(name, said))
    }

    /// What a write that etcd is to decide about stands on: the backend as etcd told it. One that
    /// is to be added is none, or one that etcd may have lost.
    pub(in crate::control) fn plan(&self, write: &Write) -> Result<Option<BackendConfig>, Refusal> {
        let (name, entry) = (&write.name, self.seen_by(write)?);
        let elsewhere = |source| Err(Refusal::Elsewhere(name.to_string(), source));
        match (&write.what, entry) {
            // What was said here, before etcd was to decide or in an earlier life, would hide it.
            _ if self.api.contains_key(name) => elsewhere(Source::Api),
            (what, Some(entry)) if entry.source == Source::Etcd => {
                if let What::Add(backend) = what {
                    weight_of(backend.weight.get())?;
                }
                Ok(Some(entry.backend.clone()))
            }
            (What::Add(backend), _) => self.add(name, backend.clone()).map(|_| None),
            (_, None) => Err(Refusal::UnknownBackend(name.to_string())),
            (_, Some(entry)) => elsewhere(entry.source),
        }
    }

    /// The backend that is written to, if there is one, as its writer has seen it.
    fn seen_by(&self, write: &Write) -> Result<Option<&Entry>, Refusal> {
        let Write { name, expected, .. } = write;
        if !self.pools.contains(&name.pool) {
            return Err(Refusal::UnknownPool(name.pool.clone()));
        }
        let entry = self.decided.get(name);
        match (expected, entry) {
            (Some(expected), Some(entry)) if entry.revision != *expected => {
                Err(Refusal::Conflict(entry.revision))
            }
            (Some(_), None) => Err(Refusal::UnknownBackend(name.to_string())),
            _ => Ok(entry),
        }
    }

    /// Takes over what the API said in an earlier process; what follows.
    pub(in crate::control) fn recall(&mut self, name: Name, said: Said) -> Vec<Turn> {
        self.say(name, Some(said))
    }

    fn say(&mut self, name: Name, said: Option<Said>) -> Vec<Turn> {
        match said {
            Some(said) => self.api.insert(name.clone(), said),
            None => self.api.remove(&name),
        };
        let mut turns: Vec<Turn> = self.decide(name).into_iter().collect();
        self.let_in(&mut turns);
        turns
    }

    fn add(&self, name: &Name, backend: BackendConfig) -> Result<Said, Refusal> {
        if self.decided.contains_key(name) {
            return Err(Refusal::Exists(name.to_string()));
        }
        if self.decided.len() >= BACKENDS_MAX {
            return Err(Refusal::TooMany);
        }
        weight_of(backend.weight.get())?;
        Ok(Said::Added(backend))
    }

    /// What a patch makes of a backend; `None` where that is what it is.
    fn patch(&self, name: &Name, patch: &Patch) -> Result<Option<Said>, Refusal> {
        let unknown = || Refusal::UnknownBackend(name.to_string());
        let Entry { backend: before, .. } = self.decided.get(name).ok_or_else(unknown)?;
        let backend = patched(before, patch)?;
        if backend == *before {
            return Ok(None);
        }
        Ok(Some(match self.api.get(name) {
            Some(Said::Added(_)) => Said::Added(backend),
            _ => Said::Changed(backend),
        }))
    }

    /// Makes sure that the API can say something of this backend, whatever it has said of others:
    /// what is about backends that nobody names any more is forgotten, if it must be.
    fn make_room_to_say(&mut self, name: &Name) -> Result<(), Refusal> {
        if self.api.len() < SAID_MAX || self.api.contains_key(name) {
            return Ok(());
        }
        let said = &self.said;
        let is_named = |name: &Name| said.values().any(|said| said.contains_key(name));
        self.api.retain(|name, said| matches!(said, Said::Added(_)) || is_named(name));
        if self.api.len() < SAID_MAX { Ok(()) } else { Err(Refusal::TooMany) }
    }
}

/// What a patch makes of a backend.
pub(in crate::control) fn patched(
    before: &BackendConfig,
    patch: &Patch,
) -> Result<BackendConfig, Refusal> {
    let mut backend = before.clone();
    if let Some(weight) = patch.weight {
        backend.weight = weight_of(weight)?;
    }
    if let Some(max) = patch.conns_max {
        let is_none = || Refusal::Invalid("max-conns is a number above 0, or null".to_owned());
        let limit = |max| NonZeroU32::new(max).ok_or_else(is_none);
        backend.conns_max = max.map(limit).transpose()?;
    }
    backend.mode = patch.mode.unwrap_or(backend.mode);
    backend.is_backup = patch.is_backup.unwrap_or(backend.is_backup);
    Ok(backend)
}

fn weight_of(weight: u16) -> Result<NonZeroU16, Refusal> {
    let weight = NonZeroU16::new(weight).filter(|weight| weight.get() <= WEIGHT_MAX);
    weight.ok_or_else(|| Refusal::Invalid(format!("the weight is not 1 to {WEIGHT_MAX}")))
}

/// The most backends that the API says something of.
pub(in crate::control) const SAID_MAX: usize = 2 * BACKENDS_MAX;
