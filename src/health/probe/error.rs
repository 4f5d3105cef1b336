//! Why a probe did not pass, as the log tells it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinError;

/// Why a probe did not pass.
#[derive(Debug)]
pub enum ProbeError {
    /// The host name has no address.
    Unresolved(io::Error),
    /// Nothing listens there.
    Refused(SocketAddr, io::Error),
    /// No connection could be made, for another reason than a refusal.
    Unreachable(SocketAddr, io::Error),
    /// The probe took longer than this.
    Timeout(Duration),
    /// The answer's status is not one that passes.
    Status(SocketAddr, u16),
    /// The body's beginning is not what it must contain.
    Body(SocketAddr),
    /// The answer is not HTTP/1, or the connection ended before its head did.
    Protocol(SocketAddr, hyper::Error),
    /// corelane itself lacks file descriptors or memory: this says nothing about the endpoint.
    Local(io::Error),
    /// The probe panicked.
    Panicked(JoinError),
}

impl ProbeError {
    /// Whether the failure says nothing about the endpoint.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self, ProbeError::Local(_))
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeError::Unresolved(error) => write!(f, "name not resolved: {error}"),
            ProbeError::Refused(address, _) => write!(f, "{address} refused the connection"),
            ProbeError::Unreachable(address, error) => {
                write!(f, "{address} cannot be reached: {error}")
            }
            ProbeError::Timeout(limit) => write!(f, "no answer within {limit:?}"),
            ProbeError::Status(address, status) => {
                write!(f, "{address} answered the health check with {status}, which does not pass")
            }
            ProbeError::Body(address) => {
                write!(f, "{address} answered the health check without the expected text")
            }
            ProbeError::Protocol(address, error) => {
                write!(f, "{address} gave no valid answer: {error}")?;
                match std::error::Error::source(error) {
                    Some(source) => write!(f, ": {source}"),
                    None => Ok(()),
                }
            }
            ProbeError::Local(error) => write!(f, "probe could not be made: {error}"),
            ProbeError::Panicked(error) => write!(f, "probe ended early: {error}"),
        }
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ProbeError::Unresolved(error)
            | ProbeError::Refused(_, error)
            | ProbeError::Unreachable(_, error)
            | ProbeError::Local(error) => Some(error),
            ProbeError::Protocol(_, error) => Some(error),
            ProbeError::Panicked(error) => Some(error),
            ProbeError::Timeout(_) | ProbeError::Status(..) | ProbeError::Body(_) => None,
        }
    }
}
