//! Makes a `Config` of the flags, and refuses what is impossible together.

mod access_log;
mod admin;
mod balance;
mod discovery;
mod health;
mod pools;
mod problems;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use crate::cli::flags::{
    BackendLimitArgs, ClientLimitArgs, DriverArg, ForwardArgs, ForwardedHeadersArg, LogFormat,
    ProxyArgs, SteerArg, TraceParentArg, WorkerArgs,
};
use crate::cli::read::{List, parse_cores};
use crate::config::{
    BACKENDS_MAX, BackendConfig, BackendLimits, ClientLimits, Config, DESCRIPTORS_RESERVED,
    DiscoveryConfig, DriverChoice, Faults, ForwardConfig, ForwardedHeaders, HeadLimits, IdleLimits,
    ListenerConfig, RegistryConfig, Steer, TraceParents, WORKERS_MAX, WorkersConfig,
};
use crate::error::StartError;
use pools::{PoolArgs, pools_of, routes_of};
use problems::Problems;

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
    /// The most client connections by default: each may need a backend's too.
    fn conns_max(&self) -> usize {
        (self.descriptors.saturating_sub(DESCRIPTORS_RESERVED) / 2).max(1)
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
        let ProxyArgs { traffic, discovery, balance, queue, retry, health, eject, breaker, .. } =
            self;
        let ProxyArgs { workers, backend, client, forward, access_log, .. } = self;
        let ProxyArgs { admin, registry, process, file, .. } = self;
        let mut content = file.content;
        let queue_timeout = queue.queue_timeout;
        let limits = backend;
        let own = PoolArgs { balance, queue_timeout, retry, health, eject, breaker, limits };
        let mut problems = Problems::of(&mut content);
        let listeners = problems.took(listeners_of(&List::join(traffic.listen), &workers))?;
        let backends = problems.took(backends_of(List::join(traffic.backend)))?;
        let discovery = problems.took(discovery.into_config())?;
        // What is broken may have been meant to.
        let is_filled = backends.as_ref().is_none_or(|it| !it.is_empty())
            || discovery.as_ref().is_none_or(DiscoveryConfig::is_any)
            || registry.backends_file.is_some();
        let backends = backends.unwrap_or_default();
        let pools = pools_of(own, backends, is_filled, &mut content, &mut problems)?;
        let routes = routes_of(&content, &pools, listeners.as_deref(), &mut problems);
        let workers = problems.took(workers.into_config(machine))?;
        let head = problems.took(client.head_limits())?;
        let has_etcd = discovery.as_ref().is_none_or(|it| it.etcd.is_some());
        let admin = problems.took(admin.into_config(has_etcd))?;
        let all = (listeners, discovery, workers, head, admin, problems.is_empty());
        let (Some(listeners), Some(discovery), Some(workers), Some(head), Some(admin), true) = all
        else {
            return Err(problems.into_error());
        };
        Ok(Config {
            listeners,
            pools,
            discovery,
            routes,
            registry: RegistryConfig {
                backends_file: registry.backends_file,
                state_file: registry.state_file,
            },
            workers,
            queue_max: queue.queue_max,
            client: client.limits(machine.conns_max()),
            head,
            forward: forward.into_config(),
            access_log: access_log.into_config(),
            admin,
            drain_timeout: process.drain_timeout,
            ready_file: process.ready_file,
            faults: process.fault.into_iter().fold(Faults::default(), |all, fault| Faults {
                panic_connection: fault.panic_connection.or(all.panic_connection),
                panic_worker: fault.panic_worker.or(all.panic_worker),
            }),
        })
    }
}

