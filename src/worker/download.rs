//! The response's way to the client: the head, as it came where nothing must change, then the
//! body as it comes.
//!
//! Decides whether both connections outlive the response. Says exactly what the client has seen
//! when a response fails. Called by `relay`.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::clock;
use crate::config::HEADERS_LIMIT;
use crate::error::Cause;
use crate::http1::chunked::Output;
use crate::http1::framing::{Body, Framing};
use crate::http1::response::{self, AnswerTo, CONTINUE, ResponseHead, SWITCHING_PROTOCOLS};
use crate::http1::{Version, forward};
use crate::sys::{self, Side};
use crate::worker::answer;
use crate::worker::buffer::{self, AnswerBuffers, LargeBuffer, Sink};
use crate::worker::deadline::{Deadline, Wait};
use crate::worker::progress::{End, Facts, Failure, LINGER_TIME, Progress, Seen, Terms};
use crate::worker::record;
use crate::worker::retry;
use crate::worker::splice::{NonBlocking, Room, SPLICE_BYTES_MIN, Splice};
use crate::worker::state::Worker;
use crate::worker::stream::{Receiver, Sender};
use crate::worker::upload::{Uplink, UplinkState};

/// A response that reached the client whole.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// Whether the client's connection serves its next request.
    pub client_is_kept: bool,
    /// Whether the backend's connection is between two messages.
    pub backend_is_reusable: bool,
    /// Whether the connections are a tunnel from now on; what the backend has already sent
    /// through it is in its buffer.
    pub opens_tunnel: bool,
}

/// A response that did not.
#[derive(Clone, Copy, Debug)]
pub enum Lost {
    /// Before the client saw a final head.
    BeforeHead(Failure),
    /// After that; the client's connection must end so.
    InBody(Cause, End),
}

/// The response's way to the client.
pub struct Downlink<'a> {
    facts: Facts,
    terms: Terms<'a>,
    uplink: &'a Uplink,
    client: &'a Deadline,
    sender: &'a mut Sender,
    backend: &'a Deadline,
    receiver: &'a mut Receiver,
    /// How many interim heads have come.
    interims: usize,
}

/// A response head that was read and written for the client.
struct Head {
    is_interim: bool,
    is_continue: bool,
    opens_tunnel: bool,
    framing: Framing,
    output: Output,
    /// Whether the head goes out as it came in, from the backend's buffer, instead of from `out`.
    goes_as_is: bool,
    bytes: usize,
    client_is_kept: bool,
    backend_is_kept: bool,
}

