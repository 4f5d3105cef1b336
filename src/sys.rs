//! The only module with unsafe code: calls on file descriptors that another value owns.
//!
//! monoio owns a worker's sockets and offers no shutdown, peek or poll on them. Each call here
//! borrows a descriptor for its own duration; the caller holds the value that keeps it open.

#![expect(unsafe_code, reason = "a raw descriptor is borrowed for one call")]

pub mod ring;

use std::cell::UnsafeCell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};

use monoio::net::TcpStream as MonoioStream;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, SocketFlags};
use rustix::pipe::SpliceFlags;

/// Which directions of a socket are shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A waiting read ends; the socket can still be written.
    Read,
    /// The peer sees the end; the socket can still be read.
    Write,
    /// Waiting reads and writes end.
    Both,
}

/// What a socket holds for a reader, without taking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nothing; the peer is still there.
    Nothing,
    /// Bytes.
    Bytes,
    /// The end, or an error.
    End,
}

/// Shuts down a connection, or ends a listener's `accept`. One that is not connected any more
/// needs no shutdown; any other error can only be a fault of ours, and is logged.
pub fn shutdown(fd: RawFd, side: Side) {
    let how = match side {
        Side::Read => Shutdown::Read,
        Side::Write => Shutdown::Write,
        Side::Both => Shutdown::Both,
    };
    match rustix::net::shutdown(borrow(&fd), how) {
        Ok(()) | Err(Errno::NOTCONN) => {}
        Err(error) => tracing::error!(%error, fd, "a socket cannot be shut down"),
    }
}

/// Resets a connection at once: its peer cannot take what it got for complete, and waiting reads
/// and writes end.
pub fn reset(fd: RawFd) {
    match rustix::net::connect_unspec(borrow(&fd)) {
        Ok(()) | Err(Errno::NOTCONN) => {}
        Err(error) => tracing::error!(%error, fd, "a connection cannot be reset"),
    }
}

/// How many bytes the kernel holds that the peer has not acknowledged; 0 if it does not tell.
#[must_use]
pub fn unacknowledged(fd: RawFd) -> u32 {
    // SAFETY: SIOCOUTQ writes one int.
    let bytes = unsafe {
        let request = rustix::ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new();
        rustix::ioctl::ioctl(borrow(&fd), request)
    };
    bytes.ok().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(0)
}

/// Closes a descriptor whose owner was leaked by a runtime that died, and never runs again.
pub fn close_leaked(fd: RawFd) {
    // SAFETY: the owner is never dropped, so nobody else closes or uses this descriptor.
    unsafe { rustix::io::close(fd) }
}

/// What a connection holds, without waiting.
#[must_use]
pub fn peek(fd: RawFd) -> Pending {
    let mut byte = [0_u8; 1];
    match rustix::net::recv(borrow(&fd), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Pending::End,
        Ok(_) => Pending::Bytes,
        Err(Errno::AGAIN | Errno::INTR) => Pending::Nothing,
        Err(_) => Pending::End,
    }
}

/// Has the processor fetch all of a value at once, which is about to be used here and there; only on
/// x86-64.
///
/// A connection's future is 3 kB, and its slot and its record lie elsewhere. With 2,000 busy clients a
/// request costs 0.95 of what it does where none of them is fetched; with 64 as much.
#[cfg(target_arch = "x86_64")]
pub fn prefetch<T>(value: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let begin = std::ptr::from_ref(value).cast::<i8>();
    let before = begin.addr() % CACHE_LINE_BYTES;
    for offset in (0..before + size_of::<T>()).step_by(CACHE_LINE_BYTES) {
        // SAFETY: it reads nothing that this program could see, and fails on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(begin.wrapping_sub(before).wrapping_add(offset)) };
    }
}

/// Nothing here.
#[cfg(not(target_arch = "x86_64"))]
pub fn prefetch<T>(_value: &T) {}

/// Gives memory that this thread has freed back to the system, which the allocator would keep for
/// its next use.
pub fn release_freed_memory() {
    // SAFETY: it takes no pointer and works on the calling thread's own heap.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// The allocator's version, as in 30302 for 3.3.2.
#[must_use]
pub fn allocator_version() -> u32 {
    // SAFETY: it takes nothing and reads a constant.
    let version = unsafe { libmimalloc_sys::mi_version() };
    u32::try_from(version).unwrap_or(0)
}

/// Whether `accept` on a listener would return at once.
#[must_use]
pub fn is_readable(fd: RawFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(borrow(&fd), PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&NO_WAIT)).is_ok_and(|ready| ready > 0)
}

