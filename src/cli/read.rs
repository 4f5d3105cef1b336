//! Reads the values of flags from their text; each refusal says what would be right.

mod access_log;
mod admin;
mod backend;
mod discovery;
mod health;
mod retry;
mod sticky;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

pub(super) use access_log::parse_access_log;
pub use access_log::parse_line_format;
pub(super) use admin::{parse_admin, parse_admin_host};
pub(super) use backend::parse_backend;
pub(super) use discovery::{
    EtcdPlace, parse_backend_dns, parse_dns_server, parse_etcd_member, parse_etcd_prefix,
    parse_register, parse_register_as,
};
pub(super) use health::{
    parse_health_header, parse_health_host, parse_health_method, parse_health_path,
    parse_health_statuses,
};
pub(super) use retry::parse_retry_on;
pub(super) use sticky::{StickyCookie, parse_sticky_cookie};

use crate::config::{Faults, HashKey, Statuses};

/// Values that one flag or variable names.
#[derive(Clone, Debug)]
pub(super) struct List<T>(Vec<T>);

impl<T> List<T> {
    /// The values of all lists, in order.
    pub(super) fn join(lists: Vec<List<T>>) -> Vec<T> {
        lists.into_iter().flat_map(|list| list.0).collect()
    }
}

/// A reader of what `read` reads, separated by white space.
pub(super) fn list<T, R>(read: R) -> impl Fn(&str) -> Result<List<T>, String> + Clone + Send + Sync
where
    R: Fn(&str) -> Result<T, String> + Clone + Send + Sync,
{
    move |text| text.split_whitespace().map(&read).collect::<Result<_, _>>().map(List)
}

/// A reader of what `read` reads, one a line: for values that have spaces in them.
pub(super) fn lines<T, R>(read: R) -> impl Fn(&str) -> Result<List<T>, String> + Clone + Send + Sync
where
    R: Fn(&str) -> Result<T, String> + Clone + Send + Sync,
{
    move |text| {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.map(&read).collect::<Result<_, _>>().map(List)
    }
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

/// Reads a number of bytes.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_no| {
        "it is no number of bytes; without a unit, as in 10485760 for 10 MiB".to_owned()
    })
}

/// A reader of shares of a hundred.
pub(super) fn percent() -> impl Fn(&str) -> Result<u8, String> + Clone + Send + Sync {
    |text| {
        let percent = text.parse().ok().filter(|percent| *percent <= 100);
        percent.ok_or_else(|| "it is not a number of percent from 0 to 100".to_owned())
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

/// Reads a network in CIDR notation, or one address.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let addr = text.parse::<IpAddr>().map(IpNet::from);
    let network: IpNet = addr
        .or_else(|_no| text.parse())
        .map_err(|_no| "it is no network like 10.0.0.0/8 or 2001:db8::/32".to_owned())?;
    match network.trunc() {
        whole if whole == network => Ok(network),
        whole => Err(format!("it has bits behind its prefix; the network is {whole}")),
    }
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

/// Reads what a hash begins with.
pub(super) fn parse_hash_seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_no| format!("it is not a number from 0 to {}", u64::MAX))
}

/// Reads what of a request is hashed.
pub(super) fn parse_hash_key(text: &str) -> Result<HashKey, String> {
    match text.split_once(':') {
        None => match text {
            "source" => Ok(HashKey::Source),
            "uri" => Ok(HashKey::Uri),
            "path" => Ok(HashKey::Path),
            "host" => Ok(HashKey::Host),
            _ => Err(NO_HASH_KEY.to_owned()),
        },
        Some(("header", name)) if is_token(name) => Ok(HashKey::Header(name.to_ascii_lowercase())),
        Some(("cookie", name)) if is_token(name) => Ok(HashKey::Cookie(name.to_owned())),
        Some(("header" | "cookie", name)) => Err(format!("{name:?} is no name: {TOKEN}")),
        Some(("query", name)) => {
            let is_name_byte = |byte: u8| byte.is_ascii_graphic() && !b"&=#".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_name_byte) {
                return Err(format!("{name:?} is no query parameter as it stands in a URI"));
            }
            Ok(HashKey::Query(name.to_owned()))
        }
        Some(_) => Err(NO_HASH_KEY.to_owned()),
    }
}

/// Reads a limit in percent of a share, or 0 for none.
pub(super) fn parse_balance_factor(text: &str) -> Result<u32, String> {
    let factor = text.parse().ok().filter(|factor| *factor == 0 || (101..=65535).contains(factor));
    factor.ok_or_else(|| "it is not a number from 101 to 65535, or 0 for no limit".to_owned())
}

/// The statuses that a list like `200-299,301` names, none below `min`, in order and merged.
fn statuses(list: &str, min: u16) -> Result<Statuses, String> {
    let number = |text: &str| {
        let number = text.parse().ok().filter(|number| (min..=STATUS_MAX).contains(number));
        number.ok_or_else(|| format!("{text:?} is no status from {min} to {STATUS_MAX}"))
    };
    let mut ranges = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{part:?} is a range that runs backwards"));
        }
        ranges.push(first..=last);
    }
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end() + 1 => {
                *last = *last.start()..=*range.end().max(last.end());
            }
            _ => merged.push(range),
        }
    }
    Ok(Statuses(merged))
}

/// The options behind a value, which commas part: each one's name, and its value if it has one.
fn options<'a>(
    parts: impl Iterator<Item = &'a str>,
) -> Result<Vec<(&'a str, Option<&'a str>)>, String> {
    let mut options: Vec<(&str, Option<&str>)> = Vec::new();
    for part in parts {
        let (name, value) =
            part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
        if options.iter().any(|(other, _)| *other == name) {
            return Err(format!("{name} is given twice"));
        }
        options.push((name, value));
    }
    Ok(options)
}

/// Whether it is a token (RFC 9110 §5.6.2).
fn is_token(text: &str) -> bool {
    let is_token_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
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
/// The largest status (RFC 9110 §15).
const STATUS_MAX: u16 = 599;
/// What a token is, for people.
const TOKEN: &str = "letters, digits and !#$%&'*+-.^_`|~";
const NO_HASH_KEY: &str =
    "it is none of source, uri, path, host, header:NAME, cookie:NAME and query:NAME";
