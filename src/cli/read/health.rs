//! Reads what a probe asks, and what its answer must be.

use hyper::http::uri::{Authority, PathAndQuery};

use crate::cli::read::{TOKEN, is_token, statuses};
use crate::config::{HealthHeader, Statuses};

/// Reads the path and query of a probe, or nothing.
pub(in crate::cli) fn parse_health_path(text: &str) -> Result<String, String> {
    // A fragment would be dropped in silence.
    let is_path =
        text.starts_with('/') && !text.contains('#') && text.parse::<PathAndQuery>().is_ok();
    if text.is_empty() || is_path {
        return Ok(text.to_owned());
    }
    Err("it is no path: it begins with /, and has only what may stand in a URI".to_owned())
}

/// Reads the method of a probe.
pub(in crate::cli) fn parse_health_method(text: &str) -> Result<String, String> {
    if !is_token(text) {
        return Err(format!("it is no method: {TOKEN}"));
    }
    if text == "CONNECT" {
        return Err("CONNECT would open a tunnel; --health-path '' only connects".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads the Host of a probe.
pub(in crate::cli) fn parse_health_host(text: &str) -> Result<String, String> {
    let is_host = text.parse::<Authority>().is_ok_and(|authority| !authority.host().is_empty());
    if is_host && !text.contains('@') {
        return Ok(text.to_owned());
    }
    Err("it is no HOST or HOST:PORT".to_owned())
}

/// Reads a header of a probe.
pub(in crate::cli) fn parse_health_header(text: &str) -> Result<HealthHeader, String> {
    let (name, value) = text.split_once(':').ok_or("it is no 'NAME: VALUE'")?;
    if !is_token(name) {
        return Err(format!("{name:?} is no name: {TOKEN}"));
    }
    match name.to_ascii_lowercase().as_str() {
        "host" => return Err("Host is set by --health-host".to_owned()),
        "connection" | "content-length" | "transfer-encoding" => {
            return Err(format!("{name} is a probe's own"));
        }
        _ => {}
    }
    let value = value.trim_matches([' ', '\t']);
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return Err(format!("the value of {name} has control characters"));
    }
    Ok(HealthHeader { name: name.to_owned(), value: value.to_owned() })
}

/// Reads the statuses that pass.
pub(in crate::cli) fn parse_health_statuses(text: &str) -> Result<Statuses, String> {
    statuses(text, STATUS_MIN)
}

/// A final answer's status is not below.
const STATUS_MIN: u16 = 200;
