//! Bytes from one socket to another through a pipe, without a copy in user space.
//!
//! The ring would hand a splice to the kernel's worker threads, so it is a plain system call that
//! must not wait: both sockets are non-blocking meanwhile, and the ring only says when they are
//! ready. Called by `download`, `upload` and `tunnel`.

use std::io;
use std::os::fd::RawFd;

use crate::sys;
use crate::worker::buffer::{Buffer, Sink};
use crate::worker::deadline::Wait;
use crate::worker::driver;
use crate::worker::pipes::{Lent, Pipes};
use crate::worker::stream::Receiver;

/// Where a read puts bytes.
#[derive(Debug)]
pub enum Room<'a, 'w> {
    /// Into memory.
    Buffer(&'a mut Buffer),
    /// Into a pipe, so many at most.
    Pipe(&'a mut Splice<'w>, u64),
}

impl Room<'_, '_> {
    /// Reads once; 0 says that the peer sent its last byte. In a pipe's case it may also say that
    /// the next bytes can only be read into memory, or that there is no pipe: who reads into
    /// memory learns which it was.
    ///
    /// # Errors
    /// What the socket reports.
    pub async fn fill(&mut self, from: &mut Receiver) -> io::Result<usize> {
        match self {
            Room::Buffer(buffer) => buffer.fill(from).await,
            Room::Pipe(splice, bytes_max) => {
                // 3 % less processor time for 100 kB than to wait first.
                if std::mem::take(&mut splice.is_fresh)
                    && let count @ 1.. = splice.take(*bytes_max)?
                {
                    return Ok(count);
                }
                from.readable().await?;
                splice.take(*bytes_max)
            }
        }
    }
}

/// A way from one socket to another, both of which are `NonBlocking`. It has a pipe only while
/// bytes are under way, so that who sends slowly keeps none from others.
#[derive(Debug)]
pub struct Splice<'w> {
    pipes: &'w Pipes,
    pipe: Option<Lent<'w>>,
    source: RawFd,
    target: RawFd,
    /// Whether nothing was read yet: a body's first bytes have just come, and more may be there.
    is_fresh: bool,
}

impl<'w> Splice<'w> {
    /// A way from `source` to `target`.
    #[must_use]
    pub fn new(pipes: &'w Pipes, source: RawFd, target: RawFd) -> Splice<'w> {
        Splice { pipes, pipe: None, source, target, is_fresh: true }
    }

    /// Takes what the source holds, which is readable: `bytes_max` and one pass at most. 0 as
    /// `Room::fill` says.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn take(&mut self, bytes_max: u64) -> io::Result<usize> {
        let Some(mut pipe) = self.pipes.take() else { return Ok(0) };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(PASS_BYTES_MAX);
        match sys::splice_in(self.source, &pipe.writer, bytes_max) {
            Ok(count) => {
                pipe.bytes = count;
                self.pipe = Some(pipe);
                Ok(count)
            }
            Err(error) if is_refusal(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Sends all that was taken.
    ///
    /// # Errors
    /// What the socket reports; the rest stays in the pipe, which is not used again.
    pub async fn send(&mut self, to: &mut Sink<'_>) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        while pipe.bytes > 0 {
            match sys::splice_out(&pipe.reader, self.target, pipe.bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    pipe.bytes -= count;
                    to.count(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    to.deadline.arm(Wait::Write, to.timeout);
                    let ready = to.sender.writable().await;
                    to.deadline.disarm(Wait::Write);
                    ready?;
                }
                Err(error) => return Err(error),
            }
        }
        self.pipe = None;
        Ok(())
    }
}

/// Whether a socket that is readable cannot be spliced from, now or ever, without having failed:
/// urgent data is next, or the kernel or a sandbox does not allow it.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported, WouldBlock};
    matches!(error.kind(), WouldBlock | InvalidInput | PermissionDenied | Unsupported)
}

/// Two sockets whose calls do not wait until this is dropped. On epoll they never do.
#[derive(Debug)]
pub struct NonBlocking([RawFd; 2]);

impl NonBlocking {
    /// Makes calls on these sockets wait for nothing; `Receiver` and `Sender` wait all the same.
    #[must_use]
    pub fn set(sockets: [RawFd; 2]) -> NonBlocking {
        let guard = NonBlocking(sockets);
        guard.tell(true);
        guard
    }

    fn tell(&self, is_nonblocking: bool) {
        if !driver::is_epoll() {
            self.0.iter().for_each(|fd| sys::set_nonblocking(*fd, is_nonblocking));
        }
    }
}

impl Drop for NonBlocking {
    fn drop(&mut self) {
        self.tell(false);
    }
}

/// The most that one pass moves before the worker's other tasks have a turn.
const PASS_BYTES_MAX: usize = 1024 * 1024;
/// From how many bytes still to come a body is spliced, with the processor time of a copy through
/// buffers of 256 KiB: 0.9 of it for a body of 100 kB, 0.46 for 1 MB, 0.3 for 10 MB.
pub const SPLICE_BYTES_MIN: u64 = 64 * 1024;
