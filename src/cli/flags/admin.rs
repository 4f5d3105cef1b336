//! The flags of the admin API.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::read::{List, list, parse_admin, parse_admin_host};
use crate::config::AdminAddr;

#[derive(Debug, Args)]
#[command(next_help_heading = "Admin API")]
pub(in crate::cli) struct AdminArgs {
    /// Where the admin API, /metrics and the dashboard are served: IP:PORT or unix:PATH
    /// [default: nowhere]. Beyond loopback it needs --admin-token-file.
    #[arg(long, value_name = "IP:PORT|unix:PATH", env = "CORELANE_ADMIN",
        value_parser = parse_admin)]
    pub(in crate::cli) admin: Option<AdminAddr>,
    /// A file with the token that clients of the admin API must send [limits: 16 to 512 bytes].
    #[arg(long, value_name = "PATH", env = "CORELANE_ADMIN_TOKEN_FILE")]
    pub(in crate::cli) admin_token_file: Option<PathBuf>,
    /// A name by which the admin API may be asked, beside localhost and IP addresses; repeatable.
    #[arg(long, value_name = "NAME", env = "CORELANE_ADMIN_HOST",
        value_parser = list(parse_admin_host))]
    pub(in crate::cli) admin_host: Vec<List<String>>,
    /// Where backends that the admin API adds, changes or removes are kept; etcd needs --etcd.
    #[arg(long, value_enum, default_value = "local", env = "CORELANE_ADMIN_WRITES")]
    pub(in crate::cli) admin_writes: AdminWritesArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum AdminWritesArg {
    /// In this process, and in --state-file where one is given.
    Local,
    /// In etcd, so that every corelane on its prefix follows.
    Etcd,
}
