//! Moves a response to the client, and a request's body to the backend at the same time.
//!
//! `answer_only` is for requests that were sent whole, `both_ways` for those whose body is still
//! coming. Bodies are never held whole. What ends early never looks complete to the client.

use std::cell::Cell;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::task::Poll;

use crate::config::{Config, HEADERS_LIMIT};
use crate::error::Cause;
use crate::http1::chunked::Output;
use crate::http1::forward;
use crate::http1::framing::{Body, Framing};
use crate::http1::response::{self, SWITCHING_PROTOCOLS};
use crate::http1::{Version, reply};
use crate::sys::Side;
use crate::worker::Worker;
use crate::worker::buffer::{self, Buffer, Scratch};
use crate::worker::connection::{CLOSING_POLL, End, LINGER_BYTES_MAX, LINGER_TIME, Peer};
use crate::worker::deadline::{Deadline, Wait};
use crate::worker::exchange::{After, Facts, Failure, Progress, Request, request_fault};
use crate::worker::stream::{Receiver, Sender, Stream, shutdown};

/// What came of an attempt that the client has seen something of.
#[derive(Clone, Copy, Debug)]
pub struct Relayed {
    /// What becomes of the client's connection.
    pub after: After,
    /// Whether the backend's connection is between two messages.
    pub backend_is_reusable: bool,
    /// What went wrong, if anything.
    pub cause: Option<Cause>,
}

/// A response that reached the client whole.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    client_is_kept: bool,
    backend_is_reusable: bool,
}

/// A response that did not.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// Before the client saw a final head.
    BeforeHead(Failure),
    /// After that; the client's connection must end so.
    InBody(Cause, End),
}

/// Relays the response to a request that was sent whole.
///
/// # Errors
/// When nothing of a final response has reached the client.
pub async fn answer_only(
    worker: &Worker,
    client: &mut Stream,
    backend: &mut Stream,
    request: &mut Request,
) -> Result<Relayed, Failure> {
    let uplink = Uplink::new(UplinkState::Sent);
    let mut downlink = Downlink {
        worker,
        facts: request.facts,
        uplink: &uplink,
        client: &client.deadline,
        sender: &mut client.sender,
        backend: &backend.deadline,
        receiver: &mut backend.receiver,
    };
    match downlink.run(&mut request.scratch).await {
        Ok(delivered) => Ok(Relayed {
            after: if delivered.client_is_kept { After::Keep } else { After::End(End::Linger) },
            backend_is_reusable: delivered.backend_is_reusable,
            cause: None,
        }),
        Err(Lost::BeforeHead(failure)) => Err(failure),
        Err(Lost::InBody(cause, end)) => Ok(cut(cause, end)),
    }
}

fn cut(cause: Cause, end: End) -> Relayed {
    Relayed { after: After::End(end), backend_is_reusable: false, cause: Some(cause) }
}

