//! Where a backend is named.

use std::fmt;

/// Where a backend is named; where two sources name the same one, the first of these decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A change through the admin API.
    Api,
    /// A flag, its environment variable or the configuration file.
    Flags,
    /// The file of backends.
    File,
    /// etcd.
    Etcd,
    /// DNS.
    Dns,
}

impl Source {
    /// Its name in the API, in metrics and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Source::Api => "api",
            Source::Flags => "flags",
            Source::File => "file",
            Source::Etcd => "etcd",
            Source::Dns => "dns",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
