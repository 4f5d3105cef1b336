//! The thread that writes the access log, and the queues between it and the workers.
//!
//! Chunks of whole lines come through one bounded queue and go back, emptied, through another, so
//! that in the steady state nobody asks for memory. A file that was renamed is opened again when it
//! is told to; what cannot be written is told once a second and counted, and writing is tried again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::ArrayQueue;
use rustix::fs::Access;

use crate::config::{AccessLogConfig, LogTarget};
use crate::error::StartError;
use crate::metrics::Lanes;

/// Whole lines.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u32,
}

impl Chunk {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.lines = 0;
    }
}

/// The way of chunks to the writer and back, for one worker.
#[derive(Clone, Debug)]
pub struct Inlet {
    config: Arc<AccessLogConfig>,
    chunks: Sender<Chunk>,
    emptied: Arc<ArrayQueue<Chunk>>,
}

impl Inlet {
    pub(super) fn config(&self) -> Arc<AccessLogConfig> {
        self.config.clone()
    }

    /// An empty chunk: one that was written, if there is one.
    pub(super) fn chunk(&self) -> Chunk {
        let new = || Chunk { bytes: Vec::with_capacity(CHUNK_BYTES), lines: 0 };
        self.emptied.pop().unwrap_or_else(new)
    }

    /// Hands a chunk over, and leaves an empty one in its place; where the queue is full, or the
    /// writer has ended, the chunk stays and this is `false`.
    pub(super) fn send(&self, chunk: &mut Chunk) -> bool {
        match self.chunks.try_send(std::mem::take(chunk)) {
            Ok(()) => *chunk = self.chunk(),
            Err(kept) => {
                *chunk = kept.into_inner();
                return false;
            }
        }
        true
    }

    /// Whether chunks wait: the writer is behind.
    pub(super) fn has_waiting(&self) -> bool {
        !self.chunks.is_empty()
    }
}

/// The access log of a process, while its thread runs.
#[derive(Debug)]
pub struct AccessLog {
    inlet: Inlet,
    commands: Sender<Command>,
    ended: Receiver<std::convert::Infallible>,
}

#[derive(Debug)]
enum Command {
    /// Open the file again: it was renamed.
    Reopen,
    /// Write what is there, and end.
    End,
}

/// Tells the writer that its file was renamed.
#[derive(Clone, Debug)]
pub struct Reopener(Sender<Command>);

impl Reopener {
    /// The file is opened again between two chunks; asking twice at once is asking once.
    pub fn reopen(&self) {
        if self.0.try_send(Command::Reopen).is_err() {
            tracing::debug!("the access log is being opened again already");
        }
    }
}

impl AccessLog {
    /// Opens the target and starts the thread; lines that cannot be written are counted in `lanes`.
    ///
    /// # Errors
    /// When the file cannot be opened, or the thread not be had.
    pub fn start(config: AccessLogConfig, lanes: Lanes) -> Result<AccessLog, StartError> {
        let target = Target::open(config.target.clone())
            .map_err(|error| StartError::AccessLog(name_of(&config.target), error))?;
        let chunks_max = (config.bytes_max / CHUNK_BYTES).max(1);
        let (chunks, received) = bounded(chunks_max);
        let (commands, commanded) = bounded(COMMANDS_MAX);
        let (ending, ended) = bounded(0);
        let emptied = Arc::new(ArrayQueue::new(chunks_max));
        let mut writer = Writer { target, lanes, emptied: emptied.clone(), failures: None };
        let work = move || {
            writer.run(&received, &commanded);
            drop(ending);
        };
        let builder = std::thread::Builder::new().name("corelane-access".to_owned());
        builder.spawn(work).map_err(|error| StartError::Resource("a thread for logs", error))?;
        let inlet = Inlet { config: Arc::new(config), chunks, emptied };
        Ok(AccessLog { inlet, commands, ended })
    }

    /// Whether the target could be opened; does not make it.
    ///
    /// # Errors
    /// When it could not.
    pub fn look(config: &AccessLogConfig) -> Result<(), StartError> {
        let LogTarget::File(path) = &config.target else { return Ok(()) };
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
        let looked: io::Result<()> = match path.metadata() {
            Ok(file) if file.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => rustix::fs::access(path, Access::WRITE_OK).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = directory.unwrap_or(Path::new("."));
                let looked = rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK);
                looked.map_err(io::Error::from)
            }
            Err(error) => Err(error),
        };
        looked.map_err(|error| StartError::AccessLog(name_of(&config.target), error))
    }

    /// The way to it, for a worker.
    #[must_use]
    pub fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// What tells it that its file was renamed.
    #[must_use]
    pub fn reopener(&self) -> Reopener {
        Reopener(self.commands.clone())
    }

    /// Writes what the workers have handed over, and ends; waits for a target that takes nothing
    /// for `END_TIME` at most.
    pub fn end(self) {
        let deadline = Instant::now() + END_TIME;
        let told = self.commands.send_deadline(Command::End, deadline);
        // The thread never sends: its end closes the channel.
        let ended = self.ended.recv_deadline(deadline);
        let is_late = matches!(ended, Err(crossbeam::channel::RecvTimeoutError::Timeout));
        if told.is_err() || is_late {
            let chunks = self.inlet.chunks.len();
            tracing::error!(chunks, "the access log's last lines are lost: nothing takes them");
        }
    }
}

