//! How much an endpoint takes at once, exactly, over all workers.
//!
//! One atomic for each limit, by compare-exchange; an endpoint without limits pays nothing. Taken
//! and given by the worker's guards, which know whom a freed place is offered to.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A limit, and how much of it is taken.
#[derive(Debug)]
pub struct Limit {
    max: AtomicU32,
    taken: AtomicU32,
}

impl Limit {
    /// A limit of which nothing is taken.
    #[must_use]
    pub fn new(max: u32) -> Limit {
        Limit { max: AtomicU32::new(max), taken: AtomicU32::new(0) }
    }

    /// Takes one, if there is one.
    pub fn take(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let next = |taken| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    /// Gives one back.
    pub fn give(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether one could be taken just now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.taken.load(Ordering::Acquire) < self.max.load(Ordering::Relaxed)
    }

    /// Whether more are taken than there are, which are fewer than there were.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.taken.load(Ordering::Acquire) > self.max.load(Ordering::Relaxed)
    }

    /// From now on there are so many; what is taken stays taken, even if that is more.
    pub fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// How many there are.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Acquire)
    }
}

/// The limits of one endpoint; snapshots share them.
#[derive(Debug)]
pub struct Limits {
    /// Connections, busy or idle.
    pub conns: Option<Arc<Limit>>,
    /// Requests in flight.
    pub requests: Option<Arc<Limit>>,
    /// Requests that wait for a connection to be made.
    pub pending: Option<Arc<Limit>>,
    /// Requests that wait for a connection to this endpoint and to no other.
    pub waiting_alone: AtomicU32,
    /// Requests that may still try an endpoint whose breaker is half open.
    trials: AtomicU32,
}

impl Limits {
    /// Limits of which nothing is taken.
    #[must_use]
    pub fn new(
        conns: Option<NonZeroU32>,
        requests: Option<NonZeroU32>,
        pending: Option<NonZeroU32>,
    ) -> Limits {
        let limit = |max: Option<NonZeroU32>| max.map(|max| Limit::new(max.get()).into());
        Limits {
            conns: limit(conns),
            requests: limit(requests),
            pending: limit(pending),
            waiting_alone: AtomicU32::new(0),
            trials: AtomicU32::new(0),
        }
    }

    /// Takes other limits over. What is a limit before and after keeps its count in place; `None`
    /// where that is all, else the limits to use from now on.
    #[must_use]
    pub fn changed(
        &self,
        conns: Option<NonZeroU32>,
        requests: Option<NonZeroU32>,
        pending: Option<NonZeroU32>,
    ) -> Option<Limits> {
        let mut limits = Limits::new(conns, requests, pending);
        let kept = [
            keep(&self.conns, &mut limits.conns),
            keep(&self.requests, &mut limits.requests),
            keep(&self.pending, &mut limits.pending),
        ];
        limits.allow_trials(self.trials.load(Ordering::Acquire));
        (!kept.into_iter().all(|is_kept| is_kept)).then_some(limits)
    }

    /// Whether a connection may lie unused: it is counted where connections are limited, and not
    /// one too many since the limit was lowered. `place` is what it counts in, if anything.
    #[must_use]
    pub fn admits(&self, place: Option<&Limits>) -> bool {
        match (&self.conns, place.and_then(|place| place.conns.as_ref())) {
            (None, _) => true,
            (Some(limit), Some(counted)) => Arc::ptr_eq(limit, counted) && !limit.is_exceeded(),
            (Some(_), None) => false,
        }
    }

    /// Allows so many trials, whatever was left of earlier ones; the control thread calls this
    /// before it publishes a half-open breaker.
    pub fn allow_trials(&self, trials: u32) {
        self.trials.store(trials, Ordering::Release);
    }

    /// Takes a trial, if there is one.
    pub fn take_trial(&self) -> bool {
        let next = |left: u32| left.checked_sub(1);
        self.trials.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    /// Whether a trial could be made just now.
    #[must_use]
    pub fn has_trial(&self) -> bool {
        self.trials.load(Ordering::Acquire) > 0
    }
}

/// Puts the limit that was in the place of the one that is to be, with that one's size; whether
/// both are limits or none is.
fn keep(was: &Option<Arc<Limit>>, is: &mut Option<Arc<Limit>>) -> bool {
    match (was, &is) {
        (Some(was), Some(new)) => {
            was.set_max(new.max.load(Ordering::Relaxed));
            *is = Some(was.clone());
            true
        }
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_exactly_what_there_is() {
        const MAX: u32 = 7;
        let limit = Limit::new(MAX);
        let taken: u32 = std::thread::scope(|scope| {
            let take = || (0..100).filter(|_| limit.take()).count() as u32;
            let threads = [(); 4].map(|()| scope.spawn(take));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, limit.taken(), limit.has_room()), (MAX, MAX, false));
        limit.give();
        assert!(limit.has_room() && limit.take() && !limit.take());
    }

    #[test]
    fn trials_are_counted_down_and_allowed_anew() {
        let limits = Limits::new(None, None, None);
        assert!(!limits.take_trial());
        limits.allow_trials(2);
        assert_eq!([(); 3].map(|()| limits.take_trial()), [true, true, false]);
        limits.allow_trials(1);
        assert_eq!([(); 2].map(|()| limits.take_trial()), [true, false]);
    }

    #[test]
    fn a_limit_that_changes_keeps_what_is_taken() {
        let limits = Limits::new(NonZeroU32::new(2), NonZeroU32::new(5), None);
        let conns = limits.conns.clone().unwrap();
        assert!(conns.take() && conns.take());
        assert!(limits.changed(NonZeroU32::new(1), NonZeroU32::new(5), None).is_none());
        assert_eq!((conns.taken(), conns.has_room()), (2, false));
        conns.give();
        assert!(!conns.take(), "one is as many as there may be");
        assert!(limits.admits(Some(&limits)) && !limits.admits(None));
        assert!(limits.changed(NonZeroU32::new(3), NonZeroU32::new(5), None).is_none());
        assert!(conns.take());
        assert!(limits.changed(NonZeroU32::new(1), NonZeroU32::new(5), None).is_none());
        assert!(!limits.admits(Some(&limits)), "two are one too many");
        conns.give();
        assert!(limits.changed(NonZeroU32::new(3), NonZeroU32::new(5), None).is_none());
        assert!(conns.take() && conns.take() && !conns.take());
    }

    #[test]
    fn a_limit_that_comes_or_goes_leaves_the_others_their_counts() {
        let limits = Limits::new(None, NonZeroU32::new(5), None);
        limits.requests.as_ref().unwrap().take();
        limits.allow_trials(3);
        let limited = limits.changed(NonZeroU32::new(1), NonZeroU32::new(5), None).unwrap();
        assert_eq!(limited.requests.as_ref().unwrap().taken(), 1);
        assert!(limited.conns.as_ref().unwrap().has_room() && limited.has_trial());
        assert!(limits.admits(None) && !limited.admits(Some(&limits)));
        let unlimited = limited.changed(None, NonZeroU32::new(4), None).unwrap();
        assert!(unlimited.conns.is_none());
        assert_eq!(limits.requests.as_ref().unwrap().taken(), 1);
    }
}
