//! Something that happened on this worker, for the one task that waits for it.
//!
//! An event that nobody waits for yet is kept, so none is lost between a check and a wait.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Waits for so long, on a path of a connection's that few requests take.
///
/// Boxed: monoio's timer has 640 bytes and is aligned to 128, and would be a part of the future
/// that each connection has, waiting or not.
pub async fn pause(time: Duration) {
    Box::pin(monoio::time::sleep(time)).await;
}

/// An event with at most one waiting task.
#[derive(Debug, Default)]
pub struct Event {
    happened: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Event {
    /// Lets the waiting task go on, or the next one that waits.
    pub fn notify(&self) {
        self.happened.set(true);
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    /// Whether it happened since the last call.
    #[cfg(test)]
    pub(super) fn take(&self) -> bool {
        self.happened.replace(false)
    }

    /// Waits until `notify` was called since the last wait.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.happened.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
