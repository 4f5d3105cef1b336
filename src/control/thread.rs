//! The one thread of the control plane: its runtime, its end on request, and its death by a panic.
//!
//! It does nothing itself but run one future to its end. Nothing on the data plane waits for it:
//! if it dies, the workers go on with the last snapshot.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::error::StartError;
use crate::panic::message_of;

/// A running thread; dropping it asks the thread to end without waiting.
#[derive(Debug)]
pub(super) struct Thread {
    handle: JoinHandle<()>,
    runtime: Handle,
    stop: oneshot::Sender<()>,
    ended: Receiver<Infallible>,
}

impl Thread {
    /// The runtime of such a thread.
    pub(super) fn runtime() -> Result<Runtime, StartError> {
        Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOKUPS_MAX)
            .build()
            .map_err(|error| StartError::Resource("the control thread's runtime", error))
    }

    /// Starts the thread on this work, which a task of the runtime may belong to already.
    pub(super) fn spawn(
        runtime: Runtime,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Thread, StartError> {
        let (stop, stopped) = oneshot::channel();
        let (alive, ended) = crossbeam::channel::bounded(0);
        let tasks = runtime.handle().clone();
        let handle = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || run(runtime, work, stopped, alive))
            .map_err(|error| StartError::Resource("the control thread", error))?;
        Ok(Thread { handle, runtime: tasks, stop, ended })
    }

    /// Runs a task beside the work, on the same thread; it is dropped when the work ends, and its
    /// panic ends nothing else.
    pub(super) fn spawn_beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Disconnected once the work has ended, for whatever reason; it never gives a message.
    pub(super) fn ended(&self) -> &Receiver<Infallible> {
        &self.ended
    }

    /// Whether the work still runs.
    pub(super) fn is_alive(&self) -> bool {
        self.ended.try_recv() == Err(crossbeam::channel::TryRecvError::Empty)
    }

    /// Asks the thread to end and waits for that, at most `STOP_TIMEOUT`.
    pub(super) fn stop(self) {
        if self.stop.send(()).is_err() {
            tracing::debug!("{NAME} had ended before it was asked to");
        }
        match self.ended.recv_timeout(STOP_TIMEOUT) {
            Ok(never) => match never {},
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("{NAME} has not ended within {STOP_TIMEOUT:?}; it is left behind");
            }
            Err(RecvTimeoutError::Disconnected) => {
                if self.handle.join().is_err() {
                    tracing::error!("{NAME} panicked while it ended");
                }
            }
        }
    }
}

/// The thread's body. `alive` is dropped last, when only the thread's own end is left.
fn run(
    runtime: Runtime,
    work: impl Future<Output = ()>,
    stopped: oneshot::Receiver<()>,
    alive: Sender<Infallible>,
) {
    let until_stopped = async {
        tokio::select! {
            // An error means that whoever could ask is gone, which asks as well.
            _ = stopped => true,
            () = work => false,
        }
    };
    match catch_unwind(AssertUnwindSafe(|| runtime.block_on(until_stopped))) {
        Ok(true) => tracing::debug!("{NAME} ends"),
        Ok(false) => tracing::error!("{NAME} ran out of work: backends are no longer checked"),
        Err(panic) => tracing::error!(
            panic = message_of(panic.as_ref()),
            "{NAME} panicked: backends are no longer checked, the last known ones stay in use"
        ),
    }
    // Without waiting for a lookup that hangs in the C library.
    runtime.shutdown_background();
    drop(alive);
}

/// The thread's name; the kernel shows its first 15 bytes.
const NAME: &str = "corelane-control";
/// Names that are looked up at the same time, each on a thread of its own.
const LOOKUPS_MAX: usize = 256;
/// How long `stop` waits.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Far more than any thread here needs to end.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Result<Thread, StartError> {
        Thread::spawn(Thread::runtime()?, work)
    }

    #[test]
    fn a_panic_ends_the_thread_and_shows() {
        let thread = spawn(async { panic!("provoked by a test") }).unwrap();
        let ended = thread.ended().recv_timeout(PATIENCE);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
        assert!(!thread.is_alive());
        thread.stop();
    }

    #[test]
    fn a_blocking_lookup_that_hangs_does_not_hold_up_the_end() {
        let (begun, has_begun) = crossbeam::channel::bounded(1);
        let work = async move {
            let lookup = tokio::task::spawn_blocking(move || {
                begun.send(()).unwrap();
                std::thread::park_timeout(PATIENCE * 2);
            });
            lookup.await.unwrap();
        };
        let thread = spawn(work).unwrap();
        has_begun.recv_timeout(PATIENCE).unwrap();
        assert!(thread.is_alive());
        let started = Instant::now();
        thread.stop();
        assert!(started.elapsed() < PATIENCE);
    }

    #[test]
    fn work_that_never_yields_is_left_behind() {
        let (release, released) = crossbeam::channel::bounded::<()>(0);
        let work = async move { assert!(released.recv_timeout(PATIENCE * 2).is_err()) };
        let thread = spawn(work).unwrap();
        let started = Instant::now();
        thread.stop();
        assert!(started.elapsed() < PATIENCE);
        drop(release);
    }

    #[test]
    fn dropping_it_ends_the_thread() {
        let thread = spawn(std::future::pending()).unwrap();
        let ended = thread.ended().clone();
        drop(thread);
        assert_eq!(ended.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }
}
