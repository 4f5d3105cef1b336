//! The power of two choices: two candidates are drawn, and the one with fewer requests in flight
//! for its weight, over all workers, is picked. Near the fewest of all, at the cost of two.

use fastrand::Rng;

use super::{Candidate, Candidates, Schedule, random};
use crate::metrics::Lanes;

/// The place of the better of two free candidates, of equals the one drawn first: an idle pool
/// is drawn from in proportion to the weights.
pub fn pick(
    schedule: &Schedule,
    candidates: &Candidates,
    random: &mut Rng,
    lanes: &Lanes,
    is_free: impl Fn(usize) -> bool,
) -> Option<usize> {
    let (first, second) = random::pick_two(schedule, candidates, random, is_free)?;
    let Some(second) = second else { return Some(first) };
    let list = candidates.as_slice();
    let (a, b) = (&list[first], &list[second]);
    let load =
        |it: &Candidate, other_weight| u64::from(it.in_flight(lanes)) * u64::from(other_weight);
    let is_better = load(b, a.weight) < load(a, b.weight);
    Some(if is_better { second } else { first })
}
