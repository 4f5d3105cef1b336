//! How many client connections the process may hold, in all and for one address.
//!
//! The one thing that all workers write: an atomic when a connection comes and when it goes,
//! never on a request's way. Counts by address are kept in a sketch of a fixed size, since any
//! number of addresses may come: two rows of counters, found by two hashes, of which the lower
//! one counts. It can be too high, when others share both counters, and never too low.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// The places of client connections.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    places_max: usize,
    addresses: Option<AddressCounts>,
}

impl Places {
    /// As many places as `places_max`, and for one address as many as `per_address_max`.
    #[must_use]
    pub fn new(places_max: usize, per_address_max: Option<u32>) -> Places {
        Places {
            taken: AtomicUsize::new(0),
            places_max,
            addresses: per_address_max.map(AddressCounts::new),
        }
    }

    /// Takes a place, if there is one.
    pub fn take(&self) -> bool {
        let next = |taken| (taken < self.places_max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Gives a place back.
    pub fn give(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection of this address in; whether that is within its limit. It must be
    /// counted out in either case.
    pub fn enter(&self, addr: IpAddr) -> bool {
        self.addresses.as_ref().is_none_or(|counts| counts.enter(addr))
    }

    /// Counts a connection of this address out.
    pub fn leave(&self, addr: IpAddr) {
        if let Some(counts) = &self.addresses {
            counts.leave(addr);
        }
    }
}

#[derive(Debug)]
struct AddressCounts {
    per_address_max: u32,
    rows: [Row; 2],
}

#[derive(Debug)]
struct Row {
    hasher: RandomState,
    counts: Box<[AtomicU32]>,
}

impl AddressCounts {
    fn new(per_address_max: u32) -> AddressCounts {
        AddressCounts { per_address_max, rows: [Row::new(), Row::new()] }
    }

    fn enter(&self, addr: IpAddr) -> bool {
        let counts = self
            .rows
            .each_ref()
            .map(|row| row.count(addr).fetch_add(1, Ordering::Relaxed).saturating_add(1));
        counts.into_iter().min().is_none_or(|count| count <= self.per_address_max)
    }

    fn leave(&self, addr: IpAddr) {
        for row in &self.rows {
            row.count(addr).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Row {
    fn new() -> Row {
        let counts = (0..ROW_COUNTS).map(|_| AtomicU32::new(0)).collect();
        Row { hasher: RandomState::new(), counts }
    }

    fn count(&self, addr: IpAddr) -> &AtomicU32 {
        let hash = self.hasher.hash_one(addr.to_canonical());
        &self.counts[hash as usize % ROW_COUNTS]
    }
}

/// Counters in a row: with 10,000 addresses, 2 in 100 share both of theirs with another one.
const ROW_COUNTS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_places_are_taken_than_there_are() {
        let places = Places::new(2, None);
        assert_eq!([places.take(), places.take(), places.take()], [true, true, false]);
        places.give();
        assert!(places.take());
    }

    #[test]
    fn an_address_has_its_own_limit() {
        let places = Places::new(9, Some(1));
        let (a, b) = ("10.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        assert_eq!([places.enter(a), places.enter(a), places.enter(b)], [true, false, true]);
        places.leave(a);
        places.leave(a);
        assert!(places.enter("::ffff:10.0.0.1".parse().unwrap()));
    }
}