impl<'a> Downlink<'a> {
    /// The way from a backend to a client.
    #[must_use]
    pub fn new(
        (facts, terms, uplink): (Facts, Terms<'a>, &'a Uplink),
        (client, sender): (&'a Deadline, &'a mut Sender),
        (backend, receiver): (&'a Deadline, &'a mut Receiver),
    ) -> Downlink<'a> {
        let interims = 0;
        Downlink { facts, terms, uplink, client, sender, backend, receiver, interims }
    }

    fn worker(&self) -> &'a Worker {
        self.terms.record.worker
    }

    /// Moves the response to its end.
    ///
    /// # Errors
    /// When it did not reach the client whole; says what the client has seen.
    pub async fn run(&mut self, buffers: &mut AnswerBuffers) -> Result<Delivered, Lost> {
        let (head, mut body) = self.deliver_head(buffers).await?;
        let mut large = LargeBuffer::new(&self.worker().buffers);
        let end = if head.framing == Framing::UntilClose || self.facts.version == Version::Http10 {
            End::Reset
        } else {
            End::Close
        };
        let from_backend = &mut buffers.from_backend;
        let (mut was_filled, mut may_splice) = (false, true);
        while !body.is_complete() {
            // While the request's body is coming, its read is under way on the client's socket.
            let is_alone = self.uplink.state.get() == UplinkState::Sent;
            let is_long = body.bytes_untouched() >= SPLICE_BYTES_MIN;
            if may_splice && is_long && is_alone && from_backend.is_empty() {
                may_splice = false;
                let spliced = self.splice(&mut body).await;
                spliced.map_err(|cause| Lost::InBody(cause, end))?;
                continue;
            }
            let buffer = large.replace(from_backend, body.bytes_left(), was_filled);
            match self.read(Room::Buffer(buffer)).await {
                Ok(0) if body.may_end() && !self.is_cut() => break,
                Ok(0) => return Err(Lost::InBody(self.cause_of_end(), end)),
                Ok(_) => {}
                Err(cause) => return Err(Lost::InBody(cause, end)),
            }
            was_filled = buffer.is_full();
            let taken = body
                .take(buffer.unread_mut())
                .map_err(|_fault| Lost::InBody(Cause::ResponseChunkInvalid, end))?;
            let sent = buffer.send(&mut self.client_sink(), taken.kept).await;
            if sent.is_err() {
                return Err(Lost::InBody(self.cause_of_unsent(), end));
            }
            buffer.consume(taken.used);
        }
        let has_surplus = !from_backend.is_empty();
        large.restore(from_backend);
        Ok(Delivered {
            client_is_kept: head.client_is_kept,
            backend_is_reusable: head.backend_is_kept && !has_surplus && !head.opens_tunnel,
            opens_tunnel: head.opens_tunnel,
        })
    }

    /// Sends the final head, with what has come of the body, and interim heads before it.
    async fn deliver_head(&mut self, buffers: &mut AnswerBuffers) -> Result<(Head, Body), Lost> {
        loop {
            let shown = |cause| Failure { cause, progress: Progress::Shown };
            let head = self.read_head(buffers).await.map_err(|failure| match self.interims {
                0 => Lost::BeforeHead(failure),
                _ => Lost::BeforeHead(shown(failure.cause)),
            })?;
            let is_final = !head.is_interim;
            self.interims += usize::from(head.is_interim);
            if self.interims > INTERIM_HEADS_MAX {
                return Err(Lost::BeforeHead(shown(Cause::ResponseInvalid)));
            }
            let AnswerBuffers { out, from_backend } = &mut *buffers;
            let mut body = Body::new(head.framing, head.output, u64::MAX);
            let rest = from_backend.unread_mut().get_mut(head.bytes..).unwrap_or_default();
            let taken = body.take(rest).map_err(|_fault| match self.interims {
                0 => Lost::BeforeHead(started(Cause::ResponseInvalid)),
                _ => Lost::BeforeHead(shown(Cause::ResponseInvalid)),
            })?;
            if is_final {
                self.client.wait_over();
                self.uplink.has_answer.set(true);
            }
            let sent = if head.is_interim && self.facts.version == Version::Http10 {
                Ok(())
            } else if head.goes_as_is {
                self.terms.record.head_goes_out(head.bytes);
                from_backend.send(&mut self.client_sink(), head.bytes + taken.kept).await
            } else {
                self.terms.record.head_goes_out(out.len());
                let body_start = head.bytes;
                out.extend_from_slice(&from_backend.unread()[body_start..body_start + taken.kept]);
                buffer::send_all(out, &mut self.client_sink()).await
            };
            if sent.is_err() {
                return Err(Lost::InBody(self.cause_of_unsent(), End::Close));
            }
            from_backend.consume(head.bytes + taken.used);
            if is_final {
                return Ok((head, body));
            }
            if head.is_continue {
                self.facts.expects_continue = false;
                self.uplink.continued(self.backend);
                self.arm_client();
            }
        }
    }

    /// Reads until a head is complete, and writes it to `out` where it must change.
    async fn read_head(&mut self, buffers: &mut AnswerBuffers) -> Result<Head, Failure> {
        let limits = self.worker().config.head;
        loop {
            let has_bytes = !buffers.from_backend.is_empty();
            if has_bytes && let Some(head) = self.parse_head(buffers)? {
                // Interim heads give the backend no more time for the final one.
                if !head.is_interim {
                    self.uplink.end_read(self.backend);
                }
                return Ok(head);
            }
            buffers.from_backend.make_room(limits.bytes_max);
            self.uplink.begin_read(&self.terms.config.limits, self.backend);
            let read = buffers.from_backend.fill(self.receiver).await;
            self.terms.record.prefetch(&[self.client, self.backend]);
            self.count(&read);
            let cause = if self.client.is_gone() {
                Cause::ClientLeft
            } else if self.backend.expired(Wait::Read) || self.backend.expired(Wait::Write) {
                Cause::ResponseTimeout
            } else if self.backend.has_left() {
                // What came at the same moment is no whole answer, and the client has seen nothing.
                return Err(Failure { cause: Cause::BackendDown, progress: Progress::Sent });
            } else if matches!(read, Ok(1..)) {
                self.backend.set_may_leave(None);
                continue;
            } else if has_bytes {
                Cause::ResponseInvalid
            } else {
                Cause::BackendLost
            };
            let progress = if has_bytes { Progress::ResponseStarted } else { Progress::Sent };
            return Err(Failure { cause, progress });
        }
    }

    fn parse_head(&self, buffers: &mut AnswerBuffers) -> Result<Option<Head>, Failure> {
        let AnswerBuffers { out, from_backend } = buffers;
        let mut space = [MaybeUninit::uninit(); HEADERS_LIMIT];
        let (bytes, limits) = (from_backend.unread(), &self.worker().config.head);
        let parsed = response::parse(bytes, &mut space, limits, self.facts.to).map_err(started)?;
        let Some(head) = parsed else { return Ok(None) };
        if !head.is_interim() {
            self.see(&head)?;
        }
        let is_switch = head.status == SWITCHING_PROTOCOLS;
        if is_switch && !self.may_switch_to(head.upgrade) {
            return Err(started(Cause::ResponseInvalid));
        }
        let opens_tunnel = is_switch || response::opens_tunnel(head.status, head.to);
        // A client that waits for a 100 and gets a final answer may or may not send its body:
        // what follows could be read two ways.
        let is_sure_of_next = match self.uplink.state.get() {
            UplinkState::Sent => true,
            UplinkState::Sending | UplinkState::Holding | UplinkState::Dropping => {
                !self.facts.expects_continue
            }
            UplinkState::Failed => false,
        };
        if opens_tunnel && self.uplink.state.get() != UplinkState::Sent {
            return Err(started(Cause::ResponseInvalid));
        }
        // What was sent early, for a tunnel that is refused, would be taken for a request; who asks
        // for an upgrade waits for the answer (RFC 9110 §7.8).
        let asked_for_tunnel = head.to == AnswerTo::Connect;
        let keeps = head.is_interim()
            || opens_tunnel
            || (is_sure_of_next
                && !asked_for_tunnel
                && !self.worker().is_draining()
                && !self.client.is_closing()
                && forward::client_sees_end(head.framing, self.facts.version));
        let side = self.facts.client_side(keeps);
        let added = if head.is_interim() { b"" } else { self.terms.set_cookie };
        let goes_as_is = added.is_empty() && forward::passes_as_is(&head, side);
        if !goes_as_is {
            out.clear();
            forward::response(&head, side, added, out);
        }
        Ok(Some(Head {
            is_interim: head.is_interim(),
            is_continue: head.status == CONTINUE,
            opens_tunnel,
            framing: head.framing,
            output: match self.facts.version {
                Version::Http11 => Output::of(head.names_headers),
                Version::Http10 => Output::Data,
            },
            goes_as_is,
            bytes: head.bytes,
            client_is_kept: side.keep_alive,
            backend_is_kept: head.keep_alive,
        }))
    }

    /// Looks at a final head before the client sees it.
    ///
    /// # Errors
    /// When it stands for a connection that was being closed, or when its status is to be tried
    /// elsewhere; not where there can be no other attempt, since the client gets this answer then.
    fn see(&self, head: &ResponseHead<'_, '_>) -> Result<(), Failure> {
        let Terms { is_reused, is_retryable, has_other, .. } = self.terms;
        let on = &self.terms.config.retry.on;
        let is_repeatable = is_retryable && self.interims == 0 && self.is_repeatable_now();
        // A backend that gives an unused connection up may say so, just as a request comes
        // (RFC 9110 §15.5.9).
        let is_closing = is_reused && head.status == REQUEST_TIMEOUT && !head.keep_alive;
        if is_closing && on.lost && is_repeatable {
            return Err(Failure { cause: Cause::BackendLost, progress: Progress::Sent });
        }
        let keeps_for = head.keep_alive_seconds.map(|it| Duration::from_secs(u64::from(it)));
        let seen = Seen { status: head.status, at: clock::now(), keeps_for };
        self.terms.seen.set(Some(seen));
        let is_asked = on.statuses.as_ref().is_some_and(|it| it.contains(head.status));
        // The rest of a body may be too much to hold, and the answer would be lost.
        let is_sent = self.uplink.state.get() == UplinkState::Sent;
        if is_asked
            && is_sent
            && has_other
            && is_repeatable
            && self.terms.record.affords_retry(&self.terms.config.retry)
        {
            return Err(started(Cause::ResponseStatus));
        }
        self.terms.record.answered(seen);
        Ok(())
    }

    /// Whether what was read of the request is held, and the rest of it will come: a client that
    /// waits for a 100 would send none of it.
    fn is_repeatable_now(&self) -> bool {
        self.uplink.is_held.get() && !self.uplink.awaits_continue()
    }

    /// Moves the rest of the body without copying it, or as much as can be moved so: who reads on
    /// finds the body's end, or the connection's.
    async fn splice(&mut self, body: &mut Body) -> Result<(), Cause> {
        let [backend, client] = [self.backend.fd(), self.client.fd()];
        let mut splice = Splice::new(&self.worker().pipes, backend, client);
        let _sockets = NonBlocking::set([backend, client]);
        while !body.is_complete() {
            let count = self.read(Room::Pipe(&mut splice, body.bytes_untouched())).await?;
            if count == 0 {
                break;
            }
            body.pass(count);
            let sent = splice.send(&mut self.client_sink()).await;
            sent.map_err(|_gone| self.cause_of_unsent())?;
        }
        Ok(())
    }

    /// Reads some of the body; 0 says that the backend ended it.
    async fn read(&mut self, mut room: Room<'_, '_>) -> Result<usize, Cause> {
        self.uplink.begin_read(&self.terms.config.limits, self.backend);
        self.client.wait_for(self.backend);
        let read = room.fill(self.receiver).await;
        self.count(&read);
        self.client.wait_over();
        self.uplink.end_read(self.backend);
        if self.backend.expired(Wait::Read) {
            return Err(Cause::ResponseBodyTimeout);
        }
        read.map_err(|_lost| self.cause_of_end())
    }

    fn count(&self, read: &io::Result<usize>) {
        if let Ok(count) = read {
            record::add(&self.terms.record.facts().from_backend, *count);
        }
    }

    /// Whether a failure may be followed by another attempt, though the request's body is still
    /// coming.
    #[must_use]
    pub fn may_follow(&self, failure: Failure) -> bool {
        self.terms.is_retryable
            && self.is_repeatable_now()
            && retry::is_asked(failure, &self.terms.config.retry.on)
    }

    /// Gives the backend up; the rest of the request's body is held for another attempt.
    pub fn give_up(&self) {
        if self.uplink.state.replace(UplinkState::Holding) == UplinkState::Dropping {
            // The client had little time left for a body that nobody wanted.
            self.client.arm(Wait::Read, self.worker().config.client.body_timeout);
        }
        sys::shutdown(self.backend.fd(), Side::Both);
    }

    /// Ends an exchange whose request body is still coming: answers for corelane where no head has
    /// reached the client, and lets the rest of the body be read and dropped for a while.
    pub async fn settle(
        &mut self,
        mut result: Result<Delivered, Lost>,
        out: &mut Vec<u8>,
    ) -> Result<Delivered, Lost> {
        if let Err(Lost::BeforeHead(failure)) = &mut result {
            failure.cause = self.uplink.fault.get().unwrap_or(failure.cause);
            let (side, is_head) = (self.facts.client_side(false), self.facts.is_head());
            let record = self.terms.record;
            if !answer::send(record, failure.cause, side, is_head, self.client_sink(), out).await {
                tracing::debug!(cause = failure.cause.name(), "a client got no answer");
            }
        }
        if matches!(result, Err(Lost::InBody(_, End::Reset))) {
            // An end would look like the answer's: the upload ends, and then a reset follows.
            self.uplink.state.set(UplinkState::Failed);
            sys::shutdown(self.backend.fd(), Side::Both);
            sys::shutdown(self.client.fd(), Side::Read);
        } else if self.uplink.state.get() != UplinkState::Failed {
            self.uplink.state.set(UplinkState::Dropping);
            self.client.arm(Wait::Read, LINGER_TIME);
            sys::shutdown(self.backend.fd(), Side::Both);
            if !matches!(result, Ok(Delivered { client_is_kept: true, .. })) {
                sys::shutdown(self.client.fd(), Side::Write);
            }
        }
        result
    }

    /// Whether the client asked for what a backend switches to, and it was let through.
    fn may_switch_to(&self, protocol: Option<&[u8]>) -> bool {
        let upgrades = &self.worker().config.forward.upgrades;
        let asked = self.facts.upgrade.and_then(|index| upgrades.get(index));
        asked
            .zip(protocol)
            .is_some_and(|(asked, protocol)| asked.as_bytes().eq_ignore_ascii_case(protocol))
    }

    /// The client has its time to send the body it was asked for.
    fn arm_client(&self) {
        if self.uplink.state.get() == UplinkState::Sending {
            self.client.arm(Wait::Read, self.worker().config.client.body_timeout);
        }
    }

    fn client_sink(&mut self) -> Sink<'_> {
        let (timeout, sent) = (self.worker().config.client.body_timeout, self.terms.record.sent());
        Sink::new(self.sender, self.client, timeout, sent)
    }

    /// Whether the backend's connection was ended by us: the end of an answer means nothing then.
    fn is_cut(&self) -> bool {
        self.client.is_gone()
            || self.uplink.fault.get().is_some()
            || self.uplink.state.get() == UplinkState::Failed
            || self.backend.expired(Wait::Write)
    }

    /// Why the backend's answer ended early: by itself, or because the client's part failed.
    fn cause_of_end(&self) -> Cause {
        let fault = self.uplink.fault.get();
        let left = self.client.is_gone().then_some(Cause::ClientLeft);
        fault.or(left).unwrap_or(Cause::ResponseTruncated)
    }

    fn cause_of_unsent(&self) -> Cause {
        let is_late = self.client.expired(Wait::Write);
        if is_late { Cause::ClientReadTimeout } else { Cause::ClientLeft }
    }
}

fn started(cause: Cause) -> Failure {
    Failure { cause, progress: Progress::ResponseStarted }
}

/// What a backend answers to a request that did not come in time.
const REQUEST_TIMEOUT: u16 = 408;
/// The most interim heads before a final one.
const INTERIM_HEADS_MAX: usize = 32;
