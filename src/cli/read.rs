//! Reads the values of flags from their text; each refusal says what would be right.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{BackendConfig, Faults, Mode, WEIGHT_MAX};

/// Values that one flag or variable names, separated by white space.
#[derive(Clone, Debug)]
pub(super) struct List<T>(Vec<T>);

impl<T> List<T> {
    /// The values of all lists, in order.
    pub(super) fn join(lists: Vec<List<T>>) -> Vec<T> {
        lists.into_iter().flat_map(|list| list.0).collect()
    }
}

/// A reader of lists of what `read` reads.
pub(super) fn list<T, R>(read: R) -> impl Fn(&str) -> Result<List<T>, String> + Clone + Send + Sync
where
    R: Fn(&str) -> Result<T, String> + Clone + Send + Sync,
{
    move |text| text.split_whitespace().map(&read).collect::<Result<_, _>>().map(List)
}

/// A reader of numbers within limits.
pub(super) fn number(
    min: u32,
    max: u32,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync {
    move |text| {
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("it is not a number from {min} to {max}"))
    }
}

/// Reads an address to listen on.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_no| {
        "it is no IP:PORT; write 127.0.0.1:8080, or 0.0.0.0:8080 for all, or [::1]:8080".to_owned()
    })
}

/// The cores that a list like `0-3,6` names.
pub(super) fn parse_cores(list: &str) -> Result<Vec<usize>, String> {
    let number = |text: &str| {
        let number = text.parse().ok().filter(|number| *number < CORES_MAX);
        number.ok_or_else(|| format!("{list:?} is no list like 0-3,6"))
    };
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{list:?} has a range that runs backwards"));
        }
        for core in first..=last {
            if cores.contains(&core) {
                return Err(format!("{list:?} names core {core} twice"));
            }
            cores.push(core);
        }
    }
    if cores.is_empty() { Err(format!("{list:?} names no core")) } else { Ok(cores) }
}

/// Reads `http://HOST:PORT[,weight=N]`.
pub(super) fn parse_backend(text: &str) -> Result<BackendConfig, String> {
    let mut parts = text.split(',');
    let url = parts.next().unwrap_or_default();
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
    let mut weight = NonZeroU16::MIN;
    for option in parts {
        let value = option
            .strip_prefix("weight=")
            .ok_or_else(|| format!("{option:?} is no option of a backend; there is weight=N"))?;
        let number = value.parse::<NonZeroU16>().ok().filter(|weight| weight.get() <= WEIGHT_MAX);
        weight = number.ok_or_else(|| format!("the weight is not 1 to {WEIGHT_MAX}"))?;
    }
    Ok(BackendConfig {
        host: host.to_ascii_lowercase(),
        port,
        weight,
        conns_max: None,
        is_backup: false,
        mode: Mode::Ready,
    })
}

/// Reads a network in CIDR notation, or one address.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let addr = text.parse::<IpAddr>().map(IpNet::from);
    addr.or_else(|_no| text.parse())
        .map_err(|_no| "it is no network like 10.0.0.0/8 or 2001:db8::/32".to_owned())
}

/// Reads a protocol that connections may be upgraded to.
pub(super) fn parse_upgrade(text: &str) -> Result<String, String> {
    let token = text.to_ascii_lowercase();
    if token == "h2c" || token.starts_with("h2c/") {
        return Err("h2c would carry requests past every check; it is never let through".to_owned());
    }
    let is_token =
        token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/+".contains(&byte));
    if is_token { Ok(token) } else { Err("it is no protocol name".to_owned()) }
}

/// Reads a fault for tests.
pub(super) fn parse_fault(text: &str) -> Result<Faults, String> {
    let (name, number) = text.split_once('=').ok_or("it is no NAME=N")?;
    let number: NonZeroUsize = number.parse().map_err(|_no| "it is no NAME=N".to_owned())?;
    match name {
        "panic-connection" => Ok(Faults { panic_connection: Some(number), panic_worker: None }),
        "panic-worker" => Ok(Faults { panic_connection: None, panic_worker: Some(number) }),
        _ => Err("there is panic-connection=N and panic-worker=N".to_owned()),
    }
}

/// A reader of durations within limits, both in milliseconds.
pub(super) fn duration(
    min_ms: u64,
    max_ms: u64,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync {
    move |text| {
        let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
        let duration = humantime::parse_duration(text)
            .map_err(|_no| "it is no duration like 250ms, 5s or 1m".to_owned())?;
        if (min..=max).contains(&duration) {
            return Ok(duration);
        }
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        Err(format!("it is not {min} to {max}"))
    }
}

/// Core numbers are below this.
const CORES_MAX: usize = 4096;
