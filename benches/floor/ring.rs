//! A bare ring with corelane's flags and sizes, and the loop that both programs run on it.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, Protocol, Socket, Type};

/// What runs on the ring. Of its connections, it alone knows.
pub(crate) trait Service {
    /// A client has connected.
    fn accepted(&mut self, client: Socket, ring: &mut Ring) -> io::Result<()>;
    /// The operation with this tag has ended; `result` is a count of bytes, or an error's negative
    /// number.
    fn completed(&mut self, tag: u64, result: i32, ring: &mut Ring) -> io::Result<()>;
}

/// The submission side.
pub(crate) struct Ring(IoUring);

impl Ring {
    /// corelane's best ring: `worker/driver.rs` has the same flags and sizes.
    pub(crate) fn new() -> io::Result<Ring> {
        IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(ENTRIES * COMPLETIONS_PER_ENTRY)
            .build(ENTRIES)
            .map(Ring)
    }

    /// Receives into `buf`.
    ///
    /// # Safety
    /// The buffer and the socket stay where they are, and nobody else uses the buffer, until the
    /// operation has ended.
    pub(crate) unsafe fn recv(
        &mut self,
        from: &Socket,
        buf: &mut [u8],
        tag: u64,
    ) -> io::Result<()> {
        let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(types::Fd(from.as_raw_fd()), buf.as_mut_ptr(), len).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry.user_data(tag)) }
    }

    /// Sends of `bytes` what the socket takes.
    ///
    /// # Safety
    /// As for `recv`.
    pub(crate) unsafe fn send(&mut self, to: &Socket, bytes: &[u8], tag: u64) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(to.as_raw_fd()), bytes.as_ptr(), len).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry.user_data(tag)) }
    }

    /// Connects.
    ///
    /// # Safety
    /// The address and the socket stay where they are until the operation has ended.
    pub(crate) unsafe fn connect(
        &mut self,
        socket: &Socket,
        addr: &socket2::SockAddr,
        tag: u64,
    ) -> io::Result<()> {
        let fd = types::Fd(socket.as_raw_fd());
        let entry = opcode::Connect::new(fd, addr.as_ptr().cast(), addr.len()).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry.user_data(tag)) }
    }

    /// Submits, and waits for a completion for `timeout` at most.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let time = types::Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        let args = types::SubmitArgs::new().timespec(&time);
        match self.0.submitter().submit_with_args(1, &args) {
            Err(error) if error.raw_os_error() == Some(ETIME) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            submitted => submitted.map(drop),
        }
    }

    /// What has completed, by tag and result.
    pub(crate) fn completed(&mut self) -> Vec<(u64, i32)> {
        self.0.completion().map(|entry| (entry.user_data(), entry.result())).collect()
    }

    fn accept(&mut self, listener: &Socket) -> io::Result<()> {
        let fd = types::Fd(listener.as_raw_fd());
        let accept = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build();
        // SAFETY: the kernel writes no address, and `serve` keeps the listener.
        unsafe { self.push(accept.user_data(ACCEPT)) }
    }

    /// # Safety
    /// What the entry points to outlives the operation.
    unsafe fn push(&mut self, entry: Entry) -> io::Result<()> {
        // SAFETY: the caller's promise.
        if unsafe { self.0.submission().push(&entry) }.is_err() {
            self.0.submit()?;
            // SAFETY: the caller's promise; the kernel took the first one never.
            unsafe { self.0.submission().push(&entry) }.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Runs `service` for whoever connects, until a signal comes.
pub(crate) fn serve(listener: Socket, mut service: impl Service) -> io::Result<()> {
    let mut ring = Ring::new()?;
    let (mut signal, sender) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGTERM, sender.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGINT, sender)?;
    let poll = opcode::PollAdd::new(types::Fd(signal.as_raw_fd()), POLLIN).build();
    // SAFETY: it points to nothing.
    unsafe { ring.push(poll.user_data(SIGNAL)) }?;
    ring.accept(&listener)?;
    let mut completed = Vec::with_capacity((ENTRIES * COMPLETIONS_PER_ENTRY) as usize);
    loop {
        match ring.0.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        completed.extend(ring.0.completion().map(|entry| (entry.user_data(), entry.result())));
        for (tag, result) in completed.drain(..) {
            match tag {
                SIGNAL => {
                    signal.read_exact(&mut [0])?;
                    return Ok(());
                }
                ACCEPT if result < 0 => return Err(io::Error::from_raw_os_error(-result)),
                ACCEPT => {
                    // SAFETY: accept gave this descriptor to nobody else.
                    let client = unsafe { Socket::from_raw_fd(result) };
                    ring.accept(&listener)?;
                    service.accepted(client, &mut ring)?;
                }
                _ => service.completed(tag, result, &mut ring)?,
            }
        }
    }
}

/// A listening socket with corelane's options; accepted ones inherit TCP_NODELAY.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<Socket> {
    let socket = socket()?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A blocking TCP socket, as a ring wants it.
pub(crate) fn socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Connections by number; a number is free again when its connection was taken out.
pub(crate) struct Table<T> {
    rows: Vec<Option<Box<T>>>,
    free: Vec<usize>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table { rows: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, row: T) -> usize {
        let row = Some(Box::new(row));
        let Some(number) = self.free.pop() else {
            self.rows.push(row);
            return self.rows.len() - 1;
        };
        self.rows[number] = row;
        number
    }

    /// The row of an operation that has ended: it is there until its last one has.
    pub(crate) fn row(&mut self, number: usize) -> &mut T {
        self.rows[number].as_mut().expect("a row outlives its operations")
    }

    pub(crate) fn remove(&mut self, number: usize) {
        self.rows[number] = None;
        self.free.push(number);
    }
}

/// corelane's default `--ring-entries` and its completions for each.
const ENTRIES: u32 = 4096;
const COMPLETIONS_PER_ENTRY: u32 = 4;
const BACKLOG: i32 = 4096;
const POLLIN: u32 = 1;
const ETIME: i32 = 62;
/// Tags that are no connection's.
const ACCEPT: u64 = u64::MAX;
const SIGNAL: u64 = u64::MAX - 1;
