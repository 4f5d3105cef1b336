//! The command line: flags, their environment variables, and the `Config` they make.
//!
//! Precedence is flag, then environment. What cannot work is refused here, in one line, before
//! any socket opens.

mod read;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{
    BACKENDS_MAX, BackendConfig, BackendLimits, ClientLimits, Config, DriverChoice, Faults,
    ForwardConfig, ForwardedHeaders, HEADERS_LIMIT, HeadLimits, HealthConfig, ListenerConfig,
    Policy, WORKERS_MAX, WorkersConfig,
};
use crate::error::StartError;
use read::{duration, parse_backend, parse_cores, parse_fault, parse_network, parse_upgrade};

/// A thread-per-core HTTP load balancer.
///
/// Accepts HTTP/1.1 on every --listen address and hands each request to a healthy --backend.
/// Every flag can also be given as an environment variable; several values of one are separated
/// by spaces there. Durations are written as 250ms, 5s, 1m.
#[derive(Debug, Parser)]
#[command(name = "corelane", version, max_term_width = 100, subcommand_negates_reqs = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to run instead of the load balancer.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The load balancer's flags.
    #[command(flatten)]
    pub proxy: ProxyArgs,
}

/// What to run instead of the load balancer.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a demo backend: a small REST service to try the load balancer on.
    Backend(BackendArgs),
    /// Run three demo backends and a load balancer in front of them, to try it out.
    Demo(DemoArgs),
}

/// The flags of `corelane backend`.
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// The address to listen on; port 0 takes a free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001")]
    pub listen: SocketAddr,
    /// The name it answers with.
    #[arg(long, default_value = "backend")]
    pub name: String,
}

/// The flags of `corelane demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The load balancer's address; port 0 takes a free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The load balancer's workers; each gets a core of its own [limit: the allowed cores].
    #[arg(long, value_name = "N", default_value = "1")]
    pub workers: NonZeroUsize,
}

/// The load balancer's flags.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    workers: WorkerArgs,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    backend: BackendLimitArgs,
    #[command(flatten)]
    client: ClientLimitArgs,
    #[command(flatten)]
    forward: ForwardArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Traffic")]
struct TrafficArgs {
    /// An address to accept clients on, IPv4 or [IPv6]; repeatable; port 0 takes a free port.
    #[arg(
        long,
        value_name = "ADDR",
        required = true,
        env = "CORELANE_LISTEN",
        value_delimiter = ' '
    )]
    listen: Vec<SocketAddr>,
    /// A backend; repeatable. A name is resolved again while its backend is down. A weight is its
    /// share of requests against the others [default: 1; limits: 1 to 256; 1024 backends].
    #[arg(
        long,
        value_name = "http://HOST:PORT[,weight=N]",
        required = true,
        env = "CORELANE_BACKEND",
        value_delimiter = ' ',
        value_parser = parse_backend
    )]
    backend: Vec<BackendConfig>,
    /// How an endpoint is picked for a request.
    #[arg(long, value_enum, default_value = "round-robin", env = "CORELANE_POLICY")]
    policy: PolicyArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    /// In turn, in proportion to the weights.
    RoundRobin,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DriverArg {
    /// io_uring with the best flags that work, else epoll.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Workers")]
struct WorkerArgs {
    /// How many workers run, each pinned to a core [default: one per allowed core, by affinity
    /// and cgroup; limit: the allowed cores].
    #[arg(long, value_name = "N", env = "CORELANE_WORKERS")]
    workers: Option<NonZeroUsize>,
    /// The cores to run on, as in 0-3,6 [default: the allowed ones, in order].
    #[arg(long, value_name = "LIST", env = "CORELANE_CORES")]
    cores: Option<String>,
    /// The kernel interface that workers wait with.
    #[arg(long, value_enum, default_value = "auto", env = "CORELANE_DRIVER")]
    driver: DriverArg,
    /// Submission queue entries of each worker's ring [limits: 64 to 32768].
    #[arg(long, value_name = "N", default_value = "4096", env = "CORELANE_RING_ENTRIES",
        value_parser = clap::value_parser!(u32).range(64..=32768))]
    ring_entries: u32,
    /// Connections the kernel holds for each worker and address until they are accepted; the
    /// kernel also limits it by net.core.somaxconn [limits: 1 to 65535].
    #[arg(long, value_name = "N", default_value = "4096", env = "CORELANE_BACKLOG",
        value_parser = clap::value_parser!(u32).range(1..=65535))]
    backlog: u32,
    /// Share the addresses with other processes: the kernel then splits connections among them.
    #[arg(long, env = "CORELANE_REUSE_PORT_WITH_OTHERS")]
    reuse_port_with_others: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Health checks")]
