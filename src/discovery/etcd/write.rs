//! Writes one backend to etcd: reads what etcd has of it, and swaps that for what it is to be.
//!
//! A swap names the versions that were read, so that of two writers one is refused and neither's
//! change is lost. Changes come back by the watch, like anybody's. Called by the control thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::config::{BackendConfig, EtcdConfig};
use crate::discovery::etcd::client::Client;
use crate::discovery::etcd::error::Failure;
use crate::discovery::etcd::keys::{KEYS_MAX, Keys};
use crate::discovery::etcd::{RANGE, TXN, wire};
use crate::discovery::told::Told;
use crate::discovery::{Entry, Found, Mark};

/// The way to write to an etcd; each change has a connection of its own.
pub struct Writer {
    client: Client,
    keys: Keys,
    config: Arc<EtcdConfig>,
    told: Mutex<Told>,
}

/// What etcd has of one backend, and the connection that it was read by.
pub struct Stored<'w> {
    writer: &'w Writer,
    client: Client,
    /// Of which cluster.
    cluster_id: u64,
    /// The keys that name the backend with their versions, of which the first counts; the key it
    /// would have, with version 0, where none does.
    keys: Vec<(Vec<u8>, i64)>,
    backend: Option<BackendConfig>,
}

/// Why a change is not, or not known to be, in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// etcd could not be had: nothing has changed.
    Untouched(String),
    /// etcd refused it, as for want of a right: nothing has changed.
    Refused(String),
    /// etcd was asked and did not answer: it may have done it.
    Unknown(String),
    /// The key that the backend would have holds something else.
    Taken(String),
}

impl Writer {
    /// A writer that has not connected yet.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn new(config: &EtcdConfig) -> Result<Writer, String> {
        let config = Arc::new(config.clone());
        Ok(Writer {
            client: Client::new(Arc::clone(&config))?,
            keys: Keys::new(&config.prefix),
            config,
            told: Mutex::default(),
        })
    }

    /// Reads what etcd has of a backend, from the first member that answers, within
    /// `READ_TIME_MAX`.
    ///
    /// # Errors
    /// `Untouched`, `Refused`, `Taken`.
    pub async fn read(&self, pool: &str, authority: &str) -> Result<Stored<'_>, Unwritten> {
        let mut client = self.client.beside();
        let prefix = format!("{}{pool}/", self.keys.prefix());
        let question = wire::range(&prefix, KEYS_MAX + 1);
        let asked = async {
            let mut answer = client.call::<wire::Range>(RANGE, &question).await;
            for _ in 1..self.config.members.len() {
                if answer.is_err() {
                    answer = client.call(RANGE, &question).await;
                }
            }
            answer
        };
        let range = match timeout(READ_TIME_MAX, asked).await {
            Ok(answer) => answer.map_err(|failure| self.untouched(&failure))?,
            Err(_elapsed) => {
                let reason = format!("no answer within {READ_TIME_MAX:?}");
                return Err(self.untouched(&Failure::Unreachable(self.config.origin(), reason)));
            }
        };
        if range.kvs.len() > KEYS_MAX {
            return Err(self.untouched(&Failure::TooLarge("keys", KEYS_MAX)));
        }
        let is_it = |found: &Found| found.pool == pool && found.backend.authority() == authority;
        let named = range.kvs.iter().filter_map(|kv| {
            // What is broken is told of by the watch.
            let found = self.keys.read(kv).ok().flatten().filter(is_it)?;
            Some(((kv.key.clone(), kv.mod_revision), found.backend))
        });
        let (mut keys, backends): (Vec<_>, Vec<_>) = named.unzip();
        if keys.is_empty() {
            let key = Keys::key_of(&self.config.prefix, pool, authority);
            if range.kvs.iter().any(|kv| kv.key == key.as_bytes()) {
                return Err(Unwritten::Taken(key));
            }
            keys.push((key.into_bytes(), 0));
        }
        let (cluster_id, backend) = (range.header.cluster_id, backends.into_iter().next());
        Ok(Stored { writer: self, client, cluster_id, keys, backend })
    }

    fn untouched(&self, failure: &Failure) -> Unwritten {
        self.tell(failure);
        match failure {
            Failure::Refused(REFUSED_MIN..=REFUSED_MAX, _) => {
                Unwritten::Refused(failure.to_string())
            }
            _ => Unwritten::Untouched(failure.to_string()),
        }
    }

    fn tell(&self, failure: &Failure) {
        // Only the control thread takes it, so nobody ever waits for it.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(untold) = told.now(failure.cause(), Instant::now()) {
            let cause = failure.cause();
            tracing::warn!(cause, untold, "a change is not written to etcd: {failure}");
        }
    }
}

impl Stored<'_> {
    /// The backend as etcd has it; `None` where it has none.
    #[must_use]
    pub fn backend(&self) -> Option<&BackendConfig> {
        self.backend.as_ref()
    }

    /// The change that made it so; the beginning of etcd's history where there is none.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let revision = self.keys.first().map_or(0, |(_, version)| *version);
        Mark { cluster_id: self.cluster_id, revision }
    }

    /// Puts this backend, or none, in its place, if nobody else has changed it meanwhile: the
    /// mark of the change, or `None` where somebody has. A lease stays.
    ///
    /// # Errors
    /// `Untouched`, `Refused`, `Unknown`.
    pub async fn swap(mut self, after: Option<&BackendConfig>) -> Result<Option<Mark>, Unwritten> {
        let change = match (after, &self.keys[..]) {
            (Some(backend), [first, ..]) => {
                let value = serde_json::to_string(&Entry::of(backend));
                wire::swap(first, &value.map_err(|error| Unwritten::Untouched(error.to_string()))?)
            }
            (_, keys) => wire::delete(keys),
        };
        match self.client.call::<wire::Swapped>(TXN, &change).await {
            Ok(wire::Swapped { header: wire::Header { cluster_id, revision }, succeeded }) => {
                Ok(succeeded.then_some(Mark { cluster_id, revision }))
            }
            Err(failure @ Failure::Refused(REFUSED_MIN..=REFUSED_MAX, _)) => {
                Err(self.writer.untouched(&failure))
            }
            Err(failure) => {
                self.writer.tell(&failure);
                Err(Unwritten::Unknown(failure.to_string()))
            }
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The statuses by which etcd refuses what is asked, whenever it is asked again.
const REFUSED_MIN: u16 = 400;
const REFUSED_MAX: u16 = 499;
/// How long all members together may take to tell what there is.
const READ_TIME_MAX: Duration = Duration::from_secs(2);