/// Relays a response while the request's body is still coming from the client.
///
/// # Errors
/// When nothing of a final response has reached the client and the request was sent whole after
/// all; else the client is answered here, while its body is read and dropped.
pub async fn both_ways(
    worker: &Worker,
    client: &mut Stream,
    peer: &Peer,
    backend: &mut Stream,
    buffer: &mut Buffer,
    request: &mut Request,
) -> Result<Relayed, Failure> {
    let uplink = Uplink::new(UplinkState::Sending);
    let (client_fd, backend_fd) = (client.deadline.fd(), backend.deadline.fd());
    let (facts, scratch) = (request.facts, &mut request.scratch);
    let mut upload = Upload {
        worker,
        uplink: &uplink,
        client: &client.deadline,
        receiver: &mut client.receiver,
        backend: &backend.deadline,
        sender: &mut backend.sender,
    };
    let mut downlink = Downlink {
        worker,
        facts,
        uplink: &uplink,
        client: &client.deadline,
        sender: &mut client.sender,
        backend: &backend.deadline,
        receiver: &mut backend.receiver,
    };
    let down = async {
        let mut result = downlink.run(scratch).await;
        if uplink.state.get() == UplinkState::Sent {
            return result;
        }
        // The answer is complete, or will never be, and the body is still coming.
        if let Err(Lost::BeforeHead(failure)) = &mut result {
            failure.cause = uplink.fault.get().unwrap_or(failure.cause);
            downlink.refuse(failure.cause, &mut scratch.out).await;
        }
        if uplink.state.get() != UplinkState::Failed {
            uplink.state.set(UplinkState::Dropping);
            client.deadline.arm(Wait::Read, LINGER_TIME);
            shutdown(backend_fd, Side::Both);
            if !matches!(result, Ok(Delivered { client_is_kept: true, .. })) {
                shutdown(client_fd, Side::Write);
            }
        }
        result
    };
    let (result, ()) = join(down, upload.run(buffer, &mut request.body)).await;
    let is_read_whole = request.body.is_complete();
    let fault = uplink.fault.get();
    match result {
        Ok(delivered) => {
            let keeps = delivered.client_is_kept && is_read_whole;
            let end = if is_read_whole { End::Linger } else { End::Close };
            Ok(Relayed {
                after: if keeps { After::Keep } else { After::End(end) },
                backend_is_reusable: delivered.backend_is_reusable
                    && uplink.state.get() == UplinkState::Sent,
                cause: fault,
            })
        }
        Err(Lost::BeforeHead(failure)) if uplink.state.get() == UplinkState::Sent => {
            Err(Failure { progress: Progress::ResponseStarted, ..failure })
        }
        Err(Lost::BeforeHead(failure)) => {
            tracing::debug!(client = %peer.addr, cause = failure.cause.name(), "refused in its body");
            let end = if fault == Some(Cause::ClientLeft) { End::Close } else { End::Linger };
            Ok(cut(failure.cause, end))
        }
        Err(Lost::InBody(cause, end)) => Ok(cut(fault.unwrap_or(cause), end)),
    }
}

/// How the request's body fares; both directions look at it.
#[derive(Debug)]
struct Uplink {
    state: Cell<UplinkState>,
    /// What ended the body early on the client's side.
    fault: Cell<Option<Cause>>,
    /// Whether the final head has come.
    has_answer: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UplinkState {
    /// The backend gets it as it comes.
    Sending,
    /// The backend has it whole.
    Sent,
    /// It is read and dropped: the backend wants no more of it.
    Dropping,
    /// It will not be read further.
    Failed,
}

impl Uplink {
    fn new(state: UplinkState) -> Uplink {
        Uplink { state: Cell::new(state), fault: Cell::new(None), has_answer: Cell::new(false) }
    }

    /// Gives the backend its time for what comes next, once it has the whole request: before
    /// that, it may be waiting for the client.
    fn arm_backend(&self, config: &Config, backend: &Deadline) {
        if self.state.get() != UplinkState::Sending {
            let limits = &config.backend;
            let is_in_body = self.has_answer.get();
            let timeout = if is_in_body { limits.body_timeout } else { limits.response_timeout };
            backend.arm(Wait::Read, timeout);
        }
    }
}

/// The request body's way to the backend.
struct Upload<'a> {
    worker: &'a Worker,
    uplink: &'a Uplink,
    client: &'a Deadline,
    receiver: &'a mut Receiver,
    backend: &'a Deadline,
    sender: &'a mut Sender,
}

