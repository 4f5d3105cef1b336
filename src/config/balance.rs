//! How a pool picks an endpoint, and keeps sessions on theirs.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// How a pool picks an endpoint.
#[derive(Clone, Debug)]
pub struct BalanceConfig {
    /// The rule.
    pub policy: Policy,
    /// What of a request `Policy::Maglev` hashes.
    pub hash_key: HashKey,
    /// What the hash begins with: processes that share it send a key to the same endpoint.
    pub hash_seed: u64,
    /// The most requests in flight on an endpoint under `Policy::Maglev`, in percent of its share
    /// of all that are, if there is a limit; above 100.
    pub hash_balance_percent: Option<NonZeroU32>,
    /// The cookie that keeps a session on its endpoint, if there is one.
    pub sticky: Option<StickyConfig>,
    /// How long the weight of an endpoint that comes (back) takes to grow to its full size.
    pub slow_start: Duration,
    /// Below so many percent of healthy endpoints, health is ignored; 0 for never.
    pub panic_percent: u8,
}

/// The rule by which an endpoint is picked; each heeds the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// In turn, each one's turns spread evenly.
    RoundRobin,
    /// The one with the fewest requests in flight, over all workers.
    LeastConnections,
    /// The better of two drawn at random, by requests in flight.
    P2c,
    /// The better of two drawn at random, by latency and requests in flight.
    Ewma,
    /// At random.
    Random,
    /// By a hash of the request.
    Maglev,
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Source,
    /// The path and query.
    Uri,
    /// The path.
    Path,
    /// The authority.
    Host,
    /// The first header of this name, in lower case.
    Header(String),
    /// The first cookie of this name.
    Cookie(String),
    /// The first query parameter of this name.
    Query(String),
}

impl fmt::Display for HashKey {
    /// As a flag has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKey::Source => f.write_str("source"),
            HashKey::Uri => f.write_str("uri"),
            HashKey::Path => f.write_str("path"),
            HashKey::Host => f.write_str("host"),
            HashKey::Header(name) => write!(f, "header:{name}"),
            HashKey::Cookie(name) => write!(f, "cookie:{name}"),
            HashKey::Query(name) => write!(f, "query:{name}"),
        }
    }
}

/// The cookie that keeps a session on its endpoint.
#[derive(Clone)]
pub struct StickyConfig {
    /// Its name, a token.
    pub name: String,
    /// Its `Path`.
    pub path: String,
    /// Its `Domain`, if it has one.
    pub domain: Option<String>,
    /// Its `Max-Age` in seconds, if it has one.
    pub max_age: Option<NonZeroU64>,
    /// Whether it is `Secure`.
    pub secure: bool,
    /// Whether it is `HttpOnly`.
    pub http_only: bool,
    /// Its `SameSite`, if it has one.
    pub same_site: Option<SameSite>,
    /// What keys the hash of an endpoint's id; processes that share it share sessions.
    pub secret: Vec<u8>,
}

impl fmt::Debug for StickyConfig {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StickyConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Which requests from other sites a cookie comes with (RFC 6265bis §4.1.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// None.
    Strict,
    /// Navigations.
    Lax,
    /// All.
    None,
}
