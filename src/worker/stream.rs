//! One connection, to a client or to a backend, with its two directions apart.
//!
//! An enum so that Unix sockets and TLS can join TCP. A stream owns its slot in the worker's
//! table of deadlines and releases it before the socket is closed, so that the sweep can never
//! shut down another connection that got the same descriptor.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, CancelHandle, CancelableAsyncReadRent, OwnedReadHalf,
    OwnedWriteHalf, Splitable,
};
use monoio::net::TcpStream;

use crate::sys::{self, Pending, Side};
use crate::upstream::limit::Limits;
use crate::worker::deadline::{Deadline, Deadlines, Role};
use crate::worker::waitlist::Place;

/// A connection.
#[derive(Debug)]
pub struct Stream {
    // Declared first, so that the slot is released before the socket is closed.
    /// Its place in the table of deadlines.
    pub deadline: Deadline,
    /// The direction to us.
    pub receiver: Receiver,
    /// The direction to the peer.
    pub sender: Sender,
    /// The place on an endpoint that it takes, where these are limited; given back last.
    pub place: Option<Box<Place>>,
}

/// The direction to us.
#[derive(Debug)]
pub enum Receiver {
    /// Over TCP.
    Tcp(OwnedReadHalf<TcpStream>),
}

/// The direction to the peer.
#[derive(Debug)]
pub enum Sender {
    /// Over TCP.
    Tcp(OwnedWriteHalf<TcpStream>),
}

impl Stream {
    /// A connection over TCP, known to the table of deadlines from now on.
    #[must_use]
    pub fn tcp(socket: TcpStream, role: Role, deadlines: &Rc<Deadlines>) -> Stream {
        let deadline = Deadlines::enter(deadlines, socket.as_raw_fd(), role);
        Stream::resume(deadline, socket)
    }

    /// The client's connection that `into_parts` took apart.
    #[must_use]
    pub fn resume(deadline: Deadline, socket: TcpStream) -> Stream {
        let (receiver, sender) = socket.into_split();
        Stream {
            deadline,
            receiver: Receiver::Tcp(receiver),
            sender: Sender::Tcp(sender),
            place: None,
        }
    }

    /// What has arrived and was not read.
    #[must_use]
    pub fn pending(&self) -> Pending {
        sys::peek(self.fd())
    }

    /// Tells the peer that nothing more comes; it can still be read.
    pub fn finish(&self) {
        sys::shutdown(self.fd(), Side::Write);
    }

    /// Ends waiting reads and writes.
    pub fn abort(&self) {
        sys::shutdown(self.fd(), Side::Both);
    }

    /// Closes the connection.
    ///
    /// Dropping does that too, by way of the ring: a shutdown, a close and the cancellation of that
    /// close, none of which is needed. 5 % less processor time where each request has a connection.
    pub fn close(mut self) {
        let place = self.place.take();
        if place.is_some() {
            // The peer is to know before somebody else takes the place.
            self.abort();
        }
        let (deadline, socket) = self.into_parts();
        drop(deadline);
        drop(sys::release(socket));
        drop(place);
    }

    /// Closes the connection so that the peer sees a reset: what it got is not complete.
    pub fn reset(self) {
        if let Err(error) = sys::reset_on_close(self.fd()) {
            tracing::debug!(%error, "a connection is closed instead of reset");
        }
        self.close();
    }

    /// The limits of its endpoint that it counts in, if it does.
    #[must_use]
    pub fn counted_in(&self) -> Option<&Limits> {
        self.place.as_ref().map(|place| &*place.limits)
    }

    /// What is left of a client's connection while it is parked.
    #[must_use]
    pub fn into_parts(self) -> (Deadline, TcpStream) {
        let Stream { deadline, receiver, sender, place: _ } = self;
        match (receiver, sender) {
            (Receiver::Tcp(receiver), Sender::Tcp(sender)) => {
                let socket = receiver.reunite(sender);
                (deadline, socket.expect("both halves are of one socket"))
            }
        }
    }

    fn fd(&self) -> RawFd {
        self.deadline.fd()
    }
}

impl Receiver {
    /// Reads once into the room that `buf` offers.
    pub async fn read<B: IoBufMut>(&mut self, mut buf: B) -> BufResult<usize, B> {
        loop {
            let (result, back) = match self {
                Receiver::Tcp(half) => half.read(buf).await,
            };
            if !is_unready(&result) {
                return (result, back);
            }
            buf = back;
            if let Err(error) = self.readable().await {
                return (Err(error), buf);
            }
        }
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// When the runtime cannot wait for it.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Receiver::Tcp(half) => sys::socket_of(&half.0).readable(false).await,
        }
    }

    /// Reads as `read`, until `cancel` ends it; for a socket that nobody has made non-blocking.
    pub async fn read_until<B: IoBufMut>(
        &mut self,
        buf: B,
        cancel: CancelHandle,
    ) -> BufResult<usize, B> {
        match self {
            Receiver::Tcp(half) => half.cancelable_read(buf, cancel).await,
        }
    }
}

impl Sender {
    /// Writes once from the front of `buf`.
    pub async fn write<B: IoBuf>(&mut self, mut buf: B) -> BufResult<usize, B> {
        loop {
            let (result, back) = match self {
                Sender::Tcp(half) => half.write(buf).await,
            };
            if !is_unready(&result) {
                return (result, back);
            }
            buf = back;
            if let Err(error) = self.writable().await {
                return (Err(error), buf);
            }
        }
    }

    /// Waits until the peer has taken so much that there is room for more, or is gone.
    ///
    /// # Errors
    /// When the runtime cannot wait for it.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Sender::Tcp(half) => sys::socket_of(&half.0).writable(false).await,
        }
    }
}

/// Whether the ring did not wait for a socket, since its other direction is being spliced.
fn is_unready(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
