//! The flags of the files that the registry of backends reads and writes.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(next_help_heading = "Discovery")]
pub(in crate::cli) struct RegistryArgs {
    /// A file of backends, in TOML or JSON by its name's ending, read again whenever it changes. A
    /// broken one is refused and the last good set stays [limits: 1 MiB, 1024 backends].
    #[arg(long, value_name = "PATH", env = "CORELANE_BACKENDS_FILE")]
    pub(in crate::cli) backends_file: Option<PathBuf>,
    /// A file in which changes through the admin API and the last backends that etcd told survive a
    /// restart [limit: 16 MiB].
    #[arg(long, value_name = "PATH", env = "CORELANE_STATE_FILE")]
    pub(in crate::cli) state_file: Option<PathBuf>,
}
