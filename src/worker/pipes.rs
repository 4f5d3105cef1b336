//! A worker's store of pipes, through which bytes pass from one socket to another uncopied.
//!
//! Hands out a pipe that is empty, and closes one that comes back with bytes in it: they would
//! become part of somebody else's message. Called by `splice`.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::clock;

/// The pipes of a worker: as many as were needed at once, up to a limit.
#[derive(Debug, Default)]
pub struct Pipes {
    unused: RefCell<Vec<Pipe>>,
    in_use: Cell<usize>,
    /// When one could not be had.
    refused: Cell<Option<Instant>>,
}

/// A pipe, and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    /// Where bytes go in.
    pub writer: OwnedFd,
    /// Where they come out.
    pub reader: OwnedFd,
    /// How many are in it,
    pub bytes: usize,
    /// and may be.
    pub capacity: usize,
}

/// A pipe in use.
#[derive(Debug)]
pub struct Lent<'w> {
    pipes: &'w Pipes,
    pipe: Option<Pipe>,
}

impl Pipes {
    /// An empty pipe, unless too many are in use or none can be had.
    pub fn take(&self) -> Option<Lent<'_>> {
        let is_refused = self.refused.get().is_some_and(|at| clock::now() < at + REFUSAL);
        if self.in_use.get() == PIPES_MAX || is_refused {
            return None;
        }
        let unused = self.unused.borrow_mut().pop();
        let pipe = match unused.map_or_else(Pipe::new, Ok) {
            Ok(pipe) => pipe,
            Err(error) => {
                tracing::debug!(%error, "there is no pipe: bodies are copied");
                self.refused.set(Some(clock::now()));
                return None;
            }
        };
        self.in_use.set(self.in_use.get() + 1);
        Some(Lent { pipes: self, pipe: Some(pipe) })
    }

    /// Closes the unused pipes, since descriptors are wanted. Whether there were any.
    pub fn give_up(&self) -> bool {
        !self.unused.take().is_empty()
    }
}

impl Pipe {
    fn new() -> Result<Pipe, Errno> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Who has many large ones already is refused, and may get ones that hold next to nothing.
        let capacity =
            fcntl_setpipe_size(&writer, PIPE_BYTES).or_else(|_| fcntl_getpipe_size(&writer))?;
        if capacity < PIPE_BYTES_MIN {
            return Err(Errno::NOBUFS);
        }
        Ok(Pipe { writer, reader, bytes: 0, capacity })
    }
}

impl std::ops::Deref for Lent<'_> {
    type Target = Pipe;
    fn deref(&self) -> &Pipe {
        self.pipe.as_ref().expect("it is taken on drop only")
    }
}

impl std::ops::DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Pipe {
        self.pipe.as_mut().expect("it is taken on drop only")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pipes.in_use.set(self.pipes.in_use.get() - 1);
        let empty = self.pipe.take().filter(|pipe| pipe.bytes == 0);
        self.pipes.unused.borrow_mut().extend(empty);
    }
}

/// The size of a pipe. With 256 KiB, a body of 1 MB costs 1.19 of the processor time. An
/// unprivileged user has 64 of this size by default (`/proc/sys/fs/pipe-user-pages-soft`).
const PIPE_BYTES: usize = 1024 * 1024;
/// A smaller one moves less at once than a copy through a buffer.
const PIPE_BYTES_MIN: usize = 64 * 1024;
/// How long no pipe is asked for after one could not be had.
const REFUSAL: Duration = Duration::from_secs(1);
/// The most pipes that a worker has, with two descriptors each.
const PIPES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pipe_is_used_again_and_one_with_bytes_in_it_is_not() {
        let pipes = Pipes::default();
        drop(pipes.take().unwrap());
        assert_eq!(pipes.unused.borrow().len(), 1);
        let mut pipe = pipes.take().unwrap();
        pipe.bytes = 1;
        drop(pipe);
        assert_eq!((pipes.unused.borrow().len(), pipes.in_use.get()), (0, 0));
        assert!(!pipes.give_up());
    }

    #[test]
    fn no_more_than_the_limit_are_in_use() {
        let pipes = Pipes::default();
        let taken: Vec<_> = (0..PIPES_MAX).map(|_| pipes.take().unwrap()).collect();
        assert!(pipes.take().is_none());
        drop(taken);
        assert_eq!(pipes.unused.borrow().len(), PIPES_MAX);
        assert!(pipes.give_up() && pipes.take().is_some());
    }
}
