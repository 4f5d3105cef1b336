//! What went wrong on this worker: counted by cause, and logged at most once per cause and
//! second, so that no client can fill the log.

use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::error::Cause;

/// How often each cause came since it was last logged, and when that was.
#[derive(Debug)]
pub struct CauseLog {
    start: Instant,
    rows: [Cell<Row>; Cause::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// When it was last logged, since the start; `None` for never.
    logged: Option<Duration>,
    unlogged: u64,
}

impl CauseLog {
    /// An empty log.
    #[must_use]
    pub fn new(start: Instant) -> CauseLog {
        CauseLog { start, rows: [const { Cell::new(Row { logged: None, unlogged: 0 }) }; _] }
    }

    /// Logs one more, or keeps it for the next line of its cause.
    pub fn note(&self, cause: Cause, peer: &impl Display) {
        let elapsed = self.start.elapsed();
        let Some(cell) = self.rows.get(cause as usize) else { return };
        let row = cell.get();
        if row.logged.is_some_and(|logged| elapsed < logged + LOG_INTERVAL) {
            cell.set(Row { unlogged: row.unlogged + 1, ..row });
            return;
        }
        cell.set(Row { logged: Some(elapsed), unlogged: 0 });
        log(cause, row.unlogged + 1, Some(peer));
    }

    /// Logs what was kept for longer than a second.
    pub fn flush(&self) {
        let elapsed = self.start.elapsed();
        for (cause, cell) in Cause::ALL.into_iter().zip(&self.rows) {
            let row = cell.get();
            if row.unlogged > 0 && row.logged.is_none_or(|logged| elapsed >= logged + LOG_INTERVAL)
            {
                cell.set(Row { logged: Some(elapsed), unlogged: 0 });
                log(cause, row.unlogged, None::<&&str>);
            }
        }
    }
}

/// One line; the peer is the last one's of `count`.
fn log(cause: Cause, count: u64, peer: Option<&impl Display>) {
    let (name, status) = (cause.name(), cause.verdict().status.unwrap_or(0));
    let peer = peer.map(tracing::field::display);
    if cause == Cause::Internal {
        tracing::error!(cause = name, count, peer, "{cause}");
    } else if cause.is_backends() {
        tracing::warn!(cause = name, status, count, peer, "{cause}");
    } else {
        tracing::info!(cause = name, status, count, peer, "{cause}");
    }
}

/// The least time between two lines of one cause.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