struct HealthArgs {
    /// The path that a probe gets; statuses 200 to 399 pass. With '' a probe only connects.
    #[arg(long, value_name = "PATH", default_value = "/health", env = "CORELANE_HEALTH_PATH")]
    health_path: String,
    /// From the start of a probe to the start of the next; up to 10 % more, at random
    /// [limits: 10ms to 1h].
    #[arg(long, value_name = "DURATION", default_value = "2s", env = "CORELANE_HEALTH_INTERVAL",
        value_parser = duration(10, HOUR))]
    health_interval: Duration,
    /// How long a probe may take [limits: 1ms to the interval].
    #[arg(long, value_name = "DURATION", default_value = "1s", env = "CORELANE_HEALTH_TIMEOUT",
        value_parser = duration(1, HOUR))]
    health_timeout: Duration,
    /// Passed probes in a row that bring a sick backend back [limits: 1 to 1000].
    #[arg(long, value_name = "N", default_value = "2", env = "CORELANE_HEALTH_RISE",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    health_rise: u32,
    /// Failed probes in a row that take a backend out [limits: 1 to 1000].
    #[arg(long, value_name = "N", default_value = "3", env = "CORELANE_HEALTH_FALL",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    health_fall: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Backends")]
struct BackendLimitArgs {
    /// How long connecting to a backend may take; 504 then [limits: 1ms to 1h].
    #[arg(long, value_name = "DURATION", default_value = "2s",
        env = "CORELANE_BACKEND_CONNECT_TIMEOUT", value_parser = duration(1, HOUR))]
    backend_connect_timeout: Duration,
    /// From the end of a request to the end of its answer's head; 504 then [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_BACKEND_RESPONSE_TIMEOUT", value_parser = duration(1, DAY))]
    backend_response_timeout: Duration,
    /// How long a body may make no progress from or to a backend [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_BACKEND_BODY_TIMEOUT", value_parser = duration(1, DAY))]
    backend_body_timeout: Duration,
    /// How long an unused connection to a backend is kept; shorter than the backend keeps it
    /// [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "30s",
        env = "CORELANE_BACKEND_IDLE_TIMEOUT", value_parser = duration(1, DAY))]
    backend_idle_timeout: Duration,
    /// Unused connections kept per backend and worker; 0 keeps none [limit: 65535].
    #[arg(long, value_name = "N", default_value = "1024", env = "CORELANE_BACKEND_IDLE_MAX",
        value_parser = clap::value_parser!(u32).range(..=65535))]
    backend_idle_max: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Clients")]
