//! The request body's way to the backend.
//!
//! A backend that takes no more of a body may still answer it, so the rest is read and dropped
//! within limits. A body that ends early or breaks the grammar ends the backend's connection, so
//! that the backend cannot take what it got for complete. Called by `relay`.

use std::cell::Cell;
use std::io;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::{BackendLimits, ClientLimits};
use crate::error::Cause;
use crate::http1::framing::Body;
use crate::sys::{self, Side};
use crate::worker::buffer::{Buffer, LargeBuffer, Sink};
use crate::worker::deadline::{Deadline, Wait};
use crate::worker::event::pause;
use crate::worker::progress::{CLOSING_POLL, LINGER_BYTES_MAX, LINGER_TIME};
use crate::worker::record::Record;
use crate::worker::splice::{NonBlocking, Room, SPLICE_BYTES_MIN, Splice};
use crate::worker::stream::{Receiver, Sender};

/// How the request's body fares; both directions look at it.
#[derive(Debug)]
pub struct Uplink {
    /// What becomes of the body.
    pub state: Cell<UplinkState>,
    /// What ended the body early on the client's side.
    pub fault: Cell<Option<Cause>>,
    /// Whether the final head has come.
    pub has_answer: Cell<bool>,
    /// Whether all of the body that was read is still held.
    pub is_held: Cell<bool>,
    /// Whether the client may be waiting for a 100 before it sends its body.
    awaits_continue: Cell<bool>,
    /// Whether the response is being read right now.
    is_reading: Cell<bool>,
}

/// What becomes of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkState {
    /// The backend gets it as it comes.
    Sending,
    /// It is read and held for another attempt: this backend is lost.
    Holding,
    /// The backend has it whole.
    Sent,
    /// It is read and dropped: the backend wants no more of it.
    Dropping,
    /// It will not be read further.
    Failed,
}

impl Uplink {
    /// A body that stands so.
    #[must_use]
    pub fn new(state: UplinkState, awaits_continue: bool, is_held: bool) -> Uplink {
        Uplink {
            state: Cell::new(state),
            fault: Cell::new(None),
            has_answer: Cell::new(false),
            is_held: Cell::new(is_held),
            awaits_continue: Cell::new(awaits_continue),
            is_reading: Cell::new(false),
        }
    }

    /// The wait for a 100 is over: it was passed on, or the client did not wait. From now on the
    /// backend may be waiting for the client.
    pub fn continued(&self, backend: &Deadline) {
        if self.awaits_continue.replace(false) && self.state.get() == UplinkState::Sending {
            backend.disarm(Wait::Read);
        }
    }

    /// The response is being read: the backend has its time, once it has the whole request.
    /// Before that, it may be waiting for the client. A head that comes in pieces has no more
    /// time than one that comes whole.
    pub fn begin_read(&self, limits: &BackendLimits, backend: &Deadline) {
        if !self.is_reading.replace(true) || self.has_answer.get() {
            self.arm_backend(limits, backend);
        }
    }

    /// The response is not being read: the client may take its time.
    pub fn end_read(&self, backend: &Deadline) {
        self.is_reading.set(false);
        backend.disarm(Wait::Read);
    }

    /// Whether the client may still be waiting for a 100.
    #[must_use]
    pub fn awaits_continue(&self) -> bool {
        self.awaits_continue.get()
    }

    /// Whether the client is given time for the body as if the backend got it.
    fn wants_body(&self) -> bool {
        matches!(self.state.get(), UplinkState::Sending | UplinkState::Holding)
    }

    fn arm_backend(&self, limits: &BackendLimits, backend: &Deadline) {
        let is_backends_turn =
            self.state.get() != UplinkState::Sending || self.awaits_continue.get();
        if self.is_reading.get() && is_backends_turn {
            let is_in_body = self.has_answer.get();
            let timeout = if is_in_body { limits.body_timeout } else { limits.response_timeout };
            backend.arm(Wait::Read, timeout);
        }
    }
}

