//! Reads the configuration again: the same arguments and environment, and the file as it is now.
//!
//! Called by `control` when the process is asked to; changes nothing itself.

use crate::cli::check::changed_for_restart;
use crate::cli::file::Setting;
use crate::cli::flags::ProxyArgs;
use crate::cli::{Cli, Machine, ReadError, line_of};
use crate::control::Reading;

/// What the process was started with.
#[derive(Debug)]
pub struct Reader {
    args: Vec<String>,
    machine: Machine,
    /// The settings at the start.
    started: Vec<Setting>,
}

impl Reader {
    /// For a process that was started so; `None` where there is no file to read again.
    #[must_use]
    pub fn new(started: &ProxyArgs, machine: Machine) -> Option<Reader> {
        started.file.config.as_ref()?;
        Some(Reader { args: Cli::proxy_args(), machine, started: started.settings.clone() })
    }

    /// Reads all again.
    ///
    /// # Errors
    /// Everything that is wrong, a line each.
    pub fn read(&self) -> Result<Reading, String> {
        let cli = Cli::read_all(&self.args).map_err(|error| match error {
            ReadError::Flags(error) => line_of(&error, None),
            ReadError::File(error) => error.to_string(),
        })?;
        let needs_restart = changed_for_restart(&self.started, &cli.proxy.settings);
        let config = cli.proxy.into_config(&self.machine).map_err(|error| error.to_string())?;
        if let Some(name) = needs_restart.iter().find(|it| BOUND.contains(&it.as_str())) {
            return Err(format!(
                "{name} has changed, on which routes and pools depend: restart corelane"
            ));
        }
        Ok(Reading { pools: config.pools, routes: config.routes, needs_restart })
    }
}

/// What only a restart changes, and what is read again means something by: routes name listeners,
/// and pools may be filled by what these name.
const BOUND: [&str; 5] = ["listen", "backends-file", "backend-dns", "etcd", "etcd-prefix"];
