//! What the main thread waits for, and what ends the serving.
//!
//! Sent by the workers' threads, the thread that receives signals and the admin API; `server` alone
//! reads it.

use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};
use signal_hook::consts::SIGINT;

use crate::error::StartError;
use crate::worker::Ended;

/// What the main thread waits for.
#[derive(Debug)]
pub(super) enum Event {
    Signal(i32),
    /// The configuration is to be read again.
    Reload,
    /// The admin API asks for a drain.
    Drain,
    Started {
        id: usize,
        driver: &'static str,
    },
    Ended {
        id: usize,
        how: Result<Ended, StartError>,
    },
}

/// What ends the serving.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    Signal(i32),
    Admin,
}

/// What came first.
pub(super) enum Next {
    Event(Event),
    ControlEnded,
    Deadline,
}

/// Waits for an event, the end of the control thread, or the deadline.
pub(super) fn next_event(
    events: &Receiver<Event>,
    control: Option<&Receiver<std::convert::Infallible>>,
    deadline: Option<Instant>,
) -> Next {
    let never = crossbeam::channel::never();
    let timeout = deadline.map_or_else(crossbeam::channel::never, crossbeam::channel::at);
    crossbeam::select! {
        recv(events) -> event => event.map_or(Next::Deadline, Next::Event),
        recv(control.unwrap_or(&never)) -> _ended => Next::ControlEnded,
        recv(timeout) -> _now => Next::Deadline,
    }
}

impl Stop {
    /// Its name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Stop::Signal(SIGINT) => "SIGINT",
            Stop::Signal(_) => "SIGTERM",
            Stop::Admin => "none, the admin API",
        }
    }

    /// The exit code of a process that it ends at once.
    pub(super) fn code(self) -> u8 {
        match self {
            Stop::Signal(signal) => {
                SIGNAL_EXIT_BASE.saturating_add(u8::try_from(signal).unwrap_or(0))
            }
            Stop::Admin => 0,
        }
    }
}

/// What asks the server's thread for a drain, without waiting for it.
pub(super) fn drain_by(events: &Sender<Event>) -> impl Fn() + Send + Sync + 'static {
    let events = events.clone();
    move || match events.try_send(Event::Drain) {
        Ok(()) => {}
        Err(error) => tracing::error!(%error, "the request to drain is lost; ask again"),
    }
}

/// Hands an event to the server's thread, which may have ended.
pub(super) fn report(events: &Sender<Event>, event: Event) {
    if events.send(event).is_err() {
        tracing::debug!("an event came after the server had ended");
    }
}

/// A process that a signal ends has this exit code plus the signal's number, as in a shell.
const SIGNAL_EXIT_BASE: u8 = 128;
