//! How another thread reaches a worker: a bounded queue and a socket pair that wakes its loop.
//!
//! monoio's wakers do not cross threads, so the worker reads the socket pair like any connection.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use monoio::io::{CancelHandle, CancelableAsyncReadRent};
use rustix::io::Errno;

use crate::upstream::endpoint::Slot;
use crate::upstream::snapshot::PoolId;

/// What a worker can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Take no new connections, complete what is under way, then end.
    Drain,
    /// End now.
    Stop,
    /// A place on an endpoint is free that a request in this worker's queue may take.
    PlaceFreed,
    /// Another worker wants a place on this endpoint: an unused connection to it is to be closed.
    CloseIdle(Slot),
    /// The same for any endpoint of this pool that has no other place left.
    CloseIdleOf(PoolId),
}

/// The senders' side of a worker's mailbox.
#[derive(Debug)]
pub struct Mailbox {
    queue: ArrayQueue<Message>,
    /// A byte is on its way to the worker that it has not read.
    woken: AtomicBool,
    wake: UnixStream,
}

/// The worker's side of its mailbox.
#[derive(Debug)]
pub struct Inbox {
    mailbox: Arc<Mailbox>,
    woken: UnixStream,
}

impl Mailbox {
    /// Both sides of a mailbox.
    ///
    /// # Errors
    /// When no socket pair can be had.
    pub fn new() -> io::Result<(Arc<Mailbox>, Inbox)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let queue = ArrayQueue::new(MESSAGES_MAX);
        let mailbox = Arc::new(Mailbox { queue, woken: AtomicBool::new(false), wake });
        Ok((mailbox.clone(), Inbox { mailbox, woken }))
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Puts a message in and wakes the worker; never waits.
    ///
    /// # Errors
    /// The message comes back when the mailbox is full.
    pub fn post(&self, message: Message) -> Result<(), Message> {
        self.queue.push(message)?;
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Err(error) = (&self.wake).write_all(&[0])
        {
            tracing::error!(%error, "a worker cannot be woken");
        }
        Ok(())
    }
}

impl Inbox {
    /// A second handle, for the worker that takes over from one that died.
    ///
    /// # Errors
    /// When no descriptor can be had.
    pub fn try_clone(&self) -> io::Result<Inbox> {
        Ok(Inbox { mailbox: self.mailbox.clone(), woken: self.woken.try_clone()? })
    }

    /// Hands each message to `on_message` as it comes, until that returns false or `cancel` is used.
    ///
    /// # Errors
    /// When the socket pair fails; nothing can reach this worker any more then.
    pub async fn receive(
        self,
        cancel: CancelHandle,
        mut on_message: impl FnMut(Message) -> bool,
    ) -> io::Result<()> {
        self.woken.set_nonblocking(crate::worker::driver::is_epoll())?;
        let mut woken = monoio::net::UnixStream::from_std(self.woken)?;
        let mut buf = vec![0_u8; WAKE_BYTES];
        // A predecessor may have died between a wake-up and what it was for.
        loop {
            self.mailbox.woken.store(false, Ordering::Release);
            while let Some(message) = self.mailbox.queue.pop() {
                if !on_message(message) {
                    return Ok(());
                }
            }
            let (result, bytes) = woken.cancelable_read(buf, cancel.clone()).await;
            buf = bytes;
            match result {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::CANCELED) => {
                    return Ok(());
                }
                result => result?,
            };
        }
    }
}

/// The most messages that wait for one worker.
const MESSAGES_MAX: usize = 1024;
/// The most wake-ups read at once.
const WAKE_BYTES: usize = 64;
