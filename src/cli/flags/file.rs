//! The flag of the configuration file.

use std::path::PathBuf;

use clap::Args;

use crate::cli::file::Content;

#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration file")]
pub(in crate::cli) struct FileArgs {
    /// A TOML file: these flags' names as keys, [[pools]] with settings of their own, and
    /// [[routes]] to them. Flags and variables win over it; SIGHUP reads it again
    /// [limit: 1048576 bytes].
    #[arg(long, value_name = "PATH", env = "CORELANE_CONFIG")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// What it held.
    #[arg(skip)]
    pub(in crate::cli) content: Content,
}
