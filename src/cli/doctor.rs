//! The flags of `corelane doctor`: those of the load balancer that this machine is judged for.

use std::path::PathBuf;

use clap::Args;

use crate::cli::build::{Machine, cores_of, driver_of};
use crate::cli::flags::WorkerArgs;
use crate::cli::read::number;
use crate::doctor::Subject;
use crate::error::StartError;

/// The flags of `corelane doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    workers: WorkerArgs,
    /// The most client connections that the load balancer is to have.
    #[arg(long, value_name = "N", env = "CORELANE_CLIENT_CONNS_MAX",
        value_parser = number(1, 16_777_216))]
    client_conns_max: Option<u32>,
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
        Ok(Subject {
            cores: cores_of(&self.workers, &machine.cores, machine.parallelism)?,
            driver: driver_of(self.workers.driver),
            ring_entries: self.workers.ring_entries,
            backlog: self.workers.backlog,
            is_shared: self.workers.reuse_port_with_others,
            client_conns_max: self.client_conns_max,
        })
    }
}