struct ClientLimitArgs {
    /// From the first byte of a request's head, or from the connection's start while nothing has
    /// come, to the head's end; 408 where it had begun [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "10s",
        env = "CORELANE_CLIENT_HEADER_TIMEOUT", value_parser = duration(1, DAY))]
    client_header_timeout: Duration,
    /// How long a connection may lie without a request after its last answer [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_CLIENT_IDLE_TIMEOUT", value_parser = duration(1, DAY))]
    client_idle_timeout: Duration,
    /// How long a body may make no progress from or to a client; 408 where no answer has begun
    /// [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_CLIENT_BODY_TIMEOUT", value_parser = duration(1, DAY))]
    client_body_timeout: Duration,
    /// The most client connections of the process; accepting waits then [default: three quarters
    /// of ulimit -n, so that backends get descriptors; limit: 16777216].
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_CONNS_MAX",
        value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    client_conns_max: Option<u32>,
    /// The most connections of one address; 429 then [default: no limit].
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_CONNS_PER_ADDRESS_MAX",
        value_parser = clap::value_parser!(u32).range(1..))]
    client_conns_per_address_max: Option<u32>,
    /// The most requests a second of one address; 429 then. Each worker allows its part, the
    /// limit divided by the workers, so that an address on few connections gets less
    /// [default: no limit].
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_RATE_MAX")]
    client_rate_max: Option<NonZeroU32>,
    /// Bytes a second that a request's body must come with, counted while corelane waits for it,
    /// after 2 s of grace; 408 then [default: no limit].
    #[arg(long, value_name = "BYTES", env = "CORELANE_BODY_RATE_MIN")]
    body_rate_min: Option<NonZeroU32>,
    /// The most bytes of a request's body; 413 [default: no limit].
    #[arg(long, value_name = "BYTES", env = "CORELANE_BODY_BYTES_MAX")]
    body_bytes_max: Option<u64>,
    /// How long a tunnel (an upgraded connection) may pass nothing [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "1h",
        env = "CORELANE_TUNNEL_TIMEOUT", value_parser = duration(1, DAY))]
    tunnel_timeout: Duration,
    /// Take a client that shuts down its sending side for one that has left, and end its request.
    #[arg(long, env = "CORELANE_ABORT_ON_HALF_CLOSE")]
    abort_on_half_close: bool,
    /// The most bytes of a request's or an answer's head; 431, or 502 [limits: 1024 to 1048576].
    #[arg(long, value_name = "BYTES", default_value = "32768", env = "CORELANE_HEAD_BYTES_MAX",
        value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    head_bytes_max: u32,
    /// The most headers of a request or an answer; 431, or 502 [limits: 1 to 256].
    #[arg(long, value_name = "N", default_value = "100", env = "CORELANE_HEADERS_MAX",
        value_parser = clap::value_parser!(u32).range(1..=HEADERS_LIMIT as i64))]
    headers_max: u32,
    /// The most bytes of a request's target; 414 [limits: 64 to --head-bytes-max].
    #[arg(long, value_name = "BYTES", default_value = "16384", env = "CORELANE_TARGET_BYTES_MAX",
        value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    target_bytes_max: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Forwarding")]
struct ForwardArgs {
    /// What becomes of X-Forwarded-For, -Proto and -Host that a trusted proxy sends.
    #[arg(long, value_enum, default_value = "append", env = "CORELANE_FORWARDED_HEADERS")]
    forwarded_headers: ForwardedHeadersArg,
    /// Add Forwarded (RFC 7239) to requests.
    #[arg(long, env = "CORELANE_FORWARDED")]
    forwarded: bool,
    /// Add X-Request-Id, 32 hexadecimal digits, to requests that have none.
    #[arg(long, env = "CORELANE_REQUEST_ID")]
    request_id: bool,
    /// Networks of proxies in front of corelane, as in 10.0.0.0/8; repeatable. Their forwarded
    /// headers are believed, anyone else's are replaced [default: none].
    #[arg(long, value_name = "CIDR", env = "CORELANE_TRUSTED_PROXIES", value_delimiter = ' ',
        num_args = 1.., value_parser = parse_network)]
    trusted_proxies: Vec<IpNet>,
    /// The protocols that a connection may be upgraded to; '' for none; h2c is never one.
    #[arg(long, value_name = "TOKEN", default_value = "websocket", env = "CORELANE_UPGRADE",
        value_delimiter = ' ', num_args = 1.., value_parser = parse_upgrade)]
    upgrade: Vec<String>,
    /// Forward CONNECT, and pass bytes both ways once a backend has granted it; else 405.
    #[arg(long, env = "CORELANE_CONNECT")]
    connect: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ForwardedHeadersArg {
    /// The client's address is added to a trusted proxy's; anyone else's are replaced.
    Append,
    /// Everyone's are replaced.
    Replace,
    /// Everyone's pass as they are, and none are added.
    Off,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
struct ProcessArgs {
    /// How long requests in flight may take after SIGTERM or SIGINT [limits: 0s to 1d].
    #[arg(long, value_name = "DURATION", default_value = "30s", env = "CORELANE_DRAIN_TIMEOUT",
        value_parser = duration(0, DAY))]
    drain_timeout: Duration,
    /// A file to write the listening addresses to, one a line, once corelane is ready.
    #[arg(long, value_name = "PATH", env = "CORELANE_READY_FILE")]
    ready_file: Option<PathBuf>,
    /// The least important log lines to write: error, warn, info, debug, trace or off.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "CORELANE_LOG_LEVEL")]
    log_level: tracing_subscriber::filter::LevelFilter,
    /// How log lines look; they go to standard error.
    #[arg(long, value_enum, default_value = "text", env = "CORELANE_LOG_FORMAT")]
    log_format: LogFormat,
    /// A fault for tests: panic-connection=N or panic-worker=N.
    #[arg(long, hide = true, value_parser = parse_fault)]
    fault: Vec<Faults>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the machine allows this process.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The cores it may run on, by the affinity mask.
    pub cores: Vec<usize>,
    /// How many of them it may use at once, by the cgroup's quota too.
    pub parallelism: usize,
    /// The descriptors it may open.
    pub descriptors: usize,
}

