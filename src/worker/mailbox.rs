//! How another thread reaches a worker: a bounded queue and a socket pair that wakes its loop.
//!
//! monoio's wakers do not cross threads, so the worker reads the socket pair like any connection.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use monoio::io::{CancelHandle, CancelableAsyncReadRent};
use rustix::io::Errno;

use crate::upstream::endpoint::Slot;
use crate::upstream::snapshot::PoolId;
use crate::worker::handover::Inlet;

/// What a worker can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Take no new connections, complete what is under way, then end.
    Drain,
    /// End now.
    Stop,
    /// Endpoints were removed: the snapshot that still has them is to be let go.
    Heed,
    /// Places on endpoints are free that requests in this worker's queue may take.
    PlacesFreed,
    /// Another worker wants a place on this endpoint: an unused connection to it is to be closed.
    CloseIdle(Slot),
    /// The same for any endpoint of this pool that has no other place left.
    CloseIdleOf(PoolId),
    /// A connection that another worker accepted waits in the inlet.
    TakeOver,
}

/// The senders' side of a worker's mailbox.
#[derive(Debug)]
pub struct Mailbox {
    /// What must not be lost, however many others come; twice is no more than once.
    drain: AtomicBool,
    stop: AtomicBool,
    heed: AtomicBool,
    places_freed: AtomicBool,
    /// Connections that other workers accepted.
    pub inlet: Inlet,
    /// The rest.
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
        let mailbox = Arc::new(Mailbox {
            drain: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            heed: AtomicBool::new(false),
            places_freed: AtomicBool::new(false),
            inlet: Inlet::new(),
            queue,
            woken: AtomicBool::new(false),
            wake,
        });
        Ok((mailbox.clone(), Inbox { mailbox, woken }))
    }

    /// Whether it was told of a free place since the last call.
    #[cfg(test)]
    pub(super) fn take_places_freed(&self) -> bool {
        self.places_freed.swap(false, Ordering::AcqRel)
    }

    /// Puts a message in and wakes the worker; never waits.
    ///
    /// # Errors
    /// A request for an unused connection comes back when too many wait; nothing else does.
    pub fn post(&self, message: Message) -> Result<(), Message> {
        match message {
            Message::Drain => self.drain.store(true, Ordering::Release),
            Message::Stop => self.stop.store(true, Ordering::Release),
            Message::Heed => self.heed.store(true, Ordering::Release),
            Message::PlacesFreed => self.places_freed.store(true, Ordering::Release),
            // The connection itself says so.
            Message::TakeOver => {}
            Message::CloseIdle(_) | Message::CloseIdleOf(_) => self.queue.push(message)?,
        }
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Err(error) = (&self.wake).write_all(&[0])
        {
            tracing::error!(%error, "a worker cannot be woken");
        }
        Ok(())
    }
}

impl Mailbox {
    /// The next message, the most urgent ones first; the others take turns, so that none keeps
    /// those behind it waiting for ever.
    fn take(&self, turn: usize) -> Option<Message> {
        let is_set = |flag: &AtomicBool| flag.swap(false, Ordering::AcqRel);
        if is_set(&self.stop) {
            return Some(Message::Stop);
        }
        if is_set(&self.drain) {
            return Some(Message::Drain);
        }
        if is_set(&self.heed) {
            return Some(Message::Heed);
        }
        (turn..turn + 3).find_map(|turn| match turn % 3 {
            0 => is_set(&self.places_freed).then_some(Message::PlacesFreed),
            1 => (!self.inlet.is_empty()).then_some(Message::TakeOver),
            _ => self.queue.pop(),
        })
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

    /// Hands each message to `on_message` as it comes, until that returns false or `cancel` is used;
    /// lets the worker's other tasks go on after so many.
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
        let mut received = 0;
        // A predecessor may have died between a wake-up and what it was for.
        loop {
            self.mailbox.woken.store(false, Ordering::Release);
            while let Some(message) = self.mailbox.take(received) {
                if !on_message(message) {
                    return Ok(());
                }
                received += 1;
                if received == MESSAGES_AT_ONCE {
                    received = 0;
                    // A timer: a task that wakes itself would keep completions from being seen.
                    monoio::time::sleep(PAUSE).await;
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

/// The most requests for unused connections that wait for one worker.
const MESSAGES_MAX: usize = 1024;
/// After how many messages the loop turns, and how long that takes at least: a timer's tick.
const MESSAGES_AT_ONCE: usize = 256;
const PAUSE: Duration = Duration::from_millis(1);
/// The most wake-ups read at once.
const WAKE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::num::NonZeroU32;
    use std::rc::Rc;
    use std::time::Instant;

    use monoio::io::Canceller;

    use super::*;
    use crate::config::DriverChoice;
    use crate::worker::driver::Runtime;

    #[test]
    fn orders_and_free_places_are_not_lost_among_requests_for_connections() {
        let (mailbox, _inbox) = Mailbox::new().unwrap();
        let ask = Message::CloseIdleOf(PoolId(0));
        let asked = (0..MESSAGES_MAX + 9).filter(|_| mailbox.post(ask).is_ok()).count();
        assert_eq!(asked, MESSAGES_MAX);
        for message in [Message::PlacesFreed, Message::Drain, Message::PlacesFreed, Message::Stop] {
            mailbox.post(message).unwrap();
        }
        let taken: Vec<_> = std::iter::from_fn(|| mailbox.take(0)).take(4).collect();
        assert_eq!(taken, [Message::Stop, Message::Drain, Message::PlacesFreed, ask]);
    }

    #[test]
    fn no_kind_of_message_keeps_the_others_waiting_for_ever() {
        let (mailbox, _inbox) = Mailbox::new().unwrap();
        let ask = Message::CloseIdleOf(PoolId(0));
        let mut taken = Vec::new();
        for turn in 0..4 {
            mailbox.post(Message::PlacesFreed).unwrap();
            mailbox.post(ask).unwrap();
            taken.extend(mailbox.take(turn));
        }
        let freed = Message::PlacesFreed;
        assert_eq!(taken, [freed, ask, ask, freed]);
    }

    #[test]
    fn a_flood_of_messages_starves_no_other_task() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            let (mut runtime, _) = Runtime::build(choice, NonZeroU32::MIN).unwrap();
            let (mailbox, inbox) = Mailbox::new().unwrap();
            let is_over = Rc::new(Cell::new(false));
            mailbox.post(Message::PlacesFreed).unwrap();
            let is_flooding = is_over.clone();
            let deadline = Instant::now() + FLOOD_TIME_MAX;
            // Each message brings the next.
            let on_message = move |message| {
                let is_late = Instant::now() >= deadline;
                mailbox.post(message).is_ok() && !is_flooding.get() && !is_late
            };
            runtime.block_on(async {
                let canceller = Canceller::new();
                let receiving = monoio::spawn(inbox.receive(canceller.handle(), on_message));
                monoio::time::sleep(PAUSE).await;
                is_over.set(true);
                receiving.await.unwrap();
            });
            assert!(Instant::now() < deadline, "the flood had to be ended: {choice:?}");
        }
    }

    const FLOOD_TIME_MAX: Duration = Duration::from_secs(10);
}
