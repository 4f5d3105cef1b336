//! Builds a worker's runtime: io_uring with the best ring flags that the kernel takes, else epoll.
//!
//! Called on the worker's own thread, since a ring with SINGLE_ISSUER belongs to the thread that
//! made it.

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroU32;

use io_uring::opcode;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::clock;
use crate::config::DriverChoice;
use crate::error::StartError;
use crate::metrics::{Counter, Lane};
use crate::sys::ring::SharedRing;

/// A worker's runtime.
pub enum Runtime {
    /// On io_uring.
    Uring(Box<monoio::Runtime<TimeDriver<IoUringDriver>>>),
    /// On epoll.
    Epoll(Box<monoio::Runtime<TimeDriver<LegacyDriver>>>),
}

impl Drop for Runtime {
    /// Lets go of the ring's memory before the runtime is dropped: as long as that is mapped, the
    /// kernel does not end the ring, whose operations write into buffers that the runtime frees.
    fn drop(&mut self) {
        RING.set(None);
    }
}

impl Runtime {
    /// The runtime that `choice` allows, and its name for the log.
    ///
    /// # Errors
    /// When nothing that `choice` allows works here.
    pub fn build(
        choice: DriverChoice,
        ring_entries: NonZeroU32,
    ) -> Result<(Runtime, &'static str), StartError> {
        if choice == DriverChoice::Epoll {
            return epoll();
        }
        let mut refusal = io::Error::from(io::ErrorKind::Unsupported);
        for (name, flags) in RING_FLAGS {
            match SharedRing::of_new(|| on_ring(flags, ring_entries)) {
                Ok((runtime, ring)) => {
                    IS_EPOLL.set(false);
                    RING.set(ring);
                    clock::set_holds(true);
                    return Ok((Runtime::Uring(Box::new(runtime)), name));
                }
                Err(error) => refusal = error,
            }
        }
        if choice == DriverChoice::Auto {
            tracing::warn!(reason = advice(&refusal), "io_uring is not available; using epoll");
            return epoll();
        }
        Err(StartError::Driver(advice(&refusal)))
    }

    /// Runs `future` and all that it spawns on this thread.
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match self {
            Runtime::Uring(runtime) => runtime.block_on(future),
            Runtime::Epoll(runtime) => runtime.block_on(future),
        }
    }
}

/// Whether this thread's runtime is on epoll, which wants non-blocking sockets; io_uring wants
/// blocking ones.
#[must_use]
pub fn is_epoll() -> bool {
    IS_EPOLL.get()
}

/// Has this thread's ring complete what is due, ahead of its turn; nothing on epoll.
pub fn complete_due() {
    RING.with_borrow(|ring| {
        if let Some(ring) = ring {
            ring.complete_due(COMPLETE_MAX);
        }
    });
}

/// Counts what this thread's ring has taken and completed since the last call; nothing on epoll.
pub fn count_operations(lane: &Lane) {
    RING.with_borrow_mut(|ring| {
        if let Some((submissions, completions)) = ring.as_mut().map(SharedRing::take) {
            lane.add_many(Counter::RingSubmissions, submissions);
            lane.add_many(Counter::RingCompletions, completions);
        }
    });
}

fn on_ring(
    flags: SetFlags,
    ring_entries: NonZeroU32,
) -> io::Result<monoio::Runtime<TimeDriver<IoUringDriver>>> {
    let mut ring = io_uring::IoUring::builder();
    flags(&mut ring);
    ring.setup_cqsize(ring_entries.get().saturating_mul(COMPLETIONS_PER_ENTRY));
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(ring_entries.get())
        .uring_builder(ring)
        .enable_timer()
        .build()
}

/// What came of the attempt to get one kind of ring.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The ring's name, as in the log.
    pub name: &'static str,
    /// Why it cannot be had.
    pub refusal: Option<Refusal>,
}

/// Why a ring cannot be had.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What the kernel said.
    pub reason: String,
    /// What an operator can do about it.
    pub advice: String,
}

