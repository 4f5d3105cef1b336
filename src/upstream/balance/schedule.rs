//! The order of smooth weighted round robin, computed once a snapshot.
//!
//! Weights 5, 1, 1 give a a b a c a a, not a a a a a b c: each candidate's turns lie as far apart
//! as its share allows. Workers step through the order, or draw a turn of it at random, which
//! gives each candidate its share too.

use fastrand::Rng;

/// The order in which candidates take turns.
#[derive(Debug)]
pub struct Schedule {
    turns: Vec<u16>,
}

impl Schedule {
    /// The order for candidates of these weights, none of them 0.
    ///
    /// Each step gives the turn to the candidate with the most credit, after every candidate was
    /// credited its weight, and takes the sum of the weights from it (nginx's smooth round robin).
    #[must_use]
    pub fn new(weights: &[u32]) -> Schedule {
        let weights = reduce(weights);
        let sum: i64 = weights.iter().sum();
        let mut credits = vec![0; weights.len()];
        let mut turns = Vec::with_capacity(usize::try_from(sum).unwrap_or_default());
        for _ in 0..sum {
            let mut best = 0;
            for (place, weight) in weights.iter().enumerate() {
                credits[place] += weight;
                if credits[place] > credits[best] {
                    best = place;
                }
            }
            credits[best] -= sum;
            turns.push(u16::try_from(best).unwrap_or(u16::MAX));
        }
        Schedule { turns }
    }

    /// The number of turns until the order repeats.
    #[must_use]
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Whether there is no candidate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// The place of the candidate whose turn it is, of `len` turns.
    #[must_use]
    pub fn at(&self, turn: usize) -> Option<usize> {
        self.turns.get(turn).map(|place| usize::from(*place))
    }

    /// The place of the candidate whose turn a random one is.
    pub fn draw(&self, random: &mut Rng) -> Option<usize> {
        self.at(scale(random.u32(..), self.turns.len()))
    }
}

/// The number below `len` that lies where `fraction` lies among all of its type: without the
/// division of a remainder, and `len` is too small for the bias to show.
#[must_use]
pub fn scale(fraction: u32, len: usize) -> usize {
    ((u64::from(fraction) * len as u64) >> u32::BITS) as usize
}

/// The weights divided by their greatest common divisor, and rounded to fewer turns where the
/// order would be too long, each at least 1.
fn reduce(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, i64::from(b))).max(1);
    let reduced = weights.iter().map(|&weight| i64::from(weight) / divisor);
    let sum: i64 = reduced.clone().sum();
    let max = TURNS_MAX.max(weights.len() as i64 * TURNS_EACH);
    if sum <= max {
        return reduced.collect();
    }
    reduced.map(|weight| ((weight * max + sum / 2) / sum).max(1)).collect()
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The longest order, in turns, before weights are rounded,
const TURNS_MAX: i64 = 4096;
/// or so many turns a candidate if that is longer: 1,024 candidates have 8,192, which take
/// 8 million steps on the control thread, about 8 ms.
const TURNS_EACH: i64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(weights: &[u32], order: &str) {
        let schedule = Schedule::new(weights);
        let turns: String = (0..schedule.len())
            .filter_map(|turn| schedule.at(turn))
            .map(|place| char::from(b'a' + place as u8))
            .collect();
        assert_eq!(turns, order);
    }

    #[test]
    fn turns_are_spread_smoothly() {
        check(&[500, 100, 100], "aabacaa");
        check(&[300, 100, 100], "abaca");
        check(&[100, 100, 100], "abc");
        check(&[50, 100], "bab");
        check(&[], "");
    }

    #[test]
    fn a_long_order_is_shortened_and_nobody_loses_its_turn() {
        let mut weights = vec![25_100; 200];
        weights.push(1);
        let schedule = Schedule::new(&weights);
        assert!(schedule.len() <= TURNS_MAX as usize + weights.len());
        assert!((0..schedule.len()).any(|turn| schedule.at(turn) == Some(200)));
    }

    #[test]
    fn shares_of_a_shortened_order_are_near_the_weights() {
        let weights: Vec<u32> =
            (0..1024).map(|place| if place % 2 == 0 { 101 } else { 303 }).collect();
        let schedule = Schedule::new(&weights);
        let heavy = (0..schedule.len()).filter(|turn| schedule.at(*turn).unwrap() % 2 == 1).count();
        assert_eq!(heavy * 4, schedule.len() * 3);
    }
}
