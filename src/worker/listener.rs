//! Accepts connections and starts a task for each; closes without resetting anyone.
//!
//! One task per listening socket: monoio 0.2.4 loses a connection whose accept is cancelled. When
//! its accept completes, whoever else waits is taken along without another turn of the loop. A
//! panic in a connection's task ends that connection alone.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use monoio::net::{TcpListener, TcpStream};

use crate::error::Cause;
use crate::metrics::Counter;
use crate::sys::{self, Side};
use crate::worker::connection::{Conn, Timed};
use crate::worker::deadline::Role;
use crate::worker::driver;
use crate::worker::handover::{Handed, Origin};
use crate::worker::parked;
use crate::worker::peer::{Address, Peer};
use crate::worker::state::Worker;
use crate::worker::stream::Stream;

/// A listening socket, and what is known of all that come through it.
struct Door {
    socket: Rc<TcpListener>,
    /// Its index in the config.
    index: usize,
    /// The address that clients connect to, if it is one: that saves asking each connection.
    local: Option<SocketAddr>,
}

impl Door {
    fn new(socket: Rc<TcpListener>, index: usize) -> Door {
        let local = socket.local_addr().ok().filter(|addr| !addr.ip().is_unspecified());
        Door { socket, index, local }
    }

    fn origin_of(&self, addr: SocketAddr) -> Origin {
        Origin { addr, local: self.local, listener: self.index }
    }
}

/// Makes a listening socket this worker's own.
///
/// # Errors
/// When the descriptor cannot be registered with the driver.
pub fn adopt(socket: StdTcpListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(driver::is_epoll())?;
    // Connections inherit it.
    socket2::SockRef::from(&socket).set_tcp_nodelay(true)?;
    TcpListener::from_std(socket)
}

