//! Where backends are found besides flags: DNS names and etcd.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use crate::config::{DEFAULT_POOL, authority};

/// The sources that tell backends while corelane runs.
#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// The names that DNS is asked for.
    pub dns: Vec<DnsConfig>,
    /// How DNS is asked.
    pub resolver: ResolverConfig,
    /// The etcd that is watched, if one is.
    pub etcd: Option<EtcdConfig>,
}

impl DiscoveryConfig {
    /// Whether a backend may come from here.
    #[must_use]
    pub fn is_any(&self) -> bool {
        !self.dns.is_empty() || self.etcd.is_some()
    }
}

/// A name whose addresses are backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The name, in lower case.
    pub name: String,
    /// Which records are asked for.
    pub records: DnsRecords,
    /// The pool of its backends.
    pub pool: String,
    /// The most connections to each backend, over all workers, if there is a limit.
    pub conns_max: Option<NonZeroU32>,
}

/// Which records of a name tell its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsRecords {
    /// A and AAAA: each address is a backend.
    Addresses {
        /// The port of all.
        port: u16,
        /// The weight of each.
        weight: NonZeroU16,
        /// Whether they are backups.
        is_backup: bool,
    },
    /// SRV (RFC 2782), which tell ports, weights and priorities.
    Services,
}

impl DnsConfig {
    /// The name as a flag gives it: what its backends' origin is called.
    #[must_use]
    pub fn origin(&self) -> String {
        let pool = match self.pool.as_str() {
            DEFAULT_POOL => String::new(),
            pool => format!(",pool={pool}"),
        };
        match self.records {
            DnsRecords::Addresses { port, .. } => format!("http://{}:{port}{pool}", self.name),
            DnsRecords::Services => format!("srv+http://{}{pool}", self.name),
        }
    }
}

/// How DNS is asked.
#[derive(Clone, Debug)]
pub struct ResolverConfig {
    /// The servers; with none, those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// The shortest time from answer to question, whatever the TTL;
    pub ttl_min: Duration,
    /// the longest, not below the shortest.
    pub ttl_max: Duration,
}

/// The etcd that is watched, or in which a backend registers.
#[derive(Clone)]
pub struct EtcdConfig {
    /// Its members, tried in turn; at least one.
    pub members: Vec<EtcdMember>,
    /// What corelane's keys begin with; ends in a slash.
    pub prefix: String,
    /// Who logs in, if anybody does.
    pub login: Option<EtcdLogin>,
    /// The certificates in use, if any member is asked over TLS.
    pub tls: EtcdTls,
}

impl EtcdConfig {
    /// What its backends' origin is called: its first member and the prefix.
    #[must_use]
    pub fn origin(&self) -> String {
        let member = self.members.first().map(EtcdMember::url);
        format!("{}{}", member.unwrap_or_default(), self.prefix)
    }
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the password.
        f.debug_struct("EtcdConfig")
            .field("members", &self.members)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Where a member of etcd answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdMember {
    /// Whether over TLS.
    pub is_tls: bool,
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl EtcdMember {
    /// `HOST:PORT`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Its URL, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

/// A user of etcd.
#[derive(Clone)]
pub struct EtcdLogin {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// Certificates in PEM.
#[derive(Clone, Debug, Default)]
pub struct EtcdTls {
    /// The authorities that are trusted; none for those of the machine.
    pub authorities: Option<Vec<u8>>,
    /// The certificate chain shown to etcd, and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A pool's name: 1 to `POOL_NAME_BYTES_MAX` letters, digits, dots, dashes and underscores.
///
/// # Errors
/// What would be right.
pub fn parse_pool_name(text: &str) -> Result<String, String> {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=POOL_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_name_byte);
    let refused = || {
        format!("{text:?} is no pool: 1 to {POOL_NAME_BYTES_MAX} letters, digits, '.', '_' and '-'")
    };
    if is_name { Ok(text.to_owned()) } else { Err(refused()) }
}

/// The most bytes of a pool's name.
pub const POOL_NAME_BYTES_MAX: usize = 64;
