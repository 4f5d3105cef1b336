//! One probe of one address: an HTTP/1.1 request whose answer decides, or a TCP connection.
//!
//! Every probe makes a fresh connection and asks to have it closed. It keeps no state between
//! probes and knows no rise or fall; the caller bounds its time. `health` calls it.

mod error;
mod exchange;

use std::io;
use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use tokio::net::TcpStream;

pub use error::ProbeError;
pub use exchange::BODY_BYTES_MAX;

use crate::config::{BackendConfig, HealthConfig, Statuses};
use crate::error::StartError;
use crate::sys;

/// What a probe of one endpoint asks for.
#[derive(Debug)]
pub enum Probe {
    /// A connection that is made passes.
    Tcp,
    /// A request whose answer has the right status, and body, passes.
    Http(Box<Wanted>),
}

/// What is asked over HTTP, and which answer passes.
#[derive(Debug)]
pub struct Wanted {
    request: Request<Empty<Bytes>>,
    statuses: Statuses,
    body: Option<String>,
}

/// What a probe that passed tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The share of its weight that the backend's load leaves it, in percent, if it told.
    pub share: Option<u32>,
}

impl Probe {
    /// The probe of a backend.
    ///
    /// # Errors
    /// `Usage` when something configured, or the backend's name, cannot stand in a request.
    pub fn new(backend: &BackendConfig, health: &HealthConfig) -> Result<Probe, StartError> {
        let Some(path) = &health.path else { return Ok(Probe::Tcp) };
        Ok(Probe::Http(Box::new(Wanted {
            request: request_of(path, backend, health)?,
            statuses: health.statuses.clone(),
            body: health.body.clone(),
        })))
    }

    /// Probes one address, for as long as the backend takes: the caller sets the time limit.
    ///
    /// The status decides as soon as the answer's head is in, unless the body has to. Dropping the
    /// future closes the connection.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn run(&self, address: SocketAddr) -> Result<Passed, ProbeError> {
        let stream = connect(address).await?;
        match self {
            Probe::Tcp => Ok(Passed { share: None }),
            Probe::Http(wanted) => exchange::run(stream, address, wanted).await,
        }
    }
}

fn request_of(
    path: &str,
    backend: &BackendConfig,
    health: &HealthConfig,
) -> Result<Request<Empty<Bytes>>, StartError> {
    let usage = |reason: String| StartError::Usage(reason);
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = match path.parse::<Uri>() {
        Ok(target) if path.starts_with('/') => target,
        _ => return Err(usage(format!("--health-path {path:?} is not a path that starts with /"))),
    };
    *request.method_mut() = Method::from_bytes(health.method.as_bytes())
        .map_err(|_| usage(format!("--health-method {:?} is no method", health.method)))?;
    let host = health.host.clone().unwrap_or_else(|| backend.authority());
    let host = HeaderValue::from_str(&host)
        .map_err(|_| usage(format!("{host:?} cannot stand in a probe's Host header")))?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let ours = headers.clone();
    for header in &health.headers {
        let refused = |_| usage(format!("--health-header {:?} is no header", header.name));
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| refused(()))?;
        let value = HeaderValue::from_str(&header.value).map_err(|_| refused(()))?;
        if ours.contains_key(&name) {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    Ok(request)
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

/// The value of `User-Agent`.
const AGENT: &str = concat!("corelane-health/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
