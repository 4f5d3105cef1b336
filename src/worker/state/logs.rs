//! What a worker tells of causes and requests: counts, log lines, and lines of the access log.

use std::fmt::Display;

use crate::error::Cause;
use crate::upstream::endpoint::Endpoint;
use crate::worker::causes::{Outcome, Who};
use crate::worker::state::Worker;

impl Worker {
    /// Counts and logs what ended a request or a connection of this client.
    pub fn note(&self, cause: Cause, client: &dyn Display) {
        self.lane().add_cause(cause);
        self.causes.note(cause, Outcome::End, Who { client, backend: None });
    }

    /// Counts and logs what ended a request that went to this endpoint.
    pub fn note_backend(&self, cause: Cause, client: &dyn Display, endpoint: Option<&Endpoint>) {
        self.lane().add_cause(cause);
        let backend = endpoint.map(|endpoint| endpoint.id.as_str());
        self.causes.note(cause, Outcome::End, Who { client, backend });
    }

    /// Counts and logs what ended an attempt on this endpoint, after which another follows.
    pub fn note_retry(&self, cause: Cause, client: &dyn Display, endpoint: Option<&Endpoint>) {
        self.lane().add_retry(cause, endpoint.map(|endpoint| endpoint.slot.number));
        let backend = endpoint.map(|endpoint| endpoint.id.as_str());
        self.causes.note(cause, Outcome::Retry, Who { client, backend });
    }

    /// Whether causes were kept back that are to be logged.
    #[must_use]
    pub fn has_unlogged(&self) -> bool {
        self.causes.has_unlogged()
    }

    /// Logs the causes that were kept back.
    pub fn flush_log(&self) {
        self.causes.flush();
    }

    /// Whether lines of the access log are to be handed over.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        self.access_log.as_ref().is_some_and(|pen| pen.borrow().has_lines())
    }

    /// Hands the lines of the access log over to its writer.
    pub fn flush_access_log(&self) {
        if let Some(pen) = &self.access_log {
            pen.borrow_mut().flush();
        }
    }

    /// The same at this worker's end: what the writer has no room for is dropped.
    pub fn finish_access_log(&self) {
        if let Some(pen) = &self.access_log {
            pen.borrow_mut().finish(self.lane());
        }
    }
}
