//! The flags of `corelane backend` and `corelane demo`.

use std::fs::File;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::cli::flags::EtcdAccessArgs;
use crate::cli::read::{
    EtcdPlace, duration, number, parse_listen, parse_register, parse_register_as, percent,
};
use crate::config::{self, EtcdConfig, Mode};
use crate::demo::{AGENT_LINE, AGENT_LINE_BYTES_MAX, BackendConfig, Behaviour, load_of};
use crate::discovery::Registration;
use crate::error::StartError;

/// The flags of `corelane backend`.
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// The address to listen on; port 0 takes a free port.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9001",
        value_parser = parse_listen)]
    listen: SocketAddr,
    /// The name it answers with.
    #[arg(long, default_value = "backend")]
    name: String,
    /// How long each answer is held back, but for probes [limits: 0s to 1m].
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration(0, MINUTE))]
    latency: Duration,
    /// The share of answers that are a 500, but for probes [limits: 0 to 100].
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent())]
    error_percent: u8,
    /// Answer probes alone: other requests are executed and never answered.
    #[arg(long)]
    silent: bool,
    /// How long a connection may lie without a request before it is closed [default: for ever;
    /// limits: 1ms to 1h].
    #[arg(long, value_name = "DURATION", value_parser = duration(1, 60 * MINUTE))]
    idle_timeout: Option<Duration>,
    /// Announce the idle timeout, in whole seconds, as Keep-Alive: timeout=N.
    #[arg(long, requires = "idle_timeout")]
    keep_alive_header: bool,
    /// The load in X-Load on /health [default: no X-Load; limits: 0 to 1].
    #[arg(long, value_name = "F", value_parser = parse_load)]
    load: Option<f64>,
    /// The port, of the same address, on which its agent talks [default: no agent].
    #[arg(long, value_name = "PORT", value_parser = number(1, 65535))]
    agent_port: Option<u32>,
    /// The line that its agent sends to whoever connects.
    #[arg(long, value_name = "LINE", default_value = AGENT_LINE,
        requires = "agent_port", value_parser = parse_agent_line)]
    agent_line: String,
    /// A file to append the ids of POST /count to, one a line, as they are counted.
    #[arg(long, value_name = "PATH")]
    count_file: Option<PathBuf>,
    /// Register in etcd, under a lease, as a backend of the pool default.
    #[arg(long, value_name = "etcd[s]://HOST:PORT[,HOST:PORT…]/PREFIX",
        value_parser = parse_register)]
    register: Option<EtcdPlace>,
    /// How long the registration outlives the process, in whole seconds [limits: 1s to 1h].
    #[arg(long, value_name = "DURATION", default_value = "5s", requires = "register",
        value_parser = duration(1000, 60 * MINUTE))]
    register_ttl: Duration,
    /// The address to register [default: the one it listens on].
    #[arg(long, value_name = "HOST:PORT", requires = "register",
        value_parser = parse_register_as)]
    register_as: Option<(String, u16)>,
    #[command(flatten)]
    etcd: EtcdAccessArgs,
}

impl BackendArgs {
    /// Where the backend registers, if it does.
    ///
    /// # Errors
    /// When a file with a password or a certificate cannot be read.
    pub fn register(&self) -> Result<Option<Register>, StartError> {
        let Some(place) = &self.register else {
            return match self.etcd.first_flag() {
                Some(flag) => Err(StartError::Usage(format!("{flag} needs a --register"))),
                None => Ok(None),
            };
        };
        let EtcdPlace { members, prefix } = place.clone();
        let etcd = self.etcd.clone().into_config(members, prefix)?;
        let (ttl, address) = (self.register_ttl, self.register_as.clone());
        Ok(Some(Register { etcd, ttl, address }))
    }

    /// The configuration that these flags make.
    ///
    /// # Errors
    /// When the count file cannot be opened.
    pub fn into_config(self) -> Result<BackendConfig, StartError> {
        let open = |path: PathBuf| {
            let file = File::options().append(true).create(true).open(&path);
            file.map(Arc::new).map_err(|error| {
                StartError::Usage(format!("--count-file {}: {error}", path.display()))
            })
        };
        Ok(BackendConfig {
            listen: self.listen,
            name: self.name,
            behaviour: Behaviour {
                latency: self.latency,
                error_percent: self.error_percent,
                is_silent: self.silent,
                idle_timeout: self.idle_timeout,
                announces_idle_timeout: self.keep_alive_header,
                load: self.load,
            },
            // Its flag's limits keep it within 16 bits.
            agent_port: self.agent_port.and_then(|port| u16::try_from(port).ok()),
            agent_line: self.agent_line,
            count_file: self.count_file.map(open).transpose()?,
        })
    }
}

/// Where and as what a backend registers.
#[derive(Debug)]
pub struct Register {
    etcd: EtcdConfig,
    ttl: Duration,
    /// The host and port, if not those that it listens on.
    address: Option<(String, u16)>,
}

impl Register {
    /// The registration of a backend that listens here.
    ///
    /// # Errors
    /// When others cannot reach it there, or a certificate cannot be used.
    pub fn of(self, bound: SocketAddr) -> Result<Registration, StartError> {
        if self.address.is_none() && bound.ip().is_unspecified() {
            let reason = format!("--register: nobody can connect to {bound}; give --register-as");
            return Err(StartError::Usage(reason));
        }
        let (host, port) = self.address.unwrap_or_else(|| (bound.ip().to_string(), bound.port()));
        let backend = config::BackendConfig {
            host,
            port,
            weight: NonZeroU16::MIN,
            conns_max: None,
            is_backup: false,
            mode: Mode::Ready,
        };
        Registration::new(self.etcd, &backend, self.ttl).map_err(StartError::Usage)
    }
}

/// The flags of `corelane demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The load balancer's address; port 0 takes a free port.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080",
        value_parser = parse_listen)]
    pub listen: SocketAddr,
    /// The load balancer's workers; each gets a core of its own [limit: the allowed cores].
    #[arg(long, value_name = "N", default_value = "1", value_parser = number(1, 512))]
    pub workers: u32,
}

fn parse_agent_line(text: &str) -> Result<String, String> {
    let is_line = (1..=AGENT_LINE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let refused = || format!("it is not 1 to {AGENT_LINE_BYTES_MAX} bytes of visible ASCII");
    if is_line { Ok(text.to_owned()) } else { Err(refused()) }
}

fn parse_load(text: &str) -> Result<f64, String> {
    load_of(text).ok_or_else(|| "it is not a number from 0 to 1".to_owned())
}

/// A minute, in milliseconds.
const MINUTE: u64 = 60_000;
