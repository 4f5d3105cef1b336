//! Reads where backends are found: DNS names and servers, etcd's members and prefix.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

use crate::cli::read::options;
use crate::config::{
    DEFAULT_POOL, DnsConfig, DnsRecords, EtcdMember, parse_backend_url, parse_pool_name,
    parse_weight,
};

/// Reads `http://NAME:PORT` or `srv+http://NAME` and what stands behind it.
pub(in crate::cli) fn parse_backend_dns(text: &str) -> Result<DnsConfig, String> {
    let mut parts = text.split(',');
    let url = parts.next().unwrap_or_default();
    let (name, port) = match url.strip_prefix("srv+http://") {
        Some(name) => (name.trim_end_matches('/').to_ascii_lowercase(), None),
        None => {
            let (name, port) = parse_backend_url(url)?;
            (name, Some(port))
        }
    };
    check_name(&name)?;
    let (mut weight, mut is_backup, mut conns_max) = (None, false, None);
    let mut pool = DEFAULT_POOL.to_owned();
    for option in options(parts)? {
        match option {
            ("weight", Some(_)) | ("backup", None) if port.is_none() => {
                let name = option.0;
                return Err(format!("{name} stands in the SRV records; leave it out"));
            }
            ("weight", Some(value)) => weight = Some(parse_weight(value)?),
            ("backup", None) => is_backup = true,
            ("max-conns", Some(value)) => {
                let max: Option<NonZeroU32> = value.parse().ok();
                conns_max = Some(max.ok_or("max-conns is not a number above 0")?);
            }
            ("pool", Some(value)) => pool = parse_pool_name(value)?,
            ("weight" | "max-conns" | "pool", None) => {
                let name = option.0;
                return Err(format!("{name} needs a value: {name}=…"));
            }
            (name, _) => {
                return Err(format!("{name:?} is no option of a name; there are {OPTIONS}"));
            }
        }
    }
    let weight = weight.unwrap_or(NonZeroU16::MIN);
    let records = match port {
        Some(port) => DnsRecords::Addresses { port, weight, is_backup },
        None => DnsRecords::Services,
    };
    Ok(DnsConfig { name, records, pool, conns_max })
}

/// Refuses what DNS cannot be asked for (RFC 1035 §2.3.4).
fn check_name(name: &str) -> Result<(), String> {
    if name.parse::<IpAddr>().is_ok() {
        return Err("it is an address; use --backend for it".to_owned());
    }
    let is_label = |label: &str| {
        let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(is_byte)
    };
    let labels = name.strip_suffix('.').unwrap_or(name);
    if labels.len() <= NAME_BYTES_MAX && labels.split('.').all(is_label) {
        return Ok(());
    }
    Err(format!("{name:?} is no DNS name; write http://NAME:PORT or srv+http://_http._tcp.NAME"))
}

/// Reads the address of a DNS server; the port is 53 if there is none.
pub(in crate::cli) fn parse_dns_server(text: &str) -> Result<SocketAddr, String> {
    let addr = text.parse().or_else(|_no| {
        let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT))
    });
    addr.map_err(|_no| "it is no IP or IP:PORT, as 10.0.0.2 or [::1]:53".to_owned())
}

/// Reads `http://HOST:PORT` or `https://HOST:PORT`.
pub(in crate::cli) fn parse_etcd_member(text: &str) -> Result<EtcdMember, String> {
    let is_tls = text.starts_with("https://");
    let plain = text.strip_prefix("https").map(|rest| format!("http{rest}"));
    let url = plain.as_deref().unwrap_or(text);
    let (host, port) =
        parse_backend_url(url).map_err(|reason| reason.replace("a backend has", "etcd has"))?;
    Ok(EtcdMember { is_tls, host, port })
}

/// Reads what etcd's keys begin with; a slash is added at its end.
pub(in crate::cli) fn parse_etcd_prefix(text: &str) -> Result<String, String> {
    let prefix = format!("{}/", text.trim_end_matches('/'));
    let is_prefix = (1..=PREFIX_BYTES_MAX).contains(&prefix.len())
        && prefix.bytes().all(|byte| byte.is_ascii_graphic());
    let refused = || format!("it is not 1 to {PREFIX_BYTES_MAX} bytes of visible ASCII");
    if is_prefix { Ok(prefix) } else { Err(refused()) }
}

/// Members of an etcd and what the keys there begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct EtcdPlace {
    pub(in crate::cli) members: Vec<EtcdMember>,
    pub(in crate::cli) prefix: String,
}

