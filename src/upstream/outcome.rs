//! What workers tell the control thread about requests that failed on an endpoint.
//!
//! Successes and failures are counted in the lanes; what must be known at once goes through a
//! bounded channel, by `try_send`: when it is full, the outcome is dropped and counted.

use std::fmt;

use crossbeam::channel::{Receiver, Sender};

use crate::upstream::endpoint::Slot;

/// A request that failed on an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The endpoint.
    pub slot: Slot,
    /// What happened.
    pub kind: Kind,
    /// How many requests had succeeded on the endpoint by then, over all workers: failures with
    /// the same number came in a row.
    pub successes: u32,
}

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No connection could be made, or not in time.
    NotConnected,
    /// The connection was lost before the answer was complete.
    Lost,
    /// The answer did not come in time.
    TimedOut,
    /// The answer broke the grammar.
    Invalid,
    /// The answer had this status, 500 to 599.
    Status(u16),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::NotConnected => f.write_str("no connection"),
            Kind::Lost => f.write_str("a lost connection"),
            Kind::TimedOut => f.write_str("a timeout"),
            Kind::Invalid => f.write_str("an answer that breaks the grammar"),
            Kind::Status(status) => write!(f, "a {status}"),
        }
    }
}

/// A channel for outcomes, which holds `OUTCOMES_MAX`.
#[must_use]
pub fn channel() -> (Sender<Outcome>, Receiver<Outcome>) {
    crossbeam::channel::bounded(OUTCOMES_MAX)
}

/// The most outcomes that wait for the control thread.
pub const OUTCOMES_MAX: usize = 4096;
