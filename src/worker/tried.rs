//! The endpoints that a request was tried on: no further attempt goes there, so it waits for no
//! place there either. Pure; kept by `exchange`, asked by `placement` and `queue`.

use crate::upstream::endpoint::Slot;
use crate::upstream::snapshot::Pool;

/// The endpoints that a request was tried on.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    slots: [Slot; TRIED_MAX],
    count: usize,
}

impl Tried {
    /// None.
    #[must_use]
    pub fn none() -> Tried {
        let nobody = Slot { number: u32::MAX, generation: 0 };
        Tried { slots: [nobody; TRIED_MAX], count: 0 }
    }

    /// Only this one.
    #[must_use]
    pub fn of(slot: Slot) -> Tried {
        let mut tried = Tried::none();
        tried.add(slot);
        tried
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there is an eligible endpoint that was not tried.
    #[must_use]
    pub fn has_other(&self, pool: &Pool) -> bool {
        pool.endpoints.iter().any(|it| it.is_eligible() && !self.contains(it.slot))
    }

    /// Adds one more.
    pub fn add(&mut self, slot: Slot) {
        if let Some(place) = self.slots.get_mut(self.count) {
            *place = slot;
            self.count += 1;
        }
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(&self, slot: Slot) -> bool {
        self.slots.iter().take(self.count).any(|tried| *tried == slot)
    }
}

/// The most endpoints that are remembered as tried: more than `--retries` allows.
const TRIED_MAX: usize = 16;
