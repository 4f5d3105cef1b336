//! Makes the configuration of DNS and etcd of their flags, and reads the files that they name.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cli::build::usage;
use crate::cli::flags::{DiscoveryArgs, EtcdAccessArgs, EtcdArgs};
use crate::cli::read::List;
use crate::config::{DiscoveryConfig, EtcdConfig, EtcdLogin, EtcdMember, EtcdTls, ResolverConfig};
use crate::error::StartError;

impl DiscoveryArgs {
    pub(super) fn into_config(self) -> Result<DiscoveryConfig, StartError> {
        let dns = List::join(self.backend_dns);
        at_most(dns.len(), NAMES_MAX, "--backend-dns")?;
        let mut seen = HashSet::new();
        if let Some(twice) = dns.iter().find(|name| !seen.insert(name.origin())) {
            return Err(usage(format!("--backend-dns {} is given twice", twice.origin())));
        }
        let servers = List::join(self.dns_server);
        at_most(servers.len(), SERVERS_MAX, "--dns-server")?;
        if !servers.is_empty() && dns.is_empty() {
            return Err(usage("--dns-server needs a --backend-dns".to_owned()));
        }
        let (ttl_min, ttl_max) = (self.dns_ttl_min, self.dns_ttl_max);
        if ttl_min > ttl_max {
            return Err(usage("--dns-ttl-min is longer than --dns-ttl-max".to_owned()));
        }
        let resolver = ResolverConfig { servers, ttl_min, ttl_max };
        Ok(DiscoveryConfig { dns, resolver, etcd: self.etcd.into_config()? })
    }
}

impl EtcdArgs {
    fn into_config(self) -> Result<Option<EtcdConfig>, StartError> {
        let members = List::join(self.etcd);
        if members.is_empty() {
            return match self.access.first_flag() {
                Some(flag) => Err(usage(format!("{flag} needs an --etcd"))),
                None => Ok(None),
            };
        }
        self.access.into_config(members, self.etcd_prefix).map(Some)
    }
}

impl EtcdAccessArgs {
    /// A flag of these that is given, if one is.
    pub(in crate::cli) fn first_flag(&self) -> Option<&'static str> {
        let flags = [
            ("--etcd-user", self.etcd_user.is_some()),
            ("--etcd-ca", self.etcd_ca.is_some()),
            ("--etcd-cert", self.etcd_cert.is_some()),
        ];
        flags.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }

    /// The etcd of these members, entered so.
    pub(in crate::cli) fn into_config(
        self,
        members: Vec<EtcdMember>,
        prefix: String,
    ) -> Result<EtcdConfig, StartError> {
        at_most(members.len(), MEMBERS_MAX, "--etcd")?;
        let login = match (self.etcd_user, self.etcd_password_file) {
            (Some(user), Some(path)) => {
                let text = text_of("--etcd-password-file", &path)?;
                let password = text.lines().next().unwrap_or_default().to_owned();
                if password.is_empty() {
                    let path = path.display();
                    return Err(usage(format!("--etcd-password-file {path}: it is empty")));
                }
                Some(EtcdLogin { user, password })
            }
            _ => None,
        };
        let read = |flag, path: Option<PathBuf>| {
            path.map(|path| bytes_of(flag, &path, PEM_BYTES_MAX)).transpose()
        };
        let authorities = read("--etcd-ca", self.etcd_ca)?;
        let certificate = read("--etcd-cert", self.etcd_cert)?;
        let identity = certificate.zip(read("--etcd-key", self.etcd_key)?);
        let has_tls_flags = authorities.is_some() || identity.is_some();
        if has_tls_flags && !members.iter().any(|member| member.is_tls) {
            return Err(usage("--etcd-ca and --etcd-cert need an https:// etcd".to_owned()));
        }
        let tls = EtcdTls { authorities, identity };
        Ok(EtcdConfig { members, prefix, login, tls })
    }
}

fn text_of(flag: &str, path: &Path) -> Result<String, StartError> {
    let bytes = bytes_of(flag, path, PASSWORD_BYTES_MAX)?;
    String::from_utf8(bytes)
        .map_err(|_no| usage(format!("{flag} {}: it is not UTF-8", path.display())))
}

fn bytes_of(flag: &str, path: &Path, max: u64) -> Result<Vec<u8>, StartError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes));
    match read {
        Ok(count) if count as u64 > max => {
            Err(usage(format!("{flag} {}: it is longer than {max} bytes", path.display())))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(usage(format!("{flag} {}: {error}", path.display()))),
    }
}

fn at_most(count: usize, max: usize, flag: &str) -> Result<(), StartError> {
    if count > max {
        return Err(usage(format!("{flag} is given more than {max} times")));
    }
    Ok(())
}

/// The most names that DNS is asked for, and servers to ask.
const NAMES_MAX: usize = 64;
const SERVERS_MAX: usize = 8;
/// The most members of an etcd cluster.
const MEMBERS_MAX: usize = 16;
/// The most bytes of a password's file, and of one with certificates.
const PASSWORD_BYTES_MAX: u64 = 4096;
const PEM_BYTES_MAX: u64 = 1024 * 1024;
