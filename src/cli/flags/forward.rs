//! The flags of what is forwarded, and of what backends are told about clients.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;

use crate::cli::read::{List, list, parse_network, parse_upgrade};

#[derive(Debug, Args)]
#[command(next_help_heading = "Forwarding")]
pub(in crate::cli) struct ForwardArgs {
    /// What becomes of X-Forwarded-For, -Proto and -Host that a trusted proxy sends.
    #[arg(long, value_enum, default_value = "append", env = "CORELANE_FORWARDED_HEADERS")]
    pub(in crate::cli) forwarded_headers: ForwardedHeadersArg,
    /// Add Forwarded (RFC 7239) to requests.
    #[arg(long, env = "CORELANE_FORWARDED",
        action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(in crate::cli) forwarded: bool,
    /// Add X-Request-Id, 32 hexadecimal digits, to requests that have none.
    #[arg(long, env = "CORELANE_REQUEST_ID",
        action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(in crate::cli) request_id: bool,
    /// Add traceparent (W3C Trace Context) to requests that have no valid one, as the begin of a trace
    /// that is sampled or not; an invalid one and its tracestate go.
    #[arg(long, value_enum, default_value = "off", env = "CORELANE_TRACEPARENT")]
    pub(in crate::cli) traceparent: TraceParentArg,
    /// Networks of proxies in front of corelane, as in 10.0.0.0/8; repeatable. Their forwarded
    /// headers are believed, anyone else's are replaced [default: none].
    #[arg(long, value_name = "CIDR", env = "CORELANE_TRUSTED_PROXIES", value_parser = list(parse_network))]
    pub(in crate::cli) trusted_proxies: Vec<List<IpNet>>,
    /// The protocols that a connection may be upgraded to; '' for none; h2c is never one.
    #[arg(long, value_name = "TOKEN", default_value = "websocket", env = "CORELANE_UPGRADE",
        value_parser = list(parse_upgrade))]
    pub(in crate::cli) upgrade: Vec<List<String>>,
    /// Forward CONNECT, and pass bytes both ways once a backend has granted it; else 405.
    #[arg(long, env = "CORELANE_CONNECT",
        action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub(in crate::cli) connect: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum TraceParentArg {
    /// Everyone's pass as they are, and none are added.
    Off,
    /// A trace that is begun here is recorded by whoever heeds that.
    Sampled,
    /// A trace that is begun here is not.
    Unsampled,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum ForwardedHeadersArg {
    /// The client's address is added to a trusted proxy's; anyone else's are replaced.
    Append,
    /// Everyone's are replaced.
    Replace,
    /// Everyone's pass as they are, and none are added.
    Off,
}
