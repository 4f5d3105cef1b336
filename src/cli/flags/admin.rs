//! The flags of the admin API.

use std::path::PathBuf;

use clap::Args;

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
}
