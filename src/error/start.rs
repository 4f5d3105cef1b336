//! What stops the process before it serves.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What stops the process before it serves. Each message names the operator's next step.
#[derive(Debug)]
pub enum StartError {
    /// The flags are impossible together; exit code 64.
    Usage(String),
    /// The configuration file, or more than one flag, is wrong; a line for each reason, each with its
    /// place; exit code 64.
    ConfigFile(String),
    /// A listening address is taken.
    AddressInUse(SocketAddr),
    /// Another process has the state file.
    StateFileInUse(PathBuf),
    /// A listening socket could not be made.
    Listen(SocketAddr, std::io::Error),
    /// The admin API's address cannot be had.
    AdminListen(String, std::io::Error),
    /// A worker found no driver that works.
    Driver(String),
    /// A worker could not be pinned to its core.
    Pin(usize),
    /// The ready file could not be written.
    File(String, std::io::Error),
    /// A running corelane could not be asked, and why.
    Unanswered(String),
    /// The terminal could not be used as a screen.
    Terminal(std::io::Error),
    /// The access log could not be opened.
    AccessLog(String, std::io::Error),
    /// A thread, a pipe or another resource of the process could not be had.
    Resource(&'static str, std::io::Error),
}

impl StartError {
    /// The exit code: 64 (`EX_USAGE`) for flags, 71 (`EX_OSERR`) for the system.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Usage(_) | StartError::ConfigFile(_) => EXIT_USAGE,
            _ => EXIT_SYSTEM,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Usage(reason) => write!(f, "{reason}; see corelane --help"),
            StartError::ConfigFile(reasons) => f.write_str(reasons),
            StartError::AddressInUse(addr) => write!(
                f,
                "{addr} is in use by another process: find it with ss -ltnp and stop it, or \
                 choose another --listen"
            ),
            StartError::StateFileInUse(path) => write!(
                f,
                "--state-file {} is in use by another corelane; give this one a file of its own, or \
                 end the other first",
                path.display()
            ),
            StartError::Listen(addr, error)
                if error.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                write!(
                    f,
                    "cannot listen on {addr}: {error}; ports below 1024 need root or \
                     CAP_NET_BIND_SERVICE"
                )
            }
            StartError::Listen(addr, error) => {
                write!(
                    f,
                    "cannot listen on {addr}: {error}; check that the address is this machine's"
                )
            }
            StartError::AdminListen(addr, error) => {
                let step = match error.kind() {
                    std::io::ErrorKind::AddrInUse => "another process listens there: stop it, or",
                    std::io::ErrorKind::PermissionDenied => "this user may not listen there:",
                    _ => "check the address or the directory, or",
                };
                write!(f, "cannot listen on --admin {addr}: {error}; {step} choose another --admin")
            }
            StartError::Driver(reason) => write!(f, "{reason}"),
            StartError::Pin(core) => write!(
                f,
                "cannot pin a worker to core {core}: choose --cores among the allowed ones (taskset -p $$)"
            ),
            StartError::File(path, error) => {
                write!(f, "--ready-file {path}: {error}; check the directory and its rights")
            }
            StartError::Unanswered(reason) => write!(f, "{reason}"),
            StartError::Terminal(error) => {
                write!(f, "no screen: {error}; use corelane top --once where there is none")
            }
            StartError::AccessLog(path, error) => write!(
                f,
                "--access-log {path}: {error}; check the directory and its rights, and that \
                 somebody reads it where it is a pipe"
            ),
            StartError::Resource(what, error) => {
                write!(f, "cannot get {what}: {error}; check ulimit -n and ulimit -u")
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Listen(_, error)
            | StartError::AdminListen(_, error)
            | StartError::File(_, error)
            | StartError::Terminal(error)
            | StartError::AccessLog(_, error)
            | StartError::Resource(_, error) => Some(error),
            StartError::Usage(_)
            | StartError::ConfigFile(_)
            | StartError::AddressInUse(_)
            | StartError::StateFileInUse(_)
            | StartError::Driver(_)
            | StartError::Unanswered(_)
            | StartError::Pin(_) => None,
        }
    }
}

/// `EX_USAGE` of sysexits.h: the command line is wrong.
pub const EXIT_USAGE: u8 = 64;
/// `EX_OSERR` of sysexits.h: the system refused something.
pub const EXIT_SYSTEM: u8 = 71;
