//! Asks DNS one question at a time and reads the answers' records.
//!
//! Nothing is kept from one question to the next: no cache may hide a change. Decides when an
//! answer is empty, failed or too large; what becomes of that is `dns`'s.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::time::timeout;

/// Why an answer changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There are no such records.
    Empty,
    /// There was no answer, or it was an error.
    Failed(String),
    /// More records than this are not believed.
    TooMany(usize),
}

impl Failure {
    /// Its name in the log.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Failure::Empty => "dns-empty",
            Failure::Failed(_) => "dns-failed",
            Failure::TooMany(_) => "dns-too-many",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Empty => write!(f, "the answer is empty; check the records of this name"),
            Failure::Failed(reason) => {
                write!(f, "{reason}; check --dns-server or /etc/resolv.conf")
            }
            Failure::TooMany(max) => write!(f, "the answer has more than {max} records"),
        }
    }
}

/// What a question gave: values, and the seconds that the answer may be believed.
pub(super) type Answer<T> = Result<(Vec<T>, u32), Failure>;

/// A record of a service (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Srv {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: String,
}

/// The way to the servers.
///
/// # Errors
/// When /etc/resolv.conf is to say which they are, and does not.
pub(super) fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| format!("/etc/resolv.conf: {error}"))?
    } else {
        let servers = servers.iter().map(|addr| {
            let mut ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for way in &mut ways {
                way.port = addr.port();
            }
            NameServerConfig::new(addr.ip(), true, ways.to_vec())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = ATTEMPT_TIMEOUT;
    options.attempts = ATTEMPTS;
    builder.build().map_err(|error| error.to_string())
}

/// The addresses of a name in one family: `A` or `AAAA`.
pub(super) async fn addresses(
    resolver: &TokioResolver,
    name: &str,
    family: RecordType,
) -> Answer<IpAddr> {
    let read = |record: &Record| match &record.data {
        RData::A(address) if family == RecordType::A => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) if family == RecordType::AAAA => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    ask(resolver, name, family, read).await
}

/// The services of a name; one whose target is the root stands for none (RFC 2782).
pub(super) async fn services(resolver: &TokioResolver, name: &str) -> Answer<Srv> {
    let read = |record: &Record| match &record.data {
        RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => Some(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_lowercase().to_ascii(),
        }),
        _ => None,
    };
    ask(resolver, name, RecordType::SRV, read).await
}

async fn ask<T>(
    resolver: &TokioResolver,
    name: &str,
    records: RecordType,
    read: impl Fn(&Record) -> Option<T>,
) -> Answer<T> {
    resolver.clear_cache();
    let asked = timeout(QUESTION_TIMEOUT, resolver.lookup(name, records)).await;
    let lookup = match asked {
        Ok(Ok(lookup)) => lookup,
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(_)))) => return Err(Failure::Empty),
        Ok(Err(error)) => return Err(Failure::Failed(error.to_string())),
        Err(_elapsed) => {
            return Err(Failure::Failed(format!("no answer within {QUESTION_TIMEOUT:?}")));
        }
    };
    let values: Vec<T> = lookup.answers().iter().filter_map(read).take(RECORDS_MAX + 1).collect();
    match values.len() {
        0 => Err(Failure::Empty),
        count if count > RECORDS_MAX => Err(Failure::TooMany(RECORDS_MAX)),
        _ => Ok((values, ttl_of(&lookup))),
    }
}

/// The shortest time to live of the answer's records, aliases included, in seconds. One with its
/// first bit set counts as 0 (RFC 2181 §8).
fn ttl_of(lookup: &Lookup) -> u32 {
    let ttl = |record: &Record| if record.ttl > i32::MAX.unsigned_abs() { 0 } else { record.ttl };
    lookup.answers().iter().map(ttl).min().unwrap_or(0)
}

/// The most records of an answer; also the most backends of one name.
pub(super) const RECORDS_MAX: usize = 256;
/// How long one attempt waits for its answer, and how many follow the first.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);
const ATTEMPTS: usize = 1;
/// How long a question may take with all its attempts.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