/// Accepts a connection that waits, non-blocking or not as asked and closed on exec; `None` when
/// nobody waits on a non-blocking listener, or its client has left.
///
/// # Errors
/// As `accept4(2)` has them.
pub fn accept(fd: RawFd, nonblocking: bool) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, nonblocking);
    match rustix::net::acceptfrom_with(borrow(&fd), flags) {
        Ok((socket, Some(addr))) => Ok(Some((socket.into(), addr.try_into()?))),
        Ok((_, None)) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes a socket out of its runtime's hands.
///
/// # Panics
/// Where the runtime has an operation on it.
pub fn release(socket: MonoioStream) -> TcpStream {
    // SAFETY: the value that owned the descriptor has given it away.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}

/// Calls `on_gone` with the position of each connection whose peer has left: it was reset, or
/// closed where `half_close_counts`.
pub fn for_each_gone(fds: &[RawFd], half_close_counts: bool, mut on_gone: impl FnMut(usize)) {
    let asked = if half_close_counts { PollFlags::RDHUP } else { PollFlags::empty() };
    let gone = PollFlags::ERR | PollFlags::HUP | asked;
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(borrow(fd), asked)).collect();
    if rustix::event::poll(&mut polled, Some(&NO_WAIT)).is_ok_and(|ready| ready > 0) {
        for (position, fd) in polled.iter().enumerate() {
            if fd.revents().intersects(gone) {
                on_gone(position);
            }
        }
    }
}

/// Makes a listener drop new connection requests while handshakes under way complete, so that
/// its queue can be emptied before it is shut down and nobody who is connected is reset.
///
/// # Errors
/// When the kernel refuses socket filters.
pub fn refuse_new_connections(listener: &impl AsRawFd) -> io::Result<()> {
    let filter = DROP_SYN.map(|(code, jump_true, jump_false, value)| {
        socket2::SockFilter::new(code, jump_true, jump_false, value)
    });
    let fd = listener.as_raw_fd();
    socket2::SockRef::from(&borrow(&fd)).attach_filter(&filter)
}

/// Makes closing a connection reset it, so that its peer cannot take what it got for complete.
///
/// # Errors
/// When the descriptor is no socket.
pub fn reset_on_close(fd: RawFd) -> io::Result<()> {
    socket2::SockRef::from(&borrow(&fd)).set_linger(Some(std::time::Duration::ZERO))
}

/// Whether something failed for want of descriptors or memory, which others may give back.
#[must_use]
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// Makes calls on a socket wait for nothing, or wait again.
pub fn set_nonblocking(fd: RawFd, is_nonblocking: bool) {
    if let Err(error) = rustix::io::ioctl_fionbio(borrow(&fd), is_nonblocking) {
        tracing::error!(%error, fd, "a socket cannot be made to wait or not to");
    }
}

/// Sets from how many bytes on a socket is readable (SO_RCVLOWAT); 1 is any. The peer's end always
/// counts, and what is already there is signalled if it reaches the new mark.
pub fn set_low_water(fd: RawFd, bytes: i32) {
    // SAFETY: the option is one int, which is read during the call only.
    let result = unsafe {
        let (socket, value) = (borrow(&fd).as_raw_fd(), (&raw const bytes).cast());
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, INT_BYTES)
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::error!(%error, fd, bytes, "a socket's low-water mark cannot be set");
    }
}

/// Moves at most `bytes_max` of what a non-blocking socket holds into a pipe; 0 is its end.
///
/// # Errors
/// `WouldBlock` when it holds nothing or the pipe is full, else what the socket reports.
pub fn splice_in(socket: RawFd, pipe: impl AsFd, bytes_max: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(rustix::pipe::splice(borrow(&socket), None, pipe, None, bytes_max, flags)?)
}

/// Moves at most `bytes_max` of what a pipe holds into a non-blocking socket.
///
/// # Errors
/// `WouldBlock` when the socket takes no more, else what it reports.
pub fn splice_out(pipe: impl AsFd, socket: RawFd, bytes_max: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(rustix::pipe::splice(pipe, None, borrow(&socket), None, bytes_max, flags)?)
}

/// The socket that a half of a connection shares with the other half, which do not offer
/// `readable` and `writable`.
#[must_use]
pub fn socket_of(half: &UnsafeCell<MonoioStream>) -> &MonoioStream {
    // SAFETY: both halves are on this thread, and monoio 0.2.4 borrows the socket mutably only while it
    // makes an operation, which takes the descriptor along; none of the calls made here and there
    // runs inside of another one, and an operation does not look at the socket again.
    unsafe { &*half.get() }
}