/// The request body's way to the backend.
pub struct Upload<'a> {
    /// Where the request's facts are gathered.
    pub record: &'a Record<'a>,
    /// The backends' times.
    pub limits: &'a BackendLimits,
    /// What the other direction sees of this one.
    pub uplink: &'a Uplink,
    /// The client's deadlines.
    pub client: &'a Deadline,
    /// Where the body comes from.
    pub receiver: &'a mut Receiver,
    /// The backend's deadlines.
    pub backend: &'a Deadline,
    /// Where it goes.
    pub sender: &'a mut Sender,
    /// Where it is held for another attempt, behind the head,
    pub held: &'a mut Vec<u8>,
    /// and how many bytes both may have.
    pub held_bytes_max: usize,
}

impl Upload<'_> {
    /// Moves the body until it is complete or has failed; `uplink` tells how it ended.
    pub async fn run(&mut self, buffer: &mut Buffer, body: &mut Body) {
        let mut pace = Pace::new(&self.record.worker.config.client);
        let mut large = LargeBuffer::new(&self.record.worker.buffers);
        let (mut dropped, mut was_filled, mut may_splice) = (0, false, true);
        while !body.is_complete() {
            if may_splice && buffer.is_empty() && self.is_unheld(body) {
                may_splice = false;
                if let Err(cause) = self.splice(body, &mut pace).await {
                    return self.fail(Some(cause));
                }
                continue;
            }
            if buffer.is_empty() {
                let room = large.replace(buffer, body.bytes_left(), was_filled);
                if let Err(cause) = self.read(Room::Buffer(room), &mut pace).await {
                    return self.fail(Some(cause));
                }
            }
            was_filled = buffer.is_full();
            let taken = match body.take(buffer.unread_mut()) {
                Ok(taken) => taken,
                Err(fault) => return self.fail(Some(fault.in_request())),
            };
            self.record.received(taken.used);
            self.hold(buffer.unread().get(..taken.kept).unwrap_or_default());
            if self.uplink.state.get() == UplinkState::Sending {
                self.send(buffer, taken.kept).await;
            } else {
                dropped += taken.used;
            }
            buffer.consume(taken.used);
            if dropped > LINGER_BYTES_MAX {
                // No fault of the exchange's, whose answer the client has.
                return self.fail(None);
            }
        }
        large.restore(buffer);
        if self.uplink.state.get() == UplinkState::Sending {
            self.uplink.state.set(UplinkState::Sent);
            self.uplink.arm_backend(self.limits, self.backend);
        }
    }

    /// Whether much is still to come that nobody but the backend needs.
    fn is_unheld(&self, body: &Body) -> bool {
        self.uplink.state.get() == UplinkState::Sending
            && !self.uplink.is_held.get()
            && body.bytes_untouched() >= SPLICE_BYTES_MIN
    }

    /// Moves the rest of the body without copying it, as long as the backend takes it, or as much
    /// as can be moved so: who reads on finds the body's end, or the connection's.
    async fn splice(&mut self, body: &mut Body, pace: &mut Pace) -> Result<(), Cause> {
        let [client, backend] = [self.client.fd(), self.backend.fd()];
        let mut splice = Splice::new(&self.record.worker.pipes, client, backend);
        let _sockets = NonBlocking::set([client, backend]);
        while !body.is_complete() && self.uplink.state.get() == UplinkState::Sending {
            let room = Room::Pipe(&mut splice, body.bytes_untouched());
            let count = self.read(room, pace).await?;
            if count == 0 {
                break;
            }
            body.pass(count);
            self.record.received(count);
            if self.uplink.state.get() == UplinkState::Sending {
                let sent = splice.send(&mut self.backend_sink()).await;
                self.judge_sent(sent);
            }
        }
        Ok(())
    }

    /// Reads some of the body; 0 says that it must be read into memory.
    async fn read(&mut self, mut room: Room<'_, '_>, pace: &mut Pace) -> Result<usize, Cause> {
        let is_wanted = self.uplink.wants_body();
        if is_wanted && !self.uplink.awaits_continue.get() {
            self.client.arm(Wait::Read, pace.begin());
        }
        let read = loop {
            let read = room.fill(self.receiver).await;
            if self.client.expired(Wait::Read) {
                return Err(pace.cause());
            }
            if matches!((&room, &read), (Room::Pipe(..), Ok(0))) {
                return Ok(0);
            }
            if !(self.client.is_closing() && matches!(read, Ok(0))) {
                break read;
            }
            // The request began while the idle connection was being closed; its rest may come.
            pause(CLOSING_POLL).await;
        };
        // What the client sends is dropped now, within a time that was set for all of it.
        if is_wanted && self.uplink.wants_body() {
            self.client.disarm(Wait::Read);
        }
        match read {
            Ok(count @ 1..) => {
                if self.uplink.awaits_continue.get() {
                    // Until now it was the backend that was waited for.
                    pace.begin();
                }
                self.uplink.continued(self.backend);
                pace.end(count);
                Ok(count)
            }
            _ => Err(Cause::ClientLeft),
        }
    }

    /// Keeps bytes for another attempt, as long as they are not too many.
    fn hold(&mut self, bytes: &[u8]) {
        if !self.uplink.is_held.get() {
            return;
        }
        if self.held.len() + bytes.len() <= self.held_bytes_max {
            self.held.extend_from_slice(bytes);
        } else {
            self.uplink.is_held.set(false);
        }
    }

    async fn send(&mut self, buffer: &mut Buffer, count: usize) {
        let sent = buffer.send(&mut self.backend_sink(), count).await;
        self.judge_sent(sent);
    }

    fn backend_sink(&mut self) -> Sink<'_> {
        Sink::new(
            self.sender,
            self.backend,
            self.limits.body_timeout,
            self.record.sent_to_backend(),
        )
    }

    /// A backend that takes no more may still answer, so that is no failure.
    fn judge_sent(&self, sent: io::Result<()>) {
        if sent.is_err() && self.uplink.state.get() == UplinkState::Sending {
            self.uplink.state.set(UplinkState::Dropping);
            self.client.arm(Wait::Read, LINGER_TIME);
            self.uplink.arm_backend(self.limits, self.backend);
        }
    }

    /// Ends the body, so that the backend cannot take what it got for complete.
    fn fail(&self, cause: Option<Cause>) {
        if self.uplink.wants_body() {
            self.uplink.fault.set(cause);
        }
        self.uplink.state.set(UplinkState::Failed);
        sys::shutdown(self.backend.fd(), Side::Both);
    }
}