/// Accepts connections until the worker has drained; `index` is the listener's in the config.
pub async fn accept(worker: Rc<Worker>, socket: Rc<TcpListener>, index: usize) {
    let door = Door::new(socket, index);
    let mut pause = PAUSE_MIN;
    loop {
        if worker.is_stopping() {
            break;
        }
        let accepted = match door.socket.cancelable_accept(worker.cancel_handle()).await {
            Ok((client, addr)) => {
                pause = PAUSE_MIN;
                admit(&worker, client, door.origin_of(addr)).await;
                take_waiting(&worker, &door).await
            }
            Err(error) => Err(error),
        };
        match accepted {
            Ok(()) => {}
            Err(error) if is_end(&error) => break,
            Err(error) if sys::is_exhaustion(&error) && worker.give_up_idle() => {
                tracing::debug!(%error, "unused connections to backends make room");
            }
            Err(error) if sys::is_exhaustion(&error) => {
                worker.lane().add(Counter::AcceptPauses);
                worker.note(Cause::AcceptExhausted, &error);
                monoio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            // That connection alone failed; the pause keeps an unknown error from spinning.
            Err(error) => {
                tracing::debug!(%error, "a connection was lost before it was accepted");
                monoio::time::sleep(PAUSE_MIN).await;
            }
        }
    }
    drop(door);
    worker.listener_ended();
}

/// Accepts who has waited while the last one was accepted: with 2,000 clients that connect at
/// once, each would wait for as many turns of the loop as there are before it. A turn takes as
/// long as there are clients, so that many are accepted in it: those who are open wait for twice as
/// long at most, and those who wait for few turns, however many they are.
async fn take_waiting(worker: &Rc<Worker>, door: &Door) -> io::Result<()> {
    let fd = door.socket.as_raw_fd();
    let clients_open = worker.lane().get(Counter::ClientsOpen);
    for _ in 0..clients_open.clamp(ACCEPTS_MIN, ACCEPTS_MAX) {
        // Nobody else accepts from this socket: what is readable does not block.
        if worker.is_stopping() || !sys::is_readable(fd) {
            break;
        }
        let Some((client, addr)) = sys::accept(fd, driver::is_epoll())? else { break };
        let client = TcpStream::from_std(client)?;
        admit(worker, client, door.origin_of(addr)).await;
    }
    Ok(())
}

/// Takes nobody new, lets `accept` serve whoever has connected, then ends it; for a drain.
pub async fn close(socket: Rc<TcpListener>) {
    if let Err(error) = sys::refuse_new_connections(&*socket) {
        tracing::debug!(%error, "clients that connect right now may be reset");
    }
    // Handshakes under way complete, and the accept task takes what is queued.
    monoio::time::sleep(HANDSHAKE_GRACE).await;
    while sys::is_readable(socket.as_raw_fd()) {
        monoio::time::sleep(DRAIN_POLL).await;
    }
    sys::shutdown(socket.as_raw_fd(), Side::Both);
}

/// Takes a place for a connection and opens it, here or on a worker with fewer.
async fn admit(worker: &Rc<Worker>, client: TcpStream, origin: Origin) {
    wait_for_place(worker, origin.addr).await;
    match worker.steering.passage() {
        Some(passage) => {
            worker.lane().add(Counter::HandedOver);
            passage.send(sys::release(client), origin);
        }
        None => open(worker, client, origin),
    }
}

/// Opens a connection that another worker accepted, if one has come.
pub fn take_over(worker: &Rc<Worker>) {
    let Some(Handed { socket, origin, claim, under_way }) = worker.steering.inlet().take() else {
        return;
    };
    // The other worker's driver may want it otherwise.
    let adopted =
        socket.set_nonblocking(driver::is_epoll()).and_then(|()| TcpStream::from_std(socket));
    match adopted {
        Ok(client) => {
            claim.pass_on();
            open(worker, client, origin);
        }
        Err(error) if sys::is_exhaustion(&error) => worker.note(Cause::AcceptExhausted, &error),
        Err(error) => tracing::debug!(%error, "a connection was lost on its way"),
    }
    drop(under_way);
    worker.end_if_drained();
}

/// Waits until the process may hold one more client connection: this one is accepted, the next
/// ones wait in the kernel's queue.
async fn wait_for_place(worker: &Worker, addr: SocketAddr) {
    if worker.take_place() {
        return;
    }
    worker.lane().add(Counter::AcceptPauses);
    worker.note(Cause::ClientsMax, &addr);
    while !worker.take_place() {
        monoio::time::sleep(PAUSE_MIN).await;
    }
}

/// Starts the task of a new connection, for which a place was taken.
fn open(worker: &Rc<Worker>, client: TcpStream, origin: Origin) {
    let Origin { addr, local, listener } = origin;
    let local = local.map_or_else(|| client.local_addr(), Ok);
    let client = Stream::tcp(client, Role::Client, &worker.deadlines);
    let admission = worker.admit(addr.ip());
    if worker.faults().panic_worker.is_some_and(|number| number.get() == admission.number) {
        panic!("a test asked for this worker's panic");
    }
    let local = match local {
        Ok(local) => local,
        Err(error) => {
            tracing::debug!(%error, "a client left while it was accepted");
            return;
        }
    };
    let peer = Peer::new(Address { client: addr, local, listener }, &worker.config.forward);
    let conn = Conn { client, peer, admission, timed: Timed::anew(true) };
    parked::serve(worker, conn, worker.buffers.take());
}

/// Whether `accept` ended because the socket was shut down, or the worker stops.
fn is_end(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::CANCELED))
}

/// How many connections are accepted beside the one that the loop was woken for, where few are open
/// and where many are, most of which may be idle.
const ACCEPTS_MIN: u64 = 63;
const ACCEPTS_MAX: u64 = 1023;
/// The first and the longest pause after accepting failed.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How often a listener that closes looks whether its queue is empty.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// How long a handshake under way may take to complete when the worker drains.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(100);
