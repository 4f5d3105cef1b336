//! A tunnel: bytes both ways, until both sides have ended or nothing passes for too long.
//!
//! Either side may end its half and still be sent to. Called by `exchange` after a 101, or a 2xx
//! to CONNECT.

use std::cell::{Cell, OnceCell};
use std::io;
use std::pin::pin;
use std::time::Duration;

use crate::error::Cause;
use crate::metrics::Counter;
use crate::sys::{self, Side};
use crate::worker::buffer::{Buffer, Sink};
use crate::worker::deadline::{Deadline, Wait};
use crate::worker::join::join;
use crate::worker::record::{self, Record};
use crate::worker::splice::{NonBlocking, Splice};
use crate::worker::state::Worker;
use crate::worker::stream::{Receiver, Sender, Stream};

/// Passes what is in the buffers, and then all that comes, to the other side.
///
/// # Errors
/// `TunnelIdle` when nothing passed in time, else whose side was reset.
pub async fn run(
    record: &Record<'_>,
    client: &mut Stream,
    backend: &mut Stream,
    from_client: &mut Buffer,
    from_backend: &mut Buffer,
) -> Result<(), Cause> {
    let worker = record.worker;
    worker.lane().add(Counter::Tunnels);
    let _open = worker.lane().raise(Counter::TunnelsOpen);
    record.received(from_client.unread().len());
    let (fault, is_half_closed) = (Cell::new(None), Cell::new(false));
    let bulk = OnceCell::new();
    let upward = Direction {
        worker,
        fault: &fault,
        is_half_closed: &is_half_closed,
        bulk: &bulk,
        source: &client.deadline,
        receiver: &mut client.receiver,
        source_reset: Cause::ClientLeft,
        received: &record.facts().received,
        sent: record.sent_to_backend(),
        target: &backend.deadline,
        sender: &mut backend.sender,
        target_reset: Cause::TunnelCut,
    };
    let downward = Direction {
        worker,
        fault: &fault,
        is_half_closed: &is_half_closed,
        bulk: &bulk,
        source: &backend.deadline,
        receiver: &mut backend.receiver,
        source_reset: Cause::TunnelCut,
        received: &record.facts().from_backend,
        sent: record.sent(),
        target: &client.deadline,
        sender: &mut client.sender,
        target_reset: Cause::ClientLeft,
    };
    join(pin!(upward.run(from_client)), pin!(downward.run(from_backend))).await;
    fault.get().map_or(Ok(()), Err)
}

struct Direction<'a> {
    worker: &'a Worker,
    /// What ended the tunnel; the first fault brings others.
    fault: &'a Cell<Option<Cause>>,
    is_half_closed: &'a Cell<bool>,
    /// Set once a read has filled its buffer: from then on both directions are spliced.
    bulk: &'a OnceCell<NonBlocking>,
    source: &'a Deadline,
    receiver: &'a mut Receiver,
    source_reset: Cause,
    /// Where bytes from this side are counted,
    received: &'a Cell<u64>,
    /// and bytes to the other side.
    sent: &'a Cell<u64>,
    target: &'a Deadline,
    sender: &'a mut Sender,
    target_reset: Cause,
}

impl Direction<'_> {
    /// Moves bytes until this side ends, and passes that on; a fault ends both directions.
    async fn run(mut self, buffer: &mut Buffer) {
        let Err(cause) = self.pass(buffer).await else {
            self.is_half_closed.set(true);
            sys::shutdown(self.target.fd(), Side::Write);
            return self.target.arm(Wait::Read, self.timeout());
        };
        self.fault.set(self.fault.get().or(Some(cause)));
        for fd in [self.source.fd(), self.target.fd()] {
            match cause {
                Cause::TunnelIdle => sys::shutdown(fd, Side::Both),
                _ => sys::reset(fd),
            }
        }
    }

    /// A tunnel of which one half has ended has less time: its peer may be gone for good.
    fn timeout(&self) -> Duration {
        let timeout = self.worker.config.client.tunnel_timeout;
        if self.is_half_closed.get() { timeout.min(HALF_CLOSED_TIMEOUT) } else { timeout }
    }

    /// Whether nothing came from this side, or went to it, for too long.
    fn is_late(&self) -> bool {
        self.source.expired(Wait::Read) || self.source.expired(Wait::Write)
    }

    async fn pass(&mut self, buffer: &mut Buffer) -> Result<(), Cause> {
        loop {
            let count = buffer.unread().len();
            if count > 0 {
                let mut sink = self.begin_send();
                let sent = buffer.send(&mut sink, count).await;
                self.end_send(sent)?;
                if buffer.is_full() {
                    let sockets = [self.source.fd(), self.target.fd()];
                    self.bulk.get_or_init(|| NonBlocking::set(sockets));
                }
                buffer.consume(count);
            }
            // A side that only listens is not idle while the other one speaks.
            self.source.arm(Wait::Read, self.timeout());
            self.target.arm(Wait::Read, self.timeout());
            let read = match self.bulk.get() {
                Some(_) if self.splice().await? => continue,
                _ => buffer.fill(self.receiver).await,
            };
            if self.is_late() {
                return Err(Cause::TunnelIdle);
            }
            match read {
                Ok(0) => return Ok(()),
                Ok(count) => self.count(count),
                Err(_reset) => return Err(self.source_reset),
            }
        }
    }

    /// Waits for bytes and passes them without a copy. Whether there were any: not where no pipe
    /// can be had, or this side has ended, which a read finds.
    async fn splice(&mut self) -> Result<bool, Cause> {
        let ready = self.receiver.readable().await;
        if self.is_late() {
            return Err(Cause::TunnelIdle);
        }
        ready.map_err(|_reset| self.source_reset)?;
        let worker = self.worker;
        let mut splice = Splice::new(&worker.pipes, self.source.fd(), self.target.fd());
        let count = splice.take(u64::MAX).map_err(|_reset| self.source_reset)?;
        if count == 0 {
            return Ok(false);
        }
        self.count(count);
        let sent = splice.send(&mut self.begin_send()).await;
        self.end_send(sent)?;
        Ok(true)
    }

    /// While bytes pass, nobody is idle: the write has its own time.
    fn begin_send(&mut self) -> Sink<'_> {
        self.source.disarm(Wait::Read);
        self.target.disarm(Wait::Read);
        let timeout = self.timeout();
        Sink::new(self.sender, self.target, timeout, self.sent)
    }

    fn count(&self, count: usize) {
        record::add(self.received, count);
    }

    fn end_send(&self, sent: io::Result<()>) -> Result<(), Cause> {
        let is_late = self.target.expired(Wait::Write);
        sent.map_err(|_gone| if is_late { Cause::TunnelIdle } else { self.target_reset })
    }
}

/// How long a tunnel may pass nothing after one side has ended its half.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(60);
