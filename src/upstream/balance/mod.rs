//! Which endpoint of a pool a request goes to: a policy's tables, computed once a snapshot, and
//! what a worker remembers between picks. One file a policy.
//!
//! Pure: reads one pool of a snapshot, the lanes and the worker's own cursor, and neither locks,
//! allocates in the steady state nor asks the time. Called by the worker for each attempt.

pub mod candidates;
pub mod ewma;
pub mod least_connections;
pub mod maglev;
pub mod p2c;
pub mod random;
pub mod round_robin;
pub mod schedule;

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::config::{BalanceConfig, Policy};
use crate::metrics::Lanes;
use crate::upstream::endpoint::{Endpoint, Slot, Tier};
use candidates::{Candidate, Candidates};
use schedule::Schedule;

/// A policy with what it precomputes from the eligible endpoints of one tier.
#[derive(Debug)]
pub struct Balance {
    candidates: Candidates,
    rule: Rule,
}

/// A policy's tables; they name candidates by their places.
#[derive(Debug)]
enum Rule {
    RoundRobin(Schedule),
    LeastConnections,
    P2c(Schedule),
    Ewma(Schedule),
    Random(Schedule),
    Maglev(maglev::Table),
}

/// What a pick depends on beside the pool.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The hash of the request's key; a random number where the request has none.
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
        let candidates = Candidates::new(endpoints, tier);
        let schedule = || Schedule::new(&candidates.weights());
        let rule = match config.policy {
            Policy::RoundRobin => Rule::RoundRobin(schedule()),
            Policy::LeastConnections => Rule::LeastConnections,
            Policy::P2c => Rule::P2c(schedule()),
            Policy::Ewma => Rule::Ewma(schedule()),
            Policy::Random => Rule::Random(schedule()),
            Policy::Maglev => Rule::Maglev(maglev::Table::new(
                &candidates,
                endpoints,
                config.hash_seed,
                config.hash_balance_percent,
            )),
        };
        Balance { candidates, rule }
    }

    /// The index in `endpoints` of the one for the next attempt: always a free one, and `None` only
    /// when no eligible one is free. `endpoints` are those that the tables were made for.
    pub fn pick(
        &self,
        endpoints: &[Endpoint],
        cursor: &mut Cursor,
        ask: &Ask<'_>,
        is_free: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let candidates = &self.candidates;
        debug_assert!(candidates.are_of(endpoints), "tables of another snapshot");
        if candidates.is_empty() {
            return None;
        }
        let is_free = |place| is_free(candidates.index(place));
        let place = match &self.rule {
            Rule::RoundRobin(schedule) => round_robin::pick(schedule, candidates, cursor, is_free),
            Rule::LeastConnections => {
                least_connections::pick(candidates, cursor, ask.lanes, is_free)
            }
            Rule::P2c(schedule) => {
                p2c::pick(schedule, candidates, &mut cursor.random, ask.lanes, is_free)
            }
            Rule::Ewma(schedule) => ewma::pick(schedule, candidates, cursor, ask, is_free),
            Rule::Random(schedule) => {
                random::pick(schedule, candidates, &mut cursor.random, is_free)
            }
            Rule::Maglev(table) => table.pick(candidates, ask, is_free),
        };
        place.map(|place| candidates.index(place))
    }
}

/// What a worker remembers between picks from one pool.
#[derive(Debug)]
pub struct Cursor {
    /// Where a round starts, as a part of its length.
    start: u32,
    /// The next turn; beyond the end of a round that was not begun.
    turn: usize,
    random: Rng,
    latencies: ewma::Latencies,
}

impl Cursor {
    /// The cursor of a worker. Workers start at different places of a round, so that few requests
    /// spread over many workers do not all go to the first endpoint.
    #[must_use]
    pub fn new(worker: usize) -> Cursor {
        Cursor::seeded(worker, fastrand::u64(..))
    }

    /// A cursor that draws the same each time.
    #[must_use]
    pub fn seeded(worker: usize, seed: u64) -> Cursor {
        Cursor {
            start: (worker as u32).wrapping_mul(GOLDEN_FRACTION),
            turn: usize::MAX,
            random: Rng::with_seed(seed),
            latencies: ewma::Latencies::default(),
        }
    }

    /// Remembers how long an endpoint took until its answer began; failures count as long.
    pub fn observe(&mut self, slot: Slot, latency: Duration, now: Instant) {
        self.latencies.observe(slot, latency, now);
    }

    /// The turn that this worker has come to in rounds of `len` turns.
    fn turn(&mut self, len: usize) -> usize {
        if self.turn == len {
            self.turn = 0;
        } else if self.turn > len {
            self.turn = schedule::scale(self.start, len);
        }
        self.turn
    }
}

/// The golden ratio's fraction of 2^32: its multiples spread evenly, however many there are.
const GOLDEN_FRACTION: u32 = 0x9E37_79B9;

#[cfg(test)]
mod tests;
