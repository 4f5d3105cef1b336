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
    let (before, from) = list.split_at(start);
    let mut best = Best { place: None, requests: 1, weight: 0 };
    for (part, first) in [(from, start), (before, 0)] {
        for (chunk, first) in part.chunks(CHUNK).zip((first..).step_by(CHUNK)) {
            let mut in_flight = [0; CHUNK];
            lanes.add_in_flight(chunk.iter().map(|it| it.slot.number), &mut in_flight);
            for ((candidate, in_flight), place) in chunk.iter().zip(in_flight).zip(first..) {
                best.look(place, in_flight, candidate.weight, &is_free);
            }
        }
    }
    cursor.turn = best.place? + 1;
    best.place
}

/// The best candidate so far.
struct Best {
    place: Option<usize>,
    /// With the request that is to be placed.
    requests: u64,
    /// 0 before there is one: any other has less to carry for its weight.
    weight: u64,
}

impl Best {
    fn look(&mut self, place: usize, in_flight: u32, weight: u32, is_free: impl Fn(usize) -> bool) {
        let (requests, weight) = (u64::from(in_flight) + 1, u64::from(weight));
        // Crosswise, without divisions.
        if requests * self.weight < self.requests * weight && is_free(place) {
            *self = Best { place: Some(place), requests, weight };
        }
    }
}

/// The candidates whose counts are summed at once, lane after lane: against endpoint after endpoint
/// 270 ns a pick and not 310 among 200 endpoints with 2 lanes, 4.6 µs and not 6.6 with 64.
const CHUNK: usize = 64;
