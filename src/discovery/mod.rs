//! Where backends come from besides flags and the admin API: files, DNS, etcd.
//!
//! Each source tells its whole current set whenever that changes; the control thread merges the
//! sets by id (`pool/host:port`). A source that can learn nothing tells nothing, so that its last
//! set stays. Runs on the control thread; called by `control`, never by a worker.

mod backoff;
mod dns;
mod entry;
mod etcd;
mod file;
mod tell;
mod told;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{BackendConfig, DiscoveryConfig, Source};
use crate::discovery::tell::Teller;

pub use entry::{Entry, EntryMode, SavedBackend};
pub use etcd::{Registration, Stored, Unwritten, Writer};
pub use file::BackendsFile;

/// What one origin says now: its whole set, which takes the place of what it said before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// What kind of source it is, which decides where two name the same backend.
    pub source: Source,
    /// Which of its kind: a file's path, a DNS name, the endpoints of etcd.
    pub origin: String,
    /// The backends.
    pub backends: Vec<Found>,
    /// What is to be remembered of etcd's history, to find out whether it goes on; of etcd alone.
    pub mark: Option<Mark>,
    /// Up to where etcd's changes are in it: not as far as `mark` says while what etcd lost is held.
    pub told: Option<Mark>,
}

/// A point in an etcd's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mark {
    /// Which cluster it is.
    pub cluster_id: u64,
    /// How many changes it had seen.
    pub revision: i64,
}

/// What a source tells its `Teller`: all its backends, and etcd's marks as in `Update`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Set {
    backends: Vec<Found>,
    mark: Option<Mark>,
    told: Option<Mark>,
}

/// A backend that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The pool it belongs to.
    pub pool: String,
    /// Where it is and how it is used.
    pub backend: BackendConfig,
}

impl Found {
    /// Its pool and `host:port`, which no two backends share.
    fn place(&self) -> (String, String) {
        (self.pool.clone(), self.backend.authority())
    }
}

/// The most updates that wait for the control thread; a source waits with more.
pub const UPDATES_MAX: usize = 64;

/// Starts the sources of this configuration, each a task; they send whole sets until the receiver
/// is dropped. `recalled` is what this etcd told an earlier process.
///
/// # Errors
/// What a source cannot start with, and the next step.
pub fn spawn(
    config: &DiscoveryConfig,
    recalled: Option<Update>,
    updates: &mpsc::Sender<Update>,
    tasks: &mut JoinSet<()>,
) -> Result<(), String> {
    for name in &config.dns {
        let origin = name.origin();
        let name = dns::Name::new(name.clone(), config.resolver.clone());
        let sets = teller(Source::Dns, origin, updates, tasks);
        tasks.spawn(name.run(sets));
    }
    if let Some(etcd) = &config.etcd {
        let cluster = etcd::Cluster::new(etcd, recalled)?;
        let origin = cluster.origin().to_owned();
        let sets = teller(Source::Etcd, origin, updates, tasks);
        tasks.spawn(cluster.run(sets));
    }
    Ok(())
}

/// Starts telling a source's sets; where the source sends them.
fn teller(
    source: Source,
    origin: String,
    updates: &mpsc::Sender<Update>,
    tasks: &mut JoinSet<()>,
) -> mpsc::Sender<Set> {
    let (sets, from) = mpsc::channel(1);
    tasks.spawn(Teller { source, origin, updates: updates.clone() }.run(from));
    sets
}
