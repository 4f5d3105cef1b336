//! Makes a connection to an endpoint, within its time.

use std::rc::Rc;
use std::time::Duration;

use monoio::net::TcpStream;

use crate::error::Cause;
use crate::upstream::endpoint::Address;
use crate::worker::deadline::{Deadlines, Role};
use crate::worker::stream::Stream;

/// Connects to `address`.
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
) -> Result<Stream, Cause> {
    let Address::Tcp(addr) = address;
    let connected = monoio::time::timeout(timeout, TcpStream::connect_addr(addr)).await;
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
