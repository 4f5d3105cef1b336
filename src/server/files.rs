//! What a start would find of the files that its configuration names; `corelane check` asks.

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::discovery::BackendsFile;
use crate::error::StartError;

/// Reads the backends file, and sees whether the access log could be opened; changes nothing.
///
/// # Errors
/// Those that a start would end with.
pub fn look_at_files(config: &Config) -> Result<(), StartError> {
    if let Some(path) = &config.registry.backends_file {
        BackendsFile::open(path).map_err(StartError::Usage)?;
    }
    config.access_log.as_ref().map_or(Ok(()), AccessLog::look)
}
