//! The flags of `corelane backend` and `corelane demo`.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::cli::read::{duration, number, parse_listen, percent};
use crate::demo::{AGENT_LINE, AGENT_LINE_BYTES_MAX, BackendConfig, Behaviour, load_of};
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
}

impl BackendArgs {
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