impl Machine {
    /// The most client connections by default: backends get a quarter of the descriptors.
    fn conns_max(&self) -> usize {
        (self.descriptors / 4 * 3).max(1)
    }
}

impl ProxyArgs {
    /// How the log is written.
    #[must_use]
    pub fn log(&self) -> (tracing_subscriber::filter::LevelFilter, LogFormat) {
        (self.process.log_level, self.process.log_format)
    }

    /// The configuration that these flags make on this machine.
    ///
    /// # Errors
    /// When they are impossible together.
    pub fn into_config(self, machine: &Machine) -> Result<Config, StartError> {
        let ProxyArgs { traffic, workers, health, backend, client, forward, process } = self;
        Ok(Config {
            listeners: listeners_of(&traffic.listen, &workers)?,
            backends: backends_of(traffic.backend)?,
            workers: WorkersConfig {
                cores: cores_of(&workers, &machine.cores, machine.parallelism)?,
                driver: match workers.driver {
                    DriverArg::Auto => DriverChoice::Auto,
                    DriverArg::Uring => DriverChoice::Uring,
                    DriverArg::Epoll => DriverChoice::Epoll,
                },
                ring_entries: at_least_one(workers.ring_entries),
            },
            policy: match traffic.policy {
                PolicyArg::RoundRobin => Policy::RoundRobin,
            },
            health: health_of(health)?,
            client: client.limits(machine.conns_max()),
            backend: backend.limits(),
            head: client.head_limits()?,
            forward: forward.into_config(),
            drain_timeout: process.drain_timeout,
            ready_file: process.ready_file,
            faults: process.fault.into_iter().fold(Faults::default(), |all, fault| Faults {
                panic_connection: fault.panic_connection.or(all.panic_connection),
                panic_worker: fault.panic_worker.or(all.panic_worker),
            }),
        })
    }
}

impl ClientLimitArgs {
    fn limits(&self, conns_max_by_default: usize) -> ClientLimits {
        ClientLimits {
            header_timeout: self.client_header_timeout,
            idle_timeout: self.client_idle_timeout,
            body_timeout: self.client_body_timeout,
            conns_max: self.client_conns_max.map_or(conns_max_by_default, |max| max as usize),
            conns_per_address_max: self.client_conns_per_address_max,
            rate_max: self.client_rate_max,
            body_rate_min: self.body_rate_min,
            body_bytes_max: self.body_bytes_max,
            tunnel_timeout: self.tunnel_timeout,
            abort_on_half_close: self.abort_on_half_close,
        }
    }

    fn head_limits(&self) -> Result<HeadLimits, StartError> {
        if self.target_bytes_max > self.head_bytes_max {
            return Err(usage("--target-bytes-max is more than --head-bytes-max".to_owned()));
        }
        Ok(HeadLimits {
            bytes_max: self.head_bytes_max as usize,
            headers_max: self.headers_max as usize,
            target_bytes_max: self.target_bytes_max as usize,
        })
    }
}