/// How fast a request's body comes; only the time in which corelane waits for the client counts.
#[derive(Debug)]
struct Pace {
    standstill_max: Duration,
    bytes_per_second_min: Option<NonZeroU32>,
    bytes: u64,
    waited: Duration,
    waiting_since: Instant,
    /// Whether the rate allows less time than a standstill may take.
    is_rate_bound: bool,
}

impl Pace {
    fn new(limits: &ClientLimits) -> Pace {
        Pace {
            standstill_max: limits.body_timeout,
            bytes_per_second_min: limits.body_rate_min,
            bytes: 0,
            waited: Duration::ZERO,
            waiting_since: clock::now(),
            is_rate_bound: false,
        }
    }

    /// How long the next bytes may take.
    fn begin(&mut self) -> Duration {
        let Some(rate) = self.bytes_per_second_min else { return self.standstill_max };
        self.waiting_since = clock::now();
        let earned = Duration::from_secs_f64(self.bytes as f64 / f64::from(rate.get()));
        let left = (RATE_GRACE + earned).saturating_sub(self.waited);
        self.is_rate_bound = left < self.standstill_max;
        left.min(self.standstill_max)
    }

    fn end(&mut self, count: usize) {
        self.bytes += count as u64;
        if self.bytes_per_second_min.is_some() {
            self.waited += clock::now().duration_since(self.waiting_since);
        }
    }

    /// Why the client is too late.
    fn cause(&self) -> Cause {
        if self.is_rate_bound { Cause::ClientBodySlow } else { Cause::ClientBodyTimeout }
    }
}

/// How long a body may come slower than the least rate, over all.
const RATE_GRACE: Duration = Duration::from_secs(2);
