//! How long requests take, as a log-linear histogram that one worker writes and others read.
//!
//! Each doubling from 1.024 µs to 137 s has 16 buckets of equal width, so that a time read back is
//! off by 3.2 % at most. What is shorter counts as the shortest, what is longer as the longest.
//! Recording is a shift, a load and a store: no division, no locked instruction, no allocation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the time of a request is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Latency {
    /// From the end of the request's head to the last byte of its answer sent.
    Total,
    /// From when an attempt got its endpoint to the end of its answer's head; of each attempt that
    /// was answered.
    Upstream,
    /// Until an attempt had made its connection; of those that had to and could.
    Connect,
    /// In the queue for a place on a backend; of requests that had to wait.
    Queue,
}

impl Latency {
    /// Every one, in the order of its number.
    pub const ALL: [Latency; 4] =
        [Latency::Total, Latency::Upstream, Latency::Connect, Latency::Queue];

    /// For the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Latency::Total => "total",
            Latency::Upstream => "upstream",
            Latency::Connect => "connect",
            Latency::Queue => "queue",
        }
    }
}

/// One worker's times of one kind: 3,464 bytes, and 13,856 a worker for all kinds.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    /// All times together, in nanoseconds; begins anew after 584 years.
    sum_nanos: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// Without any.
    #[must_use]
    pub fn new() -> Histogram {
        Histogram { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_nanos: AtomicU64::new(0) }
    }

    /// Counts one; only one thread calls this.
    pub fn record(&self, time: Duration) {
        let nanos = nanos_of(time);
        super::step(&self.counts[bucket_of(nanos)], 1);
        super::step(&self.sum_nanos, nanos);
    }
}

impl Histogram {
    /// What was recorded until now.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        Distribution::of(std::iter::once(self))
    }
}

/// The times of several workers, as they were when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    counts: Box<[u64]>,
    sum_nanos: u64,
}

impl Distribution {
    /// All that the histograms hold. A worker may record meanwhile: each count is one that it had.
    pub(super) fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Distribution {
        let mut counts = vec![0u64; BUCKETS].into_boxed_slice();
        let mut sum_nanos = 0u64;
        for histogram in histograms {
            let of_one = histogram.sum_nanos.load(Ordering::Relaxed);
            sum_nanos = sum_nanos.wrapping_add(of_one);
            for (sum, count) in counts.iter_mut().zip(&histogram.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        Distribution { counts, sum_nanos }
    }

    /// What was recorded since an `earlier` distribution of the same histograms.
    #[must_use]
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let pairs = self.counts.iter().zip(&earlier.counts);
        let counts = pairs.map(|(now, then)| now.saturating_sub(*then)).collect();
        Distribution { counts, sum_nanos: self.sum_nanos.wrapping_sub(earlier.sum_nanos) }
    }

    /// All times together.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_nanos as f64 / 1e9
    }

    /// How many times were recorded below each of 43 bounds that lie half a doubling apart, from
    /// 32.8 µs to 68.7 s, and not below the one before; last come those beyond, below infinity.
    /// Bounds are in seconds, and exact: each is one of a bucket.
    #[must_use]
    pub fn coarse(&self) -> Vec<(f64, u64)> {
        let first = (FIRST_BOUND_BITS - SHORTEST_BITS) as usize * 2;
        let last = (LAST_BOUND_BITS - SHORTEST_BITS) as usize * 2;
        let half = |index: usize| index << (PART_BITS - 1);
        let mut from = 0;
        let mut coarse: Vec<(f64, u64)> = (first..=last)
            .map(|index| {
                let bound = (2 + (index as u64 & 1)) << (SHORTEST_BITS as usize - 1 + index / 2);
                let count = self.counts[from..half(index)].iter().sum();
                from = half(index);
                (bound as f64 / 1e9, count)
            })
            .collect();
        coarse.push((f64::INFINITY, self.counts[from..].iter().sum()));
        coarse
    }