impl BackendLimitArgs {
    fn limits(&self) -> BackendLimits {
        BackendLimits {
            connect_timeout: self.backend_connect_timeout,
            response_timeout: self.backend_response_timeout,
            body_timeout: self.backend_body_timeout,
            idle_timeout: self.backend_idle_timeout,
            idle_per_endpoint_max: self.backend_idle_max as usize,
        }
    }
}

impl ForwardArgs {
    fn into_config(self) -> ForwardConfig {
        ForwardConfig {
            upgrades: self.upgrade.into_iter().filter(|token| !token.is_empty()).collect(),
            connect: self.connect,
            forwarded_headers: match self.forwarded_headers {
                ForwardedHeadersArg::Append => ForwardedHeaders::Append,
                ForwardedHeadersArg::Replace => ForwardedHeaders::Replace,
                ForwardedHeadersArg::Off => ForwardedHeaders::Off,
            },
            forwarded: self.forwarded,
            request_id: self.request_id,
            trusted_proxies: self.trusted_proxies,
        }
    }
}

fn listeners_of(
    addrs: &[SocketAddr],
    workers: &WorkerArgs,
) -> Result<Vec<ListenerConfig>, StartError> {
    let mut seen = HashSet::new();
    if let Some(twice) = addrs.iter().find(|addr| addr.port() != 0 && !seen.insert(**addr)) {
        return Err(usage(format!("--listen {twice} is given twice")));
    }
    let listener = |addr: &SocketAddr| ListenerConfig {
        addr: *addr,
        backlog: at_least_one(workers.backlog),
        shared: workers.reuse_port_with_others,
    };
    Ok(addrs.iter().map(listener).collect())
}

fn backends_of(backends: Vec<BackendConfig>) -> Result<Vec<BackendConfig>, StartError> {
    if backends.len() > BACKENDS_MAX {
        return Err(usage(format!("--backend is given more than {BACKENDS_MAX} times")));
    }
    let mut seen = HashSet::new();
    match backends.iter().find(|backend| !seen.insert(backend.authority())) {
        Some(twice) => {
            let authority = twice.authority();
            Err(usage(format!("--backend http://{authority} is given twice; use weight=N")))
        }
        None => Ok(backends),
    }
}

fn health_of(health: HealthArgs) -> Result<HealthConfig, StartError> {
    if health.health_timeout > health.health_interval {
        return Err(usage("--health-timeout is longer than --health-interval".to_owned()));
    }
    let is_path = health.health_path.is_empty()
        || (health.health_path.starts_with('/')
            && health.health_path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
    if !is_path {
        return Err(usage(format!(
            "--health-path {:?} is no path: it begins with / and has no spaces",
            health.health_path
        )));
    }
    Ok(HealthConfig {
        path: Some(health.health_path).filter(|path| !path.is_empty()),
        interval: health.health_interval,
        timeout: health.health_timeout,
        rise: at_least_one(health.health_rise),
        fall: at_least_one(health.health_fall),
    })
}

/// The core of each worker, in order.
fn cores_of(
    workers: &WorkerArgs,
    allowed: &[usize],
    parallelism: usize,
) -> Result<Vec<usize>, StartError> {
    let (cores, count_by_default) = match &workers.cores {
        Some(list) => {
            let cores = parse_cores(list).map_err(|reason| usage(format!("--cores {reason}")))?;
            if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
                return Err(usage(format!(
                    "--cores: core {core} is not among the allowed ones, {allowed:?}"
                )));
            }
            let count = cores.len();
            (cores, count)
        }
        None => (allowed.to_vec(), parallelism.clamp(1, allowed.len().max(1))),
    };
    let count = workers.workers.map_or(count_by_default, NonZeroUsize::get);
    if count > cores.len().min(WORKERS_MAX) {
        return Err(usage(format!(
            "--workers {count} is more than the {} cores to run on",
            cores.len().min(WORKERS_MAX)
        )));
    }
    Ok(cores.into_iter().take(count).collect())
}

fn usage(reason: String) -> StartError {
    StartError::Usage(reason)
}

/// A number that its flag's limits keep above 0.
fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// An hour and a day, in milliseconds.
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

#[cfg(test)]
mod tests;
