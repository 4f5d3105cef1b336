//! The candidate with the fewest requests in flight for its weight, this one included, over all
//! workers. Reads the counters of every candidate: the one policy whose cost grows with them.

use super::{Candidates, Cursor};
use crate::metrics::Lanes;

/// The place of the free candidate with the fewest requests; among equals they go round.
pub fn pick(
    candidates: &Candidates,
    cursor: &mut Cursor,
    lanes: &Lanes,
    is_free: impl Fn(usize) -> bool,
) -> Option<usize> {
    let list = candidates.as_slice();
    let start = cursor.turn(list.len());
    // No load yet, so that any is less: requests and weight are compared crosswise, undivided.
    let (mut best, mut best_requests, mut best_weight) = (None, 1, 0);
    let mut look = |place: usize| {
        let requests = list[place].in_flight(lanes) + 1;
        let weight = u64::from(list[place].weight);
        if requests * best_weight < best_requests * weight && is_free(place) {
            (best, best_requests, best_weight) = (Some(place), requests, weight);
        }
    };
    (start..list.len()).for_each(&mut look);
    (0..start).for_each(&mut look);
    cursor.turn = best? + 1;
    best
}
