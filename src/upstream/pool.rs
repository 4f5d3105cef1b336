//! The unused connections to endpoints that a worker keeps for the next request.
//!
//! The most recently used one goes out first, so that the rest can grow old and be closed. Pure:
//! the time is an argument, and whether a connection is still alive is asked of it by the caller.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::IdleLimits;
use crate::upstream::endpoint::Slot;
use crate::upstream::patience::Patience;

/// Unused connections of type `C`, by endpoint.
#[derive(Debug)]
pub struct IdlePool<C> {
    endpoints: Vec<Endpoint<C>>,
}

#[derive(Debug)]
struct Endpoint<C> {
    generation: u32,
    /// How long a connection is kept at most, as the last one that came was.
    timeout: Duration,
    patience: Patience,
    /// The oldest at the front.
    idle: VecDeque<(Instant, C)>,
}

/// How old a connection may be, against the time for which it can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Not older: for a request that can be sent again.
    Whole,
    /// Half as old: for one that cannot.
    Half,
}

impl<C> Default for IdlePool<C> {
    fn default() -> IdlePool<C> {
        IdlePool { endpoints: Vec::new() }
    }
}

impl<C> IdlePool<C> {
    /// Takes the connection to this endpoint that was used last, and how long it has lain here, if
    /// that is within `part` of the time for which it can be relied on.
    pub fn checkout(&mut self, slot: Slot, part: Part, now: Instant) -> Option<(C, Duration)> {
        let endpoint = self.endpoint(slot)?;
        let (since, _) = endpoint.idle.back()?;
        let age = now.saturating_duration_since(*since);
        let limit = endpoint.patience.limit(endpoint.timeout, now);
        if age >= limit {
            // The others lie there for longer still.
            endpoint.idle.clear();
        }
        let age_max = match part {
            Part::Whole => limit,
            Part::Half => limit / 2,
        };
        if age >= age_max {
            return None;
        }
        endpoint.idle.pop_back().map(|(_, conn)| (conn, age))
    }

    /// Keeps a connection that is between two messages; the oldest one makes room. One to a
    /// predecessor of the endpoint in its slot is closed.
    pub fn checkin(&mut self, slot: Slot, conn: C, limits: IdleLimits, now: Instant) {
        let idle_max = limits.per_endpoint_max;
        let Some(endpoint) = self.endpoint_or_new(slot).filter(|_| idle_max > 0) else { return };
        if endpoint.idle.len() >= idle_max {
            endpoint.idle.pop_front();
        }
        endpoint.timeout = limits.timeout;
        endpoint.idle.push_back((now, conn));
    }

    /// The endpoint said how long it keeps an unused connection.
    pub fn announce(&mut self, slot: Slot, timeout: Duration) {
        if let Some(endpoint) = self.endpoint_or_new(slot) {
            endpoint.patience.announce(timeout);
        }
    }

    /// The endpoint was found to have closed a connection that had lain unused for `age`.
    pub fn found_closed(&mut self, slot: Slot, age: Duration, now: Instant) {
        if let Some(endpoint) = self.endpoint(slot) {
            endpoint.patience.found_closed(age, now);
        }
    }

    /// Whether a connection to this endpoint lies here.
    #[must_use]
    pub fn has(&self, slot: Slot) -> bool {
        let endpoint = self.endpoints.get(slot.number as usize);
        endpoint.is_some_and(|it| it.generation == slot.generation && !it.idle.is_empty())
    }

    /// Closes what is too old, and what is dead among the `looks_max` oldest of each endpoint.
    pub fn sweep(&mut self, now: Instant, looks_max: usize, is_alive: impl Fn(&C) -> bool) {
        for endpoint in &mut self.endpoints {
            let limit = endpoint.patience.limit(endpoint.timeout, now);
            let (mut looks, patience) = (0, &mut endpoint.patience);
            endpoint.idle.retain(|(since, conn)| {
                looks += 1;
                let age = now.saturating_duration_since(*since);
                if age >= limit {
                    return false;
                }
                let is_kept = looks > looks_max || is_alive(conn);
                if !is_kept {
                    patience.found_closed(age, now);
                }
                is_kept
            });
        }
    }

    /// Closes the connections that are not to be kept.
    pub fn retain(&mut self, is_kept: impl Fn(Slot, &C) -> bool) {
        for (number, endpoint) in (0..).zip(&mut self.endpoints) {
            let slot = Slot { number, generation: endpoint.generation };
            endpoint.idle.retain(|(_, conn)| is_kept(slot, conn));
            if endpoint.idle.is_empty() {
                endpoint.idle = VecDeque::new();
            }
        }
    }

    /// Closes the oldest connection to this endpoint. Whether there was one.
    pub fn evict_from(&mut self, slot: Slot) -> bool {
        self.endpoint(slot).and_then(|endpoint| endpoint.idle.pop_front()).is_some()
    }

    /// Closes the oldest connections of the endpoints that have most of them, `count` in all.
    /// Whether there was one.
    pub fn evict(&mut self, count: usize) -> bool {
        let mut evicted = 0;
        while evicted < count {
            let most = self.endpoints.iter_mut().max_by_key(|endpoint| endpoint.idle.len());
            if most.and_then(|endpoint| endpoint.idle.pop_front()).is_none() {
                break;
            }
            evicted += 1;
        }
        evicted > 0
    }

    /// Closes all connections.
    pub fn clear(&mut self) {
        self.endpoints.clear();
    }

    fn endpoint(&mut self, slot: Slot) -> Option<&mut Endpoint<C>> {
        let endpoint = self.endpoints.get_mut(slot.number as usize)?;
        Some(endpoint).filter(|endpoint| endpoint.generation == slot.generation)
    }

