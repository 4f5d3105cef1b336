//! One probe of one address: an HTTP/1.1 GET whose status decides, or a TCP connection.
//!
//! Every probe makes a fresh connection and asks to have it closed. It keeps no state between
//! probes and knows no rise or fall; the caller bounds its time. `health` calls it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinError;
use tokio::time::timeout;

use crate::config::{BackendConfig, HealthConfig};
use crate::error::StartError;
use crate::sys;

/// What a probe of one endpoint asks for.
#[derive(Debug)]
pub enum Probe {
    /// A connection that is made passes.
    Tcp,
    /// A GET that is answered with a status of 200 to 399 passes.
    Http {
        /// The path and query, from its slash on.
        target: Uri,
        /// `host:port` of the backend.
        host: HeaderValue,
    },
}

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
    /// The answer is not HTTP/1, or the connection ended before its head did.
    Protocol(SocketAddr, hyper::Error),
    /// corelane itself lacks file descriptors or memory: this says nothing about the endpoint.
    Local(io::Error),
    /// The probe panicked.
    Panicked(JoinError),
}

impl Probe {
    /// The probe of a backend.
    ///
    /// # Errors
    /// `Usage` when the health path or the backend's name cannot stand in a request.
    pub fn new(backend: &BackendConfig, health: &HealthConfig) -> Result<Probe, StartError> {
        let Some(path) = &health.path else { return Ok(Probe::Tcp) };
        let target = match path.parse::<Uri>() {
            Ok(target) if path.starts_with('/') => target,
            _ => {
                let reason = format!("--health-path {path:?} is not a path that starts with /");
                return Err(StartError::Usage(reason));
            }
        };
        let authority = backend.authority();
        let host = HeaderValue::from_str(&authority).map_err(|_| {
            StartError::Usage(format!("--backend {authority:?} cannot stand in a Host header"))
        })?;
        Ok(Probe::Http { target, host })
    }

    /// Probes one address, for as long as the backend takes: the caller sets the time limit.
    ///
    /// The status decides as soon as the answer's head is in. Dropping the future closes the
    /// connection.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn run(&self, address: SocketAddr) -> Result<(), ProbeError> {
        let stream = connect(address).await?;
        match self {
            Probe::Tcp => Ok(()),
            Probe::Http { target, host } => {
                let status = get(stream, address, request(target, host)).await?;
                if PASSING.contains(&status) {
                    Ok(())
                } else {
                    Err(ProbeError::Status(address, status))
                }
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, ProbeError> {
    let stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) if sys::is_exhaustion(&error) => return Err(ProbeError::Local(error)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(ProbeError::Refused(address, error));
        }
        Err(error) => return Err(ProbeError::Unreachable(address, error)),
    };
    // A port of this machine that nobody listens on, but that the kernel gave to this very socket
    // as its own end, connects to itself (TCP's simultaneous open).
    if stream.local_addr().is_ok_and(|local| local == address) {
        return Err(ProbeError::Refused(address, io::ErrorKind::ConnectionRefused.into()));
    }
    Ok(stream)
}

fn request(target: &Uri, host: &HeaderValue) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, host.clone());
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    request
}

/// Sends a request and gives the status of the answer.
async fn get(
    stream: TcpStream,
    address: SocketAddr,
    request: Request<Empty<Bytes>>,
) -> Result<u16, ProbeError> {
    let protocol = |error| ProbeError::Protocol(address, error);
    let (mut sender, mut conn) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(protocol)?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let ended = tokio::select! {
        biased;
        answer = &mut answer => {
            let answer = answer.map_err(protocol)?;
            let status = answer.status().as_u16();
            tokio::spawn(read_rest(answer.into_body(), conn));
            return Ok(status);
        }
        ended = &mut conn => ended,
    };
    // The connection is over, but its last act may have been to hand over an answer.
    drop(conn);
    match (answer.await, ended) {
        (Ok(answer), _) => Ok(answer.status().as_u16()),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(protocol(error)),
    }
}

/// Reads a body that no verdict depends on: closing a socket with unread bytes resets it, and
/// the backend would log an error for each probe.
async fn read_rest(mut body: Incoming, conn: http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>) {
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > BODY_BYTES_MAX {
                return;
            }
        }
    };
    let both = async {
        tokio::select! {
            () = read => {}
            // How the connection ends says nothing: the status has decided.
            _ = conn => {}
        }
    };
    if timeout(BODY_TIMEOUT, both).await.is_err() {
        tracing::debug!("the body of a probe's answer took longer than {BODY_TIMEOUT:?}");
    }
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
                write!(
                    f,
                    "{address} answered the health check with {status}; 200 to 399 pass, see --health-path"
                )
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
            ProbeError::Timeout(_) | ProbeError::Status(..) => None,
        }
    }
}

/// The statuses that pass: success and redirection, as load balancers commonly take them.
const PASSING: RangeInclusive<u16> = 200..=399;
/// The value of `User-Agent`.
const AGENT: &str = concat!("corelane-health/", env!("CARGO_PKG_VERSION"));
/// Bytes of an answer's head; a longer one is a protocol error.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a body that are read before the connection is closed with the rest unread.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a body is read after the status decided.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
