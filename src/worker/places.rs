//! How many client connections the process may hold, in all and for one address.
//!
//! The one thing that all workers write: an atomic when a connection comes and when it goes,
//! never on a request's way. Counts by address are kept in a sketch of a fixed size, since any
//! number of addresses may come: two rows of counters a worker, found by two hashes, of which the
//! lower sum counts. It can be too high, when others share both counters, and never too low.

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
    pub fn new(workers: usize, places_max: usize, per_address_max: Option<u32>) -> Places {
        Places {
            taken: AtomicUsize::new(0),
            places_max,
            addresses: per_address_max.map(|max| AddressCounts::new(workers, max)),
        }
    }

    /// Takes a place, if there is one.
    pub fn take(&self) -> bool {
        let next = |taken| (taken < self.places_max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Gives a place back.
    pub fn give(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection of this address in; whether that is within its limit. It must be
    /// counted out in either case, on the same worker.
    pub fn enter(&self, worker: usize, addr: IpAddr) -> bool {
        self.addresses.as_ref().is_none_or(|counts| counts.enter(worker, addr))
    }

    /// Counts a connection of this address out.
    pub fn leave(&self, worker: usize, addr: IpAddr) {
        if let Some(counts) = &self.addresses {
            counts.leave(worker, addr);
        }
    }

    /// Gives back what a worker held that died with so many connections.
    pub fn reclaim(&self, worker: usize, conns: usize) {
        self.taken.fetch_sub(conns, Ordering::Relaxed);
        for count in self.addresses.iter().flat_map(|counts| &counts.workers[worker]) {
            count.store(0, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct AddressCounts {
    per_address_max: u32,
    /// One for each row.
    hashers: [RandomState; ROWS],
    /// Each worker's rows, one behind the other.
    workers: Vec<Box<[AtomicU32]>>,
}

impl AddressCounts {
    fn new(workers: usize, per_address_max: u32) -> AddressCounts {
        let rows = || (0..ROWS * ROW_COUNTS).map(|_| AtomicU32::new(0)).collect();
        AddressCounts {
            per_address_max,
            hashers: std::array::from_fn(|_| RandomState::new()),
            workers: (0..workers).map(|_| rows()).collect(),
        }
    }

    fn enter(&self, worker: usize, addr: IpAddr) -> bool {
        let places = self.places_of(addr);
        for place in places {
            self.workers[worker][place].fetch_add(1, Ordering::Relaxed);
        }
        let sum = |place: usize| -> u32 {
            self.workers.iter().map(|counts| counts[place].load(Ordering::Relaxed)).sum()
        };
        places.into_iter().map(sum).min().is_none_or(|count| count <= self.per_address_max)
    }

    fn leave(&self, worker: usize, addr: IpAddr) {
        for place in self.places_of(addr) {
            self.workers[worker][place].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Where an address is counted, in each row.
    fn places_of(&self, addr: IpAddr) -> [usize; ROWS] {
        let client = subscriber_of(addr);
        std::array::from_fn(|row| {
            row * ROW_COUNTS + self.hashers[row].hash_one(client) as usize % ROW_COUNTS
        })
    }
}

/// What counts as one address: an IPv4 address, or the /64 that an IPv6 subscriber gets.
#[must_use]
pub fn subscriber_of(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => IpAddr::V6((addr.to_bits() & SUBSCRIBER_MASK).into()),
        v4 => v4,
    }
}

/// The first 64 bits of an IPv6 address.
const SUBSCRIBER_MASK: u128 = !(u64::MAX as u128);
/// Rows of counters, each with a hash of its own.
const ROWS: usize = 2;
/// Counters in a row: with 10,000 addresses, 2 in 100 share both of theirs with another one.
const ROW_COUNTS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_places_are_taken_than_there_are() {
        let places = Places::new(1, 2, None);
        assert_eq!([places.take(), places.take(), places.take()], [true, true, false]);
        places.give();
        assert!(places.take());
    }

    #[test]
    fn an_address_has_its_own_limit() {
        let places = Places::new(2, 9, Some(2));
        let addr = |text: &str| text.parse().unwrap();
        assert!(places.enter(0, addr("10.0.0.1")) && places.enter(1, addr("::ffff:10.0.0.1")));
        assert!(!places.enter(0, addr("10.0.0.1")));
        assert!(places.enter(0, addr("fd00::1")) && places.enter(0, addr("fd00::2")));
        assert!(!places.enter(1, addr("fd00::3")), "one /64 is one subscriber");
        places.leave(0, addr("10.0.0.1"));
        places.leave(0, addr("10.0.0.1"));
        assert!(places.enter(0, addr("10.0.0.1")));
    }

    #[test]
    fn what_a_dead_worker_held_is_given_back() {
        let places = Places::new(2, 2, Some(1));
        let addr = "10.0.0.1".parse().unwrap();
        assert!(places.take() && places.take() && places.enter(1, addr));
        places.reclaim(1, 2);
        assert!(places.take() && places.enter(0, addr));
    }
}