/// Reads `etcd://HOST:PORT[,HOST:PORT…]/PREFIX`, or `etcds://` for TLS.
pub(in crate::cli) fn parse_register(text: &str) -> Result<EtcdPlace, String> {
    let schemes = [("etcd://", "http"), ("etcds://", "https")];
    let found =
        schemes.into_iter().find_map(|(scheme, http)| Some((text.strip_prefix(scheme)?, http)));
    let (rest, http) = found.ok_or("it does not begin with etcd:// or etcds://")?;
    let (members, prefix) = rest.split_once('/').unwrap_or((rest, "corelane/"));
    let member = |authority: &str| parse_etcd_member(&format!("{http}://{authority}"));
    let members = members.split(',').map(member).collect::<Result<_, _>>()?;
    Ok(EtcdPlace { members, prefix: parse_etcd_prefix(&format!("/{prefix}"))? })
}

/// Reads the address that a backend registers.
pub(in crate::cli) fn parse_register_as(text: &str) -> Result<(String, u16), String> {
    parse_backend_url(&format!("http://{text}")).map_err(|reason| reason.replace("http://", ""))
}

/// The most bytes of a name without its last dot (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// The port of DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;
/// The most bytes of the prefix of etcd's keys.
const PREFIX_BYTES_MAX: usize = 256;
const OPTIONS: &str = "weight=N, max-conns=N, backup and pool=P";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_their_options() {
        let read =
            parse_backend_dns("http://A.test:80,weight=3,backup,pool=p,max-conns=9").unwrap();
        let weight = NonZeroU16::new(3).unwrap();
        assert_eq!(read.records, DnsRecords::Addresses { port: 80, weight, is_backup: true });
        assert_eq!((read.name.as_str(), read.pool.as_str()), ("a.test", "p"));
        assert_eq!(read.conns_max, NonZeroU32::new(9));
        let read = parse_backend_dns("srv+http://_http._tcp.a.test.").unwrap();
        assert_eq!((read.records, read.pool.as_str()), (DnsRecords::Services, "default"));
        assert_eq!(read.origin(), "srv+http://_http._tcp.a.test.");
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused_with_a_reason() {
        let cases = [
            ("http://a.test", "port"),
            ("http://10.0.0.1:80", "--backend"),
            ("http://[::1]:80", "--backend"),
            ("http://a..test:80", "no DNS name"),
            ("srv+http://", "no DNS name"),
            ("srv+http://a:80", "no DNS name"),
            ("srv+http://a,weight=2", "SRV"),
            ("srv+http://a,backup", "SRV"),
            ("http://a:80,weight=0", "weight"),
            ("http://a:80,pool=a/b", "pool"),
            ("http://a:80,drain", "drain"),
            ("https://a:80", "https"),
        ];
        for (text, named) in cases {
            let reason = parse_backend_dns(text).unwrap_err();
            assert!(reason.contains(named), "{text}: {reason}");
        }
    }

    #[test]
    fn the_place_of_a_registration_is_read() {
        let read = parse_register("etcds://a:1,[::1]:2/x/y").unwrap();
        let urls: Vec<_> = read.members.iter().map(EtcdMember::url).collect();
        assert_eq!(
            (urls, read.prefix.as_str()),
            (vec!["https://a:1".to_owned(), "https://[::1]:2".to_owned()], "/x/y/")
        );
        assert_eq!(parse_register("etcd://a:1").unwrap().prefix, "/corelane/");
        assert_eq!(parse_register("etcd://a:1/").unwrap().prefix, "/");
        for (text, named) in
            [("http://a:1/", "etcd://"), ("etcd://a/x", "port"), ("etcd://", "port")]
        {
            assert!(parse_register(text).unwrap_err().contains(named), "{text}");
        }
        assert_eq!(parse_register_as("a:1"), Ok(("a".to_owned(), 1)));
        assert!(parse_register_as("a").unwrap_err().contains("HOST:PORT"));
    }

    #[test]
    fn servers_members_and_prefixes_are_read() {
        for (text, expected) in [
            ("10.0.0.2", Some("10.0.0.2:53")),
            ("10.0.0.2:5353", Some("10.0.0.2:5353")),
            ("::1", Some("[::1]:53")),
            ("[::1]", Some("[::1]:53")),
            ("[::1]:54", Some("[::1]:54")),
            ("dns.test", None),
        ] {
            let read = parse_dns_server(text).ok().map(|addr| addr.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("http://a:2379", Some("http://a:2379")),
            ("https://[::1]:2379/", Some("https://[::1]:2379")),
            ("a:2379", None),
            ("http://a", None),
            ("http://a:1/x", None),
        ] {
            let read = parse_etcd_member(text).ok().map(|member| member.url());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
        for (text, expected) in
            [("/corelane/", "/corelane/"), ("/a", "/a/"), ("", "/"), ("a b", "refused")]
        {
            let read = parse_etcd_prefix(text).unwrap_or_else(|_no| "refused".to_owned());
            assert_eq!(read, expected, "{text}");
        }
    }
}
