//! One client connection, from accept to close: receive a request, run its exchange, again.
//!
//! Decides when a connection is idle, when a head is late, and how a connection is closed so that
//! the client reads the last answer. Called by `listener` for each accepted connection.

use std::rc::Rc;
use std::time::Duration;

use crate::error::Cause;
use crate::http1::Version;
use crate::http1::forward::ClientSide;
use crate::sys::Pending;
use crate::worker::answer;
use crate::worker::buffer::{BUFFER_BYTES, Buffer, Sink};
use crate::worker::deadline::Wait;
use crate::worker::event::pause;
use crate::worker::exchange;
use crate::worker::peer::Peer;
use crate::worker::progress::{After, CLOSING_POLL, End, LINGER_BYTES_MAX, LINGER_TIME};
use crate::worker::record::Record;
use crate::worker::request::{self, Request};
use crate::worker::silence;
use crate::worker::state::{Admission, Worker};
use crate::worker::stream::Stream;

/// A client's connection between two requests.
#[derive(Debug)]
pub struct Conn {
    /// The connection itself.
    pub client: Stream,
    /// Who the client is.
    pub peer: Peer,
    /// Counts the connection.
    pub admission: Admission,
    /// What it has been given time for; outlives being parked, so that no empty line gives it more.
    pub timed: Timed,
}

/// What a client has been given time for, since its last request.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// No request has come yet.
    is_first: bool,
    /// To begin a request.
    is_idle: bool,
    /// To complete its head.
    has_begun: bool,
}

impl Timed {
    /// Nothing yet; `is_first` says that no request has come before.
    #[must_use]
    pub fn anew(is_first: bool) -> Timed {
        Timed { is_first, is_idle: false, has_begun: false }
    }
}

/// Serves a client until its connection ends, or until it is silent, which returns it; `prefix`
/// holds what was read of it before.
pub async fn serve(worker: &Rc<Worker>, conn: Conn, prefix: Buffer) -> Option<Box<Conn>> {
    let Conn { mut client, peer, admission, mut timed } = conn;
    let mut buffer = prefix;
    let record = Record::new(worker, &peer);
    let end = loop {
        if !admission.is_within_limit {
            break refuse(&record, &mut client, &buffer, Cause::ClientConns).await;
        }
        let mut request = match receive(&record, &mut client, &mut buffer, &mut timed).await {
            Ok(request) => request,
            Err(Unreceived::Silent) => {
                worker.buffers.give(buffer);
                drop(record);
                // On the heap: what a future returns, 350 bytes of it, is moved at each of its polls.
                return Some(Box::new(Conn { client, peer, admission, timed }));
            }
            Err(Unreceived::Over(end)) => break end,
        };
        if worker
            .config
            .faults
            .panic_connection
            .is_some_and(|faulty| faulty.get() == admission.number)
        {
            panic!("a test asked for this connection's panic");
        }
        let after = exchange::run(&record, &mut client, &mut buffer, &mut request).await;
        record.finish();
        let is_last = !request.facts.keep_alive && request.body.is_complete() && buffer.is_empty();
        worker.buffers.give_scratch(request.scratch);
        match after {
            After::Keep => timed = Timed::anew(false),
            // A client that has said so sends no other request (RFC 9112 §9.6): where no bytes have
            // come behind this one, there is nothing to wait for. 9 % less of the processor's time
            // where each request has a connection.
            After::End(End::Linger) if is_last && client.pending() != Pending::Bytes => {
                break End::Close;
            }
            After::End(end) => break end,
        }
    };
    drop(record);
    match end {
        End::Close => client.close(),
        End::Reset => client.reset(),
        End::Linger => {
            linger(&mut client, &mut buffer).await;
            client.close();
        }
    }
    worker.buffers.give(buffer);
    None
}

/// Why no request was received.
enum Unreceived {
    /// The client has sent nothing for a while.
    Silent,
    /// The connection is to end.
    Over(End),
}

