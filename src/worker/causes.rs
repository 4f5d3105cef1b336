//! What went wrong on this worker: counted by cause, and logged at most once per cause and
//! second, so that no client can fill the log.

use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::error::Cause;

/// Whom a cause concerns.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    /// The client, or what else stands for it.
    pub client: &'a dyn Display,
    /// The id of the backend.
    pub backend: Option<&'a str>,
}

/// What a cause led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The end of a request or a connection.
    End,
    /// Another attempt of the request.
    Retry,
}

/// How often each cause came since it was last logged, and when that was.
#[derive(Debug)]
pub struct CauseLog {
    worker: usize,
    start: Instant,
    ends: Rows,
    retries: Rows,
}

type Rows = [Cell<Row>; Cause::ALL.len()];

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// When it was last logged, since the start; `None` for never.
    logged: Option<Duration>,
    unlogged: u64,
}

impl CauseLog {
    /// An empty log of a worker.
    #[must_use]
    pub fn new(worker: usize, start: Instant) -> CauseLog {
        CauseLog {
            worker,
            start,
            ends: [const { Cell::new(Row { logged: None, unlogged: 0 }) }; _],
            retries: [const { Cell::new(Row { logged: None, unlogged: 0 }) }; _],
        }
    }

    /// Logs one more, or keeps it for the next line of its cause.
    pub fn note(&self, cause: Cause, outcome: Outcome, who: Who<'_>) {
        let elapsed = self.start.elapsed();
        let Some(cell) = self.rows(outcome).get(cause as usize) else { return };
        let row = cell.get();
        if row.logged.is_some_and(|logged| elapsed < logged + LOG_INTERVAL) {
            cell.set(Row { unlogged: row.unlogged + 1, ..row });
            return;
        }
        cell.set(Row { logged: Some(elapsed), unlogged: 0 });
        self.log(cause, outcome, row.unlogged + 1, Some(who));
    }

    /// Whether something was kept back.
    #[must_use]
    pub fn has_unlogged(&self) -> bool {
        self.ends.iter().chain(&self.retries).any(|cell| cell.get().unlogged > 0)
    }

    /// Logs what was kept for longer than a second.
    pub fn flush(&self) {
        let elapsed = self.start.elapsed();
        for outcome in [Outcome::End, Outcome::Retry] {
            for (cause, cell) in Cause::ALL.into_iter().zip(self.rows(outcome)) {
                let row = cell.get();
                let is_due = row.logged.is_none_or(|logged| elapsed >= logged + LOG_INTERVAL);
                if row.unlogged > 0 && is_due {
                    cell.set(Row { logged: Some(elapsed), unlogged: 0 });
                    self.log(cause, outcome, row.unlogged, None);
                }
            }
        }
    }

    fn rows(&self, outcome: Outcome) -> &Rows {
        match outcome {
            Outcome::End => &self.ends,
            Outcome::Retry => &self.retries,
        }
    }

    /// One line; `who` is the last one's of `count`.
    fn log(&self, cause: Cause, outcome: Outcome, count: u64, who: Option<Who<'_>>) {
        let (name, status, worker) = (cause.name(), cause.verdict().status, self.worker);
        let client = who.as_ref().map(|who| tracing::field::display(who.client));
        let backend = who.as_ref().and_then(|who| who.backend);
        if outcome == Outcome::Retry {
            let what = "an attempt failed, another follows";
            tracing::info!(cause = name, count, worker, client, backend, "{what}: {cause}");
        } else if cause == Cause::ClientIdleTimeout {
            tracing::debug!(cause = name, count, worker, client, "{cause}");
        } else if cause == Cause::Internal {
            tracing::error!(cause = name, count, worker, client, "{cause}");
        } else if cause.is_backends() {
            tracing::warn!(cause = name, status, count, worker, client, backend, "{cause}");
        } else {
            tracing::info!(cause = name, status, count, worker, client, "{cause}");
        }
    }
}

/// The least time between two lines of one cause.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
