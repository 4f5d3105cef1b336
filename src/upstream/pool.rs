//! The unused connections to endpoints that a worker keeps for the next request.
//!
//! The most recently used one goes out first, so that the rest can grow old and be closed. Pure:
//! the time is an argument, and whether a connection is still alive is asked of it by the caller.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::upstream::endpoint::Slot;

/// Unused connections of type `C`, by endpoint.
#[derive(Debug)]
pub struct IdlePool<C> {
    idle_per_endpoint_max: usize,
    idle_timeout: Duration,
    endpoints: Vec<Endpoint<C>>,
}

#[derive(Debug)]
struct Endpoint<C> {
    generation: u32,
    /// The oldest at the front.
    idle: VecDeque<(Instant, C)>,
}

impl<C> IdlePool<C> {
    /// An empty pool that keeps a connection for `idle_timeout` at most.
    #[must_use]
    pub fn new(idle_per_endpoint_max: usize, idle_timeout: Duration) -> IdlePool<C> {
        IdlePool { idle_per_endpoint_max, idle_timeout, endpoints: Vec::new() }
    }

    /// Takes the connection to this endpoint that was used last, if it is younger than `age_max`.
    pub fn checkout(&mut self, slot: Slot, age_max: Duration, now: Instant) -> Option<C> {
        let endpoint = self.endpoints.get_mut(slot.number as usize)?;
        if endpoint.generation != slot.generation {
            return None;
        }
        let (since, _) = endpoint.idle.back()?;
        let age = now.saturating_duration_since(*since);
        if age >= self.idle_timeout {
            // The others lie there for longer still.
            endpoint.idle.clear();
        }
        if age >= age_max {
            return None;
        }
        endpoint.idle.pop_back().map(|(_, conn)| conn)
    }

    /// Keeps a connection that is between two messages; the oldest one makes room. One to a
    /// predecessor of the endpoint in its slot is closed.
    pub fn checkin(&mut self, slot: Slot, conn: C, now: Instant) {
        let number = slot.number as usize;
        while self.endpoints.len() <= number {
            self.endpoints.push(Endpoint { generation: 0, idle: VecDeque::new() });
        }
        let endpoint = &mut self.endpoints[number];
        if endpoint.generation < slot.generation {
            endpoint.generation = slot.generation;
            endpoint.idle.clear();
        }
        if endpoint.generation != slot.generation || self.idle_per_endpoint_max == 0 {
            return;
        }
        if endpoint.idle.len() >= self.idle_per_endpoint_max {
            endpoint.idle.pop_front();
        }
        endpoint.idle.push_back((now, conn));
    }

    /// Closes what is too old, and what is dead among the `looks_max` oldest of each endpoint.
    pub fn sweep(&mut self, now: Instant, looks_max: usize, is_alive: impl Fn(&C) -> bool) {
        for endpoint in &mut self.endpoints {
            let mut looks = 0;
            endpoint.idle.retain(|(since, conn)| {
                looks += 1;
                now.saturating_duration_since(*since) < self.idle_timeout
                    && (looks > looks_max || is_alive(conn))
            });
        }
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

    fn pool_of(conns: &[(Slot, u8)], now: Instant) -> IdlePool<u8> {
        let mut pool = IdlePool::new(2, TIMEOUT);
        for (slot, conn) in conns {
            pool.checkin(*slot, *conn, now);
        }
        pool
    }

    #[test]
    fn the_last_used_connection_of_the_endpoint_goes_out_first() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (B, 2), (A, 3)], now);
        let out: Vec<_> = (0..3).map(|_| pool.checkout(A, TIMEOUT, now)).collect();
        assert_eq!(out, [Some(3), Some(1), None]);
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn the_oldest_makes_room() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (A, 2), (A, 3)], now);
        assert_eq!(
            (pool.checkout(A, TIMEOUT, now), pool.checkout(A, TIMEOUT, now)),
            (Some(3), Some(2))
        );
        assert!(pool.is_empty());
    }

    #[test]
    fn what_is_too_old_or_dead_is_closed() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (B, 2)], now);
        assert_eq!(pool.checkout(A, TIMEOUT, now + TIMEOUT), None);
        pool.checkin(A, 3, now + TIMEOUT);
        pool.sweep(now + TIMEOUT, 9, |_| true);
        assert_eq!(pool.len(), 1);
        pool.sweep(now + TIMEOUT, 9, |conn| *conn != 3);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_slot_given_out_again_gets_no_connection_of_its_predecessor() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1)], now);
        assert_eq!(pool.checkout(A_AGAIN, TIMEOUT, now), None);
        pool.checkin(A_AGAIN, 2, now);
        pool.checkin(A, 3, now);
        let out = [pool.checkout(A_AGAIN, TIMEOUT, now), pool.checkout(A_AGAIN, TIMEOUT, now)];
        assert_eq!(out, [Some(2), None]);
    }

    #[test]
    fn a_request_that_is_afraid_of_old_connections_leaves_them_to_others() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1)], now);
        let later = now + TIMEOUT / 2;
        assert_eq!(pool.checkout(A, TIMEOUT / 2, later), None);
        assert_eq!(pool.checkout(A, TIMEOUT, later), Some(1));
    }
}
