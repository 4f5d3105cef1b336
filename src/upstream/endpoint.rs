//! One backend address as the workers see it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::upstream::limit::Limits;

/// The place of an endpoint in every table that is indexed by endpoint.
///
/// A number is given to another endpoint only when nothing is in flight on it; the generation
/// tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The index, below `config::SLOTS_MAX`.
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

/// What requests an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All.
    Open,
    /// As many as `Limits` allows trials: its breaker is half open.
    Trial,
    /// Those of the sticky sessions it has.
    Draining,
    /// None.
    Out,
}

/// When an endpoint is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Always.
    Primary,
    /// While no primary one can take a request.
    Backup,
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
    /// Its share of requests, in parts of `WEIGHT_UNIT` for each unit of its configured weight,
    /// less while it starts slowly or is loaded; at least 1.
    pub weight: u32,
    /// When it is wanted.
    pub tier: Tier,
    /// What requests it takes.
    pub standing: Standing,
    /// Whether it is down or ejected: what waits for its answer had better go elsewhere.
    pub is_sick: bool,
    /// How much it takes at once.
    pub limits: Arc<Limits>,
}

impl Endpoint {
    /// Whether any request may go to it.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        matches!(self.standing, Standing::Open | Standing::Trial) && self.address.is_some()
    }

    /// Whether a request of a session that it has may go to it.
    #[must_use]
    pub fn keeps_sessions(&self) -> bool {
        self.standing != Standing::Out && self.address.is_some()
    }
}

/// The weight of an endpoint whose configured weight is 1, unloaded and fully started.
pub const WEIGHT_UNIT: u32 = 100;
