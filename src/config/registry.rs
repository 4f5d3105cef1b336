//! Files of backends: one to read them from, one to keep changes in.

use std::path::PathBuf;

/// The files that the registry of backends reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// A file of backends that is read again whenever it changes.
    pub backends_file: Option<PathBuf>,
    /// The file that keeps what changed at run time.
    pub state_file: Option<PathBuf>,
}
