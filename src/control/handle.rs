//! How the rest of the process asks the control thread and tells it what to change.
//!
//! Each call sends one command through a bounded queue and waits for its reply; two writers are
//! put in a row by it. Called by the admin API. What a command does is decided by `registry`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::config::{BackendConfig, Mode, PoolConfig, RouteConfig};
use crate::control::fleet;
use crate::control::refusal::Refusal;
use crate::control::reload::Reload;
use crate::control::view::{BackendView, Change, Difference, PoolView, Revision};
use crate::discovery::{Mark, Writer};

/// The way to the control thread; clones share it.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    changes: broadcast::Sender<Change>,
    pub(super) reload: Reload,
    /// Up to where etcd's changes are in force.
    heard: watch::Receiver<Mark>,
    /// Where changes are written to, if it is not the control thread that keeps them.
    etcd: Option<Arc<Writer>>,
}

/// What is asked of the control thread, and where the reply goes.
#[derive(Debug)]
pub(super) enum Command {
    /// All pools.
    Pools(oneshot::Sender<Vec<PoolView>>),
    /// One backend.
    Backend(Name, oneshot::Sender<Result<BackendView, Refusal>>),
    /// Other settings of all pools, and other routes.
    Configure(Vec<PoolConfig>, Vec<RouteConfig>, oneshot::Sender<Result<(), Refusal>>),
    /// A change of one backend.
    Write(Write, oneshot::Sender<Result<Done, Refusal>>),
    /// What a write that is to go to etcd stands on.
    Plan(Write, oneshot::Sender<Result<Plan, Refusal>>),
    /// The process is about to end: the state file is left to the next one.
    Leave,
    /// The last snapshots.
    Snapshots(oneshot::Sender<Vec<Change>>),
    /// How the snapshots of two epochs differ.
    Diff(u64, u64, oneshot::Sender<Result<Vec<Difference>, Refusal>>),
}

impl Command {
    /// Whether it changes nothing.
    pub(super) fn is_question(&self) -> bool {
        !matches!(self, Command::Configure(..) | Command::Write(..) | Command::Leave)
    }
}

/// What a write that is to go to etcd stands on.
#[derive(Debug)]
pub(super) struct Plan {
    /// What etcd has told of the backend; `None` where it is to be added.
    pub(super) told: Option<BackendConfig>,
    /// The backend as it is shown.
    pub(super) view: Option<BackendView>,
}

/// A backend's pool and its `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) pool: String,
    pub(super) authority: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.authority)
    }
}

/// A change of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) name: Name,
    pub(super) what: What,
    /// The revision that its writer has seen, if it must not have changed.
    pub(super) expected: Option<Revision>,
}

/// What is to become of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Add(BackendConfig),
    Patch(Patch),
    Remove,
    Reset,
}

/// New settings of a backend; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Its weight, 1 to `config::WEIGHT_MAX`.
    pub weight: Option<u16>,
    /// What its operator wants of it.
    pub mode: Option<Mode>,
    /// The most connections to it; `Some(None)` takes the limit away.
    pub conns_max: Option<Option<u32>>,
    /// Whether it takes requests only while no other backend can.
    pub is_backup: Option<bool>,
}

/// What a write did.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// The backend before; `None` where there was none,
    pub before: Option<BackendView>,
    /// and after.
    pub after: Option<BackendView>,
    /// Whether it is kept where it is to be: false where the state file could not be written, so
    /// that a restart would forget it.
    pub is_kept: bool,
    /// Whether this process follows it: false where it is in etcd, whose watch has yet to tell.
    pub is_followed: bool,
}

/// The control thread's end of its handles.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) changes: broadcast::Sender<Change>,
    pub(super) heard: watch::Sender<Mark>,
}

impl Handle {
    /// A handle and the control thread's end of it.
    pub(super) fn new() -> (Handle, Desk) {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        let (told, heard) = watch::channel(Mark::default());
        let handle = Handle {
            commands: sender,
            changes: changes.clone(),
            reload: Reload::default(),
            heard,
            etcd: None,
        };
        (handle, Desk { commands, changes, heard: told })
    }

    /// A handle whose changes are written to etcd, and come back from there.
    pub(super) fn through(self, etcd: Writer) -> Handle {
        Handle { etcd: Some(Arc::new(etcd)), ..self }
    }

    /// Waits until etcd's changes up to this mark are in force, `ECHO_TIME_MAX` at most; whether
    /// they are.
    pub(super) async fn wait_for(&self, mark: Mark) -> bool {
        let mut heard = self.heard.clone();
        let is_in_force = heard.wait_for(|heard| {
            heard.cluster_id == mark.cluster_id && heard.revision >= mark.revision
        });
        let is_followed = matches!(timeout(ECHO_TIME_MAX, is_in_force).await, Ok(Ok(_)));
        if !is_followed {
            tracing::debug!(?mark, "etcd's watch has not told of a change yet");
        }
        is_followed
    }

    /// All pools with their backends.
    ///
    /// # Errors
    /// `Gone`.
    pub async fn pools(&self) -> Result<Vec<PoolView>, Refusal> {
        self.ask(Command::Pools).await
    }