fn name_of(target: &LogTarget) -> String {
    match target {
        LogTarget::Stdout => "stdout".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    }
}

struct Writer {
    target: Target,
    lanes: Lanes,
    emptied: Arc<ArrayQueue<Chunk>>,
    /// Since when writing has failed, and how many lines were lost that nobody was told of.
    failures: Option<(Instant, u64)>,
}

impl Writer {
    fn run(&mut self, chunks: &Receiver<Chunk>, commands: &Receiver<Command>) {
        loop {
            crossbeam::select! {
                recv(chunks) -> chunk => match chunk {
                    Ok(chunk) => self.write(chunk),
                    Err(_all_gone) => break,
                },
                recv(commands) -> command => match command {
                    Ok(Command::Reopen) => self.reopen(),
                    Ok(Command::End) | Err(_) => {
                        chunks.try_iter().for_each(|chunk| self.write(chunk));
                        break;
                    }
                },
            }
        }
        self.tell(None);
    }

    fn write(&mut self, mut chunk: Chunk) {
        if let Err((error, lost)) = self.target.write(&chunk.bytes) {
            self.lanes.add_access_log_lost(lost);
            let (since, untold) = self.failures.unwrap_or((Instant::now() - TELL_INTERVAL, 0));
            self.failures = Some((since, untold + lost));
            self.tell(Some(&error));
        }
        // A chunk that one long line made grow is not kept.
        if chunk.bytes.capacity() <= 2 * CHUNK_BYTES {
            chunk.clear();
            drop(self.emptied.push(chunk));
        }
    }

    /// Says once a second at most, and at the end, what was lost.
    fn tell(&mut self, error: Option<&io::Error>) {
        let Some((since, untold)) = self.failures else { return };
        let is_due = error.is_none() || since.elapsed() >= TELL_INTERVAL;
        if untold > 0 && is_due {
            self.failures = Some((Instant::now(), 0));
            let error = error.map(tracing::field::display);
            tracing::error!(error, lines = untold, "the access log lost lines: is the disk full?");
        }
    }

    fn reopen(&mut self) {
        match self.target.reopen() {
            Ok(()) => tracing::info!("the access log was opened again"),
            Err(error) => {
                tracing::error!(%error, "the access log stays with its old file");
            }
        }
    }
}

/// Where lines are written.
struct Target {
    to: LogTarget,
    /// `None` for standard output.
    file: Option<File>,
    /// Whether the last line was written in part: the next one must not be taken for its rest.
    is_torn: bool,
}

impl Target {
    fn open(to: LogTarget) -> io::Result<Target> {
        let file = match &to {
            LogTarget::Stdout => None,
            LogTarget::File(path) => Some(open(path)?),
        };
        Ok(Target { to, file, is_torn: false })
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let LogTarget::File(path) = &self.to {
            self.file = Some(open(path)?);
            self.is_torn = false;
        }
        Ok(())
    }

    /// Writes all lines.
    ///
    /// # Errors
    /// What failed, and how many lines were not written whole.
    fn write(&mut self, lines: &[u8]) -> Result<(), (io::Error, u64)> {
        let mut rest = lines;
        let result = self.write_on(&mut rest);
        self.is_torn |=
            rest.len() < lines.len() && !lines[..lines.len() - rest.len()].ends_with(b"\n");
        result.map_err(|error| (error, memchr::memchr_iter(b'\n', rest).count() as u64))
    }

    fn write_on(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout();
        let to: &mut dyn Write = match &mut self.file {
            Some(file) => file,
            None => &mut stdout,
        };
        if self.is_torn {
            to.write_all(b"\n")?;
            self.is_torn = false;
        }
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => *rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // Standard output keeps what stands behind its last LF: nothing does.
        to.flush()
    }
}

/// Opens a file at its end; a pipe only if somebody reads it, since opening would wait for that.
fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).custom_flags(nonblocking).open(path)?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK)?;
    Ok(file)
}

/// The size of a chunk; about 400 lines.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// Commands that wait.
const COMMANDS_MAX: usize = 4;
/// How long the last lines may take.
const END_TIME: Duration = Duration::from_secs(2);
/// The least time between two log lines about lost lines.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