/// Reads until a request's head is complete, or the connection is to end.
async fn receive(
    record: &Record<'_>,
    client: &mut Stream,
    buffer: &mut Buffer,
    timed: &mut Timed,
) -> Result<Request, Unreceived> {
    let worker = record.worker;
    let limits = &worker.config.client;
    let mut is_new_line = !buffer.is_empty();
    loop {
        begin_request(record, buffer);
        // A head ends with a line: bytes without a line's end need no second look, but for what is
        // no HTTP at all.
        let is_full = buffer.unread().len() >= worker.config.head.bytes_max;
        let is_text = buffer.unread().first().is_none_or(u8::is_ascii_graphic);
        if !buffer.is_empty() && (is_new_line || is_full || !is_text) {
            match request::read(record, buffer) {
                Ok(Some(request)) => {
                    client.deadline.disarm(Wait::Read);
                    client.deadline.set_idle(false);
                    return Ok(request);
                }
                Ok(None) => {}
                Err(cause) => {
                    let end = refuse(record, client, buffer, cause).await;
                    return Err(Unreceived::Over(end));
                }
            }
        }
        if buffer.is_empty() {
            if worker.is_draining() && !timed.is_first && client.pending() == Pending::Nothing {
                return Err(Unreceived::Over(End::Linger));
            }
            if !std::mem::replace(&mut timed.is_idle, true) {
                begin_idle(worker, client, buffer, timed.is_first);
            }
        } else if !std::mem::replace(&mut timed.has_begun, true) {
            timed.is_idle = false;
            client.deadline.set_idle(false);
            client.deadline.arm(Wait::Read, limits.header_timeout);
        }
        buffer.make_room(worker.config.head.bytes_max);
        let before = buffer.unread().len();
        let read = if buffer.is_empty() {
            buffer.fill_first(&mut client.receiver, &worker.silence).await
        } else {
            buffer.fill(&mut client.receiver).await
        };
        record.prefetch(&[&client.deadline]);
        if silence::is_ended(&read) {
            return Err(Unreceived::Silent);
        }
        let is_closing = client.deadline.is_closing();
        if is_closing && timed.is_idle && !matches!(read, Ok(1..)) {
            if !worker.is_draining() {
                worker.note(Cause::ClientIdleTimeout, &record.peer.address.client);
            }
            return Err(Unreceived::Over(End::Linger));
        }
        if client.deadline.expired(Wait::Read) {
            let end = refuse(record, client, buffer, Cause::ClientHeadTimeout).await;
            return Err(Unreceived::Over(end));
        }
        if is_closing && matches!(read, Ok(0)) {
            // The head began while the idle connection was being closed; its rest may come.
            pause(CLOSING_POLL).await;
            continue;
        }
        if !matches!(read, Ok(1..)) {
            if !timed.is_idle {
                record.received_in_vain(buffer.unread());
                record.note(Cause::ClientLeft);
            }
            return Err(Unreceived::Over(End::Close));
        }
        is_new_line = memchr::memchr(b'\n', &buffer.unread()[before..]).is_some();
    }
}

/// The client has its time to send its first or next request.
fn begin_idle(worker: &Worker, client: &Stream, buffer: &mut Buffer, is_first: bool) {
    if buffer.capacity() != BUFFER_BYTES {
        // It grew for a large head or a pipeline.
        *buffer = worker.buffers.take();
    }
    let limits = &worker.config.client;
    let timeout = if is_first { limits.header_timeout } else { limits.idle_timeout };
    let timeout = if worker.is_draining() { timeout.min(DRAINING_IDLE) } else { timeout };
    client.deadline.set_idle(true);
    client.deadline.arm(Wait::Read, timeout);
}

/// Drops empty lines before a request, which some clients send after a body (RFC 9112 §2.2); what
/// follows is the request.
fn begin_request(record: &Record<'_>, buffer: &mut Buffer) {
    while buffer.unread().starts_with(b"\r\n") {
        buffer.consume(b"\r\n".len());
    }
    // The first half of such a line is no request yet.
    if !matches!(buffer.unread(), b"" | b"\r") {
        record.begin();
    }
}

/// Answers a request that is not forwarded, and ends its connection; `buffer` begins with it.
async fn refuse(record: &Record<'_>, client: &mut Stream, buffer: &Buffer, cause: Cause) -> End {
    let worker = record.worker;
    record.begin();
    record.received_in_vain(buffer.unread());
    record.note(cause);
    let closing = ClientSide { version: Version::Http11, keep_alive: false };
    let is_head = buffer.unread().starts_with(b"HEAD ");
    let timeout = worker.config.client.body_timeout;
    let sink = Sink::new(&mut client.sender, &client.deadline, timeout, record.sent());
    let mut scratch = worker.buffers.take_scratch();
    let is_sent =
        answer::send(record, cause, closing, is_head, sink, &mut scratch.answer.out).await;
    worker.buffers.give_scratch(scratch);
    if is_sent { End::Linger } else { End::Close }
}

/// Ends the sending side, then reads and drops what the client still sends, up to a limit.
async fn linger(client: &mut Stream, buffer: &mut Buffer) {
    client.finish();
    if client.deadline.is_closing() {
        // Reads do not wait any more; the client gets its time to see the end.
        return pause(CLOSING_PAUSE).await;
    }
    client.deadline.set_idle(false);
    client.deadline.arm(Wait::Read, LINGER_TIME);
    let mut left = LINGER_BYTES_MAX;
    loop {
        buffer.clear();
        match buffer.fill(&mut client.receiver).await {
            Ok(count @ 1..) if count < left => left -= count,
            _ => break,
        }
    }
}

/// How long a client that connects while the worker drains may take to send something.
const DRAINING_IDLE: Duration = Duration::from_secs(1);
/// How long an idle client that is closed has to see the end, and to stop sending.
const CLOSING_PAUSE: Duration = Duration::from_millis(500);
