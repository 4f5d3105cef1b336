//! The flags of the sources that tell backends while corelane runs: DNS and etcd.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{DAY, HOUR};
use crate::cli::read::{
    List, duration, list, parse_backend_dns, parse_dns_server, parse_etcd_member, parse_etcd_prefix,
};
use crate::config::{DnsConfig, EtcdMember};

#[derive(Debug, Args)]
#[command(next_help_heading = "Discovery")]
pub(in crate::cli) struct DiscoveryArgs {
    /// A name whose addresses, IPv4 and IPv6, are backends; repeatable. It is asked for again when
    /// its TTL is over; an empty or failed answer keeps the last addresses.
    ///
    /// With srv+http:// its SRV records tell ports, weights and priorities: the lowest priority
    /// takes requests, the others are backups. [limits: 256 addresses, 64 SRV records, 64 names].
    #[arg(
        long,
        value_name = "[srv+]http://NAME[:PORT][,weight=N][,max-conns=N][,backup][,pool=P]",
        env = "CORELANE_BACKEND_DNS",
        value_parser = list(parse_backend_dns)
    )]
    pub(in crate::cli) backend_dns: Vec<List<DnsConfig>>,
    /// A DNS server to ask; repeatable [default: those of /etc/resolv.conf; limit: 8].
    #[arg(long, value_name = "IP[:PORT]", env = "CORELANE_DNS_SERVER",
        value_parser = list(parse_dns_server))]
    pub(in crate::cli) dns_server: Vec<List<SocketAddr>>,
    /// The shortest time until a name is asked for again, whatever its TTL [limits: 100ms to 1h].
    #[arg(long, value_name = "DURATION", default_value = "1s", env = "CORELANE_DNS_TTL_MIN",
        value_parser = duration(100, HOUR))]
    pub(in crate::cli) dns_ttl_min: Duration,
    /// The longest time until a name is asked for again, whatever its TTL [limits: 100ms to 1d].
    #[arg(long, value_name = "DURATION", default_value = "1m", env = "CORELANE_DNS_TTL_MAX",
        value_parser = duration(100, DAY))]
    pub(in crate::cli) dns_ttl_max: Duration,
    #[command(flatten)]
    pub(in crate::cli) etcd: EtcdArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EtcdArgs {
    /// A member of an etcd cluster (v3) to watch for backends; repeatable: they are tried in turn
    /// [limit: 16].
    #[arg(long, value_name = "http[s]://HOST:PORT", env = "CORELANE_ETCD",
        value_parser = list(parse_etcd_member))]
    pub(in crate::cli) etcd: Vec<List<EtcdMember>>,
    /// What the keys begin with: backends are PREFIXpools/POOL/backends/HOST:PORT.
    #[arg(long, value_name = "PREFIX", default_value = "/corelane/", env = "CORELANE_ETCD_PREFIX",
        value_parser = parse_etcd_prefix)]
    pub(in crate::cli) etcd_prefix: String,
    #[command(flatten)]
    pub(in crate::cli) access: EtcdAccessArgs,
}

/// How etcd is entered; also of `corelane backend --register`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct EtcdAccessArgs {
    /// The user to log in as, with --etcd-password-file.
    #[arg(long, value_name = "NAME", env = "CORELANE_ETCD_USER", requires = "etcd_password_file")]
    pub(in crate::cli) etcd_user: Option<String>,
    /// The file with the password, in its first line [limit: 4096 bytes].
    #[arg(long, value_name = "PATH", env = "CORELANE_ETCD_PASSWORD_FILE", requires = "etcd_user")]
    pub(in crate::cli) etcd_password_file: Option<PathBuf>,
    /// The authorities that an https:// etcd is checked by, in PEM [default: the machine's].
    #[arg(long, value_name = "PATH", env = "CORELANE_ETCD_CA")]
    pub(in crate::cli) etcd_ca: Option<PathBuf>,
    /// The certificate chain to show to etcd, in PEM.
    #[arg(long, value_name = "PATH", env = "CORELANE_ETCD_CERT", requires = "etcd_key")]
    pub(in crate::cli) etcd_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, value_name = "PATH", env = "CORELANE_ETCD_KEY", requires = "etcd_cert")]
    pub(in crate::cli) etcd_key: Option<PathBuf>,
}