    /// One pool with its backends.
    ///
    /// # Errors
    /// `UnknownPool`, `Gone`.
    pub async fn pool(&self, name: &str) -> Result<PoolView, Refusal> {
        let pools = self.pools().await?;
        let found = pools.into_iter().find(|pool| pool.name == name);
        found.ok_or_else(|| Refusal::UnknownPool(name.to_owned()))
    }

    /// One backend, by its pool and its `host:port`.
    ///
    /// # Errors
    /// `UnknownPool`, `UnknownBackend`, `Gone`.
    pub async fn backend(&self, pool: &str, authority: &str) -> Result<BackendView, Refusal> {
        let name = Name { pool: pool.to_owned(), authority: authority.to_owned() };
        self.ask(|reply| Command::Backend(name, reply)).await?
    }

    /// Adds a backend; one that had been removed here comes back with these settings.
    ///
    /// # Errors
    /// `UnknownPool`, `Exists`, `TooMany`, `Invalid`, `Gone`.
    pub async fn add(&self, pool: &str, backend: BackendConfig) -> Result<Done, Refusal> {
        self.write(pool, &backend.authority(), What::Add(backend), None).await
    }

    /// Changes settings of a backend; whatever its source says, they stay until they are reset, or,
    /// where changes go to etcd, until somebody changes its key.
    ///
    /// # Errors
    /// `UnknownPool`, `UnknownBackend`, `Conflict`, `Invalid`, `Gone`.
    pub async fn patch(
        &self,
        pool: &str,
        authority: &str,
        patch: Patch,
        expected: Option<Revision>,
    ) -> Result<Done, Refusal> {
        self.write(pool, authority, What::Patch(patch), expected).await
    }

    /// Removes a backend. One that another source names stays away until it is added again or its
    /// removal is reset.
    ///
    /// # Errors
    /// `UnknownPool`, `UnknownBackend`, `Conflict`, `Gone`.
    pub async fn remove(
        &self,
        pool: &str,
        authority: &str,
        expected: Option<Revision>,
    ) -> Result<Done, Refusal> {
        self.write(pool, authority, What::Remove, expected).await
    }

    /// Forgets what was added, changed or removed through a handle: the other sources decide. Where
    /// there is nothing to forget the backend stays as it is.
    ///
    /// # Errors
    /// `UnknownPool`, `UnknownBackend`, `Conflict`, `Gone`.
    pub async fn reset(
        &self,
        pool: &str,
        authority: &str,
        expected: Option<Revision>,
    ) -> Result<Done, Refusal> {
        self.write(pool, authority, What::Reset, expected).await
    }

    /// Gives the pools other settings, and the backends that are named with them, in one snapshot.
    /// A pool that is not named any more loses its backends. The changes of the API stay.
    ///
    /// # Errors
    /// `Invalid` or `TooManyPools`, and then nothing changed; `Gone`.
    pub async fn configure(
        &self,
        pools: Vec<PoolConfig>,
        routes: Vec<RouteConfig>,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Command::Configure(pools, routes, reply)).await?
    }

    /// The last `SNAPSHOTS_MAX` snapshots, the newest last.
    ///
    /// # Errors
    /// `Gone`.
    pub async fn snapshots(&self) -> Result<Vec<Change>, Refusal> {
        self.ask(Command::Snapshots).await
    }

    /// How the snapshot of one epoch differs from that of another, by backend.
    ///
    /// # Errors
    /// `UnknownEpoch`, `Gone`.
    pub async fn diff(&self, from: u64, to: u64) -> Result<Vec<Difference>, Refusal> {
        self.ask(|reply| Command::Diff(from, to, reply)).await?
    }

    /// Leaves the state file to the next process; what changes from now on is not kept.
    pub fn leave_state(&self) {
        if let Err(error) = self.commands.try_send(Command::Leave) {
            tracing::warn!(%error, "the state file is left only when this process ends");
        }
    }

    /// Each snapshot from now on; a reader that is `CHANGES_MAX` behind is told how many it lost.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    async fn write(
        &self,
        pool: &str,
        authority: &str,
        what: What,
        expected: Option<Revision>,
    ) -> Result<Done, Refusal> {
        let name = Name { pool: pool.to_owned(), authority: authority.to_owned() };
        let write = Write { name, what, expected };
        match &self.etcd {
            // What was said here is forgotten here.
            Some(etcd) if write.what != What::Reset => fleet::write(self, etcd, write).await,
            _ => self.ask(|reply| Command::Write(write, reply)).await?,
        }
    }

    pub(super) async fn ask<T>(
        &self,
        of: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let (reply, replied) = oneshot::channel();
        self.commands.send(of(reply)).await.map_err(|_| Refusal::Gone)?;
        replied.await.map_err(|_| Refusal::Gone)
    }
}

/// How long a writer waits at most until its change has come back from etcd.
const ECHO_TIME_MAX: Duration = Duration::from_secs(1);
/// The most commands that wait for the control thread; who has another waits.
const COMMANDS_MAX: usize = 64;
/// The most changes that a reader may be behind.
pub const CHANGES_MAX: usize = 256;
/// How many snapshots are remembered.
pub const SNAPSHOTS_MAX: usize = 64;