impl Upload<'_> {
    async fn run(&mut self, buffer: &mut Buffer, body: &mut Body) {
        let mut large = LargeBuffer::new(self.worker);
        let mut dropped = 0;
        while !body.is_complete() {
            if buffer.is_empty()
                && let Err(cause) = self.read(large.replace(buffer, body.bytes_left())).await
            {
                return self.fail(cause);
            }
            let taken = match body.take(buffer.unread_mut()) {
                Ok(taken) => taken,
                Err(fault) => return self.fail(request_fault(fault)),
            };
            if self.uplink.state.get() == UplinkState::Sending {
                self.send(buffer, taken.kept).await;
            } else {
                dropped += taken.used;
            }
            buffer.consume(taken.used);
            if dropped > LINGER_BYTES_MAX {
                return self.fail(Cause::ClientBodyTimeout);
            }
        }
        large.restore(buffer);
        if self.uplink.state.get() == UplinkState::Sending {
            self.uplink.state.set(UplinkState::Sent);
            self.uplink.arm_backend(&self.worker.config, self.backend);
        }
    }

    async fn read(&mut self, buffer: &mut Buffer) -> Result<(), Cause> {
        if self.uplink.state.get() == UplinkState::Sending {
            self.client.arm(Wait::Read, self.worker.config.client.body_timeout);
        }
        let read = loop {
            let read = buffer.fill(self.receiver).await;
            if self.client.expired(Wait::Read) {
                return Err(Cause::ClientBodyTimeout);
            }
            if !(self.client.is_closing() && matches!(read, Ok(0))) {
                break read;
            }
            // The request began while the idle connection was being closed; its rest may come.
            monoio::time::sleep(CLOSING_POLL).await;
        };
        if self.uplink.state.get() == UplinkState::Sending {
            self.client.disarm(Wait::Read);
        }
        if matches!(read, Ok(1..)) { Ok(()) } else { Err(Cause::ClientLeft) }
    }

    /// Sends to the backend; one that takes no more may still answer, so that is no failure.
    async fn send(&mut self, buffer: &mut Buffer, count: usize) {
        self.backend.arm(Wait::Write, self.worker.config.backend.body_timeout);
        let sent = buffer.send(self.sender, count).await;
        self.backend.disarm(Wait::Write);
        if sent.is_err() && self.uplink.state.get() == UplinkState::Sending {
            self.uplink.state.set(UplinkState::Dropping);
            self.client.arm(Wait::Read, LINGER_TIME);
            self.uplink.arm_backend(&self.worker.config, self.backend);
        }
    }

    /// Ends the body, so that the backend cannot take what it got for complete.
    fn fail(&self, cause: Cause) {
        if self.uplink.state.replace(UplinkState::Failed) == UplinkState::Sending {
            self.uplink.fault.set(Some(cause));
        }
        shutdown(self.backend.fd(), Side::Both);
    }
}

/// The response's way to the client.
struct Downlink<'a> {
    worker: &'a Worker,
    facts: Facts,
    uplink: &'a Uplink,
    client: &'a Deadline,
    sender: &'a mut Sender,
    backend: &'a Deadline,
    receiver: &'a mut Receiver,
}

/// A response head that was read and written for the client.
struct Head {
    is_interim: bool,
    status: u16,
    framing: Framing,
    /// Whether the head goes out as it came in, from the backend's buffer, instead of from `out`.
    goes_as_is: bool,
    bytes: usize,
    client_is_kept: bool,
    backend_is_kept: bool,
}