    /// The endpoint of this slot, in place of a predecessor; `None` for a predecessor itself.
    fn endpoint_or_new(&mut self, slot: Slot) -> Option<&mut Endpoint<C>> {
        let number = slot.number as usize;
        while self.endpoints.len() <= number {
            let (patience, idle) = (Patience::default(), VecDeque::new());
            self.endpoints.push(Endpoint {
                generation: 0,
                timeout: Duration::ZERO,
                patience,
                idle,
            });
        }
        let endpoint = &mut self.endpoints[number];
        if endpoint.generation < slot.generation {
            endpoint.generation = slot.generation;
            endpoint.patience = Patience::default();
            endpoint.idle.clear();
        }
        Some(endpoint).filter(|endpoint| endpoint.generation == slot.generation)
    }

    /// How many connections lie here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.idle.len()).sum()
    }

    /// Whether no connection lies here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Slot = Slot { number: 1, generation: 0 };
    const A_AGAIN: Slot = Slot { number: 1, generation: 1 };
    const B: Slot = Slot { number: 0, generation: 0 };
    const TIMEOUT: Duration = Duration::from_secs(10);
    const LIMITS: IdleLimits = IdleLimits { timeout: TIMEOUT, per_endpoint_max: 2 };

    fn pool_of(conns: &[(Slot, u8)], now: Instant) -> IdlePool<u8> {
        let mut pool = IdlePool::default();
        for (slot, conn) in conns {
            pool.checkin(*slot, *conn, LIMITS, now);
        }
        pool
    }

    fn out(pool: &mut IdlePool<u8>, slot: Slot, now: Instant) -> Option<u8> {
        pool.checkout(slot, Part::Whole, now).map(|(conn, _)| conn)
    }

    #[test]
    fn the_last_used_connection_of_the_endpoint_goes_out_first() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (B, 2), (A, 3)], now);
        let out: Vec<_> = (0..3).map(|_| out(&mut pool, A, now)).collect();
        assert_eq!(out, [Some(3), Some(1), None]);
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn the_oldest_makes_room() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (A, 2), (A, 3)], now);
        assert_eq!((out(&mut pool, A, now), out(&mut pool, A, now)), (Some(3), Some(2)));
        assert!(pool.is_empty());
    }

    #[test]
    fn what_is_too_old_or_dead_is_closed() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (B, 2)], now);
        assert_eq!(out(&mut pool, A, now + TIMEOUT), None);
        pool.checkin(A, 3, LIMITS, now + TIMEOUT);
        pool.sweep(now + TIMEOUT, 9, |_| true);
        assert_eq!(pool.len(), 1);
        pool.sweep(now + TIMEOUT, 9, |conn| *conn != 3);
        assert!(pool.is_empty());
    }

    #[test]
    fn the_oldest_of_the_fullest_endpoint_are_evicted() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (A, 2), (B, 3)], now);
        assert!(pool.evict(1));
        assert_eq!((pool.len(), out(&mut pool, A, now)), (2, Some(2)));
        assert!(pool.evict(9) && !pool.evict(1));
    }

    #[test]
    fn a_slot_given_out_again_gets_no_connection_of_its_predecessor() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1)], now);
        assert_eq!(out(&mut pool, A_AGAIN, now), None);
        pool.checkin(A_AGAIN, 2, LIMITS, now);
        pool.checkin(A, 3, LIMITS, now);
        let out = [out(&mut pool, A_AGAIN, now), out(&mut pool, A_AGAIN, now)];
        assert_eq!(out, [Some(2), None]);
    }

    #[test]
    fn a_request_that_is_afraid_of_old_connections_leaves_them_to_others() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1)], now);
        let later = now + TIMEOUT / 2;
        assert_eq!(pool.checkout(A, Part::Half, later), None);
        assert_eq!(out(&mut pool, A, later), Some(1));
    }

    #[test]
    fn connections_are_retired_before_their_backend_closes_them() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (B, 2)], now);
        pool.announce(A, Duration::from_secs(2));
        pool.found_closed(B, Duration::from_secs(4), now);
        let later = now + Duration::from_millis(1_400);
        assert_eq!((pool.checkout(A, Part::Half, later), pool.has(A)), (None, true));
        let later = now + Duration::from_secs(2);
        assert_eq!((out(&mut pool, A, later), pool.has(A)), (None, false));
        assert_eq!(out(&mut pool, B, later), Some(2));
        pool.checkin(B, 3, LIMITS, later);
        pool.sweep(later + Duration::from_secs(3), 9, |_| true);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_sweep_learns_from_what_is_dead() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1)], now);
        pool.sweep(now + Duration::from_secs(4), 9, |_| false);
        let later = now + Duration::from_secs(5);
        pool.checkin(A, 2, LIMITS, later);
        assert_eq!(out(&mut pool, A, later + Duration::from_secs(3)), None);
    }

    #[test]
    fn one_connection_of_an_endpoint_can_be_closed_for_another_worker() {
        let mut pool = pool_of(&[(A, 1), (B, 2)], Instant::now());
        assert!(pool.evict_from(A) && !pool.evict_from(A) && pool.has(B));
    }

    #[test]
    fn connections_to_endpoints_that_are_gone_are_closed() {
        let mut pool = pool_of(&[(A_AGAIN, 1), (B, 2)], Instant::now());
        pool.retain(|slot, _| slot == A || slot == B);
        assert!(!pool.has(A_AGAIN) && pool.has(B));
    }
}
