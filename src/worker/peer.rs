//! Who a client is, for everything that needs to know.

use std::net::SocketAddr;

use crate::config::ForwardConfig;
use crate::http1::forward::Provenance;

/// Who a client is; nothing else asks a socket for an address.
#[derive(Debug)]
pub struct Peer {
    /// The client's address.
    pub addr: SocketAddr,
    /// The listener's index in the config.
    pub listener: usize,
    /// What backends are told about the client.
    pub provenance: Provenance,
}

impl Peer {
    /// A client at `addr` that connected to `local`, an address of the listener with this index.
    #[must_use]
    pub fn new(
        addr: SocketAddr,
        local: SocketAddr,
        listener: usize,
        config: &ForwardConfig,
    ) -> Peer {
        Peer { addr, listener, provenance: Provenance::new(addr.ip(), local, config) }
    }
}
