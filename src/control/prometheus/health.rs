//! What the control thread does: the snapshot's number, probes, ejections, breakers.

use std::fmt;

use crate::control::prometheus::page::{About, Page};
use crate::health::vitals::Vitals;
use crate::metrics::{Counter, Lanes};
use crate::upstream::snapshot::Snapshot;

/// Writes it.
pub(super) fn write(
    vitals: &Vitals,
    lanes: &Lanes,
    snapshot: &Snapshot,
    page: &mut Page<'_>,
) -> fmt::Result {
    page.gauge(EPOCH, snapshot.epoch)?;
    page.counter(EJECTIONS, vitals.ejections.get())?;
    let turns = [
        ("open", &vitals.breaker_openings),
        ("half-open", &vitals.breaker_half_openings),
        ("closed", &vitals.breaker_closings),
    ];
    page.counters(BREAKERS, turns.map(|(state, count)| ([("state", state)], count.get())))?;
    let probes = [("passed", &vitals.probes_passed), ("failed", &vitals.probes_failed)];
    page.counters(PROBES, probes.map(|(result, count)| ([("result", result)], count.get())))?;
    page.seconds(PROBE_TIMES, &vitals.probe_times.distribution())?;
    page.seconds(LAG_TIMES, &vitals.lag_times.distribution())?;
    page.counter(LAGS, vitals.lags.get())?;
    page.counter(DISCARDED, vitals.probes_discarded.get())?;
    page.counter(DROPPED, lanes.sum(Counter::OutcomesDropped))
}

const EPOCH: About = ("snapshot_epoch", "The number of the snapshot of backends in force.");
const EJECTIONS: About = ("ejections", "Backends ejected for how requests fared on them.");
const BREAKERS: About =
    ("breaker_changes", "Changes of backends' circuit breakers, by the state that came.");
const PROBES: About = ("probes", "Probes of backends, by result.");
const PROBE_TIMES: About = ("probe_duration", "How long a probe took, with finding the address.");
const LAG_TIMES: About = ("control_lag", "How late the control thread's heartbeats came.");
const LAGS: About = ("control_lags", "Times that the control thread ran late.");
const DISCARDED: About =
    ("probes_discarded", "Failed probes that did not count, the control thread having run late.");
const DROPPED: About =
    ("outcomes_dropped", "Failures of requests that the control thread was not told of.");
