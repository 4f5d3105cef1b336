//! Which endpoint of a pool a request goes to.
//!
//! Pure: reads one pool of a snapshot and the worker's own cursors, and neither locks, allocates
//! nor asks the time. Called by the worker for each attempt.

pub mod round_robin;

use crate::upstream::endpoint::{Endpoint, Slot};
use crate::upstream::snapshot::{Balance, Pool};

/// What a worker remembers between picks.
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
}

/// The endpoint for the next attempt, and never one of `tried`; `None` when no other is eligible.
pub fn pick<'p>(pool: &'p Pool, cursor: &mut Cursor, tried: &[Slot]) -> Option<&'p Endpoint> {
    match &pool.balance {
        Balance::RoundRobin(schedule) => {
            for _ in 0..schedule.len() {
                let endpoint = pool.endpoints.get(schedule.at(cursor.turn)?)?;
                cursor.turn = cursor.turn.wrapping_add(1);
                if !tried.contains(&endpoint.slot) {
                    return Some(endpoint);
                }
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policy;
    use crate::upstream::endpoint::Address;

    fn pool_of(endpoints: &[(u16, bool)]) -> Pool {
        let endpoints = endpoints
            .iter()
            .enumerate()
            .map(|(number, &(weight, healthy))| Endpoint {
                slot: Slot { number: number as u32, generation: 0 },
                id: format!("default/127.0.0.1:{number}"),
                address: Some(Address::Tcp(([127, 0, 0, 1], 1).into())),
                weight,
                healthy,
            })
            .collect();
        Pool::new("default", endpoints, Policy::RoundRobin)
    }

    fn picks(pool: &Pool, tried: &[Slot], count: usize) -> Vec<Option<u32>> {
        let mut cursor = Cursor::new(0);
        (0..count)
            .map(|_| pick(pool, &mut cursor, tried).map(|endpoint| endpoint.slot.number))
            .collect()
    }

    #[test]
    fn healthy_endpoints_are_picked_in_turn() {
        let pool = pool_of(&[(1, true), (1, false), (1, true)]);
        assert_eq!(picks(&pool, &[], 4), [Some(0), Some(2), Some(0), Some(2)]);
    }

    #[test]
    fn a_tried_endpoint_is_not_picked_again() {
        let pool = pool_of(&[(5, true), (1, true)]);
        let tried = [Slot { number: 0, generation: 0 }];
        assert_eq!(picks(&pool, &tried, 2), [Some(1), Some(1)]);
    }

    #[test]
    fn nothing_is_picked_when_all_are_sick_or_tried() {
        assert_eq!(picks(&pool_of(&[(1, false)]), &[], 1), [None]);
        let tried = [Slot { number: 0, generation: 0 }];
        assert_eq!(picks(&pool_of(&[(1, true)]), &tried, 1), [None]);
    }

    #[test]
    fn a_slot_given_out_again_is_not_the_one_that_was_tried() {
        let tried = [Slot { number: 0, generation: 7 }];
        assert_eq!(picks(&pool_of(&[(1, true)]), &tried, 1), [Some(0)]);
    }
}
