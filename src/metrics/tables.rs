//! One worker's numbers for each backend and each pool, made when the first request needs them.
//!
//! With a thousand backends, most workers of a large machine never see most of them: a backend's
//! 672 bytes are allocated by the worker's first request to it, and kept for the process' life.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::answers::{CELLS, StatusClass, cell_of, counts_of};
use crate::metrics::histogram::nanos_of;
use crate::metrics::{BackendCounter, Method, step};

/// Rows of `WORDS` numbers.
#[derive(Debug)]
pub(super) struct Table<const WORDS: usize> {
    rows: Box<[OnceLock<Box<Row<WORDS>>>]>,
}

#[derive(Debug)]
struct Row<const WORDS: usize>([AtomicU64; WORDS]);

impl<const WORDS: usize> Table<WORDS> {
    pub(super) fn new(rows: usize) -> Table<WORDS> {
        Table { rows: (0..rows).map(|_| OnceLock::new()).collect() }
    }

    /// The numbers of a row, for its only writer; `None` beyond the last.
    fn row(&self, row: usize) -> Option<&[AtomicU64; WORDS]> {
        let made = || Box::new(Row([const { AtomicU64::new(0) }; WORDS]));
        self.rows.get(row).map(|row| &row.get_or_init(made).0)
    }

    /// Adds a row's numbers to `sums`.
    pub(super) fn add_to(&self, row: usize, sums: &mut [u64; WORDS]) {
        self.add_part_to(row, 0, sums);
    }

    /// Adds a row's numbers, those from `first` on, to `sums`.
    fn add_part_to(&self, row: usize, first: usize, sums: &mut [u64]) {
        let Some(row) = self.rows.get(row).and_then(OnceLock::get) else { return };
        for (sum, word) in sums.iter_mut().zip(row.0.iter().skip(first)) {
            *sum = sum.wrapping_add(word.load(Ordering::Relaxed));
        }
    }
}

/// By pool: requests that no backend answered.
pub(super) type PoolTable = Table<CELLS>;

impl PoolTable {
    /// Counts a request; whether there is a row for it.
    pub(super) fn finish(&self, pool: usize, method: Method, class: StatusClass) -> bool {
        let row = self.row(pool);
        row.map(|row| step(&row[cell_of(method, class)], 1)).is_some()
    }
}

/// By pool: what its retry budget is made of.
pub(super) type RetryTable = Table<2>;

impl RetryTable {
    /// Counts a request that goes to the pool,
    pub(super) fn add_request(&self, pool: usize) {
        self.row(pool).into_iter().for_each(|row| step(&row[0], 1));
    }

    /// and an attempt for one that another follows.
    pub(super) fn add_retry(&self, pool: usize) {
        self.row(pool).into_iter().for_each(|row| step(&row[1], 1));
    }
}

/// By slot: what is counted for the endpoint in it.
pub(super) type BackendTable = Table<BACKEND_WORDS>;

impl BackendTable {
    /// Counts a request that the endpoint answered.
    pub(super) fn finish(&self, slot: u32, method: Method, class: StatusClass) {
        self.add(slot, cell_of(method, class), 1);
    }

    /// Counts so many more.
    pub(super) fn count(&self, slot: u32, counter: BackendCounter, by: u64) {
        self.add(slot, CELLS + counter as usize, by);
    }

    /// Counts how long the endpoint took until its answer's head had come.
    pub(super) fn record(&self, slot: u32, time: Duration) {
        let nanos = nanos_of(time);
        let bucket = (nanos | 1).ilog2() as usize + 1;
        let bucket = bucket.saturating_sub(FIRST_BOUND_BITS).min(BUCKETS - 1);
        self.add(slot, BUCKETS_AT + bucket, 1);
        self.add(slot, SUM_AT, nanos);
    }

    /// Adds how long the endpoint took to `times`.
    pub(super) fn add_first_bytes_to(&self, slot: u32, times: &mut FirstBytes) {
        self.add_part_to(slot as usize, BUCKETS_AT, &mut times.0);
    }

    fn add(&self, slot: u32, word: usize, by: u64) {
        if let Some(row) = self.row(slot as usize) {
            step(&row[word], by);
        }
    }
}

/// What was counted for one endpoint, over all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTotals(pub(super) Box<[u64; BACKEND_WORDS]>);

impl BackendTotals {
    pub(super) fn zero() -> BackendTotals {
        BackendTotals(Box::new([0; BACKEND_WORDS]))
    }

    /// Leaves what was counted before it was given out.
    pub(super) fn less(mut self, base: &BackendTotals) -> BackendTotals {
        for (word, base) in self.0.iter_mut().zip(base.0.iter()) {
            *word = word.wrapping_sub(*base);
        }
        self
    }

    /// The requests that it answered, by method and status; without those that there were none of.
    pub fn answers(&self) -> impl Iterator<Item = (Method, StatusClass, u64)> {
        counts_of(&self.0[..CELLS])
    }

    /// The requests that it answered.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0[..CELLS].iter().sum()
    }

    /// One counter.
    #[must_use]
    pub fn get(&self, counter: BackendCounter) -> u64 {
        self.0[CELLS + counter as usize]
    }

    /// Its times until an answer's head had come, in seconds: their sum, and how many lay below
    /// each of 22 bounds, a doubling apart from 32.8 µs to 68.7 s, and not below the one before;
    /// last those beyond, below infinity.
    #[must_use]
    pub fn first_bytes(&self) -> (f64, Vec<(f64, u64)>) {
        let counts = &self.0[BUCKETS_AT..SUM_AT];
        let bounds = (0..BUCKETS - 1).map(bound_of).chain([f64::INFINITY]);
        (self.0[SUM_AT] as f64 / 1e9, bounds.zip(counts.iter().copied()).collect())
    }
}

