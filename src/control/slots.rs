//! Which numbers the endpoints have in the tables of workers, and when one may be given again.
//!
//! A number that was taken back rests until nothing is in flight on it and no snapshot with its
//! last endpoint is held any more, or long enough. Pure: time and what is held are arguments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::SLOTS_MAX;
use crate::upstream::endpoint::Slot;

/// The numbers, given out and free.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// By number: the pool that has it now, and the generation to give out next.
    used: Vec<Used>,
    free: VecDeque<u32>,
    /// Those that were taken back last, the first at the front.
    resting: VecDeque<Resting>,
}

#[derive(Clone, Copy, Debug)]
struct Used {
    pool: Option<usize>,
    generation: u32,
}

#[derive(Clone, Copy, Debug)]
struct Resting {
    number: u32,
    /// The first snapshot without its endpoint.
    epoch: u64,
    since: Instant,
}

impl Slots {
    /// A slot for an endpoint of this pool; `None` when all are given out or rest.
    pub(super) fn take(&mut self, pool: usize) -> Option<Slot> {
        let fresh = u32::try_from(self.used.len()).ok().filter(|_| self.used.len() < SLOTS_MAX);
        let number = self.free.pop_front().or(fresh)?;
        if fresh == Some(number) {
            self.used.push(Used { pool: None, generation: 0 });
        }
        let used = self.used.get_mut(number as usize)?;
        used.pool = Some(pool);
        Some(Slot { number, generation: used.generation })
    }

    /// Takes the slot of an endpoint back that no snapshot from `epoch` on shows.
    pub(super) fn give_back(&mut self, slot: Slot, epoch: u64, now: Instant) {
        let Some(used) = self.used.get_mut(slot.number as usize) else { return };
        used.pool = None;
        used.generation = slot.generation.wrapping_add(1);
        self.resting.push_back(Resting { number: slot.number, epoch, since: now });
    }

    /// The pool whose endpoint has this number.
    pub(super) fn pool_of(&self, number: u32) -> Option<usize> {
        self.used.get(number as usize).and_then(|used| used.pool)
    }

    /// Whether a number rests.
    pub(super) fn is_resting(&self) -> bool {
        !self.resting.is_empty()
    }

    /// Lets those numbers be given out again that have rested enough: `held` is the oldest
    /// snapshot that anybody holds, and `is_idle` tells of a number that nothing is in flight on it.
    pub(super) fn wake(&mut self, held: u64, now: Instant, is_idle: impl Fn(u32) -> bool) {
        let free = &mut self.free;
        self.resting.retain(|resting| {
            let has_rested =
                resting.epoch <= held || now.saturating_duration_since(resting.since) >= REST_TIME;
            let is_free = has_rested && is_idle(resting.number);
            if is_free {
                free.push_back(resting.number);
            }
            !is_free
        });
    }
}

/// How long a number rests at most, once nothing is in flight on it: a tunnel holds its snapshot
/// for hours, and never looks into it again. A request that would still be sent by so old a
/// snapshot counts for the wrong endpoint, and harms nothing else: the generation tells them apart.
const REST_TIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_comes_again_with_another_generation_and_only_when_it_is_idle() {
        let (mut slots, now) = (Slots::default(), Instant::now());
        let [a, b] = [0, 1].map(|pool| slots.take(pool).unwrap());
        assert_eq!((a.number, b.number, slots.pool_of(1)), (0, 1, Some(1)));
        // It moved to another address meanwhile.
        slots.give_back(Slot { generation: 4, ..a }, 7, now);
        assert_eq!(slots.pool_of(0), None);
        slots.wake(6, now, |_| true);
        slots.wake(7, now, |_| false);
        assert_eq!(slots.take(0).unwrap().number, 2, "a snapshot is held, a request in flight");
        slots.wake(7, now, |_| true);
        assert_eq!(slots.take(3).unwrap(), Slot { number: 0, generation: 5 });
        assert_eq!(slots.pool_of(0), Some(3));
    }

    #[test]
    fn a_snapshot_that_is_held_for_long_keeps_no_number() {
        let (mut slots, now) = (Slots::default(), Instant::now());
        let slot = slots.take(0).unwrap();
        slots.give_back(slot, 2, now);
        slots.wake(1, now + REST_TIME / 2, |_| true);
        assert!(slots.is_resting());
        slots.wake(1, now + REST_TIME, |_| true);
        assert_eq!(slots.take(0).unwrap().number, slot.number);
    }

    #[test]
    fn there_are_no_more_than_there_are() {
        let mut slots = Slots::default();
        assert_eq!((0..=SLOTS_MAX).filter_map(|_| slots.take(0)).count(), SLOTS_MAX);
    }

    proptest! {
        #[test]
        fn no_slot_is_given_out_twice_nor_a_number_that_is_busy(
            steps in prop::collection::vec((0_u8..4, 0_u32..16), 0..200)
        ) {
            let (mut slots, now) = (Slots::default(), Instant::now());
            let (mut given, mut seen) = (Vec::<Slot>::new(), std::collections::HashSet::new());
            let mut busy = std::collections::HashSet::new();
            for (step, which) in steps {
                match step {
                    0 | 1 => {
                        let slot = slots.take(0).unwrap();
                        prop_assert!(seen.insert(slot), "{slot:?} came twice");
                        prop_assert!(!busy.contains(&slot.number), "{slot:?} is busy");
                        prop_assert!(given.iter().all(|other| other.number != slot.number));
                        given.push(slot);
                        if which % 3 == 0 {
                            busy.insert(slot.number);
                        }
                    }
                    2 if !given.is_empty() => {
                        let slot = given.remove(which as usize % given.len());
                        slots.give_back(slot, 1, now);
                    }
                    _ => {
                        let idle = busy.iter().copied().find(|number| number % 4 == which % 4);
                        if let Some(number) = idle.filter(|it| given.iter().all(|slot| slot.number != *it)) {
                            busy.remove(&number);
                        }
                        slots.wake(1, now, |number| !busy.contains(&number));
                    }
                }
            }
        }
    }
}
