//! How many requests an address may send in a second, by a bucket of tokens for each.
//!
//! One table per worker, so nothing is shared: each worker allows its part of the limit. Pure:
//! the time is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::worker::places::subscriber_of;

/// The buckets of the addresses that have sent requests lately.
#[derive(Debug)]
pub struct RateLimit {
    /// Tokens a second, and the most that a bucket holds.
    per_second: f64,
    addresses_max: usize,
    buckets: HashMap<IpAddr, Bucket>,
    /// When full buckets were last forgotten.
    tidied: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl RateLimit {
    /// A worker's part of `per_second` requests a second, at least one.
    #[must_use]
    pub fn new(per_second: u32, workers: usize, addresses_max: usize) -> RateLimit {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let per_second = (f64::from(per_second) / f64::from(workers)).max(1.0);
        RateLimit { per_second, addresses_max, buckets: HashMap::new(), tidied: None }
    }

    /// Takes a token of this address; whether there was one.
    pub fn allow(&mut self, addr: IpAddr, now: Instant) -> bool {
        let addr = subscriber_of(addr);
        if self.buckets.len() >= self.addresses_max && !self.buckets.contains_key(&addr) {
            self.forget_idle(now);
        }
        let full = Bucket { tokens: self.per_second, filled: now };
        let per_second = self.per_second;
        let bucket = self.buckets.entry(addr).or_insert(full);
        bucket.fill(per_second, now);
        let is_allowed = bucket.tokens >= 1.0;
        if is_allowed {
            bucket.tokens -= 1.0;
        }
        is_allowed
    }

    /// Forgets the addresses whose bucket is full, once a second at most; else all: an attacker
    /// with so many addresses is not held by a limit on each.
    fn forget_idle(&mut self, now: Instant) {
        let per_second = self.per_second;
        let is_due = self.tidied.is_none_or(|tidied| now >= tidied + TIDY_INTERVAL);
        if is_due {
            self.tidied = Some(now);
            self.buckets.retain(|_, bucket| {
                bucket.fill(per_second, now);
                bucket.tokens < per_second
            });
        }
        if self.buckets.len() >= self.addresses_max {
            self.buckets.clear();
        }
    }
}

impl Bucket {
    fn fill(&mut self, per_second: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * per_second).min(per_second);
        self.filled = now;
    }
}

/// How often full buckets are looked for.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// The most addresses that a worker remembers: 4 MiB.
pub const ADDRESSES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn allowed(limit: &mut RateLimit, addr: IpAddr, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| limit.allow(addr, now)).count()
    }

    #[test]
    fn each_address_has_its_part_of_the_limit() {
        let now = Instant::now();
        let mut limit = RateLimit::new(20, 2, 8);
        assert_eq!(allowed(&mut limit, A, now, 30), 10);
        assert_eq!(allowed(&mut limit, B, now, 30), 10);
        assert_eq!(allowed(&mut limit, A, now + Duration::from_millis(500), 30), 5);
        assert_eq!(allowed(&mut limit, A, now + Duration::from_secs(60), 30), 10);
    }

    #[test]
    fn memory_is_bounded_and_busy_addresses_are_remembered() {
        let now = Instant::now();
        let mut limit = RateLimit::new(1, 1, 2);
        assert!(limit.allow(B, now));
        let later = now + Duration::from_secs(2);
        assert!(limit.allow(A, later));
        assert!(limit.allow("::1".parse().unwrap(), later));
        assert!(!limit.allow(A, later), "a busy address was forgotten");
        assert!(limit.buckets.len() <= 2);
    }
}
