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
    page.counter(BREAKERS, vitals.breaker_openings.get())?;
    page.counter(LAGS, vitals.lags.get())?;
    page.counter(DISCARDED, vitals.probes_discarded.get())?;
    page.counter(DROPPED, lanes.sum(Counter::OutcomesDropped))
}

const EPOCH: About = ("snapshot_epoch", "The number of the snapshot of backends in force.");
const EJECTIONS: About = ("ejections", "Backends ejected for how requests fared on them.");
const BREAKERS: About = ("breaker_openings", "Circuit breakers that opened.");
const LAGS: About = ("control_lags", "Times that the control thread ran late.");
const DISCARDED: About =
    ("probes_discarded", "Failed probes that did not count, the control thread having run late.");
const DROPPED: About =
    ("outcomes_dropped", "Failures of requests that the control thread was not told of.");
