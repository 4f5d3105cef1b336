//! Who a client is, for everything that needs to know.

use std::net::SocketAddr;

use crate::config::ForwardConfig;
use crate::http1::forward::Provenance;

/// Where a client's connection is from and to; nothing else asks a socket for an address.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The client's.
    pub client: SocketAddr,
    /// The listener's, as the client reached it.
    pub local: SocketAddr,
    /// The listener's index in the config.
    pub listener: usize,
}

/// Who a client is.
#[derive(Debug)]
pub struct Peer {
    /// Where it is.
    pub address: Address,
    /// What backends are told about the client.
    pub provenance: Provenance,
}

impl Peer {
    /// The client at this address.
    #[must_use]
    pub fn new(address: Address, config: &ForwardConfig) -> Peer {
        let provenance = Provenance::new(address.client.ip(), address.local, config);
        Peer { address, provenance }
    }
}
