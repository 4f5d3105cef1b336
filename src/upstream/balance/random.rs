//! At random, in proportion to the weights: one candidate, or two different ones to choose from.

use fastrand::Rng;

use super::schedule::scale;
use super::{Candidates, Schedule};

/// The place of a free candidate.
pub fn pick(
    schedule: &Schedule,
    candidates: &Candidates,
    random: &mut Rng,
    is_free: impl Fn(usize) -> bool,
) -> Option<usize> {
    for _ in 0..DRAWS_MAX {
        let place = schedule.draw(random)?;
        if is_free(place) {
            return Some(place);
        }
    }
    candidates.first(scale(random.u32(..), candidates.len()), is_free)
}

/// The places of two different free candidates, or of the only one.
pub fn pick_two(
    schedule: &Schedule,
    candidates: &Candidates,
    random: &mut Rng,
    is_free: impl Fn(usize) -> bool,
) -> Option<(usize, Option<usize>)> {
    let first = pick(schedule, candidates, random, &is_free)?;
    let is_other = |place| place != first && is_free(place);
    Some((first, pick(schedule, candidates, random, is_other)))
}

/// How often a busy candidate is drawn before all are looked at in turn, which finds the last free
/// one but heeds no weights: with half of them busy, one pick of 65,536.
const DRAWS_MAX: usize = 16;
