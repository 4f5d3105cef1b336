//! Backends by etcd v3: reads all keys under the prefix once, then watches from that revision on.
//!
//! A watch that ends, for whatever reason, is followed by reading all keys again, so that nothing
//! is missed; while etcd cannot be reached the last set stays. Runs on the control thread.

mod client;
mod error;
mod keys;
mod register;
mod tls;
mod wire;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::config::EtcdConfig;
use crate::discovery::backoff::Backoff;
use crate::discovery::etcd::client::{Client, Lines};
use crate::discovery::etcd::error::Failure;
use crate::discovery::etcd::keys::{KEYS_MAX, Keys};
use crate::discovery::told::Told;
use crate::discovery::{Set, Update};

pub use register::Registration;
pub use write::{Stored, Unwritten, Writer};

/// An etcd, and what it last told.
pub(super) struct Cluster {
    client: Client,
    origin: String,
    keys: Keys,
    last: Option<Set>,
    told: Told,
    backoff: Backoff,
    /// Whether the log's last word is that nothing can be had.
    is_lost: bool,
}

/// Nobody listens any more.
struct Unheard;

/// How many keys there are, and the revision of the one that changed last.
struct Summary {
    count: usize,
    newest: i64,
}

impl Cluster {
    /// An etcd that was not asked yet, and what it told an earlier process.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub(super) fn new(config: &EtcdConfig, recalled: Option<Update>) -> Result<Cluster, String> {
        let mut keys = Keys::new(&config.prefix);
        if let Some(Update { backends, mark: Some(mark), .. }) = recalled {
            keys.recall(mark, backends);
        }
        Ok(Cluster {
            origin: config.origin(),
            keys,
            client: Client::new(Arc::new(config.clone()))?,
            last: None,
            told: Told::default(),
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
            is_lost: false,
        })
    }

    /// What it is called: its first member and its prefix.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Reads and watches until nobody listens.
    pub(super) async fn run(mut self, sets: mpsc::Sender<Set>) {
        loop {
            match self.follow(&sets).await {
                Ok(Unheard) => return,
                Err(failure) => self.complain(&failure),
            }
            sleep(self.backoff.next(fastrand::f64())).await;
        }
    }

    /// Reads all keys and follows their changes until that fails.
    async fn follow(&mut self, sets: &mpsc::Sender<Set>) -> Result<Unheard, Failure> {
        let range = wire::range(self.keys.prefix(), KEYS_MAX + 1);
        let range: wire::Range = self.client.call(RANGE, &range).await?;
        let complaints = self.keys.replace(range.header, &range.kvs, Instant::now())?;
        self.tell_broken(&complaints);
        if self.tell(sets).await.is_err() {
            return Ok(Unheard);
        }
        let watch = wire::watch(self.keys.prefix(), range.header.revision + 1);
        let lines = self.client.stream(WATCH, &watch).await?;
        self.watch(lines, sets).await
    }

    async fn watch(
        &mut self,
        mut lines: Lines,
        sets: &mpsc::Sender<Set>,
    ) -> Result<Unheard, Failure> {
        let (sender, mut summaries) = mpsc::channel(1);
        let mut checks =
            std::pin::pin!(check(self.client.beside(), wire::newest(self.keys.prefix()), sender));
        let mut is_suspect = false;
        loop {
            let held_until = self.keys.held_until();
            tokio::select! {
                line = lines.next::<wire::Watched>() => {
                    is_suspect = false;
                    self.apply(&line?)?;
                }
                Some(summary) = summaries.recv() => {
                    let Summary { count, newest } = summary;
                    // What it has more may be on its way.
                    let is_behind = !self.keys.is_told(count, newest);
                    if is_behind && is_suspect {
                        return Err(Failure::Stale);
                    }
                    is_suspect = is_behind;
                }
                failure = &mut checks => return Err(failure),
                () = until(held_until) => {
                    let count = self.keys.let_go();
                    tracing::info!(count, "backends that etcd no longer names are let go");
                }
                () = sets.closed() => return Ok(Unheard),
            }
            if self.tell(sets).await.is_err() {
                return Ok(Unheard);
            }
        }
    }

    /// Takes over what a line of the watch says.
    fn apply(&mut self, watched: &wire::Watched) -> Result<(), Failure> {
        if watched.canceled || watched.compact_revision > 0 {
            let reason = match (&*watched.cancel_reason, watched.compact_revision) {
                ("", 0) => "etcd cancelled it".to_owned(),
                ("", revision) => format!("its changes before {revision} are compacted"),
                (reason, _) => reason.to_owned(),
            };
            return Err(Failure::Cancelled(reason));
        }
        if watched.created {
            self.backoff.reset();
            if std::mem::take(&mut self.is_lost) {
                tracing::info!(etcd = self.origin, "etcd is watched again");
            }
        }
        let mut complaints = Vec::new();
        for event in &watched.events {
            complaints.extend(self.keys.apply(&event.kv, event.is_delete())?);
        }
        self.keys.note(watched.header, Instant::now());
        self.tell_broken(&complaints);
        Ok(())
    }

    /// Tells the set if it, or how far it goes, is another one.
    async fn tell(&mut self, sets: &mpsc::Sender<Set>) -> Result<(), Unheard> {
        let (mark, told) = (Some(self.keys.mark()), Some(self.keys.told()));
        let set = Set { backends: self.keys.backends(), mark, told };
        if self.last.as_ref() == Some(&set) {
            return Ok(());
        }
        self.last = Some(set.clone());
        sets.send(set).await.map_err(|_closed| Unheard)
    }

    fn tell_broken(&mut self, complaints: &[String]) {
        for complaint in complaints.iter().take(COMPLAINTS_MAX) {
            tracing::warn!(cause = "etcd-value", "a backend in etcd is passed over: {complaint}");
        }
        let more = complaints.len().saturating_sub(COMPLAINTS_MAX);
        if more > 0 {
            tracing::warn!(cause = "etcd-value", more, "more backends in etcd are passed over");
        }
    }

    fn complain(&mut self, failure: &Failure) {
        self.is_lost = true;
        let Some(untold) = self.told.now(failure.cause(), Instant::now()) else { return };
        let (cause, kept) =
            (failure.cause(), self.last.as_ref().map_or(0, |set| set.backends.len()));
        tracing::warn!(cause, kept, untold, "etcd tells nothing new: {failure}");
    }
}

