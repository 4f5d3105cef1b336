//! A file of backends, in TOML or JSON, read again whenever it changes.
//!
//! A file that is broken, or gone, changes nothing: the last good set stays, and the log says what
//! is wrong with it. Told by the kernel of changes in its directory (editors put another file in
//! its place), and looks every few seconds in case it was not. Runs on the control thread.

mod document;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::config::Source;
use crate::discovery::told::Told;
use crate::discovery::{Found, Update};

/// A file of backends.
#[derive(Debug)]
pub struct BackendsFile {
    path: PathBuf,
    /// What was read last, good or bad.
    seen: Vec<u8>,
    is_broken: bool,
    /// Whether it could not be read lately.
    is_gone: bool,
    told: Told,
    /// What is wrong and was not told yet.
    untold: Option<String>,
}

impl BackendsFile {
    /// Reads the file; what it says now.
    ///
    /// # Errors
    /// What is wrong with it, where, and what would be right.
    pub fn open(path: &Path) -> Result<(BackendsFile, Update), String> {
        let named = |reason: String| format!("--backends-file {}: {reason}", path.display());
        let bytes = read(path).map_err(|error| {
            named(format!("{error}; write it, or leave the flag out if no backend is to be in it"))
        })?;
        let backends = document::parse(path, &bytes).map_err(named)?;
        let (path, told) = (path.to_owned(), Told::default());
        let file = BackendsFile {
            path,
            seen: bytes,
            is_broken: false,
            is_gone: false,
            told,
            untold: None,
        };
        let update = file.says(backends);
        Ok((file, update))
    }

    /// Tells each new set that the file says, until nobody listens.
    pub async fn run(mut self, updates: mpsc::Sender<Update>) {
        let changed = Arc::new(Notify::new());
        let _watcher = self.watch(&changed);
        loop {
            // Without a change it is looked at all the same, now and then.
            timeout(LOOK_INTERVAL, changed.notified()).await.ok();
            let Some(bytes) = self.settled().await else { continue };
            if std::mem::take(&mut self.is_gone) {
                self.untold = None;
                tracing::info!(file = %self.path.display(), "the backends file is there again");
            }
            if bytes == self.seen {
                // What was kept back, so as not to be told too often, is told later.
                if let Some(reason) = self.untold.take() {
                    self.tell("broken", &reason);
                }
                // Others in its directory may change all the time.
                sleep(SETTLE_TIME).await;
                continue;
            }
            let parsed = document::parse(&self.path, &bytes);
            self.untold = None;
            self.seen = bytes;
            match parsed {
                Ok(backends) => {
                    if std::mem::take(&mut self.is_broken) {
                        tracing::info!(file = %self.path.display(), "the backends file is right again");
                    }
                    if updates.send(self.says(backends)).await.is_err() {
                        return;
                    }
                }
                Err(reason) => {
                    self.is_broken = true;
                    self.tell("broken", &reason);
                }
            }
        }
    }

    fn says(&self, backends: Vec<Found>) -> Update {
        let origin = self.path.display().to_string();
        Update { source: Source::File, origin, backends, mark: None, told: None }
    }

    /// Lets the kernel tell of changes in the file's directory.
    fn watch(&mut self, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
        let told = Arc::clone(changed);
        let on_event = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(event.kind)) {
                told.notify_one();
            }
        };
        let directory = match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        watcher
            .inspect_err(|error| {
                let file = self.path.display();
                tracing::warn!(%file, %error, "the kernel tells of no changes: the file is looked at \
                    every {LOOK_INTERVAL:?}; fs.inotify.max_user_watches may be too low");
            })
            .ok()
    }

    /// The file's contents, once they stay the same for a moment: half a file may read like a
    /// whole one. `None` where they cannot be read, which is told.
    async fn settled(&mut self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + SETTLE_MAX;
        let mut before = None;
        loop {
            let path = self.path.clone();
            let result = match spawn_blocking(move || read(&path)).await {
                Ok(result) => result,
                Err(error) => Err(io::Error::other(error)),
            };
            let bytes = match result {
                Ok(bytes) => Some(bytes),
                Err(error) if Instant::now() >= deadline => {
                    self.is_gone = true;
                    self.tell("unreadable", &error.to_string());
                    return None;
                }
                // An editor may be about to put another in its place.
                Err(_) => None,
            };
            // Most looks find nothing new.
            let is_settled =
                bytes.is_some() && (bytes == before || bytes.as_ref() == Some(&self.seen));
            if is_settled || (bytes.is_some() && Instant::now() >= deadline) {
                return bytes;
            }
            before = bytes;
            sleep(SETTLE_TIME).await;
        }
    }

    /// Says in the log what is wrong, not too often.
    fn tell(&mut self, cause: &'static str, reason: &str) {
        let told = self.told.now(cause, std::time::Instant::now());
        self.untold = told.is_none().then(|| reason.to_owned());
        if let Some(untold) = told {
            let file = self.path.display();
            tracing::error!(%file, reason, untold, "the backends file is refused: the last good set stays");
        }
    }
}

/// Whether an event may mean that a file is another: not that somebody reads it, as `read` does.
fn is_change(kind: EventKind) -> bool {
    let is_written = kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
    is_written || !matches!(kind, EventKind::Access(_))
}

/// Reads a file whole, if it is not too large.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let reason = format!("it is longer than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// The longest file: 1,024 backends take about 100 kB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How often the file is looked at without being told of a change.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// For how long a file must stay the same before it is taken to be whole,
const SETTLE_TIME: Duration = Duration::from_millis(20);
/// and how long that is waited for: of a file that changes all the time, what was read last counts.
const SETTLE_MAX: Duration = Duration::from_millis(400);
