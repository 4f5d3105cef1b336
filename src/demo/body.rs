//! The bodies of the answers: whole, generated as they are sent, or echoed.
//!
//! No body holds more than one chunk at a time; hyper asks for the next one
//! when the socket has taken the last. Made by `answer`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Interval, MissedTickBehavior};

/// The period of the bytes of `GET /bytes/N`: byte i is i modulo this. A prime,
/// so that a block lost or sent twice shows at any power of two.
const PERIOD: usize = 251;

const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The bytes that any chunk is cut from: it starts within the first period, and
/// no chunk needs memory of its own.
static PATTERN_TABLE: [u8; PERIOD + CHUNK_BYTES_MAX] = pattern_table();

/// The body of an answer.
#[derive(Debug)]
pub(super) enum AnswerBody {
    Whole(Full<Bytes>),
    Pattern(Pattern),
    Lines(Lines),
    Echo(Incoming),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let data = match self.get_mut() {
            Self::Echo(incoming) => return Pin::new(incoming).poll_frame(context),
            Self::Whole(whole) => {
                // A whole body cannot fail: the closure is never called.
                return Pin::new(whole).poll_frame(context).map_err(|never| match never {});
            }
            Self::Pattern(pattern) => pattern.next(),
            Self::Lines(lines) => ready!(lines.poll_next(context)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Pattern(pattern) => pattern.remaining == 0,
            Self::Lines(lines) => lines.sent == lines.count,
            Self::Echo(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Pattern(pattern) => SizeHint::with_exact(pattern.remaining),
            // Without a size hyper sends the lines chunked, as they are meant.
            Self::Lines(_) => SizeHint::default(),
            Self::Echo(incoming) => incoming.size_hint(),
        }
    }
}

/// A number of bytes of which byte i is i modulo `PERIOD`.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Where the next chunk starts in the table; always below `PERIOD`.
    start: usize,
    remaining: u64,
}

impl Pattern {
    pub(super) fn new(count: u64) -> Self {
        Self { start: 0, remaining: count }
    }

    fn next(&mut self) -> Option<Bytes> {
        if self.remaining == 0 {
            return None;
        }
        // More than a usize is more than a chunk.
        let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
        // In range: the start is below PERIOD, the length at most CHUNK_BYTES_MAX.
        let chunk = Bytes::from_static(&PATTERN_TABLE).slice(self.start..self.start + len);
        self.start = (self.start + len) % PERIOD;
        self.remaining -= len as u64;
        Some(chunk)
    }
}

/// Lines of text, the first at once, the others an interval apart.
#[derive(Debug)]
pub(super) struct Lines {
    sent: u64,
    count: u64,
    /// None to send the lines without a pause.
    ticks: Option<Interval>,
}

impl Lines {
    /// Must be called in a runtime.
    pub(super) fn new(count: u64, interval: Duration) -> Self {
        let ticks = (!interval.is_zero()).then(|| {
            let mut ticks = tokio::time::interval(interval);
            // A client that was slow for a while gets no burst to catch up.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { sent: 0, count, ticks }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.sent == self.count {
            return Poll::Ready(None);
        }
        if let Some(ticks) = &mut self.ticks {
            ready!(ticks.poll_tick(context));
        }
        self.sent += 1;
        let line = format!("chunk {} of {}\n", self.sent, self.count);
        Poll::Ready(Some(Bytes::from(line)))
    }
}

const fn pattern_table() -> [u8; PERIOD + CHUNK_BYTES_MAX] {
    let mut table = [0; PERIOD + CHUNK_BYTES_MAX];
    let mut i = 0;
    while i < table.len() {
        // PERIOD fits in a byte, so the cast loses nothing.
        table[i] = (i % PERIOD) as u8;
        i += 1;
    }
    table
}