/// Asks again and again how far etcd is, on another connection than the watch's: the watch may be
/// dead without a sign. Ends with the first failure.
async fn check(
    mut client: Client,
    question: serde_json::Value,
    summaries: mpsc::Sender<Summary>,
) -> Failure {
    loop {
        sleep(CHECK_INTERVAL).await;
        match client.call::<wire::Range>(RANGE, &question).await {
            Ok(range) => {
                let newest = range.kvs.first().map_or(0, |kv| kv.mod_revision);
                let summary = Summary { count: range.count, newest };
                // Full only where the last one was not looked at yet; closed only at the end.
                summaries.try_send(summary).ok();
            }
            Err(failure) => return failure,
        }
    }
}

/// Waits for this time; for ever without one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// The paths of etcd's gateway.
const RANGE: &str = "/v3/kv/range";
const WATCH: &str = "/v3/watch";
const PUT: &str = "/v3/kv/put";
const TXN: &str = "/v3/kv/txn";
const LEASE_GRANT: &str = "/v3/lease/grant";
const LEASE_KEEP_ALIVE: &str = "/v3/lease/keepalive";
const LEASE_REVOKE: &str = "/v3/lease/revoke";

/// The waits after failures in a row. etcd that is back is found within the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How often a watch is checked; two checks in a row show that it is dead.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The most broken values that one message of etcd has told.
const COMPLAINTS_MAX: usize = 16;