impl Downlink<'_> {
    async fn run(&mut self, scratch: &mut Scratch) -> Result<Delivered, Lost> {
        let (head, mut body) = self.deliver_head(scratch).await?;
        let mut large = LargeBuffer::new(self.worker);
        let end = if head.framing == Framing::UntilClose || self.facts.version == Version::Http10 {
            End::Reset
        } else {
            End::Close
        };
        let from_backend = &mut scratch.from_backend;
        while !body.is_complete() {
            let buffer = large.replace(from_backend, body.bytes_left());
            match self.read(buffer).await {
                Ok(0) if body.may_end() => break,
                Ok(0) => {
                    return Err(Lost::InBody(self.cause_of_end(Cause::ResponseTruncated), end));
                }
                Ok(_) => {}
                Err(cause) => return Err(Lost::InBody(cause, end)),
            }
            let taken = body
                .take(buffer.unread_mut())
                .map_err(|_fault| Lost::InBody(Cause::ResponseChunkInvalid, end))?;
            self.client.arm(Wait::Write, self.worker.config.client.body_timeout);
            let sent = buffer.send(self.sender, taken.kept).await;
            self.client.disarm(Wait::Write);
            if sent.is_err() {
                return Err(Lost::InBody(self.cause_of_unsent(), End::Close));
            }
            buffer.consume(taken.used);
        }
        self.backend.disarm(Wait::Read);
        let has_surplus = !from_backend.is_empty();
        large.restore(from_backend);
        Ok(Delivered {
            client_is_kept: head.client_is_kept,
            backend_is_reusable: head.backend_is_kept && !has_surplus,
        })
    }

    /// Sends the final head, with what has come of the body, and interim heads before it.
    async fn deliver_head(&mut self, scratch: &mut Scratch) -> Result<(Head, Body), Lost> {
        let mut interims = 0;
        self.uplink.arm_backend(&self.worker.config, self.backend);
        loop {
            let head = self.read_head(scratch).await.map_err(|failure| match interims {
                0 => Lost::BeforeHead(failure),
                _ => before_head(failure.cause),
            })?;
            let is_final = !head.is_interim;
            interims += usize::from(head.is_interim);
            if head.status == SWITCHING_PROTOCOLS || interims > INTERIM_HEADS_MAX {
                return Err(before_head(Cause::ResponseInvalid));
            }
            let Scratch { out, from_backend } = &mut *scratch;
            let mut body = Body::new(head.framing, self.output());
            let rest = from_backend.unread_mut().get_mut(head.bytes..).unwrap_or_default();
            let taken = body.take(rest).map_err(|_fault| before_head(Cause::ResponseInvalid))?;
            self.client.wait_over();
            self.uplink.has_answer.set(is_final);
            self.client.arm(Wait::Write, self.worker.config.client.body_timeout);
            let sent = if head.is_interim && self.facts.version == Version::Http10 {
                Ok(())
            } else if head.goes_as_is {
                from_backend.send(self.sender, head.bytes + taken.kept).await
            } else {
                let body_start = head.bytes;
                out.extend_from_slice(&from_backend.unread()[body_start..body_start + taken.kept]);
                buffer::send_all(out, self.sender, &mut 0).await
            };
            self.client.disarm(Wait::Write);
            if sent.is_err() {
                return Err(Lost::InBody(self.cause_of_unsent(), End::Close));
            }
            from_backend.consume(head.bytes + taken.used);
            if is_final {
                return Ok((head, body));
            }
            self.facts.expects_continue = false;
        }
    }

    /// Reads until a head is complete, and writes it to `out` where it must change.
    async fn read_head(&mut self, scratch: &mut Scratch) -> Result<Head, Failure> {
        let limits = self.worker.config.head;
        loop {
            let has_bytes = !scratch.from_backend.is_empty();
            if has_bytes && let Some(head) = self.parse_head(scratch).map_err(started)? {
                return Ok(head);
            }
            scratch.from_backend.make_room(limits.bytes_max);
            let read = scratch.from_backend.fill(self.receiver).await;
            let cause = if self.client.is_gone() {
                Cause::ClientLeft
            } else if self.backend.expired(Wait::Read) || self.backend.expired(Wait::Write) {
                Cause::ResponseTimeout
            } else if matches!(read, Ok(1..)) {
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

    fn parse_head(&self, scratch: &mut Scratch) -> Result<Option<Head>, Cause> {
        let Scratch { out, from_backend } = scratch;
        let mut space = [MaybeUninit::uninit(); HEADERS_LIMIT];
        let (bytes, limits) = (from_backend.unread(), &self.worker.config.head);
        let Some(head) = response::parse(bytes, &mut space, limits, self.facts.is_head)? else {
            return Ok(None);
        };
        // A client that waits for a 100 and gets a final answer may or may not send its body:
        // what follows could be read two ways.
        let is_sure_of_next =
            self.uplink.state.get() == UplinkState::Sent || !self.facts.expects_continue;
        let keeps = head.is_interim()
            || (is_sure_of_next
                && !self.worker.is_draining()
                && forward::client_sees_end(head.framing, self.facts.version));
        let side = self.facts.client_side(keeps);
        let goes_as_is = forward::passes_as_is(&head, side);
        if !goes_as_is {
            out.clear();
            forward::response(&head, side, out);
        }
        Ok(Some(Head {
            is_interim: head.is_interim(),
            status: head.status,
            framing: head.framing,
            goes_as_is,
            bytes: head.bytes,
            client_is_kept: side.keep_alive,
            backend_is_kept: head.keep_alive,
        }))
    }

    /// Reads some of the body; 0 says that the backend ended it.
    async fn read(&mut self, buffer: &mut Buffer) -> Result<usize, Cause> {
        self.uplink.arm_backend(&self.worker.config, self.backend);
        let read = buffer.fill(self.receiver).await;
        if self.backend.expired(Wait::Read) {
            return Err(Cause::ResponseBodyTimeout);
        }
        read.map_err(|_lost| self.cause_of_end(Cause::ResponseTruncated))
    }

    /// Answers for corelane while the client is still sending.
    async fn refuse(&mut self, cause: Cause, out: &mut Vec<u8>) {
        out.clear();
        reply::write(cause, self.facts.client_side(false), self.facts.is_head, out);
        self.client.arm(Wait::Write, self.worker.config.client.body_timeout);
        if let Err(error) = buffer::send_all(out, self.sender, &mut 0).await {
            tracing::debug!(%error, "a client left before its answer");
        }
        self.client.disarm(Wait::Write);
    }

    fn output(&self) -> Output {
        if self.facts.version == Version::Http10 { Output::Data } else { Output::Chunks }
    }

    /// Why the backend's answer ended: by itself, or because the client's part failed.
    fn cause_of_end(&self, cause: Cause) -> Cause {
        self.uplink.fault.get().unwrap_or(cause)
    }

    fn cause_of_unsent(&self) -> Cause {
        let is_late = self.client.expired(Wait::Write);
        if is_late { Cause::ClientBodyTimeout } else { Cause::ClientLeft }
    }
}

fn started(cause: Cause) -> Failure {
    Failure { cause, progress: Progress::ResponseStarted }
}

fn before_head(cause: Cause) -> Lost {
    Lost::BeforeHead(started(cause))
}

/// Puts a large buffer in the place of a small one while a long body passes.
struct LargeBuffer<'w> {
    worker: &'w Worker,
    small: Option<Buffer>,
}

impl<'w> LargeBuffer<'w> {
    fn new(worker: &'w Worker) -> LargeBuffer<'w> {
        LargeBuffer { worker, small: None }
    }

    /// The buffer to read into: exchanged when it is empty and much is still to come.
    fn replace<'b>(&mut self, buffer: &'b mut Buffer, bytes_left: u64) -> &'b mut Buffer {
        if self.small.is_none() && buffer.is_empty() && bytes_left > LARGE_BODY_BYTES {
            let large = self.worker.buffers.take_body();
            self.small = Some(std::mem::replace(buffer, large));
        }
        buffer
    }

    /// Puts the small buffer back once the large one is empty.
    fn restore(self, buffer: &mut Buffer) {
        if let Some(small) = self.small
            && buffer.is_empty()
        {
            self.worker.buffers.give_body(std::mem::replace(buffer, small));
        }
    }
}

/// Runs both to their ends.
async fn join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut a_done, mut b_done) = (None, None);
    poll_fn(|context| {
        if a_done.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(context)
        {
            a_done = Some(value);
        }
        if b_done.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(context)
        {
            b_done = Some(value);
        }
        match (a_done.take(), b_done.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (a_done, b_done) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// From how many bytes still to come a body is moved through a large buffer.
const LARGE_BODY_BYTES: u64 = 64 * 1024;
/// The most interim heads before a final one.
const INTERIM_HEADS_MAX: usize = 32;
