//! Writes the state file, on a thread of its own, so that a slow disk delays nobody but those who
//! wait for their change to be kept.
//!
//! One file is written at a time; what changes meanwhile goes into the next, together. One process
//! at a time has it: until it leaves it to the next, which it does when it drains. Part of the
//! publisher, which asks when a file is due.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::control::handle::Done;
use crate::control::refusal::Refusal;
use crate::error::StartError;

/// The writing of the state file.
#[derive(Debug)]
pub(super) struct Saver {
    path: PathBuf,
    /// `None` once the file is another process's.
    lock: Option<StateLock>,
    is_leaving: bool,
    /// Whether what was written last is the last: what changes from then on is not kept.
    is_last: bool,
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
    pub(super) fn start(lock: StateLock, text: &str) -> Result<Saver, StartError> {
        let path = lock.path.clone();
        write_whole(&path, text).map_err(|error| unwritable(&path, &error))?;
        let (jobs, received) = crossbeam::channel::bounded::<Job>(1);
        let target = path.clone();
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
            path,
            lock: Some(lock),
            is_leaving: false,
            is_last: false,
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
        self.is_dirty |= self.lock.is_some() && !self.is_last;
    }

    /// Replies once what changed by now is kept, or that it is not.
    pub(super) fn reply_when_kept(&mut self, reply: Reply) {
        if self.lock.is_none() || self.is_last || self.waiting.len() >= REPLIES_MAX {
            return send_unkept(reply);
        }
        self.waiting.push(reply);
    }

    /// Leaves the file to the next process as soon as what changed by now is kept, or cannot be.
    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// Lets the next process have the file, if this one has left it.
    pub(super) fn unlock_if_left(&mut self) {
        let has_failed = self.not_before.is_some();
        if self.is_leaving && self.writing.is_none() && (has_failed || !self.is_dirty) {
            self.is_dirty = false;
            self.waiting.drain(..).for_each(send_unkept);
            if self.lock.take().is_some() {
                tracing::info!(file = %self.path.display(), "the state file is left to others");
            }
        }
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
        self.is_last = self.is_leaving;
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
        if let Err(error) = &result {
            let file = self.path.display();
            tracing::error!(%file, %error, "the state file is not written: changes would not survive a restart");
            self.is_dirty = true;
            self.not_before = Some(Instant::now() + RETRY_TIME);
        }
        // Those whose change is in force but not kept are not left waiting for a disk.
        self.covered.drain(..).for_each(if result.is_ok() { send } else { send_unkept });
    }
}

/// The right to a state file, which ends with the process at the latest.
#[derive(Debug)]
pub struct StateLock {
    /// The state file.
    pub(super) path: PathBuf,
    /// A file beside it: the state file is another one after each change.
    #[expect(dead_code, reason = "its drop ends the lock")]
    file: File,
}

impl StateLock {
    /// Waits for the file, `LOCK_TIME_MAX` at most: who had it may be about to end. Blocks.
    ///
    /// # Errors
    /// `StateFileInUse`, when another process has it; `Usage`, when it cannot be had at all.
    pub fn of(path: &Path) -> Result<StateLock, StartError> {
        let begun = Instant::now();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(MODE);
        let file = options.open(beside(path, ".lock")).map_err(|error| unwritable(path, &error))?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(StateLock { path: path.to_owned(), file }),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_TIME_MAX => {
                    park_timeout(LOCK_INTERVAL);
                }
                Err(Errno::WOULDBLOCK) => return Err(StartError::StateFileInUse(path.to_owned())),
                Err(error) => return Err(unwritable(path, &error.into())),
            }
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> StartError {
    let path = path.display();
    StartError::Usage(format!(
        "--state-file {path} cannot be written: {error}; make its directory, and let corelane \
         write there"
    ))
}

fn send_unkept((to, answer): Reply) {
    send((to, answer.map(|done| Done { is_kept: false, ..done })));
}

fn send((to, answer): Reply) {
    if to.send(answer).is_err() {
        tracing::debug!("nobody waits for a reply any more");
    }
}

/// Writes a file so that at each moment there is a whole one, on the disk too.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let part = beside(path, ".part");
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

/// The file beside this one, whose name ends so.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// For its owner alone.
const MODE: u32 = 0o600;
/// The most replies that wait for the file; whoever else waits is told before it is written.
const REPLIES_MAX: usize = 1024;
/// How long a process waits for the file of one that ends, and how often it looks.
const LOCK_TIME_MAX: Duration = Duration::from_secs(2);
const LOCK_INTERVAL: Duration = Duration::from_millis(20);
/// How long after a failure it is tried again.
const RETRY_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    type Kept = oneshot::Receiver<Result<Done, Refusal>>;

    fn done() -> Done {
        Done { before: None, after: None, is_kept: true, is_followed: true }
    }

    #[test]
    fn a_reply_comes_when_its_change_is_kept_and_changes_are_kept_together() {
        let directory = std::env::temp_dir().join(format!("corelane-saver-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("state.json");
        let mut saver = Saver::start(StateLock::of(&path).unwrap(), "0").unwrap();
        let now = Instant::now();
        assert!(!saver.is_due(now));
        let mut replies = Vec::new();
        for text in ["1", "2", "3"] {
            let (to, reply) = oneshot::channel();
            saver.note();
            saver.reply_when_kept((to, Ok(done())));
            replies.push(reply);
            if saver.is_due(now) {
                saver.begin(text.to_owned());
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(saver.written());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1");
        let told = |reply: &mut Kept| reply.try_recv().ok().map(|done| done.unwrap().is_kept);
        assert_eq!(replies.iter_mut().map(told).collect::<Vec<_>>(), [Some(true), None, None]);
        assert!(saver.is_due(now));
        saver.begin("3".to_owned());
        runtime.block_on(saver.written());
        assert!(replies[1..].iter_mut().all(|it| told(it) == Some(true)) && !saver.is_due(now));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3");
        std::fs::remove_dir_all(&directory).unwrap();
        let (to, mut reply) = oneshot::channel();
        saver.note();
        saver.reply_when_kept((to, Ok(done())));
        saver.begin("4".to_owned());
        runtime.block_on(saver.written());
        assert_eq!(told(&mut reply), Some(false), "it is in force, and not kept");
        assert!(!saver.is_due(now) && saver.is_due(Instant::now() + RETRY_TIME));
        let refused = StateLock::of(&path).unwrap_err().to_string();
        assert!(refused.contains("make its directory"), "{refused}");
    }

    #[test]
    fn a_state_file_has_one_process_until_it_leaves_it() {
        let directory = std::env::temp_dir().join(format!("corelane-lock-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("state.json");
        let mut saver = Saver::start(StateLock::of(&path).unwrap(), "0").unwrap();
        let refused = StateLock::of(&path).unwrap_err().to_string();
        assert!(
            refused.contains("another corelane") && refused.contains("state.json"),
            "{refused}"
        );
        saver.note();
        saver.leave();
        saver.unlock_if_left();
        assert!(saver.lock.is_some(), "a change is not kept yet");
        saver.begin("1".to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for owner in ["its last file is being written", "it is another's by now"] {
            let (to, mut reply) = oneshot::channel();
            saver.note();
            saver.reply_when_kept((to, Ok(done())));
            assert!(!reply.try_recv().unwrap().unwrap().is_kept, "{owner}");
            if saver.lock.is_some() {
                runtime.block_on(saver.written());
                saver.unlock_if_left();
                StateLock::of(&path).unwrap();
            }
            assert!(!saver.is_due(Instant::now()), "{owner}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
