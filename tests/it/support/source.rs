//! A source of backends, run in the test's own process, and the sets that it tells.

use std::time::Duration;

use corelane::config::DiscoveryConfig;
use corelane::discovery::{Found, Update, spawn};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{SOON, wait_until};

/// A running source and what it told last; it ends when this is dropped.
pub struct Source {
    updates: mpsc::Receiver<Update>,
    told: Vec<String>,
    /// How many sets it told.
    pub count: usize,
    _tasks: JoinSet<()>,
    _runtime: tokio::runtime::Runtime,
}

impl Source {
    pub fn start(config: &DiscoveryConfig) -> Source {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let (sender, updates) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        {
            let _entered = runtime.enter();
            spawn(config, None, &sender, &mut tasks).unwrap();
        }
        Source { updates, told: Vec::new(), count: 0, _tasks: tasks, _runtime: runtime }
    }

    /// What it told last, as `host:port weight [backup]`, with the pool in front unless that is
    /// the default one.
    pub fn told(&mut self) -> &[String] {
        while let Ok(update) = self.updates.try_recv() {
            self.count += 1;
            self.told = update.backends.iter().map(line).collect();
        }
        &self.told
    }

    /// Waits until it has told this set: within a second of now, and what a busy machine adds.
    #[track_caller]
    pub fn expect(&mut self, expected: &[&str]) {
        let took = wait_until(&format!("it tells {expected:?}"), SOON, || self.told() == expected);
        assert!(took < SECOND + NOISE, "{expected:?}: {took:?}");
    }
}

fn line(found: &Found) -> String {
    let backend = &found.backend;
    let pool = if found.pool == "default" { "" } else { &format!("{}/", found.pool) };
    let backup = if backend.is_backup { " backup" } else { "" };
    format!("{pool}{} {}{backup}", backend.authority(), backend.weight)
}

const SECOND: Duration = Duration::from_secs(1);
/// What a busy machine may add.
const NOISE: Duration = Duration::from_secs(2);
