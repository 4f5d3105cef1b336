//! Whom a request is from, where trusted proxies stand in front of corelane.
//!
//! Each proxy adds the address it was called from to the end of `X-Forwarded-For`. Read from the
//! end, the list can be believed as long as trusted proxies wrote it.

use std::net::{IpAddr, SocketAddr};

use httparse::Header;
use ipnet::IpNet;

use crate::http1::Known;

/// Whether a trusted proxy has this address.
#[must_use]
pub fn is_trusted(addr: IpAddr, trusted: &[IpNet]) -> bool {
    let addr = addr.to_canonical();
    trusted.iter().any(|network| network.contains(&addr))
}

/// The address of the client itself: the last one that is no trusted proxy's, from `peer`
/// backwards through `X-Forwarded-For`.
#[must_use]
pub fn address_of(headers: &[Header<'_>], peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        // Most clients: no header is looked at.
        return client;
    }
    let lines =
        headers.iter().rev().filter(|header| Known::of(header.name) == Some(Known::XForwardedFor));
    for entry in lines.flat_map(|header| header.value.rsplit(|byte| *byte == b',')) {
        if !is_trusted(client, trusted) {
            break;
        }
        let text = str::from_utf8(entry.trim_ascii()).unwrap_or_default();
        let with_port = || text.parse::<SocketAddr>().map(|addr| addr.ip());
        match text.parse::<IpAddr>().or_else(|_no| with_port()) {
            Ok(addr) => client = addr.to_canonical(),
            // Whoever wrote this is the last one known.
            Err(_unreadable) => break,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, lines: &[&str], expected: &str) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let headers: Vec<_> = lines
            .iter()
            .map(|line| Header { name: "x-forwarded-for", value: line.as_bytes() })
            .collect();
        let client = address_of(&headers, peer.parse().unwrap(), &trusted);
        assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        check("1.1.1.1", &["2.2.2.2"], "1.1.1.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["2.2.2.2"], "2.2.2.2");
        check("::ffff:10.0.0.1", &["2.2.2.2"], "2.2.2.2");
        check("10.0.0.1", &["3.3.3.3, 2.2.2.2"], "2.2.2.2");
        check("10.0.0.1", &["3.3.3.3, 2.2.2.2 ,10.9.9.9"], "2.2.2.2");
        check("10.0.0.1", &["3.3.3.3", "2.2.2.2", "fd00::1"], "2.2.2.2");
        check("10.0.0.1", &["3.3.3.3, nonsense, 10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check("10.0.0.1", &["2.2.2.2:443"], "2.2.2.2");
        check("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1");
    }
}
