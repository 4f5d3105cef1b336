//! What a scrape says of each pool and each backend of the snapshot.

use std::fmt;

use prometheus_client::registry::Unit;

use crate::control::prometheus::page::{About, Page};
use crate::metrics::{BackendCounter, BackendTotals, Counter, Lanes};
use crate::upstream::endpoint::{Endpoint, Standing, WEIGHT_UNIT};
use crate::upstream::snapshot::{Pool, Snapshot};

/// The labels of a backend: its pool, and its host and port.
type Labels<'s> = [(&'static str, &'s str); 2];

/// A backend, and what was counted for it.
struct Backend<'s> {
    labels: Labels<'s>,
    endpoint: &'s Endpoint,
    totals: BackendTotals,
}

/// Writes it.
pub(super) fn write(lanes: &Lanes, snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let pools = || snapshot.pools.iter().map(|pool| ([("pool", pool.config.name.as_str())], pool));
    page.gauges(PANICKING, pools().map(|(it, pool)| (it, u32::from(pool.is_panicking))))?;
    let eligible = |pool: &Pool| pool.endpoints.iter().filter(|it| it.is_eligible()).count();
    page.gauges(ELIGIBLE, pools().map(|(it, pool)| (it, eligible(pool))))?;
    let of_pools = snapshot.pools.iter().flat_map(|pool| backends_of(lanes, pool));
    let backends: Vec<Backend<'_>> = of_pools.collect();
    write_requests(lanes, snapshot, &backends, page)?;
    let backends = || backends.iter().map(|backend| (backend.labels, backend));
    let takes_any = |it: &Endpoint| it.standing != Standing::Out && it.address.is_some();
    page.gauges(UP, backends().map(|(it, of)| (it, u32::from(takes_any(of.endpoint)))))?;
    let weight = |it: &Endpoint| f64::from(it.weight) / f64::from(WEIGHT_UNIT);
    page.gauges(WEIGHT, backends().map(|(it, of)| (it, weight(of.endpoint))))?;
    let number = |of: &Backend<'_>| of.endpoint.slot.number;
    page.gauges(IN_FLIGHT, backends().map(|(it, of)| (it, lanes.in_flight(number(of)))))?;
    page.gauges(IDLE, backends().map(|(it, of)| (it, lanes.idle(number(of)))))?;
    for (about, counter) in COUNTERS {
        page.counters(about, backends().map(|(it, of)| (it, of.totals.get(counter))))?;
    }
    for (about, counter) in BYTES {
        let bytes = backends().map(|(it, of)| (it, of.totals.get(counter)));
        page.counters_in(Some(Unit::Bytes), about, bytes)?;
    }
    page.counter(STALE, lanes.sum(Counter::PoolStale))?;
    page.seconds_by(FIRST_BYTE, backends().map(|(it, of)| (it, of.totals.first_bytes())))
}

fn backends_of<'s>(lanes: &Lanes, pool: &'s Pool) -> impl Iterator<Item = Backend<'s>> {
    pool.endpoints.iter().map(|endpoint| Backend {
        labels: labels_of(pool, endpoint),
        endpoint,
        totals: lanes.backend(endpoint.slot.number),
    })
}

/// Requests that are over, by who answered them. Only kinds that there were any of are told: with
/// all of them, a thousand backends would have 54,000.
fn write_requests(
    lanes: &Lanes,
    snapshot: &Snapshot,
    backends: &[Backend<'_>],
    page: &mut Page<'_>,
) -> fmt::Result {
    let answered = backends.iter().flat_map(|of| {
        of.totals.answers().map(|(method, class, count)| (of.labels, method, class, count))
    });
    let pools = snapshot.pools.iter().enumerate();
    let pools = pools.map(|(index, pool)| (pool.config.name.as_str(), Some(index)));
    let others = pools.chain([(NONE, None)]).flat_map(|(pool, index)| {
        let labels = [("pool", pool), ("backend", NONE)];
        let counts = lanes.unanswered(index).into_iter();
        counts.map(move |(method, class, count)| (labels, method, class, count))
    });
    let requests = answered.chain(others).map(|([pool, backend], method, class, count)| {
        let classes = [("method", method.name()), ("status_class", class.name())];
        ([pool, backend, classes[0], classes[1]], count)
    });
    page.counters(REQUESTS, requests)
}

fn labels_of<'s>(pool: &'s Pool, endpoint: &'s Endpoint) -> Labels<'s> {
    // The id is `pool/host:port`.
    let authority = endpoint.id.split_once('/').map_or(endpoint.id.as_str(), |(_, it)| it);
    [("pool", pool.config.name.as_str()), ("backend", authority)]
}

const PANICKING: About =
    ("pool_panicking", "Whether too few backends are healthy to heed health: 1 or 0.");
const ELIGIBLE: About = ("pool_backends_eligible", "Backends that take new requests.");
const REQUESTS: About = (
    "requests",
    "Requests that are over, by the backend that answered, or none, and the classes of method and status.",
);
const UP: About =
    ("backend_up", "Whether a backend takes requests, be it those of its sessions alone: 1 or 0.");
const WEIGHT: About =
    ("backend_weight", "The weight in force, less for load, its agent and a slow start.");
const IN_FLIGHT: About = ("backend_requests_in_flight", "Requests in flight on a backend.");
const IDLE: About = ("backend_idle_connections", "Unused connections that are kept for a backend.");
const COUNTERS: [(About, BackendCounter); 4] = [
    (("backend_connections_opened", "Connections made to a backend."), BackendCounter::Connects),
    (
        ("backend_connections_reused", "Attempts that went over a kept connection."),
        BackendCounter::Reuses,
    ),
    (("backend_failures", "Attempts that failed by a backend's fault."), BackendCounter::Failures),
    (("backend_retries", "Attempts on a backend that another followed."), BackendCounter::Retries),
];
const BYTES: [(About, BackendCounter); 2] = [
    (("backend_sent", "Bytes to a backend, of attempts that are over."), BackendCounter::Sent),
    (
        ("backend_received", "Bytes from a backend, of attempts that are over."),
        BackendCounter::Received,
    ),
];
const STALE: About =
    ("backend_connections_stale", "Kept connections found closed when they were wanted.");
const FIRST_BYTE: About =
    ("backend_first_byte", "From when an attempt got its backend to the end of its answer's head.");
/// The pool and the backend of what has none.
const NONE: &str = "none";
