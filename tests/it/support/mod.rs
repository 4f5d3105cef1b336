//! What the scenarios stand on: the real proxy, scripted upstreams, raw clients, real servers and load.
//! Everything here is bounded in time, listens on port 0, and stops what it started.

pub mod admin;
pub mod browser;
pub mod client;
pub mod corpus;
pub mod deaf;
pub mod dns;
pub mod etcd;
pub mod load;
pub mod messages;
pub mod openmetrics;
pub mod proxy;
pub mod pure;
pub mod servers;
pub mod source;
pub mod strict;
pub mod upstream;
pub mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Long enough for anything that must happen at all, on a machine that is busy with something else.
pub const SOON: Duration = Duration::from_secs(10);

/// Checks `condition` every few milliseconds until it holds; fails the test after `within`.
/// The only place in the tests that sleeps.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        pause();
    }
    start.elapsed()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the polling interval of wait_until, not a synchronisation"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// A door that a script waits at until the test opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Gives up after a minute, so that no script outlives a failed test for long.
    pub fn wait(&self) {
        let closed = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(closed, Duration::from_secs(60), |open| !*open).unwrap());
    }
}

/// A door that lets through as many as it was told to, one by one.
#[derive(Clone, Default)]
pub struct Turnstile(Arc<(Mutex<usize>, Condvar)>);

impl Turnstile {
    pub fn release(&self, count: usize) {
        *self.0.0.lock().unwrap() += count;
        self.0.1.notify_all();
    }

    /// Waits for a turn; gives up after a minute, as `Gate` does.
    pub fn pass(&self) {
        let left = self.0.0.lock().unwrap();
        let minute = Duration::from_secs(60);
        let (mut left, _) = self.0.1.wait_timeout_while(left, minute, |left| *left == 0).unwrap();
        *left = left.saturating_sub(1);
    }
}

/// A directory of its own for one process of one test, removed when the test is over.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target directory is writable");
        Scratch(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Lets this process have as many file descriptors as it may; returns how many that are.
pub fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    limit.maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap())
}
