//! Registers one backend in etcd, under a lease: when its process dies, etcd forgets it.
//!
//! Keeps the lease alive, registers anew when it was lost, and revokes it before the backend stops
//! serving. Used by `corelane backend --register`, on a thread and runtime of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::config::{BackendConfig, DEFAULT_POOL, EtcdConfig};
use crate::discovery::Entry;
use crate::discovery::backoff::{Backoff, jittered};
use crate::discovery::etcd::client::Client;
use crate::discovery::etcd::error::Failure;
use crate::discovery::etcd::keys::Keys;
use crate::discovery::etcd::{LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE, PUT, wire};
use crate::discovery::told::Told;

/// A backend that is to stand in etcd.
pub struct Registration {
    client: Client,
    key: String,
    value: String,
    ttl: Duration,
    lease: Option<i64>,
}

impl Registration {
    /// A backend of the default pool that is not registered yet; its lease ends `ttl`, in whole
    /// seconds, after it was last heard of.
    ///
    /// # Errors
    /// When a certificate or key cannot be used, or the backend cannot be written.
    pub fn new(
        etcd: EtcdConfig,
        backend: &BackendConfig,
        ttl: Duration,
    ) -> Result<Registration, String> {
        let key = Keys::key_of(&etcd.prefix, DEFAULT_POOL, &backend.authority());
        let value =
            serde_json::to_string(&Entry::of(backend)).map_err(|error| error.to_string())?;
        Ok(Registration { client: Client::new(Arc::new(etcd))?, key, value, ttl, lease: None })
    }

    /// Registers and stays registered until `stop` fires or its sender is dropped; then revokes
    /// the lease and gives load balancers `LEAVE_TIME` to notice.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut told = Told::default();
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let wait = match self.refresh().await {
                Ok(()) => {
                    backoff.reset();
                    jittered((self.ttl / REFRESHES_PER_TTL).min(REFRESH_MAX), fastrand::f64())
                }
                Err(failure) => {
                    if let Some(untold) = told.now(failure.cause(), Instant::now()) {
                        let (key, cause) = (&self.key, failure.cause());
                        tracing::warn!(key, cause, untold, "not registered: {failure}");
                    }
                    backoff.next(fastrand::f64())
                }
            };
            tokio::select! {
                // An error is the sender's drop.
                _ = &mut stop => break,
                () = sleep(wait) => {}
            }
        }
        self.leave().await;
    }

    /// Keeps the lease alive, or gets one and registers under it.
    async fn refresh(&mut self) -> Result<(), Failure> {
        if let Some(id) = self.lease {
            let lease: wire::Lease =
                self.client.call_line(LEASE_KEEP_ALIVE, &wire::lease(id)).await?;
            if lease.ttl > 0 {
                return Ok(());
            }
            tracing::warn!(key = self.key, "etcd has lost the lease; registering again");
            self.lease = None;
        }
        let seconds = self.ttl.as_secs().max(1);
        let lease: wire::Lease = self.client.call(LEASE_GRANT, &wire::grant(seconds)).await?;
        if lease.id == 0 {
            return Err(Failure::Invalid("a lease without a number".to_owned()));
        }
        let put = wire::put(&self.key, &self.value, lease.id);
        let _: wire::Ignored = self.client.call(PUT, &put).await?;
        self.lease = Some(lease.id);
        tracing::info!(key = self.key, seconds, "registered in etcd");
        Ok(())
    }

    async fn leave(mut self) {
        let Some(id) = self.lease else { return };
        let body = wire::lease(id);
        let revoked = self.client.call::<wire::Ignored>(LEASE_REVOKE, &body);
        match timeout(LEAVE_TIMEOUT, revoked).await {
            Ok(Ok(_)) => {
                tracing::info!(key = self.key, "taken out of etcd");
                sleep(LEAVE_TIME).await;
            }
            Ok(Err(failure)) => {
                tracing::warn!(key = self.key, "its lease runs out by itself: {failure}");
            }
            Err(_elapsed) => {
                tracing::warn!(key = self.key, "its lease runs out by itself: etcd is silent");
            }
        }
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("key", &self.key).finish_non_exhaustive()
    }
}

/// How often a lease is kept alive within its time.
const REFRESHES_PER_TTL: u32 = 3;
/// The longest time between two, after which a lost lease is noticed.
const REFRESH_MAX: Duration = Duration::from_secs(5);
/// The waits after failures in a row.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How long revoking may take when the process is to end,
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// and how long the backend serves on after it.
const LEAVE_TIME: Duration = Duration::from_millis(300);
