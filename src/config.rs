//! All that flags say, checked once: whoever holds a `Config` need not check again.
//!
//! `cli` builds it from flags and environment. What changes while corelane runs (which endpoints
//! take requests, with what weight) lives in `upstream::snapshot`.

mod access_log;
mod admin;
mod backend_url;
mod balance;
mod discovery;
mod health;
mod pool;
mod registry;
mod retry;
mod route;
mod source;

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use access_log::{
    AccessLogConfig, Item, LINE_HEADERS_MAX, LineFormat, LinePart, LogTarget, Span,
};
pub use admin::{AdminAddr, AdminConfig, AdminWrites, TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, Token};
pub use backend_url::{parse_backend_url, parse_weight};
pub use balance::{BalanceConfig, HashKey, Policy, SameSite, StickyConfig};
pub use discovery::{
    DiscoveryConfig, DnsConfig, DnsRecords, EtcdConfig, EtcdLogin, EtcdMember, EtcdTls,
    POOL_NAME_BYTES_MAX, ResolverConfig, parse_pool_name,
};
pub use health::{BreakerConfig, EjectConfig, HealthConfig, HealthHeader, InitialHealth, Statuses};
pub use pool::{BackendLimits, DEFAULT_POOL, IdleLimits, PoolConfig};
pub use registry::RegistryConfig;
pub use retry::{RetryConfig, RetryOn};
pub use route::{
    Action, Escape, HostMatch, POOLS_MAX, Part, PathMatch, Piece, REDIRECT_STATUSES, ROUTES_MAX,
    Redirect, RouteConfig, plain_prefix,
};
pub use source::Source;

/// The configuration of one process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// The pools that requests are spread over, as they are at the start; at least one.
    pub pools: Vec<PoolConfig>,
    /// Where more backends are found.
    pub discovery: DiscoveryConfig,
    /// Which requests go to which of them; at least one.
    pub routes: Vec<RouteConfig>,
    /// The files of backends.
    pub registry: RegistryConfig,
    /// How the workers run.
    pub workers: WorkersConfig,
    /// The most requests that wait for an endpoint whose places are all taken, over all workers
    /// and pools; 0 for none.
    pub queue_max: u32,
    /// Times and sizes on the clients' side.
    pub client: ClientLimits,
    /// Limits of a request's or an answer's head.
    pub head: HeadLimits,
    /// What is forwarded beyond plain requests, and what backends are told about clients.
    pub forward: ForwardConfig,
    /// The access log, if there is one.
    pub access_log: Option<AccessLogConfig>,
    /// The admin API, if it is served.
    pub admin: Option<AdminConfig>,
    /// How long requests in flight may take after a signal to stop.
    pub drain_timeout: Duration,
    /// A file that is written with the listening addresses, a line each, once all is ready.
    pub ready_file: Option<PathBuf>,
    /// Faults that tests provoke.
    pub faults: Faults,
}

impl Config {
    /// The etcd that the admin API writes its changes to, if they go there.
    #[must_use]
    pub fn etcd_to_write(&self) -> Option<&EtcdConfig> {
        let admin = self.admin.as_ref().filter(|admin| admin.writes == AdminWrites::Etcd);
        admin.and(self.discovery.etcd.as_ref())
    }

    /// The longest time that a probe may take.
    #[must_use]
    pub fn probe_timeout_max(&self) -> Duration {
        self.pools.iter().map(|pool| pool.health.timeout).max().unwrap_or_default()
    }
}

/// One address to listen on.
#[derive(Clone, Copy, Debug)]
pub struct ListenerConfig {
    /// The address; port 0 takes a free port.
    pub addr: SocketAddr,
    /// Connections the kernel holds for `accept`.
    pub backlog: NonZeroU32,
    /// Whether other processes may share the port.
    pub shared: bool,
}

/// One backend as a flag names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Its share of requests against the other backends, 1 to `WEIGHT_MAX`.
    pub weight: NonZeroU16,
    /// The most connections to it, over all workers, if there is a limit.
    pub conns_max: Option<NonZeroU32>,
    /// Whether it takes requests only while no other backend can.
    pub is_backup: bool,
    /// What its operator wants of it.
    pub mode: Mode,
}

/// What an operator, or a backend's agent, wants of a backend; from the mildest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// It takes requests while it is healthy.
    Ready,
    /// It takes requests of the sticky sessions it has, and no others.
    Drain,
    /// It takes no requests and is not probed.
    Maintenance,
}

