//! Makes backends of what DNS answered: ports, weights and tiers, in an order of its own.
//!
//! Pure. The order of the records in an answer never matters.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::config::{BackendConfig, DnsConfig, DnsRecords, Mode, WEIGHT_MAX};
use crate::discovery::Found;

/// Where a service runs, and how much of the load it takes (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// The lowest of all is tried first.
    pub(super) priority: u16,
    /// Its share among those of its priority.
    pub(super) weight: u16,
    /// The port.
    pub(super) port: u16,
    /// The addresses of its target.
    pub(super) addresses: Vec<IpAddr>,
}

/// The backends of a name with these addresses.
pub(super) fn of_addresses(
    config: &DnsConfig,
    port: u16,
    weight: NonZeroU16,
    is_backup: bool,
    addresses: &[IpAddr],
) -> Vec<Found> {
    in_order(addresses.iter().map(|ip| found(config, *ip, port, weight, is_backup)).collect())
}

/// The backends of a name with these services: those of the lowest priority, and the others as
/// backups. A target's weight is shared by its addresses.
pub(super) fn of_services(config: &DnsConfig, services: &[Service]) -> Vec<Found> {
    let usable = services.iter().filter(|service| !service.addresses.is_empty());
    let Some(first) = usable.clone().map(|service| service.priority).min() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for is_backup in [false, true] {
        let tier: Vec<_> =
            usable.clone().filter(|service| (service.priority != first) == is_backup).collect();
        let share = |service: &Service| {
            f64::from(service.weight)
                / f64::from(u32::try_from(service.addresses.len()).unwrap_or(u32::MAX))
        };
        let max = tier.iter().map(|service| share(service)).fold(0.0, f64::max);
        let is_exact =
            max <= f64::from(WEIGHT_MAX) && tier.iter().all(|service| service.addresses.len() == 1);
        let scale = if is_exact || max == 0.0 { 1.0 } else { f64::from(WEIGHT_MAX) / max };
        for service in tier {
            let weight = weight_of(share(service) * scale);
            let addresses = service.addresses.iter();
            all.extend(addresses.map(|ip| found(config, *ip, service.port, weight, is_backup)));
        }
    }
    in_order(all)
}

/// The nearest weight that a backend may have.
fn weight_of(share: f64) -> NonZeroU16 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is clamped to 1..=WEIGHT_MAX"
    )]
    let weight = share.round().clamp(1.0, f64::from(WEIGHT_MAX)) as u16;
    NonZeroU16::new(weight).unwrap_or(NonZeroU16::MIN)
}

fn found(config: &DnsConfig, ip: IpAddr, port: u16, weight: NonZeroU16, is_backup: bool) -> Found {
    let backend = BackendConfig {
        host: ip.to_string(),
        port,
        weight,
        conns_max: config.conns_max,
        is_backup,
        mode: Mode::Ready,
    };
    Found { pool: config.pool.clone(), backend }
}

/// Sorted by address, each address once: a primary one rather than a backup, then the heavier.
fn in_order(mut all: Vec<Found>) -> Vec<Found> {
    all.sort_by(|a, b| {
        let (a, b) = (&a.backend, &b.backend);
        (&a.host, a.port, a.is_backup, b.weight).cmp(&(&b.host, b.port, b.is_backup, a.weight))
    });
    all.dedup_by(|b, a| (&a.backend.host, a.backend.port) == (&b.backend.host, b.backend.port));
    all
}

/// The port, weight and tier of a name's addresses, if they are backends themselves.
pub(super) fn of_plain(config: &DnsConfig) -> Option<(u16, NonZeroU16, bool)> {
    match config.records {
        DnsRecords::Addresses { port, weight, is_backup } => Some((port, weight, is_backup)),
        DnsRecords::Services => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DnsConfig {
        DnsConfig {
            name: "a.test".to_owned(),
            records: DnsRecords::Services,
            pool: "default".to_owned(),
            conns_max: None,
        }
    }

    /// Priority, weight, port, addresses.
    type Row<'a> = (u16, u16, u16, &'a [&'a str]);

    fn check(rows: &[Row<'_>], expected: &[(&str, u16, bool)]) {
        let mut services: Vec<_> = rows
            .iter()
            .map(|(priority, weight, port, addresses)| Service {
                priority: *priority,
                weight: *weight,
                port: *port,
                addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            })
            .collect();
        for _ in 0..rows.len().max(1) {
            let found = of_services(&config(), &services);
            let told: Vec<_> = found
                .iter()
                .map(|it| (it.backend.authority(), it.backend.weight.get(), it.backend.is_backup))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(id, weight, backup)| ((*id).to_owned(), *weight, *backup))
                .collect();
            assert_eq!(told, expected, "{services:?}");
            let by = services.len().min(1);
            services.rotate_left(by);
        }
    }

    #[test]
    fn the_lowest_priority_is_primary_and_the_others_are_backups() {
        check(
            &[(10, 5, 80, &["10.0.0.2"]), (0, 3, 81, &["10.0.0.1"]), (20, 1, 80, &["10.0.0.3"])],
            &[("10.0.0.1:81", 3, false), ("10.0.0.2:80", 5, true), ("10.0.0.3:80", 1, true)],
        );
        check(&[(7, 1, 80, &["10.0.0.1"])], &[("10.0.0.1:80", 1, false)]);
        // What has no address leaves its place to the next priority.
        check(&[(0, 1, 80, &[]), (1, 1, 80, &["10.0.0.1"])], &[("10.0.0.1:80", 1, false)]);
        check(&[], &[]);
    }

    #[test]
    fn weights_are_kept_where_they_fit_and_scaled_where_they_do_not() {
        check(
            &[(0, 0, 80, &["10.0.0.1"]), (0, 256, 80, &["10.0.0.2"])],
            &[("10.0.0.1:80", 1, false), ("10.0.0.2:80", 256, false)],
        );
        check(
            &[
                (0, 65535, 80, &["10.0.0.1"]),
                (0, 32768, 80, &["10.0.0.2"]),
                (0, 1, 80, &["10.0.0.3"]),
            ],
            &[("10.0.0.1:80", 256, false), ("10.0.0.2:80", 128, false), ("10.0.0.3:80", 1, false)],
        );
        // Two addresses share their target's weight.
        check(
            &[(0, 1, 80, &["10.0.0.1", "10.0.0.2"]), (0, 1, 80, &["10.0.0.3"])],
            &[
                ("10.0.0.1:80", 128, false),
                ("10.0.0.2:80", 128, false),
                ("10.0.0.3:80", 256, false),
            ],
        );
        check(
            &[(0, 0, 80, &["10.0.0.1", "10.0.0.2"])],
            &[("10.0.0.1:80", 1, false), ("10.0.0.2:80", 1, false)],
        );
    }

    #[test]
    fn an_address_named_twice_is_one_backend() {
        check(
            &[(0, 2, 80, &["10.0.0.1"]), (0, 9, 80, &["10.0.0.1"]), (1, 20, 80, &["10.0.0.1"])],
            &[("10.0.0.1:80", 9, false)],
        );
        let ips: Vec<IpAddr> =
            ["::1", "10.0.0.1", "::1"].iter().map(|it| it.parse().unwrap()).collect();
        let found = of_addresses(&config(), 80, NonZeroU16::MIN, true, &ips);
        let ids: Vec<_> = found.iter().map(|it| it.backend.authority()).collect();
        assert_eq!(ids, ["10.0.0.1:80", "[::1]:80"]);
        assert!(found.iter().all(|it| it.backend.is_backup));
    }
}
