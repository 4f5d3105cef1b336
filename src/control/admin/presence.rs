//! Whether a connection of the admin API is at work or lies idle.
//!
//! At work is one from the end of a request's head to the end of its answer. `serve` asks, to know
//! which one may lose its place.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};

/// What a connection does.
#[derive(Debug)]
pub(super) struct Presence {
    /// Since when it is idle; `None` while it is at work.
    idle_since: Mutex<Option<Instant>>,
}

impl Presence {
    /// One that begins idle.
    pub(super) fn new() -> Presence {
        Presence { idle_since: Mutex::new(Some(Instant::now())) }
    }

    /// How long it has been idle, if it is.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let idle_since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        idle_since.map(|since| since.elapsed())
    }

    fn set(&self, idle_since: Option<Instant>) {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = idle_since;
    }
}

/// Keeps a connection at work until it is dropped.
#[derive(Debug)]
pub(super) struct Held(Arc<Presence>);

impl Held {
    pub(super) fn new(presence: Arc<Presence>) -> Held {
        presence.set(None);
        Held(presence)
    }

    /// A body that holds on until it was sent.
    pub(super) fn with(self, body: Body) -> HeldBody {
        HeldBody { body, _held: self }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.set(Some(Instant::now()));
    }
}

/// An answer's body on a connection that is at work.
#[derive(Debug)]
pub(super) struct HeldBody {
    body: Body,
    _held: Held,
}

impl hyper::body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
