//! The addresses of one backend's name.
//!
//! A lookup runs beside the probes: it holds a probe up only while no address is known. A name
//! that resolved once keeps its addresses when a later lookup fails, so that an outage of DNS
//! takes no working backend out. At most one lookup of a name runs at a time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The name of a backend and what it resolves to.
#[derive(Debug)]
pub(super) struct Names {
    host: String,
    port: u16,
    known: Known,
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

/// The addresses known so far.
#[derive(Debug)]
enum Known {
    /// The host is an address.
    Literal(SocketAddr),
    /// None: no lookup gave one.
    Nothing,
    /// Those of the last lookup that gave any, at least one.
    Resolved { addresses: Vec<SocketAddr>, at: Instant },
}

impl Names {
    /// The name of a backend; nothing is looked up yet.
    pub(super) fn new(host: &str, port: u16) -> Names {
        let known = match literal(host, port) {
            Some(address) => Known::Literal(address),
            None => Known::Nothing,
        };
        Names { host: host.to_owned(), port, known, lookup: None }
    }

    /// The addresses to try, at least one: those known, else those of a lookup, waited for.
    ///
    /// Dropping the future leaves the lookup running for the next call.
    pub(super) async fn addresses(&mut self) -> io::Result<Vec<SocketAddr>> {
        if matches!(self.known, Known::Nothing) {
            self.start_lookup();
        }
        let waits = matches!(self.known, Known::Nothing);
        if let Some(lookup) = &mut self.lookup
            && (waits || lookup.is_finished())
        {
            let found = lookup.await.map_err(io::Error::other).flatten();
            self.lookup = None;
            self.learn(found)?;
        }
        match &self.known {
            Known::Literal(address) => Ok(vec![*address]),
            Known::Resolved { addresses, .. } => Ok(addresses.clone()),
            Known::Nothing => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Looks the name up again beside the probes, when the last probe failed or the addresses are
    /// older than `RESOLVE_INTERVAL`.
    pub(super) fn refresh(&mut self, failed: bool, now: Instant) {
        if let Known::Resolved { at, .. } = &self.known
            && (failed || now.duration_since(*at) >= RESOLVE_INTERVAL)
        {
            self.start_lookup();
        }
    }

    fn start_lookup(&mut self) {
        if self.lookup.is_none() {
            let (host, port) = (self.host.clone(), self.port);
            self.lookup = Some(tokio::spawn(async move {
                let found = lookup_host((host, port)).await?;
                Ok(found.take(ADDRESSES_MAX).collect())
            }));
        }
    }

    /// Takes what a lookup found; a failed one is an error only while nothing is known.
    fn learn(&mut self, found: io::Result<Vec<SocketAddr>>) -> io::Result<()> {
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                self.known = Known::Resolved { addresses, at: Instant::now() };
                Ok(())
            }
            Err(error) if matches!(self.known, Known::Nothing) => Err(error),
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(host = self.host, %error, "lookup failed; its addresses are kept");
                Ok(())
            }
        }
    }
}

/// The address that a host stands for without a lookup, if it is one.
pub(super) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port))
}

/// The addresses with the one in use in front, so that an order that changes with each lookup
/// does not move the endpoint.
pub(super) fn in_order(
    mut addresses: Vec<SocketAddr>,
    in_use: Option<SocketAddr>,
) -> Vec<SocketAddr> {
    addresses.sort_by_key(|address| Some(*address) != in_use);
    addresses
}

/// The age at which addresses are looked up again while probes pass.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn literals_are_parsed_and_names_are_not() {
        assert_eq!(literal("127.0.0.1", 80), Some(address("127.0.0.1:80")));
        assert_eq!(literal("::1", 80), Some(address("[::1]:80")));
        assert_eq!(literal("localhost", 80), None);
    }

    #[test]
    fn the_address_in_use_comes_first_and_the_others_keep_their_order() {
        let [a, b, c] = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].map(address);
        assert_eq!(in_order(vec![a, b, c], Some(c)), [c, a, b]);
        assert_eq!(in_order(vec![a, b], Some(c)), [a, b]);
        assert_eq!(in_order(vec![b, a], None), [b, a]);
    }

    #[test]
    fn localhost_resolves_to_loopback() {
        let found = runtime().block_on(Names::new("localhost", 80).addresses()).unwrap();
        assert!(!found.is_empty());
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
    }

    #[test]
    fn a_failed_lookup_is_an_error_only_while_nothing_is_known() {
        let mut names = Names::new("a.invalid", 80);
        assert!(names.learn(Err(io::ErrorKind::NotFound.into())).is_err());
        names.learn(Ok(vec![address("127.0.0.1:80")])).unwrap();
        names.learn(Err(io::ErrorKind::NotFound.into())).unwrap();
        names.learn(Ok(Vec::new())).unwrap();
        let found = runtime().block_on(names.addresses()).unwrap();
        assert_eq!(found, [address("127.0.0.1:80")]);
    }

    #[test]
    fn a_name_is_looked_up_again_after_a_failure_or_when_old() {
        runtime().block_on(async {
            let now = Instant::now();
            for (failed, age, expected) in [
                (false, Duration::ZERO, false),
                (true, Duration::ZERO, true),
                (false, RESOLVE_INTERVAL, true),
            ] {
                let mut names = Names::new("localhost", 80);
                names.known = Known::Resolved { addresses: vec![address("127.0.0.1:80")], at: now };
                names.refresh(failed, now + age);
                assert_eq!(names.lookup.is_some(), expected, "failed {failed}, age {age:?}");
            }
        });
    }
}
