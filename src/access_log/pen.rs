//! A worker's side of the access log: lines are collected in a chunk, which is handed to the
//! writer's thread when it is full, at each of the worker's sweeps, and at its end.
//!
//! The queue is limited in chunks: while one waits there, the writer is behind, and a sweep keeps
//! what is not full. Never waits: while a full chunk finds no room, lines are dropped and counted.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::access_log::line::{Entry, write_line};
use crate::access_log::stamp::Stamp;
use crate::access_log::writer::{CHUNK_BYTES, Chunk, Inlet};
use crate::config::AccessLogConfig;
use crate::metrics::{Counter, Lane};

/// Writes a worker's lines.
#[derive(Debug)]
pub struct Pen {
    config: Arc<AccessLogConfig>,
    inlet: Inlet,
    chunk: Chunk,
    stamp: Stamp,
    /// The time of day at one instant, as it was when the chunk was begun.
    anchor: (Instant, Duration),
    /// Lines dropped that no log line has told of yet, and when one did last.
    untold: u64,
    told: Option<Instant>,
}

impl Pen {
    /// A pen whose lines go to `inlet`.
    #[must_use]
    pub fn new(inlet: Inlet) -> Pen {
        Pen {
            config: inlet.config(),
            chunk: inlet.chunk(),
            inlet,
            stamp: Stamp::default(),
            anchor: (Instant::now(), since_1970()),
            untold: 0,
            told: None,
        }
    }

    /// The headers of requests that a line needs.
    #[must_use]
    pub fn headers(&self) -> &[String] {
        &self.config.format.headers
    }

    /// Whether a request is among those that are logged; one that failed always is.
    #[must_use]
    pub fn wants(&self, is_failure: bool) -> bool {
        let sample = self.config.sample.get();
        is_failure || sample == 1 || fastrand::u32(..sample) == 0
    }

    /// Writes the line of a request whose first byte came at `begun`; `entry` gets that as a time
    /// of day.
    pub fn log<'a>(
        &mut self,
        lane: &Lane,
        begun: Instant,
        entry: impl FnOnce(Duration) -> Entry<'a>,
    ) {
        lane.add(Counter::AccessLogLines);
        if self.is_full() && !self.inlet.send(&mut self.chunk) {
            return self.drop_lines(lane, 1);
        }
        if self.chunk.lines == 0 {
            self.anchor = (Instant::now(), since_1970());
        }
        let (at, time) = self.anchor;
        let time = match begun.checked_duration_since(at) {
            Some(after) => time + after,
            None => time.saturating_sub(at.saturating_duration_since(begun)),
        };
        write_line(&self.config.format, &entry(time), &mut self.stamp, &mut self.chunk.bytes);
        self.chunk.lines += 1;
    }

    /// Whether lines wait here, or a drop is to be told of.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        self.chunk.lines > 0 || self.untold > 0
    }

    /// Hands over what there is, unless the writer is behind: then the next call does.
    pub fn flush(&mut self) {
        if self.chunk.lines > 0 && (self.is_full() || !self.inlet.has_waiting()) {
            self.inlet.send(&mut self.chunk);
        }
        self.tell();
    }

    /// Hands over the last lines, or drops them.
    pub fn finish(&mut self, lane: &Lane) {
        if self.chunk.lines > 0 && !self.inlet.send(&mut self.chunk) {
            let lines = u64::from(self.chunk.lines);
            self.chunk.clear();
            self.drop_lines(lane, lines);
        }
        self.told = None;
        self.tell();
    }

    fn is_full(&self) -> bool {
        self.chunk.bytes.len() >= FULL_BYTES
    }

    fn drop_lines(&mut self, lane: &Lane, lines: u64) {
        lane.add_many(Counter::AccessLogDropped, lines);
        self.untold += lines;
        self.tell();
    }

    /// Says once a second at most how many lines were dropped.
    fn tell(&mut self) {
        let is_due = self.told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL);
        if self.untold > 0 && is_due {
            self.told = Some(Instant::now());
            let count = std::mem::take(&mut self.untold);
            tracing::warn!(
                count,
                "the access log cannot keep up and dropped lines: use a faster disk, \
                 --access-log-sample, or a larger --access-log-bytes-max"
            );
        }
    }
}

/// The time of day.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// From how many bytes on a chunk is handed over: most lines that come next would still fit.
const FULL_BYTES: usize = CHUNK_BYTES - 8 * 1024;
/// The least time between two log lines about dropped lines.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
