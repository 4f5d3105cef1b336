//! How far this process is in its life, and what its workers run on.
//!
//! `server` writes it on the main thread; the admin API reads it, and may ask for a drain. No
//! worker knows of it, so its lock is never on a request's way.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Workers start, or backends have not been probed yet.
    Starting,
    /// It serves.
    Serving,
    /// It completes what is in flight and takes nothing new.
    Draining,
}

/// One worker, as the main thread knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerState {
    /// The core that it is pinned to.
    pub core: usize,
    /// The kernel interface that it waits with; `None` before it started.
    pub driver: Option<&'static str>,
    /// Whether its thread runs.
    pub is_running: bool,
    /// How often it was started again after it had died.
    pub restarts: u32,
}

/// One process.
pub struct Process {
    started: Instant,
    phase: AtomicU8,
    workers: Mutex<Vec<WorkerState>>,
    drain: Box<dyn Fn() + Send + Sync>,
}

impl Process {
    /// A process that starts, with a worker on each of these cores; `drain` asks its main thread
    /// to drain and must not wait.
    #[must_use]
    pub fn new(cores: &[usize], drain: impl Fn() + Send + Sync + 'static) -> Process {
        let worker = |core: &usize| WorkerState {
            core: *core,
            driver: None,
            is_running: false,
            restarts: 0,
        };
        Process {
            started: Instant::now(),
            phase: AtomicU8::new(Phase::Starting as u8),
            workers: Mutex::new(cores.iter().map(worker).collect()),
            drain: Box::new(drain),
        }
    }

    /// How long it has run.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            phase if phase == Phase::Starting as u8 => Phase::Starting,
            phase if phase == Phase::Serving as u8 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Notes how far it is.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Its workers, by their numbers.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerState> {
        self.lock().clone()
    }

    /// Notes that a worker runs on this driver.
    pub fn worker_started(&self, id: usize, driver: &'static str) {
        if let Some(worker) = self.lock().get_mut(id) {
            worker.driver = Some(driver);
            worker.is_running = true;
        }
    }

    /// Notes that a worker's thread has ended, and how often it was started again by now.
    pub fn worker_ended(&self, id: usize, restarts: u32) {
        if let Some(worker) = self.lock().get_mut(id) {
            worker.is_running = false;
            worker.restarts = restarts;
        }
    }

    /// Asks for a drain, as SIGTERM does; asking twice is asking once.
    pub fn request_drain(&self) {
        (self.drain)();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WorkerState>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("phase", &self.phase()).finish_non_exhaustive()
    }
}
