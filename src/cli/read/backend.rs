//! Reads a backend: its URL, and its options behind commas.

use std::num::{NonZeroU16, NonZeroU32};

use crate::cli::read::options;
use crate::config::{BackendConfig, Mode, WEIGHT_MAX};

/// Reads `http://HOST:PORT[,weight=N][,max-conns=N][,backup][,drain][,maintenance]`.
pub(in crate::cli) fn parse_backend(text: &str) -> Result<BackendConfig, String> {
    let mut parts = text.split(',');
    let (host, port) = parse_url(parts.next().unwrap_or_default())?;
    let mut backend = BackendConfig {
        host,
        port,
        weight: NonZeroU16::MIN,
        conns_max: None,
        is_backup: false,
        mode: Mode::Ready,
    };
    for (name, value) in options(parts)? {
        match (name, value) {
            ("weight", Some(value)) => backend.weight = parse_weight(value)?,
            ("max-conns", Some(value)) => {
                let max: Option<NonZeroU32> = value.parse().ok();
                backend.conns_max = Some(max.ok_or("max-conns is not a number above 0")?);
            }
            ("backup", None) => backend.is_backup = true,
            ("drain" | "maintenance", None) if backend.mode != Mode::Ready => {
                return Err("drain and maintenance exclude each other".to_owned());
            }
            ("drain", None) => backend.mode = Mode::Drain,
            ("maintenance", None) => backend.mode = Mode::Maintenance,
            ("weight" | "max-conns", None) => {
                return Err(format!("{name} needs a value: {name}=N"));
            }
            ("backup" | "drain" | "maintenance", Some(_)) => {
                return Err(format!("{name} has no value"));
            }
            _ => return Err(format!("{name:?} is no option of a backend; there are {OPTIONS}")),
        }
    }
    Ok(backend)
}

/// The host, in lower case and without brackets, and the port.
fn parse_url(url: &str) -> Result<(String, u16), String> {
    if url.starts_with("https://") || url.starts_with("unix:") {
        return Err("https:// and unix: backends are not supported yet; use http://".to_owned());
    }
    let authority = url.strip_prefix("http://").ok_or("it does not begin with http://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if let Some((_, path)) = authority.split_once('/') {
        return Err(format!("a backend has no path; leave /{path} out"));
    }
    if authority.contains('@') {
        return Err("a backend has no user or password".to_owned());
    }
    let (host, port) = authority.rsplit_once(':').ok_or("the port is missing: http://HOST:PORT")?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or("the port is not 1 to 65535")?;
    let host = match host.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').filter(|literal| literal.contains(':')),
        None => Some(host).filter(|host| !host.contains(':')),
    };
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let host = host
        .filter(|host| !host.is_empty() && host.bytes().all(is_host_byte))
        .ok_or("the host is no name, IPv4 address or [IPv6 address]")?;
    Ok((host.to_ascii_lowercase(), port))
}

fn parse_weight(text: &str) -> Result<NonZeroU16, String> {
    let weight = text.parse::<NonZeroU16>().ok().filter(|weight| weight.get() <= WEIGHT_MAX);
    weight.ok_or_else(|| format!("the weight is not 1 to {WEIGHT_MAX}"))
}

const OPTIONS: &str = "weight=N, max-conns=N, backup, drain and maintenance";
