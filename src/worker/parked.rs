//! A connection's task: the one that serves it, and the small one that waits for its next request
//! while its client is silent.
//!
//! A parked client has no buffer and none of the state of an exchange: 0.6 kB instead of 20.
//! Called by `listener` for each connection. A panic in a task ends that connection alone.

use std::rc::Rc;

use monoio::net::TcpStream;

use crate::error::Cause;
use crate::panic::contained;
use crate::worker::buffer::Buffer;
use crate::worker::connection::{self, Conn};
use crate::worker::deadline::Deadline;
use crate::worker::peer::{Address, Peer};
use crate::worker::state::{Admission, Worker};
use crate::worker::stream::Stream;

/// A client that is silent.
struct Parked {
    // Declared first, so that its slot is released before the socket is closed.
    deadline: Deadline,
    socket: TcpStream,
    address: Address,
    admission: Admission,
    is_first: bool,
}

/// Starts to serve a client, of which `prefix` was read before.
pub fn serve(worker: &Rc<Worker>, conn: Conn, prefix: Buffer) {
    let worker = worker.clone();
    monoio::spawn(async move {
        let addr = conn.peer.address.client;
        match contained(connection::serve(&worker, conn, prefix)).await {
            Ok(Some(silent)) => park(worker, silent),
            Ok(None) => {}
            Err(panic) => worker.note(Cause::Internal, &format_args!("{addr}: {panic}")),
        }
    });
}

/// Waits until the client sends something, or its connection ends, and serves it again.
fn park(worker: Rc<Worker>, conn: Conn) {
    let Conn { client, peer, admission, is_first } = conn;
    let Some((deadline, socket)) = client.into_parts() else { return };
    let parked = Parked { deadline, socket, address: peer.address, admission, is_first };
    monoio::spawn(async move {
        if let Err(error) = parked.socket.readable(false).await {
            tracing::debug!(%error, "a silent client is looked at early");
        }
        let Parked { deadline, socket, address, admission, is_first } = parked;
        let client = Stream::resume(deadline, socket);
        let peer = Peer::new(address, &worker.config.forward);
        let prefix = worker.buffers.take();
        serve(&worker, Conn { client, peer, admission, is_first }, prefix);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn sizes() {
        eprintln!(
            "Parked {} Conn {} Stream {} Deadline {} TcpStream {} Address {} Admission {} Peer {}",
            size_of::<Parked>(),
            size_of::<Conn>(),
            size_of::<Stream>(),
            size_of::<Deadline>(),
            size_of::<TcpStream>(),
            size_of::<Address>(),
            size_of::<Admission>(),
            size_of::<Peer>()
        );
        fn of<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        eprintln!("serve {}", of::<&'static Rc<Worker>, Conn, Buffer, _>(connection::serve));
    }
}
