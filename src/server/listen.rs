//! The listening sockets: one for each worker and address, and nobody else's beside them.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ListenerConfig;
use crate::error::StartError;

/// A listening socket for each worker, all on one address.
pub(super) fn listen(
    listener: &ListenerConfig,
    workers: usize,
) -> Result<Vec<TcpListener>, StartError> {
    let wanted = listener.addr;
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::AddressInUse(wanted),
        _ => StartError::Listen(wanted, error),
    };
    if wanted.port() != 0 && !listener.shared {
        refuse_if_taken(wanted).map_err(failed)?;
    }
    let mut addr = wanted;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = bind(addr, true).map_err(failed)?;
        let backlog = i32::try_from(listener.backlog.get()).unwrap_or(i32::MAX);
        socket.listen(backlog).map_err(failed)?;
        let socket = TcpListener::from(socket);
        // The first took a free port; the others share it.
        addr = local_addr(&socket, wanted)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Binds and listens without SO_REUSEPORT, which fails where any other process listens. The
/// kernel takes a moment to tear down the rings, and with them the sockets, of a process that
/// was killed, so this is tried for a while.
#[expect(clippy::disallowed_methods, reason = "no worker runs yet")]
fn refuse_if_taken(addr: SocketAddr) -> std::io::Result<()> {
    let deadline = Instant::now() + ADDRESS_WAIT;
    loop {
        match bind(addr, false).and_then(|socket| socket.listen(1)) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline =>
            {
                std::thread::sleep(ADDRESS_POLL);
            }
            tried => return tried,
        }
    }
}

/// Without `TCP_DEFER_ACCEPT`, which keeps a client in the kernel until its first bytes are there:
/// one that has said nothing when the listener closes would be reset by its first request, where a
/// drain ends it cleanly now, and neither the header timeout nor the limits of connections would
/// know of it. With `Connection: close` and 64 clients it made no difference that could be measured.
fn bind(addr: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Where a listening socket is bound.
pub(super) fn local_addr(
    socket: &TcpListener,
    wanted: SocketAddr,
) -> Result<SocketAddr, StartError> {
    socket.local_addr().map_err(|error| StartError::Listen(wanted, error))
}

/// How long a listening address may be in use, and how often it is tried meanwhile.
const ADDRESS_WAIT: Duration = Duration::from_secs(1);
const ADDRESS_POLL: Duration = Duration::from_millis(10);
