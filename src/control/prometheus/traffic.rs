//! What passes through: requests, their times, bytes and failures, retries, the queue.

use std::fmt;

use prometheus_client::registry::Unit;

use crate::control::prometheus::page::{About, Page};
use crate::error::Cause;
use crate::metrics::{Counter, Lanes, Latency};

/// Writes it.
pub(super) fn write(lanes: &Lanes, page: &mut Page<'_>) -> fmt::Result {
    for (about, counter) in COUNTERS {
        page.counter(about, lanes.sum(counter))?;
    }
    for (about, counter) in GAUGES {
        page.gauge(about, lanes.sum(counter))?;
    }
    for (about, counter) in BYTES {
        page.counter_in(Some(Unit::Bytes), about, lanes.sum(counter))?;
    }
    page.counters(FAILURES, by_cause(|cause| lanes.sum_cause(cause)))?;
    page.counters(RETRIES, by_cause(|cause| lanes.sum_retries(cause)))?;
    page.gauge(IN_FLIGHT, lanes.in_flight_total())?;
    for (about, latency) in TIMES {
        page.seconds(about, &lanes.distribution(latency))?;
    }
    Ok(())
}

/// A count for each cause.
fn by_cause(
    count: impl Fn(Cause) -> u64,
) -> impl Iterator<Item = ([(&'static str, &'static str); 1], u64)> {
    Cause::ALL.into_iter().map(move |cause| ([("cause", cause.name())], count(cause)))
}

const COUNTERS: [(About, Counter); 5] = [
    (("requests_received", "Requests whose head was read."), Counter::Requests),
    (("answers_relayed", "Answers of backends that were relayed whole."), Counter::Relayed),
    (("retries_denied", "Retries that the budget did not allow."), Counter::RetriesDenied),
    (("requests_queued", "Requests that waited for a place on a backend."), Counter::Queued),
    (
        ("tunnels_opened", "Connections that became tunnels: CONNECT and upgrades."),
        Counter::Tunnels,
    ),
];
const GAUGES: [(About, Counter); 2] = [
    (("queue_length", "Requests that wait for a place on a backend now."), Counter::Waiting),
    (("tunnels", "Tunnels open now."), Counter::TunnelsOpen),
];
const BYTES: [(About, Counter); 2] = [
    (("client_received", "Bytes from clients, of requests that are over."), Counter::FromClients),
    (("client_sent", "Bytes to clients, of requests that are over."), Counter::ToClients),
];
const FAILURES: About =
    ("failures", "Requests and connections that ended before their regular end, by cause.");
const RETRIES: About = ("retries", "Attempts that another followed, by what ended them.");
const IN_FLIGHT: About = ("requests_in_flight", "Requests on their way to or from a backend.");
const TIMES: [(About, Latency); 3] = [
    (
        (
            "request_duration",
            "From the end of a request's head to the last byte of an answer relayed whole.",
        ),
        Latency::Total,
    ),
    (("queue_wait", "How long a request waited for places; of those that had to."), Latency::Queue),
    (("backend_connect", "How long making a connection to a backend took."), Latency::Connect),
];
