//! The load balancer's flags: their names, defaults, limits and help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;

use crate::cli::read::{
    List, duration, list, number, parse_backend, parse_fault, parse_listen, parse_network,
    parse_upgrade,
};
use crate::config::{BackendConfig, Faults, HEADERS_LIMIT, WORKERS_MAX};

/// The load balancer's flags.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    pub(super) traffic: TrafficArgs,
    #[command(flatten)]
    pub(super) workers: WorkerArgs,
    #[command(flatten)]
    pub(super) health: HealthArgs,
    #[command(flatten)]
    pub(super) backend: BackendLimitArgs,
    #[command(flatten)]
    pub(super) client: ClientLimitArgs,
    #[command(flatten)]
    pub(super) forward: ForwardArgs,
    #[command(flatten)]
    pub(super) process: ProcessArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Traffic")]
pub(super) struct TrafficArgs {
    /// An address to accept clients on, IPv4 or [IPv6]; repeatable; port 0 takes a free port.
    #[arg(long, value_name = "IP:PORT", required = true, env = "CORELANE_LISTEN",
        value_parser = list(parse_listen))]
    pub(super) listen: Vec<List<SocketAddr>>,
    /// A backend; repeatable. A name is resolved again while its backend is down. A weight is its
    /// share of requests against the others [default: 1; limits: 1 to 256; 1024 backends].
    #[arg(
        long,
        value_name = "http://HOST:PORT[,weight=N]",
        required = true,
        env = "CORELANE_BACKEND",
        value_parser = list(parse_backend)
    )]
    pub(super) backend: Vec<List<BackendConfig>>,
    /// How an endpoint is picked for a request.
    #[arg(long, value_enum, default_value = "round-robin", env = "CORELANE_POLICY")]
    pub(super) policy: PolicyArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PolicyArg {
    /// In turn, in proportion to the weights.
    RoundRobin,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum DriverArg {
    /// io_uring with the best flags that work, else epoll.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Workers")]
pub(super) struct WorkerArgs {
    /// How many workers run, each pinned to a core [default: one per allowed core, by affinity
    /// and cgroup; limit: the allowed cores].
    #[arg(long, value_name = "N", env = "CORELANE_WORKERS",
        value_parser = number(1, WORKERS_MAX as u32))]
    pub(super) workers: Option<u32>,
    /// The cores to run on, as in 0-3,6 [default: the allowed ones, in order].
    #[arg(long, value_name = "LIST", env = "CORELANE_CORES")]
    pub(super) cores: Option<String>,
    /// The kernel interface that workers wait with.
    #[arg(long, value_enum, default_value = "auto", env = "CORELANE_DRIVER")]
    pub(super) driver: DriverArg,
    /// Submission queue entries of each worker's ring [limits: 64 to 32768].
    #[arg(long, value_name = "N", default_value = "4096", env = "CORELANE_RING_ENTRIES",
        value_parser = number(64, 32768))]
    pub(super) ring_entries: u32,
    /// Connections the kernel holds for each worker and address until they are accepted; the
    /// kernel also limits it by net.core.somaxconn [limits: 1 to 65535].
    #[arg(long, value_name = "N", default_value = "4096", env = "CORELANE_BACKLOG",
        value_parser = number(1, 65535))]
    pub(super) backlog: u32,
    /// Share the addresses with other processes: the kernel then splits connections among them.
    #[arg(long, env = "CORELANE_REUSE_PORT_WITH_OTHERS",
        action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(super) reuse_port_with_others: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Health checks")]
