//! How many requests succeeded and failed on an endpoint: counts that wrap, and their differences.

use crate::metrics::Lanes;

/// Requests that succeeded and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that succeeded.
    pub succeeded: u32,
    /// Those that failed.
    pub failed: u32,
}

impl Tally {
    /// All requests on the endpoint of this slot so far; the counts wrap.
    #[must_use]
    pub fn of(lanes: &Lanes, slot: u32) -> Tally {
        Tally { succeeded: lanes.succeeded(slot), failed: lanes.failed(slot) }
    }

    /// What came after an earlier count.
    #[must_use]
    pub fn since(self, earlier: Tally) -> Tally {
        Tally {
            succeeded: self.succeeded.wrapping_sub(earlier.succeeded),
            failed: self.failed.wrapping_sub(earlier.failed),
        }
    }

    /// All of them.
    #[must_use]
    pub fn requests(self) -> u64 {
        u64::from(self.succeeded) + u64::from(self.failed)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Tally) -> Tally {
        Tally {
            succeeded: self.succeeded.saturating_add(other.succeeded),
            failed: self.failed.saturating_add(other.failed),
        }
    }

    /// The share that succeeded, 0 to 1; 1 of no requests.
    #[must_use]
    pub fn success(self) -> f64 {
        match self.requests() {
            0 => 1.0,
            requests => f64::from(self.succeeded) / requests as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_spans_the_wrap() {
        let earlier = Tally { succeeded: u32::MAX, failed: u32::MAX - 1 };
        let later = Tally { succeeded: 2, failed: 0 };
        assert_eq!(later.since(earlier), Tally { succeeded: 3, failed: 2 });
    }

    #[test]
    fn success_is_a_share() {
        for (succeeded, failed, expected) in [(0, 0, 1.0), (3, 1, 0.75), (0, 5, 0.0)] {
            assert_eq!(Tally { succeeded, failed }.success(), expected);
        }
    }
}
