//! Makes a connection to an endpoint, within its time.

use std::rc::Rc;
use std::time::Duration;

use monoio::net::TcpStream;

use crate::error::Cause;
use crate::sys;
use crate::upstream::endpoint::Address;
use crate::worker::deadline::{Deadlines, Role};
use crate::worker::event::pause;
use crate::worker::stream::Stream;

/// Connects to `address`. `make_room` closes something when there are no descriptors left, and says
/// whether it could.
///
/// # Errors
/// `ConnectTimeout` when `timeout` is over, else `ConnectFailed`; nothing was sent then.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing can be lost with a connect that is cancelled, and it is rare"
)]
pub async fn connect(
    address: Address,
    timeout: Duration,
    deadlines: &Rc<Deadlines>,
    make_room: impl FnOnce() -> bool,
) -> Result<Stream, Cause> {
    let Address::Tcp(addr) = address;
    // Boxed, since monoio's timer would make the future of each connection larger.
    let connect = || Box::pin(monoio::time::timeout(timeout, TcpStream::connect_addr(addr)));
    let mut connected = connect().await;
    if matches!(&connected, Ok(Err(error)) if sys::is_exhaustion(error)) && make_room() {
        // Closing goes through the ring; the descriptors are free a turn later.
        pause(ROOM_PAUSE).await;
        connected = connect().await;
    }
    let socket = connected.map_err(|_elapsed| Cause::ConnectTimeout)?.map_err(|error| {
        tracing::debug!(%addr, %error, "cannot connect to a backend");
        let is_late = error.kind() == std::io::ErrorKind::TimedOut;
        if is_late { Cause::ConnectTimeout } else { Cause::ConnectFailed }
    })?;
    socket.set_nodelay(true).map_err(|_gone| Cause::ConnectFailed)?;
    // Without a listener there, a local port can be connected to itself.
    if addr.ip().is_loopback() && socket.local_addr().is_ok_and(|local| local == addr) {
        return Err(Cause::ConnectFailed);
    }
    Ok(Stream::tcp(socket, Role::Backend, deadlines))
}

/// How long descriptors take to be free after they were given up.
const ROOM_PAUSE: Duration = Duration::from_millis(2);