/// The times of one endpoint until an answer's head had come, by bucket, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstBytes([u64; BUCKETS]);

impl FirstBytes {
    /// Those that came since an `earlier` look at the same endpoint.
    #[must_use]
    pub fn since(&self, earlier: &FirstBytes) -> FirstBytes {
        FirstBytes(std::array::from_fn(|it| self.0[it].saturating_sub(earlier.0[it])))
    }

    /// The time in seconds that `per_mille` of all did not exceed, as `histogram_quantile` of
    /// Prometheus estimates it: within its bucket, so less than a doubling off; `None` without any.
    #[must_use]
    pub fn quantile(&self, per_mille: u32) -> Option<f64> {
        let rank = self.0.iter().sum::<u64>() as f64 * f64::from(per_mille.min(1000)) / 1000.0;
        let mut below = 0.0;
        for (index, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= rank {
                let least = index.checked_sub(1).map_or(0.0, bound_of);
                let width = if index < BUCKETS - 1 { bound_of(index) - least } else { 0.0 };
                return Some(least + width * (rank - below) / count);
            }
            below += count;
        }
        None
    }
}

/// What lies in a bucket is below this many seconds.
fn bound_of(bucket: usize) -> f64 {
    (1_u64 << (FIRST_BOUND_BITS + bucket)) as f64 / 1e9
}

/// Where the buckets and the sum of times stand among a backend's numbers.
const BUCKETS_AT: usize = CELLS + BackendCounter::COUNT;
const SUM_AT: usize = BUCKETS_AT + BUCKETS;
const BACKEND_WORDS: usize = SUM_AT + 1;
/// The first bound of the buckets, in nanoseconds, as a power of two; and how many there are.
const FIRST_BOUND_BITS: usize = 15;
const BUCKETS: usize = 23;

#[cfg(test)]
mod tests {
    use super::*;

    fn totals_of(table: &BackendTable, slot: usize) -> BackendTotals {
        let mut totals = BackendTotals::zero();
        table.add_to(slot, &mut totals.0);
        totals
    }

    #[test]
    fn a_backends_numbers_are_kept_apart_from_anothers() {
        let table = BackendTable::new(2);
        table.finish(1, Method::Get, StatusClass::Successful);
        table.count(1, BackendCounter::Sent, 700);
        table.count(2, BackendCounter::Sent, 1);
        let totals = totals_of(&table, 1);
        let answers: Vec<_> = totals.answers().collect();
        assert_eq!(answers, [(Method::Get, StatusClass::Successful, 1)]);
        assert_eq!((totals.requests(), totals.get(BackendCounter::Sent)), (1, 700));
        assert_eq!(totals_of(&table, 0), BackendTotals::zero());
        assert_eq!(totals.clone().less(&totals), BackendTotals::zero());
    }

    #[test]
    fn times_are_counted_below_their_bounds() {
        let bounds = BackendTotals::zero().first_bytes().1;
        assert_eq!((bounds[0].0, bounds[21].0), (32_768e-9, 68.719476736));
        for (index, (bound, _)) in bounds[..22].iter().enumerate() {
            let nanos = (bound * 1e9).round() as u64;
            for (time, bucket) in [(nanos - 1, index), (nanos, index + 1)] {
                let table = BackendTable::new(1);
                table.record(0, Duration::from_nanos(time));
                let (sum, counts) = totals_of(&table, 0).first_bytes();
                assert_eq!(counts.iter().position(|(_, count)| *count == 1), Some(bucket));
                assert_eq!(sum, time as f64 / 1e9);
            }
        }
        let table = BackendTable::new(1);
        [Duration::ZERO, Duration::MAX].into_iter().for_each(|time| table.record(0, time));
        let (_, counts) = totals_of(&table, 0).first_bytes();
        assert_eq!((counts[0].1, counts[22].1), (1, 1));
    }

    #[test]
    fn a_quantile_is_read_within_its_bucket() {
        let check = |times: &[u64], per_mille: u32, expected: Option<f64>| {
            let table = BackendTable::new(1);
            times.iter().for_each(|micros| table.record(0, Duration::from_micros(*micros)));
            let mut found = FirstBytes::default();
            table.add_first_bytes_to(0, &mut found);
            let found = found.quantile(per_mille);
            assert!(
                found == expected
                    || found.zip(expected).is_some_and(|(a, b)| (a - b).abs() < b * 1e-6),
                "{times:?}, {per_mille}: {found:?}"
            );
        };
        check(&[], 500, None);
        // Between 32.768 µs and 65.536 µs.
        check(&[40], 500, Some(49.152e-6));
        check(&[40, 40, 40, 40], 250, Some(40.96e-6));
        check(&[1], 1000, Some(32.768e-6));
        check(&[1, 1, 1, 40], 990, Some(64.22528e-6));
        check(&[100_000_000], 500, Some(68.719_476_736));
        let (now, then) = (FirstBytes([3; BUCKETS]), FirstBytes([1; BUCKETS]));
        assert_eq!(now.since(&then), FirstBytes([2; BUCKETS]));
    }
}
