//! What passes through: clients' connections, requests, their times and failures, retries.

use std::fmt;

use crate::control::prometheus::page::{About, Page};
use crate::error::Cause;
use crate::metrics::{Counter, Lanes, Latency};

/// Writes it.
pub(super) fn write(lanes: &Lanes, page: &mut Page<'_>) -> fmt::Result {
    for (about, counter) in COUNTERS {
        page.counter(about, lanes.sum(counter))?;
    }
    let causes =
        Cause::ALL.iter().map(|cause| ([("cause", cause.name())], lanes.sum_cause(*cause)));
    page.counters(FAILURES, causes)?;
    page.gauge(IN_FLIGHT, lanes.in_flight_total())?;
    page.seconds(DURATION, &lanes.distribution(Latency::Total))?;
    page.seconds(FIRST_BYTE, &lanes.distribution(Latency::Upstream))
}

const COUNTERS: [(About, Counter); 8] = [
    (("requests_received", "Requests whose head was read."), Counter::Requests),
    (("answers_relayed", "Answers of backends that were relayed whole."), Counter::Relayed),
    (("retries_denied", "Retries that the budget did not allow."), Counter::RetriesDenied),
    (("requests_queued", "Requests that waited for a place on a backend."), Counter::Queued),
    (("tunnels", "Connections that became tunnels: CONNECT and upgrades."), Counter::Tunnels),
    (("backend_connections_opened", "Connections made to backends."), Counter::Connects),
    (("backend_connections_reused", "Requests that went over a kept connection."), Counter::Reuses),
    (
        ("backend_connections_stale", "Kept connections found closed when they were wanted."),
        Counter::PoolStale,
    ),
];
const FAILURES: About =
    ("failures", "Requests and connections that ended before their regular end, by cause.");
const IN_FLIGHT: About = ("requests_in_flight", "Requests on their way to or from a backend.");
const DURATION: About = (
    "request_duration",
    "From the end of a request's head to the last byte of its answer; of answers relayed whole.",
);
const FIRST_BYTE: About =
    ("backend_first_byte", "From when an attempt got its backend to the end of its answer's head.");
