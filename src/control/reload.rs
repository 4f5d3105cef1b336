//! Reads the configuration again and puts it into force, or keeps what is in force.
//!
//! Called by `server` for SIGHUP and by the admin API. Reading is the caller's of `Server`, who knows
//! flags and file; it blocks, so it never runs on the control thread.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::oneshot;

use crate::config::{PoolConfig, RouteConfig};
use crate::control::handle::{Command, Handle};
use crate::control::refusal::Refusal;

/// What reading the configuration again gave.
#[derive(Debug)]
pub struct Reading {
    /// The pools,
    pub pools: Vec<PoolConfig>,
    /// and the routes to them.
    pub routes: Vec<RouteConfig>,
    /// The names of settings that have changed and are read at the start alone.
    pub needs_restart: Vec<String>,
}

/// How the configuration is read again; set once. One reload runs at a time: the later one is in
/// force in the end.
#[derive(Clone, Default)]
pub(super) struct Reload(Arc<OnceLock<Box<Read>>>, Arc<Mutex<()>>);

type Read = dyn Fn() -> Result<Reading, String> + Send + Sync;

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

impl Handle {
    /// Says how the configuration is read again.
    pub fn reload_by(&self, read: impl Fn() -> Result<Reading, String> + Send + Sync + 'static) {
        if self.reload.0.set(Box::new(read)).is_err() {
            tracing::error!("it was already said how the configuration is read again");
        }
    }

    /// Reads the configuration again and puts pools, routes and the backends that it names into
    /// force as one snapshot; the names of settings that wait for a restart. Blocks.
    ///
    /// # Errors
    /// `Invalid` with everything that is wrong, a line each, and then nothing has changed;
    /// `TooManyPools`, `Gone`.
    pub fn reload_blocking(&self) -> Result<Vec<String>, Refusal> {
        let done = self.read_and_configure();
        match &done {
            Ok(needs_restart) if needs_restart.is_empty() => {
                tracing::info!("the configuration was read again and is in force");
            }
            Ok(needs_restart) => {
                let settings = needs_restart.join(", ");
                tracing::warn!(
                    settings,
                    "the configuration was read again; these settings wait for a restart"
                );
            }
            Err(refusal) => {
                for reason in refusal.to_string().lines() {
                    tracing::error!(reason, "the configuration is refused, the last one stays");
                }
            }
        }
        done
    }

    /// The same without blocking the thread that it is called on.
    ///
    /// # Errors
    /// As `reload_blocking`.
    pub async fn reload(&self) -> Result<Vec<String>, Refusal> {
        let handle = self.clone();
        let done = tokio::task::spawn_blocking(move || handle.reload_blocking());
        done.await.map_err(|_panicked| Refusal::Gone)?
    }

    fn read_and_configure(&self) -> Result<Vec<String>, Refusal> {
        let Some(read) = self.reload.0.get() else {
            let reason = "there is no file to read again: start corelane with --config";
            return Err(Refusal::Invalid(reason.to_owned()));
        };
        let _turn = self.reload.1.lock().unwrap_or_else(PoisonError::into_inner);
        let Reading { pools, routes, needs_restart } = read().map_err(Refusal::Invalid)?;
        let (reply, replied) = oneshot::channel();
        let command = Command::Configure(pools, routes, reply);
        self.commands.blocking_send(command).map_err(|_| Refusal::Gone)?;
        replied.blocking_recv().map_err(|_| Refusal::Gone)??;
        Ok(needs_restart)
    }
}