/// Tries each kind of ring as [`Runtime::build`] would, the best first, and gives each back. For a
/// thread that has no ring.
#[must_use]
pub fn attempts(ring_entries: NonZeroU32) -> Vec<Attempt> {
    let attempt = |(name, flags): (&'static str, SetFlags)| {
        let refusal = SharedRing::of_new(|| on_ring(flags, ring_entries)).err();
        let refusal =
            refusal.map(|error| Refusal { reason: error.to_string(), advice: advice(&error) });
        Attempt { name, refusal }
    };
    RING_FLAGS.into_iter().map(attempt).collect()
}

/// The operations that workers put on a ring and this kernel does not have.
///
/// # Errors
/// When no ring can be had to ask.
pub fn missing_operations() -> io::Result<Vec<&'static str>> {
    let (ring, _counts) = SharedRing::of_new(|| io_uring::IoUring::new(PROBE_ENTRIES))?;
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let missing = OPERATIONS.iter().filter(|(_, code)| !probe.is_supported(*code));
    Ok(missing.map(|(name, _)| *name).collect())
}

fn epoll() -> Result<(Runtime, &'static str), StartError> {
    let runtime =
        RuntimeBuilder::<LegacyDriver>::new().enable_timer().build().map_err(|error| {
            StartError::Driver(format!("epoll is not available: {error}; check ulimit -n"))
        })?;
    IS_EPOLL.set(true);
    RING.set(None);
    // There a poll goes on for as long as sockets are ready, a whole body perhaps.
    clock::set_holds(false);
    Ok((Runtime::Epoll(Box::new(runtime)), "epoll"))
}

/// What an operator can do about a ring that the kernel refused.
fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "io_uring is disabled: sysctl -w kernel.io_uring_disabled=0, or allow it in the \
             container's seccomp profile, or --driver epoll"
                .to_owned()
        }
        io::ErrorKind::OutOfMemory => {
            "io_uring got no memory: raise ulimit -l, lower --ring-entries, or --driver epoll"
                .to_owned()
        }
        _ => format!("io_uring cannot be used: {error}; check the kernel, or --driver epoll"),
    }
}

thread_local! {
    static IS_EPOLL: Cell<bool> = const { Cell::new(false) };
    static RING: RefCell<Option<SharedRing>> = const { RefCell::new(None) };
}

type SetFlags = fn(&mut io_uring::Builder);

/// The ring flags to try in turn. With one issuer and deferred task work, completions are handled
/// when the worker asks for them instead of interrupting it: 2 to 10 % less processor time per
/// request than a plain ring. The first needs Linux 6.1, the second 5.19.
const RING_FLAGS: [(&str, SetFlags); 3] = [
    ("io_uring (single issuer, deferred task work)", |ring| {
        ring.setup_single_issuer().setup_defer_taskrun();
    }),
    ("io_uring (cooperative task work)", |ring| {
        ring.setup_coop_taskrun();
    }),
    ("io_uring", |_ring| {}),
];

/// The size of the completion queue against the submission queue's: monoio 0.2.4 handles an
/// overflowing one badly.
pub const COMPLETIONS_PER_ENTRY: u32 = 4;

/// What monoio puts on the ring for what a worker does.
const OPERATIONS: [(&str, u8); 7] = [
    ("IORING_OP_POLL_ADD", opcode::PollAdd::CODE),
    ("IORING_OP_CONNECT", opcode::Connect::CODE),
    ("IORING_OP_RECV", opcode::Recv::CODE),
    ("IORING_OP_SEND", opcode::Send::CODE),
    ("IORING_OP_WRITEV", opcode::Writev::CODE),
    ("IORING_OP_ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ("IORING_OP_TIMEOUT", opcode::Timeout::CODE),
];

/// The most that are completed at once ahead of their turn.
const COMPLETE_MAX: u32 = 4096;
/// The ring that is asked for its operations needs no more entries.
const PROBE_ENTRIES: u32 = 2;
