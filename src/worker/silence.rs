//! Finds the clients that have been silent for a while: their reads are ended, so that they can be
//! parked without a buffer.
//!
//! A read that no byte answers would pin its buffer for as long as the client likes. Two
//! generations of reads take turns: what began in the one before the last is ended. `connection`
//! begins its reads here, the sweep turns. Nothing is lost: an ended read gives its buffer back,
//! with the bytes that came at the same moment, if any did. An end that the ring has no room for is
//! lost: that client keeps its buffer until it speaks.

use std::cell::{Cell, RefCell};
use std::io;

use monoio::io::{CancelHandle, Canceller};
use rustix::io::Errno;

/// The reads for which clients may be silent.
#[derive(Default)]
pub struct Silence {
    generations: [Generation; 2],
    current: Cell<usize>,
    ended: Cell<usize>,
}

/// The reads that began between two turns.
#[derive(Default)]
struct Generation {
    canceller: RefCell<Canceller>,
    reads: Cell<usize>,
}

/// A read that may be ended, until this is dropped.
pub struct Read<'s> {
    generation: &'s Generation,
}

impl Silence {
    /// Counts in a read that begins now.
    pub fn begin(&self) -> Read<'_> {
        let generation = &self.generations[self.current.get()];
        generation.reads.set(generation.reads.get() + 1);
        Read { generation }
    }

    /// Ends the reads that began before the last turn; called once in a while. How many the last
    /// turn has ended, whose memory is free by now.
    pub fn turn(&self) -> usize {
        let next = 1 - self.current.get();
        self.current.set(next);
        let generation = &self.generations[next];
        // A used canceller is replaced, which allocates: not while all clients are busy.
        let reads = generation.reads.get();
        if reads > 0 {
            let canceller = generation.canceller.take();
            generation.canceller.replace(canceller.cancel());
        }
        self.ended.replace(reads)
    }
}

impl Read<'_> {
    /// What the read is started with.
    #[must_use]
    pub fn handle(&self) -> CancelHandle {
        self.generation.canceller.borrow().handle()
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        self.generation.reads.set(self.generation.reads.get() - 1);
    }
}

/// Whether a read was ended because its client was silent.
#[must_use]
pub fn is_ended<T>(read: &io::Result<T>) -> bool {
    read.as_ref().is_err_and(|error| Errno::from_io_error(error) == Some(Errno::CANCELED))
}
