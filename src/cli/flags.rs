//! The load balancer's flags: their names, defaults, limits and help.

mod access_log;
mod admin;
mod balance;
mod discovery;
mod file;
mod forward;
mod health;
mod limits;
mod registry;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum};

pub(super) use access_log::AccessLogArgs;
pub(super) use admin::{AdminArgs, AdminWritesArg};
pub(super) use balance::{BalanceArgs, PolicyArg, QueueArgs, RetryArgs};
pub(super) use discovery::{DiscoveryArgs, EtcdAccessArgs, EtcdArgs};
pub(super) use file::FileArgs;
pub(super) use forward::{ForwardArgs, ForwardedHeadersArg, TraceParentArg};
pub(super) use health::{BreakerArgs, EjectArgs, HealthArgs, InitialArg};
pub(super) use limits::{BackendLimitArgs, ClientLimitArgs};
pub(super) use registry::RegistryArgs;

use crate::cli::file::Setting;
use crate::cli::read::{List, duration, list, number, parse_backend, parse_fault, parse_listen};
use crate::config::{BackendConfig, Faults, WORKERS_MAX};

/// The load balancer's flags.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    pub(super) traffic: TrafficArgs,
    #[command(flatten)]
    pub(super) discovery: DiscoveryArgs,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
    #[command(flatten)]
    pub(super) balance: BalanceArgs,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
    #[command(flatten)]
    pub(super) retry: RetryArgs,
    #[command(flatten)]
    pub(super) health: HealthArgs,
    #[command(flatten)]
    pub(super) eject: EjectArgs,
    #[command(flatten)]
    pub(super) breaker: BreakerArgs,
    #[command(flatten)]
    pub(super) workers: WorkerArgs,
    #[command(flatten)]
    pub(super) backend: BackendLimitArgs,
    #[command(flatten)]
    pub(super) client: ClientLimitArgs,
    #[command(flatten)]
    pub(super) forward: ForwardArgs,
    #[command(flatten)]
    pub(super) access_log: AccessLogArgs,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    #[command(flatten)]
    pub(super) process: ProcessArgs,
    #[command(flatten)]
    pub(super) file: FileArgs,
    /// All of them as they are printed, where there is a file.
    #[arg(skip)]
    pub(super) settings: Vec<Setting>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Traffic")]
pub(super) struct TrafficArgs {
    /// An address to accept clients on, IPv4 or [IPv6]; repeatable; port 0 takes a free port.
    #[arg(long, value_name = "IP:PORT", env = "CORELANE_LISTEN",
        value_parser = list(parse_listen))]
    pub(super) listen: Vec<List<SocketAddr>>,
    /// A backend and its options; repeatable. A name is resolved again while its backend is down.
    ///
    /// weight=N is its share of requests against the others [default: 1; limits: 1 to 256].
    /// max-conns=N is the most connections to it, busy or idle, over all workers [default: no
    /// limit]. A backup takes requests while no other backend can. With drain it takes requests of
    /// its sticky sessions alone; with maintenance none, and it is not probed. [limit: 1024
    /// backends].
    #[arg(
        long,
        value_name = "http://HOST:PORT[,weight=N][,max-conns=N][,backup][,drain][,maintenance]",
        env = "CORELANE_BACKEND",
        value_parser = list(parse_backend)
    )]
    pub(super) backend: Vec<List<BackendConfig>>,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum SteerArg {
    /// The one that the kernel's hash gave it to.
    Off,
    /// The one with the fewest, where the one that accepted it has clearly more than its share.
    Least,
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
    /// Which worker serves a new connection.
    #[arg(long, value_enum, default_value = "least", env = "CORELANE_STEER")]
    pub(super) steer: SteerArg,
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
