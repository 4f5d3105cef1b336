//! The flags of times and sizes: on the backends' side, and on the clients'.

use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use crate::cli::flags::{DAY, HOUR};
use crate::cli::read::{duration, number, parse_bytes};
use crate::config::HEADERS_LIMIT;

#[derive(Debug, Args)]
#[command(next_help_heading = "Backends")]
pub(in crate::cli) struct BackendLimitArgs {
    /// How long connecting to a backend may take; 504 then [limits: 1ms to 1h].
    #[arg(long, value_name = "DURATION", default_value = "2s",
        env = "CORELANE_BACKEND_CONNECT_TIMEOUT", value_parser = duration(1, HOUR))]
    pub(in crate::cli) backend_connect_timeout: Duration,
    /// From the end of a request to the end of its answer's head; 504 then [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_BACKEND_RESPONSE_TIMEOUT", value_parser = duration(1, DAY))]
    pub(in crate::cli) backend_response_timeout: Duration,
    /// How long a body may make no progress from or to a backend [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_BACKEND_BODY_TIMEOUT", value_parser = duration(1, DAY))]
    pub(in crate::cli) backend_body_timeout: Duration,
    /// How long an unused connection to a backend is kept; shorter than the backend keeps it
    /// [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "30s",
        env = "CORELANE_BACKEND_IDLE_TIMEOUT", value_parser = duration(1, DAY))]
    pub(in crate::cli) backend_idle_timeout: Duration,
    /// Unused connections kept per backend and worker; 0 keeps none [limit: 65535].
    #[arg(long, value_name = "N", default_value = "4096", env = "CORELANE_BACKEND_IDLE_MAX",
        value_parser = number(0, 65535))]
    pub(in crate::cli) backend_idle_max: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Clients")]
pub(in crate::cli) struct ClientLimitArgs {
    /// From the first byte of a request's head, or from the connection's start while nothing has
    /// come, to the head's end; 408 where it had begun [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "10s",
        env = "CORELANE_CLIENT_HEADER_TIMEOUT", value_parser = duration(1, DAY))]
    pub(in crate::cli) client_header_timeout: Duration,
    /// How long a connection may lie without a request after its last answer [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_CLIENT_IDLE_TIMEOUT", value_parser = duration(1, DAY))]
    pub(in crate::cli) client_idle_timeout: Duration,
    /// How long a body may make no progress from or to a client; 408 where no answer has begun
    /// [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "60s",
        env = "CORELANE_CLIENT_BODY_TIMEOUT", value_parser = duration(1, DAY))]
    pub(in crate::cli) client_body_timeout: Duration,
    /// The most client connections of the process; accepting waits then [default: (ulimit
    /// -n less 64) / 2, since each may need a backend's connection too; limit: 16777216].
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_CONNS_MAX",
        value_parser = number(1, 16_777_216))]
    pub(in crate::cli) client_conns_max: Option<u32>,
    /// The most connections of one address; 429 then [default: no limit].
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_CONNS_PER_ADDRESS_MAX",
        value_parser = number(1, u32::MAX))]
    pub(in crate::cli) client_conns_per_address_max: Option<u32>,
    /// The most requests a second of one address; 429 then. Each worker allows its part, the
    /// limit divided by the workers, so that an address on few connections gets less
    /// [default: no limit].
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_RATE_MAX",
        value_parser = number(1, u32::MAX))]
    pub(in crate::cli) client_rate_max: Option<u32>,
    /// Bytes a second that a request's body must come with, counted while corelane waits for it,
    /// after 2 s of grace; 408 then [default: no limit].
    #[arg(long, value_name = "BYTES", env = "CORELANE_BODY_RATE_MIN",
        value_parser = number(1, u32::MAX))]
    pub(in crate::cli) body_rate_min: Option<u32>,
    /// The most bytes of a request's body; 413 [default: no limit].
    #[arg(long, value_name = "BYTES", env = "CORELANE_BODY_BYTES_MAX",
        value_parser = parse_bytes)]
    pub(in crate::cli) body_bytes_max: Option<u64>,
    /// How long a tunnel (an upgraded connection) may pass nothing [limits: 1ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "1h",
        env = "CORELANE_TUNNEL_TIMEOUT", value_parser = duration(1, DAY))]
    pub(in crate::cli) tunnel_timeout: Duration,
    /// Take a client that shuts down its sending side for one that has left, and end its request.
    #[arg(long, env = "CORELANE_ABORT_ON_HALF_CLOSE",
        action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(in crate::cli) abort_on_half_close: bool,
    /// The most bytes of a request's or an answer's head; 431, or 502 [limits: 1024 to 1048576].
    #[arg(long, value_name = "BYTES", default_value = "32768", env = "CORELANE_HEAD_BYTES_MAX",
        value_parser = number(1024, 1_048_576))]
    pub(in crate::cli) head_bytes_max: u32,
    /// The most headers of a request or an answer; 431, or 502 [limits: 1 to 256].
    #[arg(long, value_name = "N", default_value = "100", env = "CORELANE_HEADERS_MAX",
        value_parser = number(1, HEADERS_LIMIT as u32))]
    pub(in crate::cli) headers_max: u32,
    /// The most bytes of a request's target; 414 [limits: 64 to --head-bytes-max].
    #[arg(long, value_name = "BYTES", default_value = "16384", env = "CORELANE_TARGET_BYTES_MAX",
        value_parser = number(64, 1_048_576))]
    pub(in crate::cli) target_bytes_max: u32,
}
