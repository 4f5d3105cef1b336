//! A connection's task: the one that serves it, and the small one that waits for its next request
//! while its client is silent.
//!
//! A parked client has no buffer and none of the state of an exchange: 1 kB in all, measured with
//! 4,000 of them, instead of 15.
//! Called by `listener` for each connection. A panic while it is served ends that connection alone.

use std::rc::Rc;

use monoio::net::TcpStream;

use crate::error::Cause;
use crate::panic::contained;
use crate::worker::buffer::Buffer;
use crate::worker::connection::{self, Conn, Timed};
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
    timed: Timed,
}

/// Starts to serve a client, of which `prefix` was read before.
pub fn serve(worker: &Rc<Worker>, conn: Conn, prefix: Buffer) {
    let worker = worker.clone();
    monoio::spawn(async move {
        let addr = conn.peer.address.client;
        match contained(connection::serve(&worker, conn, prefix)).await {
            Ok(Some(silent)) => park(worker, *silent),
            Ok(None) => {}
            Err(panic) => worker.note(Cause::Internal, &format_args!("{addr}: {panic}")),
        }
    });
}

/// Waits until the client sends something, or its connection ends, and serves it again.
fn park(worker: Rc<Worker>, conn: Conn) {
    let Conn { client, peer, admission, timed } = conn;
    let (deadline, socket) = client.into_parts();
    let parked = Parked { deadline, socket, address: peer.address, admission, timed };
    monoio::spawn(async move {
        if let Err(error) = parked.socket.readable(false).await {
            tracing::debug!(%error, "a silent client is looked at early");
        }
        let Parked { deadline, socket, address, admission, timed } = parked;
        let client = Stream::resume(deadline, socket);
        let peer = Peer::new(address, &worker.config.forward);
        let prefix = worker.buffers.take();
        serve(&worker, Conn { client, peer, admission, timed }, prefix);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F>(_start: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// What each connection holds: a busy one its task's state, a silent one what is parked.
    #[test]
    fn what_a_connection_holds_is_small() {
        let busy = size_of_future::<&'static Rc<Worker>, Conn, Buffer, _>(connection::serve);
        let silent = size_of::<Parked>();
        println!("a busy connection's future: {busy} bytes; a parked connection: {silent} bytes");
        assert!(busy <= 3_072, "{busy}");
        assert!(silent <= 256, "{silent}");
    }
}