impl WorkerArgs {
    fn into_config(self, machine: &Machine) -> Result<WorkersConfig, StartError> {
        Ok(WorkersConfig {
            cores: cores_of(&self, &machine.cores, machine.parallelism)?,
            driver: driver_of(self.driver),
            ring_entries: at_least_one(self.ring_entries),
            steer: match self.steer {
                SteerArg::Off => Steer::Off,
                SteerArg::Least => Steer::Least,
            },
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
            rate_max: self.client_rate_max.map(at_least_one),
            body_rate_min: self.body_rate_min.map(at_least_one),
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
            idle: IdleLimits {
                timeout: self.backend_idle_timeout,
                per_endpoint_max: self.backend_idle_max as usize,
            },
        }
    }
}

impl ForwardArgs {
    fn into_config(self) -> ForwardConfig {
        ForwardConfig {
            upgrades: List::join(self.upgrade),
            connect: self.connect,
            forwarded_headers: match self.forwarded_headers {
                ForwardedHeadersArg::Append => ForwardedHeaders::Append,
                ForwardedHeadersArg::Replace => ForwardedHeaders::Replace,
                ForwardedHeadersArg::Off => ForwardedHeaders::Off,
            },
            forwarded: self.forwarded,
            request_id: self.request_id,
            traceparent: match self.traceparent {
                TraceParentArg::Off => TraceParents::AsTheyAre,
                TraceParentArg::Sampled => TraceParents::Make { is_sampled: true },
                TraceParentArg::Unsampled => TraceParents::Make { is_sampled: false },
            },
            trusted_proxies: List::join(self.trusted_proxies),
        }
    }
}

fn listeners_of(
    addrs: &[SocketAddr],
    workers: &WorkerArgs,
) -> Result<Vec<ListenerConfig>, StartError> {
    if addrs.is_empty() {
        let reason = "--listen IP:PORT is missing, where clients connect, as in 127.0.0.1:8080; to \
                      see it work: corelane demo";
        return Err(usage(reason.to_owned()));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = addrs.iter().find(|addr| addr.port() != 0 && !seen.insert(**addr)) {
        return Err(usage(format!("--listen {twice} is given twice")));
    }
    let is_covered = |addr: &&SocketAddr| {
        let covers =
            |other: &SocketAddr| other.ip().is_unspecified() && other.is_ipv4() == addr.is_ipv4();
        !addr.ip().is_unspecified()
            && addrs.iter().any(|other| other.port() == addr.port() && covers(other))
    };
    if let Some(addr) = addrs.iter().filter(|addr| addr.port() != 0).find(is_covered) {
        let port = addr.port();
        return Err(usage(format!(
            "--listen {addr}: another --listen has port {port} on all addresses"
        )));
    }
    let listener = |addr: &SocketAddr| ListenerConfig {
        addr: *addr,
        backlog: at_least_one(workers.backlog),
        shared: workers.reuse_port_with_others,
    };
    Ok(addrs.iter().map(listener).collect())
}

/// Refuses more backends than there can be.
fn at_most_backends(count: usize) -> Result<(), String> {
    match count <= BACKENDS_MAX {
        true => Ok(()),
        false => Err(format!("there are more than {BACKENDS_MAX} backends")),
    }
}

fn backends_of(backends: Vec<BackendConfig>) -> Result<Vec<BackendConfig>, StartError> {
    at_most_backends(backends.len()).map_err(usage)?;
    let mut seen = HashSet::new();
    match backends.iter().find(|backend| !seen.insert(backend.authority())) {
        Some(twice) => {
            let authority = twice.authority();
            Err(usage(format!("--backend http://{authority} is given twice; use weight=N")))
        }
        None => Ok(backends),
    }
}

/// The driver that `--driver` names.
pub(super) fn driver_of(driver: DriverArg) -> DriverChoice {
    match driver {
        DriverArg::Auto => DriverChoice::Auto,
        DriverArg::Uring => DriverChoice::Uring,
        DriverArg::Epoll => DriverChoice::Epoll,
    }
}

/// The core of each worker, in order.
pub(super) fn cores_of(
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
        None => (allowed.to_vec(), parallelism.clamp(1, allowed.len().clamp(1, WORKERS_MAX))),
    };
    let count = workers.workers.map_or(count_by_default, |count| count as usize);
    if count > cores.len() {
        return Err(usage(format!(
            "--workers {count} is more than the {} cores to run on",
            cores.len()
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
