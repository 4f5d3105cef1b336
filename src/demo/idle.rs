//! When a kept connection has lain idle for as long as its backend keeps one.
//!
//! What counts is the time since the last answer was made, or since the connection came. Called
//! by `backend`, one task for each connection.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::behaviour::Behaviour;

/// What goes on on one connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    requests: u32,
    since: Instant,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Busy<'activity>(&'activity Activity);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { requests: 0, since: Instant::now() }))
    }

    pub(super) fn busy(&self) -> Busy<'_> {
        self.change(|requests| requests + 1);
        Busy(self)
    }

    fn change(&self, next: impl Fn(u32) -> u32) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { requests: next(state.requests), since: Instant::now() };
    }

    /// When this timeout is over, as far as is known now.
    fn overdue_at(&self, timeout: Duration) -> Instant {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = if state.requests > 0 { Instant::now() } else { state.since };
        since + timeout
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.change(|requests| requests.saturating_sub(1));
    }
}

/// Waits until the connection has been idle for the backend's timeout, whatever that is by then.
pub(super) async fn idle(activity: &Activity, mut behaviour: watch::Receiver<Behaviour>) {
    loop {
        let timeout = behaviour.borrow_and_update().idle_timeout;
        let wait = async {
            match timeout.map(|timeout| activity.overdue_at(timeout)) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let is_over = tokio::select! {
            () = wait => true,
            changed = behaviour.changed() => match changed {
                Ok(()) => false,
                Err(_sender_is_gone) => return std::future::pending().await,
            },
        };
        let is_idle = timeout.is_some_and(|timeout| activity.overdue_at(timeout) <= Instant::now());
        if is_over && is_idle {
            return;
        }
    }
}