fn borrow<'fd>(fd: &'fd RawFd) -> BorrowedFd<'fd> {
    // SAFETY: the callers own, or hold a guard of the value that owns, the open descriptor for
    // the whole call; a deadline's slot is released before its stream is dropped.
    unsafe { BorrowedFd::borrow_raw(*fd) }
}

/// Asks a socket for the bytes in its send queue.
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
/// The size of most options of a socket.
const INT_BYTES: libc::socklen_t = size_of::<i32>() as libc::socklen_t;
#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A classic BPF program over the TCP header: drops a segment with SYN and without ACK, lets all
/// others pass. Each row is (operation, jump if true, jump if false, value).
const DROP_SYN: [(u16, u8, u8, u32); 5] = [
    // Load the byte that holds the flags.
    (0x30, 0, 0, 13),
    // Keep SYN and ACK of it.
    (0x54, 0, 0, 0x12),
    // SYN alone?
    (0x15, 0, 1, 0x02),
    // Then nothing of the segment is taken,
    (0x06, 0, 0, 0),
    // else all of it.
    (0x06, 0, 0, u32::MAX),
];

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    fn pair() -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        (listener, client, server)
    }

    #[test]
    fn peek_tells_nothing_bytes_and_the_end_apart() {
        let (_listener, mut client, server) = pair();
        assert_eq!(peek(server.as_raw_fd()), Pending::Nothing);
        client.write_all(b"x").unwrap();
        assert_eq!(peek(server.as_raw_fd()), Pending::Bytes);
        drop(server);
        assert_eq!(peek(client.as_raw_fd()), Pending::End);
    }

    #[test]
    fn a_socket_below_its_low_water_mark_is_not_readable_unless_it_has_ended() {
        let (_listener, mut client, server) = pair();
        let fd = server.as_raw_fd();
        client.write_all(b"xy").unwrap();
        for (bytes, expected) in [(1, true), (2, true), (3, false), (1, true), (1 << 19, false)] {
            set_low_water(fd, bytes);
            assert_eq!(is_readable(fd), expected, "{bytes}");
        }
        shutdown(client.as_raw_fd(), Side::Write);
        assert!(is_readable(fd));
    }

    #[test]
    fn only_a_reset_counts_as_gone_unless_a_half_close_does() {
        let (_listener, client, server) = pair();
        let fds = [server.as_raw_fd()];
        let gone = |half_close_counts| {
            let mut count = 0;
            for_each_gone(&fds, half_close_counts, |_| count += 1);
            count
        };
        assert_eq!((gone(false), gone(true)), (0, 0));
        shutdown(client.as_raw_fd(), Side::Write);
        assert_eq!((gone(false), gone(true)), (0, 1));
        reset_on_close(client.as_raw_fd()).unwrap();
        drop(client);
        assert_eq!((gone(false), gone(true)), (1, 1));
    }

    #[test]
    fn a_listener_that_refuses_serves_its_queue_and_takes_nobody_new() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut queued = TcpStream::connect(addr).unwrap();
        refuse_new_connections(&listener).unwrap();
        assert!(TcpStream::connect_timeout(&addr, Duration::from_millis(50)).is_err());
        assert!(is_readable(listener.as_raw_fd()));
        let (accepted, _) = listener.accept().unwrap();
        queued.write_all(b"x").unwrap();
        let mut byte = [0; 1];
        std::io::Read::read_exact(&mut &accepted, &mut byte).unwrap();
        assert!(!is_readable(listener.as_raw_fd()));
    }

    #[test]
    fn who_waits_is_accepted_closed_on_exec_and_in_the_mode_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let fd = listener.as_raw_fd();
        for nonblocking in [false, true] {
            assert!(accept(fd, nonblocking).unwrap().is_none());
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, addr) = accept(fd, nonblocking).unwrap().unwrap();
            assert_eq!(addr, client.local_addr().unwrap());
            let socket = socket2::SockRef::from(&accepted);
            assert_eq!(socket.nonblocking().unwrap(), nonblocking);
            let flags = rustix::io::fcntl_getfd(&accepted).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        shutdown(fd, Side::Both);
        assert!(accept(fd, false).is_err(), "a listener that was shut down");
    }

    #[test]
    fn want_of_descriptors_is_told_from_other_failures() {
        for (errno, expected) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOBUFS, true),
            (Errno::NOMEM, true),
            (Errno::CONNREFUSED, false),
            (Errno::HOSTUNREACH, false),
            (Errno::TIMEDOUT, false),
        ] {
            assert_eq!(is_exhaustion(&errno.into()), expected, "{errno:?}");
        }
    }
}
