//! One backend address as the workers see it.

use std::net::SocketAddr;

/// The place of an endpoint in every table that is indexed by endpoint.
///
/// A number is given to another endpoint only when nothing is in flight on it; the generation
/// tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The index, below `config::BACKENDS_MAX`.
    pub number: u32,
    /// How often the number was given out before.
    pub generation: u32,
}

/// Where an endpoint is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp(SocketAddr),
}

/// One backend address.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its place in counters and pools.
    pub slot: Slot,
    /// `pool/host:port`, the name in logs, metrics and the API.
    pub id: String,
    /// Where it is reached; `None` while its name was never resolved.
    pub address: Option<Address>,
    /// Its share of requests, 1 to `config::WEIGHT_MAX`.
    pub weight: u16,
    /// Whether health lets it take requests.
    pub healthy: bool,
}

impl Endpoint {
    /// Whether a request may go to it.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.healthy && self.address.is_some()
    }
}
