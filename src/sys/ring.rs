//! A ring of monoio's as a second owner sees it: how many operations it has taken and completed, by
//! the memory that it shares with the kernel, and their completion ahead of its turn. monoio offers
//! neither.

#![expect(unsafe_code, reason = "a ring of monoio's is read and entered from outside")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::io_uring::{
    IORING_OFF_SQ_RING, IoringEnterFlags, IoringFeatureFlags, io_uring_enter_arg,
    io_uring_getevents_arg, io_uring_params, io_uring_ptr, io_uring_setup,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A ring, for the thread whose it is.
#[derive(Debug)]
pub struct SharedRing {
    fd: RawFd,
    shared: NonNull<c_void>,
    bytes: usize,
    tails: [usize; 2],
    /// As they were when they were looked at last: they count up from 0 and wrap at 2³².
    seen: [u32; 2],
}

impl SharedRing {
    /// Makes a ring, and finds it among the descriptors; `None` where that fails.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn of_new<T>(make: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Option<SharedRing>)> {
        // One thread at a time, so that the descriptor that appears is the new ring's.
        static MAKING: Mutex<()> = Mutex::new(());
        let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rings();
        let made = make()?;
        let shared = match rings().into_iter().find(|fd| !before.contains(fd)) {
            Some(fd) => SharedRing::map(fd),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = &shared {
            tracing::debug!(%error, "a ring is neither counted nor completed ahead of its turn");
        }
        Ok((made, shared.ok()))
    }

    fn map(fd: RawFd) -> io::Result<SharedRing> {
        let tails = tails()?;
        let bytes = tails[0].max(tails[1]) + size_of::<u32>();
        // SAFETY: `fd` was found open, and nobody closes the ring that its thread has just made.
        let ring = unsafe { BorrowedFd::borrow_raw(fd) };
        let nowhere = std::ptr::null_mut();
        // SAFETY: a mapping of its own, at an address of the kernel's choice.
        let shared = unsafe {
            let flags = MapFlags::SHARED;
            mmap(nowhere, bytes, ProtFlags::READ, flags, ring.as_fd(), IORING_OFF_SQ_RING)?
        };
        let shared = NonNull::new(shared).ok_or(io::ErrorKind::InvalidData)?;
        Ok(SharedRing { fd, shared, bytes, tails, seen: [0; 2] })
    }

    /// Has the kernel complete what is due, `operations_max` at most; never waits.
    pub fn complete_due(&self, operations_max: u32) {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let arg = io_uring_getevents_arg {
            ts: io_uring_ptr::new((&raw const at_once).cast_mut().cast()),
            ..io_uring_getevents_arg::default()
        };
        // SAFETY: the ring is this thread's and open as long as this value is; the kernel completes
        // operations as it does whenever their runtime asks it to, and reads `at_once` meanwhile.
        let entered = unsafe {
            let ring = BorrowedFd::borrow_raw(self.fd);
            let flags = IoringEnterFlags::GETEVENTS | IoringEnterFlags::EXT_ARG;
            io_uring_enter_arg(ring, 0, operations_max, flags, Some(&arg))
        };
        match entered {
            Ok(_) | Err(Errno::TIME | Errno::INTR) => {}
            Err(error) => tracing::debug!(%error, "a ring completes nothing ahead of its turn"),
        }
    }

    /// How many operations the ring was given, and how many it has completed, since the last call.
    pub fn take(&mut self) -> (u64, u64) {
        let [submitted, completed] = [0, 1].map(|which| {
            // SAFETY: within the mapping, aligned as the kernel's own `u32`, and only ever written
            // as a whole, by the kernel or by the ring's thread.
            let tail =
                unsafe { self.shared.byte_add(self.tails[which]).cast::<AtomicU32>().as_ref() };
            let tail = tail.load(Ordering::Relaxed);
            u64::from(tail.wrapping_sub(std::mem::replace(&mut self.seen[which], tail)))
        });
        (submitted, completed)
    }
}

impl Drop for SharedRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and no reference into it is left.
        if let Err(error) = unsafe { munmap(self.shared.as_ptr(), self.bytes) } {
            tracing::error!(%error, "a ring's memory cannot be let go");
        }
    }
}

/// Where in a ring's memory the tails of its two queues lie: the same place for every ring of a
/// kernel, so a small one is asked.
fn tails() -> io::Result<[usize; 2]> {
    let mut params = io_uring_params::default();
    // SAFETY: the parameters ask for nothing that needs memory of ours.
    let _ring = unsafe { io_uring_setup(1, &mut params)? };
    if !params.features.contains(IoringFeatureFlags::SINGLE_MMAP) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok([params.sq_off.tail, params.cq_off.tail].map(|offset| offset as usize))
}

/// The descriptors of this process that are rings.
fn rings() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let fd_of = |path: &Path| path.file_name()?.to_str()?.parse().ok();
    let is_ring = |path: &Path| std::fs::read_link(path).is_ok_and(|to| to == Path::new(RING_LINK));
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| is_ring(path)).filter_map(|path| fd_of(&path)).collect()
}

/// What the kernel calls a ring's descriptor.
const RING_LINK: &str = "anon_inode:[io_uring]";

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_ring_takes_and_completes_is_counted() {
        let made = SharedRing::of_new(|| io_uring::IoUring::new(8));
        let Ok((mut ring, counts)) = made else { return };
        let mut counts = counts.unwrap();
        assert_eq!(counts.take(), (0, 0));
        for _ in 0..3 {
            let nothing = io_uring::opcode::Nop::new().build();
            // SAFETY: the operation has no memory.
            unsafe { ring.submission().push(&nothing).unwrap() };
            ring.submit_and_wait(1).unwrap();
            assert_eq!(ring.completion().count(), 1);
        }
        assert_eq!(counts.take(), (3, 3));
        assert_eq!(counts.take(), (0, 0));
    }

    #[test]
    fn what_is_due_is_completed_at_once_however_much_it_is() {
        const POLLS: u64 = 200;
        let make = || {
            let mut ring: io_uring::Builder = io_uring::IoUring::builder();
            ring.setup_single_issuer().setup_defer_taskrun().build(256)
        };
        let Ok((mut ring, shared)) = SharedRing::of_new(make) else { return };
        let mut shared = shared.unwrap();
        let pairs: Vec<_> = (0..POLLS).map(|_| UnixStream::pair().unwrap()).collect();
        for (reader, _) in &pairs {
            let fd = io_uring::types::Fd(reader.as_raw_fd());
            let poll = io_uring::opcode::PollAdd::new(fd, POLL_IN).build();
            // SAFETY: the operation has no memory, and its socket outlives the ring's use of it.
            unsafe { ring.submission().push(&poll).unwrap() };
        }
        ring.submit().unwrap();
        for (_, writer) in &pairs {
            (&*writer).write_all(b"x").unwrap();
        }
        assert_eq!(shared.take(), (POLLS, 0));
        shared.complete_due(4096);
        assert_eq!(shared.take(), (0, POLLS));
    }

    const POLL_IN: u32 = 1;
}
