//! Reads where a backend is and what share it gets, as flags, files and etcd write it.
//!
//! One grammar for all sources. Looks nothing up; `cli` and `discovery` call it.

use std::num::NonZeroU16;

use crate::config::WEIGHT_MAX;

/// The host of `http://HOST:PORT`, in lower case and without brackets, and the port.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn parse_backend_url(url: &str) -> Result<(String, u16), String> {
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
    let number = port.parse().ok().filter(|number| *number != 0 && !port.starts_with('+'));
    let port = number.ok_or("the port is not 1 to 65535")?;
    let host = match host.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').filter(|literal| literal.contains(':')),
        None => Some(host).filter(|host| !host.contains(':')),
    };
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let host = host
        .filter(|host| !host.is_empty() && host.bytes().all(is_host_byte))
        .ok_or("the host is no name, IPv4 address or [IPv6 address]")?;
    if host.len() > NAME_BYTES_MAX || host.split('.').any(|label| label.len() > LABEL_BYTES_MAX) {
        return Err(format!(
            "the host has more than {NAME_BYTES_MAX} bytes, or {LABEL_BYTES_MAX} between two dots"
        ));
    }
    Ok((host.to_ascii_lowercase(), port))
}

/// A weight in decimal, 1 to `WEIGHT_MAX`.
///
/// # Errors
/// What would be right.
pub fn parse_weight(text: &str) -> Result<NonZeroU16, String> {
    let weight = text.parse::<NonZeroU16>().ok().filter(|weight| weight.get() <= WEIGHT_MAX);
    weight.ok_or_else(|| format!("the weight is not 1 to {WEIGHT_MAX}"))
}

/// The most bytes of a name, as text and of one label (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
