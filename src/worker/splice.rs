//! Bytes from one socket to another through a pipe, without a copy in user space.
//!
//! The ring would hand a splice to the kernel's worker threads, so it is a plain system call that
//! must not wait: both sockets are non-blocking meanwhile, and the ring only says when they are
//! ready. Called by `download`, `upload` and `tunnel`; the first two also wait for many bytes of a
//! sender that is quick.

use std::future::poll_fn;
use std::io;
use std::os::fd::RawFd;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::sys;
use crate::worker::buffer::{Buffer, Sink};
use crate::worker::deadline::Wait;
use crate::worker::driver;
use crate::worker::event::pause;
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
            Room::Pipe(splice, bytes_max) => splice.fill(from, *bytes_max).await,
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
    /// How many bytes the next wait is for, if so many are to come: more than one after a pass that
    /// was large and came in time.
    awaited: i32,
    low_water: LowWater,
}

impl<'w> Splice<'w> {
    /// A way from `source` to `target`.
    #[must_use]
    pub fn new(pipes: &'w Pipes, source: RawFd, target: RawFd) -> Splice<'w> {
        let low_water = LowWater { socket: source, bytes: 1 };
        Splice { pipes, pipe: None, source, target, is_fresh: true, awaited: 1, low_water }
    }

    /// Waits for bytes and takes them, as `Room::fill` says.
    async fn fill(&mut self, from: &Receiver, bytes_max: u64) -> io::Result<usize> {
        // 3 % less processor time for 100 kB than to wait first.
        let is_fresh = std::mem::take(&mut self.is_fresh);
        let mut count = if is_fresh { self.take(bytes_max)? } else { 0 };
        let mut is_in_time = true;
        if count == 0 {
            is_in_time = self.wait(from, bytes_max).await?;
            count = self.take(bytes_max)?;
        }
        let capacity = self.pipe.as_ref().map_or(0, |pipe| pipe.capacity);
        self.awaited = if is_in_time { awaited_after(count, capacity) } else { 1 };
        Ok(count)
    }

    /// Waits for many bytes of a quick sender, or for as many as there are after a moment, else for
    /// any. `false` where the moment was over first.
    async fn wait(&mut self, from: &Receiver, bytes_to_come: u64) -> io::Result<bool> {
        let to_come = i32::try_from(bytes_to_come).unwrap_or(i32::MAX).max(1);
        self.low_water.set(self.awaited.min(to_come));
        let mut readable = pin!(from.readable());
        if self.low_water.bytes == 1 {
            return readable.await.map(|()| true);
        }
        let mut patience = pin!(pause(PATIENCE));
        let in_time = poll_fn(|context| match readable.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => patience.as_mut().poll(context).map(|()| None),
        });
        if let Some(result) = in_time.await {
            return result.map(|()| true);
        }
        // Ends the same wait, if anything is there.
        self.low_water.set(1);
        readable.await.map(|()| false)
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

/// How many bytes are waited for after a pass of `count` through a pipe that holds `capacity`: no more
/// than half of that, since a full pipe leaves bytes behind, which must not wait for others.
fn awaited_after(count: usize, capacity: usize) -> i32 {
    if count < QUICK_BYTES_MIN {
        return 1;
    }
    i32::try_from(capacity / 2).map_or(LOW_WATER_BYTES, |half| half.clamp(1, LOW_WATER_BYTES))
}

/// From how many bytes on a socket is readable; 1 again when this is dropped, since others read
/// from it then. The socket's owner outlives it.
#[derive(Debug)]
struct LowWater {
    socket: RawFd,
    bytes: i32,
}

impl LowWater {
    fn set(&mut self, bytes: i32) {
        if bytes != self.bytes {
            self.bytes = bytes;
            sys::set_low_water(self.socket, bytes);
        }
    }
}

impl Drop for LowWater {
    fn drop(&mut self) {
        self.set(1);
    }
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
/// From how many bytes on a pass shows that the sender is quick: two segments of the largest size
/// that the kernel puts together.
const QUICK_BYTES_MIN: usize = 128 * 1024;
/// For how many bytes a quick sender is waited for: bodies of 1 and 10 MB cost 0.79 and 0.72 of what
/// they do where any byte ends a wait. Of marks for every wait, 512 KiB made it 0.81 and 0.82, and 128
/// KiB 0.93 and 0.86.
///
/// The kernel lets a socket's receive buffer grow so that it holds them, to about twice as much and
/// within `net.ipv4.tcp_rmem`; a smaller one counts as full, and is told of.
const LOW_WATER_BYTES: i32 = 512 * 1024;
/// How long what is there may wait for more to come: 32 senders who share 3 GB/s fill the mark in 6 ms.
const PATIENCE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
