//! Bytes from one socket to another through a pipe, without a copy in user space.
//!
//! The ring would hand a splice to the kernel's worker threads, so it is a plain system call that
//! must not wait: both sockets are made non-blocking meanwhile, and the ring only says when they
//! are ready. No read or write of the ring's may be under way on them. Called by `download`.

use std::io;
use std::os::fd::RawFd;

use crate::sys;
use crate::worker::buffer::Sink;
use crate::worker::deadline::Wait;
use crate::worker::driver;
use crate::worker::pipes::{Lent, Pipes};

/// A way from one socket to another.
#[derive(Debug)]
pub struct Splice<'w> {
    pipe: Lent<'w>,
    source: NonBlocking,
    target: NonBlocking,
}

impl<'w> Splice<'w> {
    /// A way from `source` to `target`, unless there is no pipe.
    pub fn open(pipes: &'w Pipes, source: RawFd, target: RawFd) -> Option<Splice<'w>> {
        let pipe = pipes.take()?;
        let [source, target] = [source, target].map(NonBlocking::set);
        Some(Splice { pipe, source, target })
    }

    /// Takes what the source holds, once it is readable and all that was taken before is sent;
    /// at most `bytes_max`, and never more than one pass may move. 0 says that the peer has ended,
    /// or that these bytes must be read in another way, as `is_refused` says of errors.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn take(&mut self, bytes_max: u64) -> io::Result<usize> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(PASS_BYTES_MAX);
        match sys::splice_in(self.source.fd, &self.pipe.writer, bytes_max) {
            Ok(count) => {
                self.pipe.bytes += count;
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
        while self.pipe.bytes > 0 {
            match sys::splice_out(&self.pipe.reader, self.target.fd, self.pipe.bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.pipe.bytes -= count;
                    to.sent += count;
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
        Ok(())
    }
}

/// Whether a socket that is readable cannot be spliced from, now or ever, without having failed:
/// urgent data is next, or the kernel or a sandbox does not allow it.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported, WouldBlock};
    matches!(error.kind(), WouldBlock | InvalidInput | PermissionDenied | Unsupported)
}

/// A socket whose calls do not wait, until this is dropped. On epoll they never do.
#[derive(Debug)]
struct NonBlocking {
    fd: RawFd,
}

impl NonBlocking {
    fn set(fd: RawFd) -> NonBlocking {
        if !driver::is_epoll() {
            sys::set_nonblocking(fd, true);
        }
        NonBlocking { fd }
    }
}

impl Drop for NonBlocking {
    fn drop(&mut self) {
        if !driver::is_epoll() {
            sys::set_nonblocking(self.fd, false);
        }
    }
}

/// The most that one pass moves before the worker's other tasks have a turn.
const PASS_BYTES_MAX: usize = 1024 * 1024;
/// From how many bytes still to come a body is spliced.
pub const SPLICE_BYTES_MIN: u64 = 64 * 1024;