    /// How many times were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The least time that `per_mille` of all did not exceed, 3.2 % off at most from 1.024 µs to
    /// 137 s; `None` without records.
    #[must_use]
    pub fn quantile(&self, per_mille: u32) -> Option<Duration> {
        let wanted = u128::from(self.count()) * u128::from(per_mille.min(1000));
        let rank = wanted.div_ceil(1000).max(1);
        let mut seen = 0u128;
        let bucket = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank
        });
        bucket.map(middle_of)
    }
}

/// A time in nanoseconds, 584 years at most.
pub(super) fn nanos_of(time: Duration) -> u64 {
    let nanos = time.as_secs().saturating_mul(1_000_000_000);
    nanos.saturating_add(u64::from(time.subsec_nanos()))
}

/// The bucket that counts a time; below `BUCKETS` for every time.
fn bucket_of(nanos: u64) -> usize {
    let nanos = nanos.clamp(1 << SHORTEST_BITS, (1 << LONGEST_BITS) - 1);
    let doubling = nanos.ilog2() - SHORTEST_BITS;
    // The highest bit says which doubling, the next ones which part of it.
    let part = (nanos >> (SHORTEST_BITS + doubling - PART_BITS)) & (PARTS - 1);
    (doubling as usize) << PART_BITS | part as usize
}

/// The middle of a bucket.
fn middle_of(bucket: usize) -> Duration {
    let (doubling, part) = (bucket >> PART_BITS, bucket as u64 & (PARTS - 1));
    let width = 1 << (doubling + (SHORTEST_BITS - PART_BITS) as usize);
    Duration::from_nanos((PARTS + part) * width + width / 2)
}

