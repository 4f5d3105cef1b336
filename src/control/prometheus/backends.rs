//! What a scrape says of each pool and each backend of the snapshot.

use std::fmt;

use crate::control::prometheus::page::{About, Page};
use crate::metrics::Lanes;
use crate::upstream::endpoint::{Endpoint, Slot, Standing, WEIGHT_UNIT};
use crate::upstream::snapshot::{Pool, Snapshot};

/// The labels of a backend: its pool, and its host and port.
type Labels<'s> = [(&'static str, &'s str); 2];

/// Writes it.
pub(super) fn write(lanes: &Lanes, snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let pools = || snapshot.pools.iter().map(|pool| ([("pool", pool.config.name.as_str())], pool));
    let backends = || {
        let count = snapshot.pools.iter().map(|pool| pool.endpoints.len()).sum::<usize>();
        debug_assert!(count <= crate::config::BACKENDS_MAX);
        snapshot.pools.iter().flat_map(|pool| {
            pool.endpoints.iter().map(move |endpoint| (labels_of(pool, endpoint), endpoint))
        })
    };
    page.gauges(PANICKING, pools().map(|(it, pool)| (it, u32::from(pool.is_panicking))))?;
    let eligible = |pool: &Pool| pool.endpoints.iter().filter(|it| it.is_eligible()).count();
    page.gauges(ELIGIBLE, pools().map(|(it, pool)| (it, eligible(pool))))?;
    page.gauges(UP, backends().map(|(it, endpoint)| (it, u32::from(takes_any(endpoint)))))?;
    let share = |endpoint: &Endpoint| f64::from(endpoint.weight) / f64::from(WEIGHT_UNIT);
    page.gauges(WEIGHT, backends().map(|(it, endpoint)| (it, share(endpoint))))?;
    let in_flight = |slot: Slot| lanes.in_flight(slot.number);
    page.gauges(IN_FLIGHT, backends().map(|(it, endpoint)| (it, in_flight(endpoint.slot))))
}

fn labels_of<'s>(pool: &'s Pool, endpoint: &'s Endpoint) -> Labels<'s> {
    // The id is `pool/host:port`.
    let authority = endpoint.id.split_once('/').map_or(endpoint.id.as_str(), |(_, it)| it);
    [("pool", pool.config.name.as_str()), ("backend", authority)]
}

/// Whether any new request may go to a backend.
fn takes_any(endpoint: &Endpoint) -> bool {
    endpoint.standing != Standing::Out && endpoint.address.is_some()
}

const PANICKING: About =
    ("pool_panicking", "Whether too few backends are healthy to heed health: 1 or 0.");
const ELIGIBLE: About = ("pool_backends_eligible", "Backends that take new requests.");
const UP: About =
    ("backend_up", "Whether a backend takes requests, be it those of its sessions alone: 1 or 0.");
const WEIGHT: About =
    ("backend_weight", "The weight in force, less for load, its agent and a slow start.");
const IN_FLIGHT: About = ("backend_requests_in_flight", "Requests in flight on a backend.");
