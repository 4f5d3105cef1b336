//! Consistent hashing with a Maglev table, and with bounded loads if a bound is given.
//!
//! The table depends on the seed, and on the candidates' ids and weights in any order: processes
//! that share them send a key to the same endpoint. See Eisenbud and others, "Maglev" (NSDI 2016);
//! Mirrokni and others, "Consistent Hashing with Bounded Loads" (2017).

use std::num::NonZeroU32;

use super::schedule::scale;
use super::{Ask, Candidates};
use crate::metrics::Lanes;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::hash;

/// Which candidate each part of the hashes belongs to.
#[derive(Debug)]
pub struct Table {
    /// Places of candidates; empty when there is none.
    entries: Vec<u16>,
    /// The most requests in flight on a candidate, in percent of its share of all.
    bound_percent: Option<NonZeroU32>,
}

impl Table {
    /// The table for these candidates of `endpoints`.
    #[must_use]
    pub fn new(
        candidates: &Candidates,
        endpoints: &[Endpoint],
        seed: u64,
        bound_percent: Option<NonZeroU32>,
    ) -> Table {
        let mut walks: Vec<(&str, Walk)> = (0..candidates.len())
            .map(|place| {
                let id = endpoints[candidates.index(place)].id.as_str();
                (id, Walk::new(place, id, candidates.as_slice()[place].weight, seed))
            })
            .collect();
        walks.sort_unstable_by_key(|(id, _)| *id);
        let walks = walks.into_iter().map(|(_, walk)| walk).collect();
        Table { entries: fill(walks), bound_percent }
    }

    /// The place of the candidate for this hash: the first that is free and within its bound from
    /// the hash's entry on.
    pub fn pick(
        &self,
        candidates: &Candidates,
        ask: &Ask<'_>,
        is_free: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let bound = self.bound_percent.map(|percent| Bound::new(percent, candidates, ask.lanes));
        let takes =
            |place| is_free(place) && bound.as_ref().is_none_or(|bound| bound.has_room(place));
        let fraction = (ask.hash >> u32::BITS) as u32;
        let start = scale(fraction, self.entries.len());
        let (before, from) = self.entries.split_at(start);
        let walk = from.iter().chain(before).take(STEPS_MAX).map(|place| usize::from(*place));
        walk.into_iter()
            .find(|place| takes(*place))
            .or_else(|| candidates.first(scale(fraction, candidates.len()), takes))
            .or_else(|| candidates.first(0, &is_free))
    }
}

/// The order in which a candidate asks for the table's entries: `at`, then every `skip`-th.
#[derive(Debug)]
struct Walk {
    place: u16,
    weight: u64,
    at: usize,
    skip: usize,
    /// What its entries so far would weigh, if each weighed as much as the heaviest candidate.
    taken: u64,
}

impl Walk {
    fn new(place: usize, id: &str, weight: u32, seed: u64) -> Walk {
        let hash = hash::of_bytes(id.as_bytes(), seed);
        let (high, low) = ((hash >> u32::BITS) as usize, hash as u32 as usize);
        Walk {
            place: u16::try_from(place).unwrap_or(u16::MAX),
            weight: u64::from(weight),
            at: high % ENTRIES,
            skip: low % (ENTRIES - 1) + 1,
            taken: 0,
        }
    }

    /// Takes the next entry of its order that nobody has.
    fn take_one(&mut self, entries: &mut [u16]) {
        loop {
            let entry = &mut entries[self.at];
            self.at += self.skip;
            if self.at >= ENTRIES {
                self.at -= ENTRIES;
            }
            if *entry == NOBODY {
                *entry = self.place;
                return;
            }
        }
    }
}

/// The table: in each round the heaviest candidates take an entry, and the others as often as
/// their weight is a part of the heaviest.
fn fill(mut walks: Vec<Walk>) -> Vec<u16> {
    let Some(heaviest) = walks.iter().map(|walk| walk.weight).max() else { return Vec::new() };
    let mut entries = vec![NOBODY; ENTRIES];
    let mut left = ENTRIES;
    for round in 1.. {
        for walk in &mut walks {
            if left == 0 {
                return entries;
            }
            if walk.taken < round * walk.weight {
                walk.take_one(&mut entries);
                walk.taken += heaviest;
                left -= 1;
            }
        }
    }
    entries
}

/// How many requests a candidate may have in flight.
struct Bound<'a> {
    candidates: &'a Candidates,
    lanes: &'a Lanes,
    /// Parts of a candidate's weight that it may have in flight, in hundredths of all weights.
    allowed: u64,
}

impl<'a> Bound<'a> {
    fn new(percent: NonZeroU32, candidates: &'a Candidates, lanes: &'a Lanes) -> Bound<'a> {
        let requests = u64::from(lanes.in_flight_total()) + 1;
        Bound { candidates, lanes, allowed: requests.saturating_mul(u64::from(percent.get())) }
    }

    /// Whether the candidate may have one more: at most its share of all requests, this one
    /// included, times the bound, rounded up. Without the division: n + 1 <= ceil(x / y) is
    /// n * y < x.
    fn has_room(&self, place: usize) -> bool {
        let candidate = &self.candidates.as_slice()[place];
        let in_flight = u64::from(candidate.in_flight(self.lanes));
        let share = self.allowed.saturating_mul(u64::from(candidate.weight));
        in_flight.saturating_mul(100 * self.candidates.weight_total()) < share
    }
}

/// The entries of a table: a prime, and 64 for each endpoint when there are 1,024.
const ENTRIES: usize = 65_537;
/// An entry that is not taken yet.
const NOBODY: u16 = u16::MAX;
/// The most entries that are looked at before all candidates are, in turn.
const STEPS_MAX: usize = 256;