pub(super) struct HealthArgs {
    /// The path that a probe gets; statuses 200 to 399 pass. With '' a probe only connects.
    #[arg(long, value_name = "PATH", default_value = "/health", env = "CORELANE_HEALTH_PATH")]
    pub(super) health_path: String,
    /// From the start of a probe to the start of the next; up to 10 % more, at random
    /// [limits: 10ms to 1h].
    #[arg(long, value_name = "DURATION", default_value = "2s", env = "CORELANE_HEALTH_INTERVAL",
        value_parser = duration(10, HOUR))]
    pub(super) health_interval: Duration,
    /// How long a probe may take [default: 1s, or the interval if that is shorter; limits: 1ms to
    /// the interval].
    #[arg(long, value_name = "DURATION", env = "CORELANE_HEALTH_TIMEOUT",
        value_parser = duration(1, HOUR))]
    pub(super) health_timeout: Option<Duration>,
    /// Passed probes in a row that bring a sick backend back [limits: 1 to 1000].
    #[arg(long, value_name = "N", default_value = "2", env = "CORELANE_HEALTH_RISE",
        value_parser = number(1, 1000))]
    pub(super) health_rise: u32,
    /// Failed probes in a row that take a backend out [limits: 1 to 1000].
    #[arg(long, value_name = "N", default_value = "3", env = "CORELANE_HEALTH_FALL",
        value_parser = number(1, 1000))]
    pub(super) health_fall: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Backends")]
pub(super) struct BackendLimitArgs {
    /// How long connecting to a backend may take; 504 then [limits: 1ms to 1h].
    #[arg(long, value_name = "DURATION", default_value = "2s",
        env = "CORELANE_BACKEND_CONNECT_TIMEOUT", value_parser = duration(1, HOUR))]
    pub(super) backend_connect_timeout: Duration,
    /// From the end of a request to the end of its answer's head; 504 then [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_BACKEND_RESPONSE_TIMEOUT", value_parser = duration(1, DAY))]
    pub(super) backend_response_timeout: Duration,
    /// How long a body may make no progress from or to a backend [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_BACKEND_BODY_TIMEOUT", value_parser = duration(1, DAY))]
    pub(super) backend_body_timeout: Duration,
    /// How long an unused connection to a backend is kept; shorter than the backend keeps it
    /// [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "30s",
        env = "CORELANE_BACKEND_IDLE_TIMEOUT", value_parser = duration(1, DAY))]
    pub(super) backend_idle_timeout: Duration,
    /// Unused connections kept per backend and worker; 0 keeps none [limit: 65535].
    #[arg(long, value_name = "N", default_value = "1024", env = "CORELANE_BACKEND_IDLE_MAX",
        value_parser = number(0, 65535))]
    pub(super) backend_idle_max: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Clients")]
pub(super) struct ClientLimitArgs {
    /// From the first byte of a request's head, or from the connection's start while nothing has
    /// come, to the head's end; 408 where it had begun [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "10s",
        env = "CORELANE_CLIENT_HEADER_TIMEOUT", value_parser = duration(1, DAY))]
    pub(super) client_header_timeout: Duration,
    /// How long a connection may lie without a request after its last answer [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_CLIENT_IDLE_TIMEOUT", value_parser = duration(1, DAY))]
    pub(super) client_idle_timeout: Duration,
    /// How long a body may make no progress from or to a client; 408 where no answer has begun
    /// [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_CLIENT_BODY_TIMEOUT", value_parser = duration(1, DAY))]
    pub(super) client_body_timeout: Duration,
    /// The most client connections of the process; accepting waits then [default: half of
    /// ulimit -n less 64, since each may need a backend's connection too; limit: 16777216].
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_CONNS_MAX",
        value_parser = number(1, 16_777_216))]
    pub(super) client_conns_max: Option<u32>,
    /// The most connections of one address; 429 then [default: no limit].
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_CONNS_PER_ADDRESS_MAX",
        value_parser = number(1, u32::MAX))]
    pub(super) client_conns_per_address_max: Option<u32>,
    /// The most requests a second of one address; 429 then. Each worker allows its part, the
    /// limit divided by the workers, so that an address on few connections gets less
    /// [default: no limit].
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_RATE_MAX",
        value_parser = number(1, u32::MAX))]
    pub(super) client_rate_max: Option<u32>,
    /// Bytes a second that a request's body must come with, counted while corelane waits for it,
    /// after 2 s of grace; 408 then [default: no limit].
    #[arg(long, value_name = "BYTES", env = "CORELANE_BODY_RATE_MIN",
        value_parser = number(1, u32::MAX))]
    pub(super) body_rate_min: Option<u32>,
    /// The most bytes of a request's body; 413 [default: no limit].
    #[arg(long, value_name = "BYTES", env = "CORELANE_BODY_BYTES_MAX")]
    pub(super) body_bytes_max: Option<u64>,
    /// How long a tunnel (an upgraded connection) may pass nothing [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "1h",
        env = "CORELANE_TUNNEL_TIMEOUT", value_parser = duration(1, DAY))]
    pub(super) tunnel_timeout: Duration,
    /// Take a client that shuts down its sending side for one that has left, and end its request.
    #[arg(long, env = "CORELANE_ABORT_ON_HALF_CLOSE",
        action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(super) abort_on_half_close: bool,
    /// The most bytes of a request's or an answer's head; 431, or 502 [limits: 1024 to 1048576].
    #[arg(long, value_name = "BYTES", default_value = "32768", env = "CORELANE_HEAD_BYTES_MAX",
        value_parser = number(1024, 1_048_576))]
    pub(super) head_bytes_max: u32,
    /// The most headers of a request or an answer; 431, or 502 [limits: 1 to 256].
    #[arg(long, value_name = "N", default_value = "100", env = "CORELANE_HEADERS_MAX",
        value_parser = number(1, HEADERS_LIMIT as u32))]
    pub(super) headers_max: u32,
    /// The most bytes of a request's target; 414 [limits: 64 to --head-bytes-max].
    #[arg(long, value_name = "BYTES", default_value = "16384", env = "CORELANE_TARGET_BYTES_MAX",
        value_parser = number(64, 1_048_576))]
    pub(super) target_bytes_max: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Forwarding")]
