//! The flags of `corelane doctor`: those of the load balancer that this machine is judged for.

use std::path::PathBuf;

use clap::Args;

use crate::cli::build::{Machine, cores_of, driver_of};
use crate::cli::flags::ProxyArgs;
use crate::doctor::Subject;
use crate::error::StartError;

/// The flags of `corelane doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    proxy: Box<ProxyArgs>,
    /// Where proc and sys are, for tests.
    #[arg(long, hide = true, default_value = "/")]
    pub root: PathBuf,
}

impl DoctorArgs {
    /// What this machine is judged for.
    ///
    /// # Errors
    /// When the flags are impossible together on this machine.
    pub fn subject(&self, machine: &Machine) -> Result<Subject, StartError> {
        let ProxyArgs { workers, client, .. } = &*self.proxy;
        Ok(Subject {
            cores: cores_of(workers, &machine.cores, machine.parallelism)?,
            driver: driver_of(workers.driver),
            ring_entries: workers.ring_entries,
            backlog: workers.backlog,
            is_shared: workers.reuse_port_with_others,
            client_conns_max: client.client_conns_max,
        })
    }
}
