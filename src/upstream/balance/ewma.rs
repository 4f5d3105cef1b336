//! Peak EWMA: of two candidates drawn, the one whose answers are quicker for the requests it has
//! in flight. Latencies are the worker's own, requests in flight those of all workers.
//!
//! A latency rises at once to a slower answer and sinks slowly to quicker ones, or for want of
//! any, so that a slow endpoint is tried again.

use std::time::{Duration, Instant};

use super::{Ask, Candidate, Candidates, Cursor, Schedule, random};
use crate::upstream::endpoint::{Slot, WEIGHT_UNIT};

/// The place of the better of two free candidates. One that this worker has not picked for
/// `UNTRIED_MAX` is picked when it is drawn, whatever it costs.
pub fn pick(
    schedule: &Schedule,
    candidates: &Candidates,
    cursor: &mut Cursor,
    ask: &Ask<'_>,
    is_free: impl Fn(usize) -> bool,
) -> Option<usize> {
    let (first, second) = random::pick_two(schedule, candidates, &mut cursor.random, is_free)?;
    let latencies = &mut cursor.latencies;
    let now = latencies.nanos_at(ask.now);
    let list = candidates.as_slice();
    let place = match second {
        Some(second) if latencies.is_better(&list[second], &list[first], ask, now) => second,
        _ => first,
    };
    latencies.entry(list[place].slot).picked = Some(now);
    Some(place)
}

/// How long endpoints took to answer one worker, by slot number.
#[derive(Debug, Default)]
pub struct Latencies {
    /// What times are counted from.
    epoch: Option<Instant>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The generation of the slot that the rest is about.
    generation: u32,
    /// The average, in nanoseconds, when it was last `observed`; `None` before the first answer.
    latency: Option<f64>,
    observed: i64,
    picked: Option<i64>,
}

impl Latencies {
    /// Remembers how long an endpoint took to answer.
    pub fn observe(&mut self, slot: Slot, latency: Duration, now: Instant) {
        let now = self.nanos_at(now);
        let entry = self.entry(slot);
        if entry.generation != slot.generation {
            return;
        }
        let latency = latency.as_nanos() as f64;
        // tau / (tau + idle) in place of exp(-idle / tau): the same for short times.
        let kept = TAU_NANOS / entry.divisor(now);
        entry.latency = Some(match entry.latency {
            Some(average) if average > latency => average * kept + latency * (1.0 - kept),
            _ => latency,
        });
        entry.observed = now;
    }

    /// Whether candidate `a` is to be picked, rather than `b`, which was drawn before.
    fn is_better(&self, a: &Candidate, b: &Candidate, ask: &Ask<'_>, now: i64) -> bool {
        let (entry_a, entry_b) = (self.get(a.slot), self.get(b.slot));
        if entry_b.is_untried(now) || entry_a.is_untried(now) {
            return !entry_b.is_untried(now);
        }
        // A latency that is not known yet, the first request being under way, is taken to be the
        // other's: requests in flight decide, and a newcomer gets no more than its share.
        let (latency_a, divisor_a, latency_b, divisor_b) = match (entry_a.latency, entry_b.latency)
        {
            (Some(a), Some(b)) => (a, entry_a.divisor(now), b, entry_b.divisor(now)),
            _ => (1.0, 1.0, 1.0, 1.0),
        };
        // latency * tau / (tau + idle) * (in flight / weight + 1), crosswise without divisions.
        let (weight_a, weight_b) = (f64::from(a.weight), f64::from(b.weight));
        let unit = f64::from(WEIGHT_UNIT);
        let load_a = (f64::from(a.in_flight(ask.lanes)) * unit + weight_a) * weight_b;
        let load_b = (f64::from(b.in_flight(ask.lanes)) * unit + weight_b) * weight_a;
        (latency_a * load_a) * divisor_b < (latency_b * load_b) * divisor_a
    }

    /// What is known of the endpoint in this slot.
    fn get(&self, slot: Slot) -> Entry {
        let entry = self.entries.get(slot.number as usize).copied().unwrap_or_default();
        if entry.generation == slot.generation { entry } else { Entry::default() }
    }

    /// The entry of this slot, emptied if the slot has a new endpoint.
    fn entry(&mut self, slot: Slot) -> &mut Entry {
        let number = slot.number as usize;
        if number >= self.entries.len() {
            self.entries.resize(number + 1, Entry::default());
        }
        let entry = &mut self.entries[number];
        if entry.generation < slot.generation {
            *entry = Entry { generation: slot.generation, ..Entry::default() };
        }
        entry
    }

    /// A time in nanoseconds from the first that was asked for; signed, which converts to f64 in
    /// one instruction.
    fn nanos_at(&mut self, now: Instant) -> i64 {
        let since = now.saturating_duration_since(*self.epoch.get_or_insert(now));
        since.as_secs() as i64 * 1_000_000_000 + i64::from(since.subsec_nanos())
    }
}

impl Entry {
    /// Whether this worker must find out how the endpoint does.
    fn is_untried(&self, now: i64) -> bool {
        self.picked.is_none_or(|picked| now - picked >= UNTRIED_MAX_NANOS)
    }

    /// What the latency has to be divided by, as long as there was no answer.
    fn divisor(&self, now: i64) -> f64 {
        TAU_NANOS + (now - self.observed) as f64
    }
}

/// The time in which an unconfirmed latency sinks to a half, in nanoseconds.
const TAU_NANOS: f64 = 10e9;
/// How long a worker may not have picked an endpoint before it tries it again, in nanoseconds.
const UNTRIED_MAX_NANOS: i64 = 1_000_000_000;