/// The buckets of a doubling, as a power of two: a bucket's width is a 16th of its least time.
const PART_BITS: u32 = 4;
const PARTS: u64 = 1 << PART_BITS;
/// The least and the greatest time told apart, in nanoseconds, as powers of two.
const SHORTEST_BITS: u32 = 10;
const LONGEST_BITS: u32 = 37;
/// The first and the last bound of the coarse buckets, in nanoseconds, as powers of two.
const FIRST_BOUND_BITS: u32 = 15;
const LAST_BOUND_BITS: u32 = 36;
const BUCKETS: usize = ((LONGEST_BITS - SHORTEST_BITS) as usize) << PART_BITS;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHORTEST: u64 = 1 << SHORTEST_BITS;
    const LONGEST: u64 = 1 << LONGEST_BITS;

    fn distribution_of(lanes: &[&[Duration]]) -> Distribution {
        let filled = |times: &&[Duration]| {
            let histogram = Histogram::new();
            times.iter().for_each(|time| histogram.record(*time));
            histogram
        };
        let histograms: Vec<Histogram> = lanes.iter().map(filled).collect();
        Distribution::of(histograms.iter())
    }

    /// Whether `found` is within 3.2 % of `exact`.
    fn is_close(found: Duration, exact: Duration) -> bool {
        found.abs_diff(exact).as_nanos() * 1000 <= exact.as_nanos() * 32
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut last = 0;
        for bits in SHORTEST_BITS..LONGEST_BITS {
            for part in 0..PARTS {
                let first = (PARTS + part) << (bits - PART_BITS);
                let bucket = bucket_of(first);
                assert_eq!(bucket, if first == SHORTEST { 0 } else { last + 1 }, "{first} ns");
                let end = (PARTS + part + 1) << (bits - PART_BITS);
                assert_eq!(bucket_of(end - 1), bucket, "{} ns", end - 1);
                last = bucket;
            }
        }
        assert_eq!(last, BUCKETS - 1);
    }

    #[test]
    fn times_beyond_both_ends_are_counted_at_the_ends() {
        let ends = [(Duration::ZERO, SHORTEST), (Duration::from_nanos(1), SHORTEST)];
        let beyond = [Duration::from_nanos(LONGEST), Duration::from_secs(3600), Duration::MAX];
        for (time, end) in ends.into_iter().chain(beyond.map(|time| (time, LONGEST - 1))) {
            let distribution = distribution_of(&[&[time]]);
            assert_eq!(distribution.count(), 1);
            let found = distribution.quantile(500).expect("there is a record");
            assert!(is_close(found, Duration::from_nanos(end)), "{time:?} is read as {found:?}");
        }
    }

    #[test]
    fn a_distribution_of_nothing_has_no_quantile() {
        let distribution = distribution_of(&[&[], &[]]);
        assert_eq!((distribution.count(), distribution.quantile(500)), (0, None));
    }

    #[test]
    fn the_sum_is_that_of_the_times() {
        let times = [1, 10, 100].map(Duration::from_millis);
        assert_eq!(distribution_of(&[&times[..1], &times[1..]]).sum_seconds(), 0.111);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let (early, late) = ([Duration::from_millis(1)], [Duration::from_secs(1)]);
        let before = distribution_of(&[&early]);
        let after = distribution_of(&[&early, &late]);
        assert_eq!(after.since(&before), distribution_of(&[&late]));
    }

    #[test]
    fn coarse_buckets_hold_what_lies_below_their_bounds() {
        let bounds: Vec<f64> =
            distribution_of(&[]).coarse().into_iter().map(|(bound, _)| bound).collect();
        assert_eq!(bounds.len(), 44);
        assert_eq!((bounds[0], bounds[1], bounds[2]), (32_768e-9, 49_152e-9, 65_536e-9));
        assert_eq!((bounds[42], bounds[43]), (68.719476736, f64::INFINITY));
        for (index, bound) in bounds[..43].iter().enumerate() {
            let nanos = (bound * 1e9).round() as u64;
            for (time, bucket) in [(nanos - 1, index), (nanos, index + 1)] {
                let coarse = distribution_of(&[&[Duration::from_nanos(time)]]).coarse();
                let found = coarse.iter().position(|(_, count)| *count == 1);
                assert_eq!(found, Some(bucket), "{time} ns");
            }
        }
    }

    #[test]
    fn the_ends_of_the_scale_are_the_least_and_the_greatest() {
        let times: Vec<Duration> = (1..=1000).map(Duration::from_millis).collect();
        let distribution = distribution_of(&[&times]);
        for (per_mille, millis) in [(0, 1), (1, 1), (500, 500), (999, 999), (1000, 1000)] {
            let found = distribution.quantile(per_mille).expect("there are records");
            assert!(is_close(found, Duration::from_millis(millis)), "{per_mille}: {found:?}");
        }
        assert_eq!(distribution.quantile(5000), distribution.quantile(1000));
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_times(
            nanos in prop::collection::vec(
                (SHORTEST_BITS..LONGEST_BITS, any::<u64>())
                    .prop_map(|(bits, low)| 1u64 << bits | low & ((1 << bits) - 1)),
                1..300,
            ),
            per_mille in 0u32..=1000,
        ) {
            let mut times: Vec<Duration> = nanos.into_iter().map(Duration::from_nanos).collect();
            let found = distribution_of(&[&times]).quantile(per_mille);
            times.sort_unstable();
            let rank = (times.len() * per_mille as usize).div_ceil(1000).max(1);
            let (found, exact) = (found.expect("there are records"), times[rank - 1]);
            prop_assert!(is_close(found, exact), "{found:?} for {exact:?}");
        }

        #[test]
        fn lanes_that_are_merged_are_as_one_lane(
            nanos in prop::collection::vec(any::<u64>(), 0..100),
            at in any::<prop::sample::Index>(),
        ) {
            let times: Vec<Duration> = nanos.into_iter().map(Duration::from_nanos).collect();
            let (left, right) = times.split_at(at.index(times.len() + 1));
            prop_assert_eq!(distribution_of(&[left, right]), distribution_of(&[&times]));
        }
    }
}
