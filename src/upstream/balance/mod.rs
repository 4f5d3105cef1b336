//! Which endpoint of a pool a request goes to.
//!
//! Pure: reads one pool of a snapshot and the worker's own cursors, and neither locks, allocates
//! nor asks the time. Called by the worker for each attempt.

pub mod round_robin;

use std::time::{Duration, Instant};

use crate::config::{BalanceConfig, Policy};
use crate::metrics::Lanes;
use crate::upstream::endpoint::{Endpoint, Slot, Tier};
use round_robin::Schedule;

/// A policy with what it precomputes from the eligible endpoints of one tier.
#[derive(Debug)]
pub enum Balance {
    /// In turn, in proportion to the weights.
    RoundRobin(Schedule),
}

/// What a pick depends on beside the pool.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The hash of the request's key.
    pub hash: u64,
    /// The requests in flight on each endpoint.
    pub lanes: &'a Lanes,
    /// The time.
    pub now: Instant,
}

impl Balance {
    /// The tables of the configured policy for the eligible endpoints of this tier.
    #[must_use]
    pub fn new(config: &BalanceConfig, endpoints: &[Endpoint], tier: Tier) -> Balance {
        let takes = |it: &Endpoint| it.is_eligible() && it.tier == tier;
        let weight_of = |it: &Endpoint| if takes(it) { it.weight } else { 0 };
        let weights: Vec<u32> = endpoints.iter().map(weight_of).collect();
        match config.policy {
            _ => Balance::RoundRobin(Schedule::new(&weights)),
        }
    }

    /// The index in `endpoints` of the one for the next attempt, and never one that is not free;
    /// `None` when no other is eligible. `endpoints` are those that the tables were made for.
    pub fn pick(
        &self,
        endpoints: &[Endpoint],
        cursor: &mut Cursor,
        ask: &Ask<'_>,
        is_free: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match self {
            Balance::RoundRobin(schedule) => {
                for _ in 0..schedule.len() {
                    let index = schedule.at(cursor.turn)?;
                    cursor.turn = cursor.turn.wrapping_add(1);
                    if is_free(index) {
                        return Some(index);
                    }
                }
                None
            }
        }
    }
}

/// What a worker remembers between picks from one pool.
#[derive(Debug)]
pub struct Cursor {
    turn: usize,
}

impl Cursor {
    /// The cursor of a worker; workers start at different places of the schedule, so that few
    /// requests spread over many workers do not all go to the first endpoint.
    #[must_use]
    pub fn new(worker: usize) -> Cursor {
        Cursor { turn: worker }
    }

    /// Remembers how long an endpoint took until its answer began; failures count as long.
    pub fn observe(&mut self, slot: Slot, latency: Duration, now: Instant) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::Address;

    fn endpoints_of(endpoints: &[(u16, bool)]) -> Vec<Endpoint> {
        endpoints
            .iter()
            .enumerate()
            .map(|(number, &(weight, healthy))| Endpoint {
                slot: Slot { number: number as u32, generation: 0 },
                id: format!("default/127.0.0.1:{number}"),
                address: Some(Address::Tcp(([127, 0, 0, 1], 1).into())),
                weight,
                healthy,
            })
            .collect()
    }

    fn picks(endpoints: &[Endpoint], tried: &[Slot], count: usize) -> Vec<Option<u32>> {
        let balance = Balance::new(Policy::RoundRobin, endpoints);
        let mut cursor = Cursor::new(0);
        (0..count)
            .map(|_| {
                balance.pick(endpoints, &mut cursor, tried).map(|endpoint| endpoint.slot.number)
            })
            .collect()
    }

    #[test]
    fn healthy_endpoints_are_picked_in_turn() {
        let endpoints = endpoints_of(&[(1, true), (1, false), (1, true)]);
        assert_eq!(picks(&endpoints, &[], 4), [Some(0), Some(2), Some(0), Some(2)]);
    }

    #[test]
    fn a_tried_endpoint_is_not_picked_again() {
        let endpoints = endpoints_of(&[(5, true), (1, true)]);
        let tried = [Slot { number: 0, generation: 0 }];
        assert_eq!(picks(&endpoints, &tried, 2), [Some(1), Some(1)]);
    }

    #[test]
    fn nothing_is_picked_when_all_are_sick_or_tried() {
        assert_eq!(picks(&endpoints_of(&[(1, false)]), &[], 1), [None]);
        let tried = [Slot { number: 0, generation: 0 }];
        assert_eq!(picks(&endpoints_of(&[(1, true)]), &tried, 1), [None]);
    }

    #[test]
    fn a_slot_given_out_again_is_not_the_one_that_was_tried() {
        let tried = [Slot { number: 0, generation: 7 }];
        assert_eq!(picks(&endpoints_of(&[(1, true)]), &tried, 1), [Some(0)]);
    }
}