impl BackendConfig {
    /// `host:port`, with brackets around an IPv6 address: what stands after the pool in an id.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// `host:port`, with brackets around an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// How many workers run, where and on what.
#[derive(Clone, Debug)]
pub struct WorkersConfig {
    /// The core of each worker; its length is the number of workers.
    pub cores: Vec<usize>,
    /// Which kernel interface drives them.
    pub driver: DriverChoice,
    /// Submission queue entries of each ring.
    pub ring_entries: NonZeroU32,
    /// Which worker serves a new connection.
    pub steer: Steer,
}

/// Which worker serves a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// The one that accepted it.
    Off,
    /// The one with the fewest, where the one that accepted it has clearly more than its share.
    Least,
}

/// The kernel interface a worker waits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring with the best flags that work, else epoll.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// Times and sizes on the clients' side.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// From the first byte of a head to its end.
    pub header_timeout: Duration,
    /// How long a connection may lie without a request.
    pub idle_timeout: Duration,
    /// How long a body may make no progress, from or to the client.
    pub body_timeout: Duration,
    /// Connections of the whole process.
    pub conns_max: usize,
    /// Connections of one address, if there is a limit.
    pub conns_per_address_max: Option<u32>,
    /// Requests a second of one address, if there is a limit.
    pub rate_max: Option<NonZeroU32>,
    /// Bytes a second that a request's body must come with, if it must.
    pub body_rate_min: Option<NonZeroU32>,
    /// The most bytes of a request's body, if there is a limit.
    pub body_bytes_max: Option<u64>,
    /// How long a tunnel may pass nothing.
    pub tunnel_timeout: Duration,
    /// Whether a client that shuts down its sending side is taken to have left.
    pub abort_on_half_close: bool,
}

/// Limits of a request's or an answer's head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes from the first to the empty line, both included.
    pub bytes_max: usize,
    /// Header lines.
    pub headers_max: usize,
    /// Bytes of a request's target.
    pub target_bytes_max: usize,
}

/// What is forwarded beyond plain requests, and what backends are told about clients.
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    /// The protocols that a connection may be upgraded to, in lower case.
    pub upgrades: Vec<String>,
    /// Whether CONNECT is forwarded.
    pub connect: bool,
    /// What becomes of `X-Forwarded-For`, `-Proto` and `-Host`.
    pub forwarded_headers: ForwardedHeaders,
    /// Whether `Forwarded` is added (RFC 7239).
    pub forwarded: bool,
    /// Whether `X-Request-Id` is added where there is none.
    pub request_id: bool,
    /// What becomes of `traceparent`.
    pub traceparent: TraceParents,
    /// The networks whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// What becomes of `traceparent` (W3C Trace Context, level 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceParents {
    /// All pass.
    AsTheyAre,
    /// Where there is no valid one, one is made that says so of sampling; `tracestate` goes with the
    /// invalid ones.
    Make {
        /// Whether what follows is to be recorded.
        is_sampled: bool,
    },
}

/// What becomes of the forwarded headers of a trusted proxy; those of anyone else are replaced,
/// but for `Off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeaders {
    /// The client's address is added to them.
    Append,
    /// They are replaced.
    Replace,
    /// Everyone's pass as they are, and none are added.
    Off,
}

/// Faults that tests provoke through a hidden flag.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The connection of a worker, counted from one, whose first request panics.
    pub panic_connection: Option<NonZeroUsize>,
    /// The connection of a worker, counted from one, at which its accept loop panics; each worker
    /// panics once at most.
    pub panic_worker: Option<NonZeroUsize>,
}

/// The largest weight of a backend.
pub const WEIGHT_MAX: u16 = 256;
/// The most backends of a process.
pub const BACKENDS_MAX: usize = 1024;
/// The slots that endpoints have: as many again as there are backends, for those that were removed
/// and still have requests in flight. 12 bytes each in each worker's lane.
pub const SLOTS_MAX: usize = 2 * BACKENDS_MAX;
/// The most headers that `--headers-max` may allow.
pub const HEADERS_LIMIT: usize = 256;
/// The most workers of a process.
pub const WORKERS_MAX: usize = 512;
/// The descriptors that are for listeners, rings, mailboxes, probes and files, not for clients.
pub const DESCRIPTORS_RESERVED: usize = 64;
