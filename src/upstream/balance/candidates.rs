//! The endpoints that a policy chooses among: the eligible ones of one tier, packed so that a
//! pick reads 16 bytes of each it looks at. Policies name a candidate by its place here.

use crate::metrics::Lanes;
use crate::upstream::endpoint::{Endpoint, Slot, Tier};

/// The eligible endpoints of one tier.
#[derive(Debug)]
pub struct Candidates {
    list: Vec<Candidate>,
    weight_total: u64,
}

/// What a pick needs to know of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its place in counters.
    pub slot: Slot,
    /// Its share of requests, at least 1.
    pub weight: u32,
    /// Its index among the pool's endpoints.
    index: u16,
}

impl Candidates {
    /// The eligible endpoints of this tier, in the order of the pool.
    #[must_use]
    pub fn new(endpoints: &[Endpoint], tier: Tier) -> Candidates {
        let list: Vec<Candidate> = endpoints
            .iter()
            .enumerate()
            .filter(|(_, it)| it.is_eligible() && it.tier == tier)
            .filter_map(|(index, it)| {
                let index = u16::try_from(index).ok()?;
                Some(Candidate { slot: it.slot, weight: it.weight.max(1), index })
            })
            .collect();
        let weight_total = list.iter().map(|it| u64::from(it.weight)).sum();
        Candidates { list, weight_total }
    }

    /// Whether they are some of these endpoints, as far as a look at one can tell.
    #[must_use]
    pub fn are_of(&self, endpoints: &[Endpoint]) -> bool {
        let last = self.list.last();
        last.is_none_or(|it| {
            endpoints.get(usize::from(it.index)).is_some_and(|found| found.slot == it.slot)
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The candidates, by their places.
    #[must_use]
    pub fn as_slice(&self) -> &[Candidate] {
        &self.list
    }

    /// The index of the candidate at `place` among the pool's endpoints.
    ///
    /// # Panics
    /// When there is no such place.
    #[must_use]
    pub fn index(&self, place: usize) -> usize {
        usize::from(self.list[place].index)
    }

    /// All weights together.
    #[must_use]
    pub fn weight_total(&self) -> u64 {
        self.weight_total
    }

    /// The weights, by the candidates' places.
    #[must_use]
    pub fn weights(&self) -> Vec<u32> {
        self.list.iter().map(|it| it.weight).collect()
    }

    /// The first place, from `start` round, that is taken.
    pub fn first(&self, start: usize, takes: impl Fn(usize) -> bool) -> Option<usize> {
        (start..self.len()).chain(0..start).find(|place| takes(*place))
    }
}

impl Candidate {
    /// The requests in flight on it, over all workers.
    #[must_use]
    pub fn in_flight(&self, lanes: &Lanes) -> u32 {
        lanes.in_flight(self.slot.number)
    }
}
