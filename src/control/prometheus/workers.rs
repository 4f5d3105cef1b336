//! What each worker does: its connections, and how busy it keeps its core.
//!
//! The kernel counts a thread's processor time; it is read when somebody asks, so that nothing on
//! the request path measures time for it.

use std::fmt;
use std::time::Duration;

use prometheus_client::registry::Unit;

use crate::control::prometheus::page::{About, Page};
use crate::metrics::{Counter, Lane, Lanes};

/// Writes it.
pub(super) fn write(lanes: &Lanes, page: &mut Page<'_>) -> fmt::Result {
    let numbers: Vec<String> = (0..lanes.len()).map(|worker| worker.to_string()).collect();
    let workers = || {
        let labels = numbers.iter().map(|number| [("worker", number.as_str())]);
        labels.enumerate().map(|(worker, labels)| (labels, lanes.lane(worker)))
    };
    for (about, counter) in COUNTERS {
        page.counters(about, workers().map(|(it, lane)| (it, lane.get(counter))))?;
    }
    page.counter(LOST, lanes.access_log_lost())?;
    let open = workers().map(|(it, lane)| (it, lane.get(Counter::ClientsOpen)));
    page.gauges(CLIENTS, open)?;
    let in_flight = workers().map(|(it, lane)| (it, lane.in_flight_total()));
    page.gauges(IN_FLIGHT, in_flight)?;
    let times = workers().filter_map(|(it, lane)| Some((it, busy_time(lane)?.as_secs_f64())));
    page.counters_in(Some(Unit::Seconds), BUSY, times)?;
    page.gauge(IMBALANCE, lanes.imbalance(Counter::Accepted))
}

/// How long a worker did not wait for its ring or its epoll descriptor, which is the processor
/// time that its threads used so far: the difference of two, over the time between them, is the
/// part of its core that it uses. `None` where the kernel does not tell.
#[must_use]
pub fn busy_time(lane: &Lane) -> Option<Duration> {
    lane.busy_time(|thread| {
        let path = format!("/proc/self/task/{thread}/schedstat");
        let stat = std::fs::read_to_string(path).ok()?;
        stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    })
}

const COUNTERS: [(About, Counter); 9] = [
    (("worker_requests_received", "Requests whose head a worker read."), Counter::Requests),
    (
        ("client_connections_accepted", "Clients' connections taken up, by who serves them."),
        Counter::Accepted,
    ),
    (
        ("client_connections_handed_over", "Clients' connections handed to another worker."),
        Counter::HandedOver,
    ),
    (
        (
            "accept_pauses",
            "Times that accepting paused for want of descriptors, memory or client places.",
        ),
        Counter::AcceptPauses,
    ),
    (
        ("access_log_lines", "Lines of the access log, those dropped later too."),
        Counter::AccessLogLines,
    ),
    (
        ("access_log_lines_dropped", "Lines dropped, since too many waited to be written."),
        Counter::AccessLogDropped,
    ),
    (("sweeps", "Walks of a worker over its deadlines."), Counter::Sweeps),
    (
        ("worker_ring_submissions", "Operations that a worker put on its io_uring."),
        Counter::RingSubmissions,
    ),
    (
        ("worker_ring_completions", "Operations that a worker's io_uring has completed."),
        Counter::RingCompletions,
    ),
];
const LOST: About = (
    "access_log_lines_lost",
    "Lines of the access log that could not be written: a full disk, say.",
);
const CLIENTS: About = ("client_connections", "Clients' connections open now.");
const IN_FLIGHT: About = ("worker_requests_in_flight", "Requests in flight through a worker.");
const BUSY: About =
    ("worker_busy", "Processor time of a worker; its rate is the part of its core that it uses.");
const IMBALANCE: About = (
    "worker_imbalance_ratio",
    "The most connections that a worker took up over the mean: 1 is even.",
);