pub(super) struct ForwardArgs {
    /// What becomes of X-Forwarded-For, -Proto and -Host that a trusted proxy sends.
    #[arg(long, value_enum, default_value = "append", env = "CORELANE_FORWARDED_HEADERS")]
    pub(super) forwarded_headers: ForwardedHeadersArg,
    /// Add Forwarded (RFC 7239) to requests.
    #[arg(long, env = "CORELANE_FORWARDED",
        action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(super) forwarded: bool,
    /// Add X-Request-Id, 32 hexadecimal digits, to requests that have none.
    #[arg(long, env = "CORELANE_REQUEST_ID",
        action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(super) request_id: bool,
    /// Networks of proxies in front of corelane, as in 10.0.0.0/8; repeatable. Their forwarded
    /// headers are believed, anyone else's are replaced [default: none].
    #[arg(long, value_name = "CIDR", env = "CORELANE_TRUSTED_PROXIES", value_parser = list(parse_network))]
    pub(super) trusted_proxies: Vec<List<IpNet>>,
    /// The protocols that a connection may be upgraded to; '' for none; h2c is never one.
    #[arg(long, value_name = "TOKEN", default_value = "websocket", env = "CORELANE_UPGRADE",
        value_parser = list(parse_upgrade))]
    pub(super) upgrade: Vec<List<String>>,
    /// Forward CONNECT, and pass bytes both ways once a backend has granted it; else 405.
    #[arg(long, env = "CORELANE_CONNECT",
        action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(super) connect: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ForwardedHeadersArg {
    /// The client's address is added to a trusted proxy's; anyone else's are replaced.
    Append,
    /// Everyone's are replaced.
    Replace,
    /// Everyone's pass as they are, and none are added.
    Off,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
pub(super) struct ProcessArgs {
    /// How long requests in flight may take after SIGTERM or SIGINT [limits: 0s to 1d].
    #[arg(long, value_name = "DURATION", default_value = "30s", env = "CORELANE_DRAIN_TIMEOUT",
        value_parser = duration(0, DAY))]
    pub(super) drain_timeout: Duration,
    /// A file to write the listening addresses to, one a line, once corelane is ready.
    #[arg(long, value_name = "PATH", env = "CORELANE_READY_FILE")]
    pub(super) ready_file: Option<PathBuf>,
    /// The least important log lines to write: error, warn, info, debug, trace or off.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "CORELANE_LOG_LEVEL")]
    pub(super) log_level: tracing_subscriber::filter::LevelFilter,
    /// How log lines look; they go to standard error.
    #[arg(long, value_enum, default_value = "text", env = "CORELANE_LOG_FORMAT")]
    pub(super) log_format: LogFormat,
    /// A fault for tests: panic-connection=N or panic-worker=N.
    #[arg(long, hide = true, value_parser = parse_fault)]
    pub(super) fault: Vec<Faults>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// An hour and a day, in milliseconds.
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
