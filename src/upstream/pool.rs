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

    /// Takes the connection to this endpoint that was used last, if it is not too old.
    pub fn checkout(&mut self, slot: Slot, now: Instant) -> Option<C> {
        let endpoint = self.endpoints.get_mut(slot.number as usize)?;
        if endpoint.generation != slot.generation {
            return None;
        }
        let (since, conn) = endpoint.idle.pop_back()?;
        if now.saturating_duration_since(since) < self.idle_timeout {
            return Some(conn);
        }
        // The others lie there for longer still.
        endpoint.idle.clear();
        None
    }

    /// Keeps a connection that is between two messages; the oldest one makes room.
    pub fn checkin(&mut self, slot: Slot, conn: C, now: Instant) {
        if self.idle_per_endpoint_max == 0 {
            return;
        }
        let number = slot.number as usize;
        while self.endpoints.len() <= number {
            self.endpoints.push(Endpoint { generation: 0, idle: VecDeque::new() });
        }
        let endpoint = &mut self.endpoints[number];
        if endpoint.generation != slot.generation {
            endpoint.generation = slot.generation;
            endpoint.idle.clear();
        }
        if endpoint.idle.len() >= self.idle_per_endpoint_max {
            endpoint.idle.pop_front();
        }
        endpoint.idle.push_back((now, conn));
    }

    /// Closes what is too old or, by `is_alive`, dead.
    pub fn sweep(&mut self, now: Instant, is_alive: impl Fn(&C) -> bool) {
        for endpoint in &mut self.endpoints {
            endpoint.idle.retain(|(since, conn)| {
                now.saturating_duration_since(*since) < self.idle_timeout && is_alive(conn)
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
        let out: Vec<_> = (0..3).map(|_| pool.checkout(A, now)).collect();
        assert_eq!(out, [Some(3), Some(1), None]);
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn the_oldest_makes_room() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (A, 2), (A, 3)], now);
        assert_eq!((pool.checkout(A, now), pool.checkout(A, now)), (Some(3), Some(2)));
        assert!(pool.is_empty());
    }

    #[test]
    fn what_is_too_old_or_dead_is_closed() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1), (B, 2)], now);
        assert_eq!(pool.checkout(A, now + TIMEOUT), None);
        pool.checkin(A, 3, now + TIMEOUT);
        pool.sweep(now + TIMEOUT, |_| true);
        assert_eq!(pool.len(), 1);
        pool.sweep(now + TIMEOUT, |conn| *conn != 3);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_slot_given_out_again_gets_no_connection_of_its_predecessor() {
        let now = Instant::now();
        let mut pool = pool_of(&[(A, 1)], now);
        assert_eq!(pool.checkout(A_AGAIN, now), None);
        pool.checkin(A_AGAIN, 2, now);
        assert_eq!((pool.checkout(A_AGAIN, now), pool.checkout(A_AGAIN, now)), (Some(2), None));
    }
}
