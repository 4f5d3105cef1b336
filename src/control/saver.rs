//! Writes the state file, on a thread of its own, so that a slow disk delays nobody but those who
//! wait for their change to be kept.
//!
//! One file is written at a time; what changes meanwhile goes into the next, together. Part of the
//! publisher, which asks when a file is due.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use tokio::sync::oneshot;

use crate::control::handle::{Done, Refusal};
use crate::error::StartError;

/// The writing of the state file.
#[derive(Debug)]
pub(super) struct Saver {
    path: PathBuf,
    jobs: Sender<Job>,
    writing: Option<oneshot::Receiver<io::Result<()>>>,
    is_dirty: bool,
    /// After a failure, when it is tried again.
    not_before: Option<Instant>,
    /// The replies that wait for the next file,
    waiting: Vec<Reply>,
    /// and those that wait for the one that is being written.
    covered: Vec<Reply>,
}

type Reply = (oneshot::Sender<Result<Done, Refusal>>, Result<Done, Refusal>);

/// The contents of a file, and whom to tell how it went.
type Job = (String, oneshot::Sender<io::Result<()>>);

impl Saver {
    /// Writes the file once, so that it is known to work, and starts the thread that writes it
    /// from now on.
    pub(super) fn start(path: &Path, text: &str) -> Result<Saver, StartError> {
        write_whole(path, text).map_err(|error| {
            let path = path.display();
            StartError::Usage(format!(
                "--state-file {path} cannot be written: {error}; make its directory, and let \
                 corelane write there"
            ))
        })?;
        let (jobs, received) = crossbeam::channel::bounded::<Job>(1);
        let target = path.to_owned();
        let work = move || {
            for (text, done) in received {
                if done.send(write_whole(&target, &text)).is_err() {
                    break;
                }
            }
        };
        let builder = std::thread::Builder::new().name("corelane-state".to_owned());
        let spawned = builder.spawn(work);
        spawned.map_err(|error| StartError::Resource("a thread for the state file", error))?;
        Ok(Saver {
            path: path.to_owned(),
            jobs,
            writing: None,
            is_dirty: false,
            not_before: None,
            waiting: Vec::new(),
            covered: Vec::new(),
        })
    }

    /// What is to be kept has changed.
    pub(super) fn note(&mut self) {
        self.is_dirty = true;
    }

    /// Replies once what changed by now is kept.
    pub(super) fn reply_when_kept(&mut self, reply: Reply) {
        if self.waiting.len() >= REPLIES_MAX {
            return send(reply);
        }
        self.waiting.push(reply);
    }

    /// Whether the file is to be written now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let may_begin = self.not_before.is_none_or(|at| at <= now);
        self.is_dirty && self.writing.is_none() && may_begin
    }

    /// Has the file written.
    pub(super) fn begin(&mut self, text: String) {
        let (done, writing) = oneshot::channel();
        self.is_dirty = false;
        self.covered.append(&mut self.waiting);
        // Its queue has room: nothing is being written.
        if self.jobs.try_send((text, done)).is_err() {
            tracing::debug!("the thread that writes the state file has ended");
        }
        self.writing = Some(writing);
    }

    /// Waits until a file was written, and replies to those who waited for that.
    pub(super) async fn written(&mut self) {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let result = match writing.await {
            Ok(result) => result,
            Err(_ended) => Err(io::Error::other("its thread has ended")),
        };
        self.writing = None;
        self.not_before = None;
        if let Err(error) = result {
            let file = self.path.display();
            tracing::error!(%file, %error, "the state file is not written: changes would not survive a restart");
            self.is_dirty = true;
            self.not_before = Some(Instant::now() + RETRY_TIME);
        }
        // Those whose change is in force but not kept are not left waiting for a disk.
        self.covered.drain(..).for_each(send);
    }
}

fn send((to, answer): Reply) {
    if to.send(answer).is_err() {
        tracing::debug!("nobody waits for a reply any more");
    }
}

/// Writes a file so that at each moment there is a whole one, on the disk too.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    rename(&part, path)?;
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// For its owner alone.
const MODE: u32 = 0o600;
/// The most replies that wait for the file; whoever else waits is told before it is written.
const REPLIES_MAX: usize = 1024;
/// How long after a failure it is tried again.
const RETRY_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_comes_when_its_change_is_kept_and_changes_are_kept_together() {
        let directory = std::env::temp_dir().join(format!("corelane-saver-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("state.json");
        let mut saver = Saver::start(&path, "0").unwrap();
        let now = Instant::now();
        assert!(!saver.is_due(now));
        let mut replies = Vec::new();
        for text in ["1", "2", "3"] {
            let (to, reply) = oneshot::channel();
            saver.note();
            saver.reply_when_kept((to, Err(Refusal::Gone)));
            replies.push(reply);
            if saver.is_due(now) {
                saver.begin(text.to_owned());
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(saver.written());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1");
        let is_told = |reply: &mut oneshot::Receiver<_>| reply.try_recv().is_ok();
        assert_eq!(replies.iter_mut().map(is_told).collect::<Vec<_>>(), [true, false, false]);
        assert!(saver.is_due(now));
        saver.begin("3".to_owned());
        runtime.block_on(saver.written());
        assert!(replies[1..].iter_mut().all(is_told) && !saver.is_due(now));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3");
        std::fs::remove_dir_all(&directory).unwrap();
        saver.note();
        saver.begin("4".to_owned());
        runtime.block_on(saver.written());
        assert!(!saver.is_due(now) && saver.is_due(Instant::now() + RETRY_TIME));
        let refused = Saver::start(&path, "").unwrap_err().to_string();
        assert!(refused.contains("make its directory"), "{refused}");
    }
}
