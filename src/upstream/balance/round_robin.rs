//! The order of smooth weighted round robin, computed once a snapshot.
//!
//! Weights 5, 1, 1 give a a b a c a a, not a a a a a b c: each endpoint's turns lie as far apart
//! as its share allows. A worker only steps through the order.

/// The order in which endpoints take turns.
#[derive(Debug)]
pub struct Schedule {
    turns: Vec<u16>,
}

impl Schedule {
    /// The order for endpoints of these weights; weight 0 gets no turn.
    ///
    /// Each step gives the turn to the endpoint with the most credit, after every endpoint was
    /// credited its weight, and takes the sum of the weights from it (nginx's smooth round robin).
    #[must_use]
    pub fn new(weights: &[u32]) -> Schedule {
        let weights = reduce(weights);
        let sum: i64 = weights.iter().sum();
        let mut credits = vec![0; weights.len()];
        let mut turns = Vec::with_capacity(usize::try_from(sum).unwrap_or_default());
        for _ in 0..sum {
            let mut best: Option<usize> = None;
            for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
                credits[index] += weight;
                if best.is_none_or(|best| credits[index] > credits[best]) {
                    best = Some(index);
                }
            }
            if let Some(best) = best {
                credits[best] -= sum;
                turns.push(u16::try_from(best).unwrap_or(u16::MAX));
            }
        }
        Schedule { turns }
    }

    /// The number of turns until the order repeats.
    #[must_use]
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Whether no endpoint has a turn.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// The index of the endpoint whose turn it is; turns count on without end.
    #[must_use]
    pub fn at(&self, turn: usize) -> Option<usize> {
        let turn = turn.checked_rem(self.turns.len())?;
        self.turns.get(turn).map(|index| usize::from(*index))
    }
}

/// The weights divided by their greatest common divisor and scaled so that the order stays
/// below `TURNS_MAX`, each at least 1.
fn reduce(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, i64::from(b))).max(1);
    let reduced = weights.iter().map(|&weight| i64::from(weight) / divisor);
    let sum: i64 = reduced.clone().sum();
    if sum <= TURNS_MAX {
        return reduced.collect();
    }
    reduced.map(|weight| if weight == 0 { 0 } else { (weight * TURNS_MAX / sum).max(1) }).collect()
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The longest order, in turns, before weights are rounded; with 1,024 endpoints computing it
/// takes 4 million steps on the control thread.
const TURNS_MAX: i64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(weights: &[u32], order: &str) {
        let schedule = Schedule::new(weights);
        let turns: String = (0..schedule.len())
            .filter_map(|turn| schedule.at(turn))
            .map(|index| char::from(b'a' + index as u8))
            .collect();
        assert_eq!(turns, order);
    }

    #[test]
    fn turns_are_spread_smoothly() {
        check(&[5, 1, 1], "aabacaa");
        check(&[3, 1, 1], "abaca");
        check(&[1, 1, 1], "abc");
        check(&[2, 0, 4], "cac");
        check(&[0, 0], "");
        check(&[], "");
    }

    #[test]
    fn a_long_order_is_shortened_and_nobody_loses_its_turn() {
        let mut weights = vec![251; 200];
        weights.push(1);
        let schedule = Schedule::new(&weights);
        assert!(schedule.len() <= TURNS_MAX as usize + weights.len());
        assert!((0..schedule.len()).any(|turn| schedule.at(turn) == Some(200)));
    }
}
