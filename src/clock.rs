//! The time, read once for all that a connection does between two waits.
//!
//! Reading it costs 20 to 50 ns, and a request wants it several times: within one poll of a
//! connection's task it stands still. A poll waits for nothing, so what is read is never older
//! than the work of one poll. Deadlines, which a request arms five times, make do with a coarse one.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_getres, clock_gettime};

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held::Not) };
    static HOLDS: Cell<bool> = const { Cell::new(true) };
}

#[derive(Clone, Copy)]
enum Held {
    /// Nobody holds the time.
    Not,
    /// It is held from the next look on.
    FromNextLook,
    At(Instant),
}

/// The time; that of the first look where it is held.
#[must_use]
pub fn now() -> Instant {
    match HELD.get() {
        Held::At(time) => time,
        Held::FromNextLook => {
            let time = Instant::now();
            HELD.set(Held::At(time));
            time
        }
        Held::Not => Instant::now(),
    }
}

/// The time as of the kernel's last tick, in milliseconds since some moment before the machine's
/// start: 2 ns instead of 20, for what may be late by a tick.
#[must_use]
pub fn coarse_millis() -> u64 {
    Duration::try_from(clock_gettime(ClockId::MonotonicCoarse)).map_or(0, millis)
}

/// How long a tick is, in milliseconds, and one more for what rounding down takes.
#[must_use]
pub fn tick_millis() -> u64 {
    Duration::try_from(clock_getres(ClockId::MonotonicCoarse)).map_or(0, millis) + 2
}

/// A time in milliseconds, rounded down.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1000) + u64::from(time.subsec_millis())
}

/// The processor time that this thread has used.
#[must_use]
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Says whether this thread holds the time at all.
pub fn set_holds(holds: bool) {
    HOLDS.set(holds);
}

/// Holds the time while `act` runs, which must not wait and not be long.
pub fn held<T>(act: impl FnOnce() -> T) -> T {
    if !HOLDS.get() {
        return act();
    }
    let _release = Release(HELD.replace(Held::FromNextLook));
    act()
}

/// Lets go of the time, also after a panic.
struct Release(Held);

impl Drop for Release {
    fn drop(&mut self) {
        HELD.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn spin() {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_micros(10) {}
    }

    #[test]
    fn time_stands_still_while_it_is_held_and_no_longer() {
        let (first, second) = held(|| {
            let first = now();
            spin();
            (first, now())
        });
        assert_eq!(first, second);
        spin();
        assert!(now() > first);
        assert!(held(now) > first);
    }

    #[test]
    fn the_coarse_time_passes_as_the_precise_one_does() {
        const PASSED_MIN: u64 = 20;
        let (begin, coarse_begin) = (Instant::now(), coarse_millis());
        while coarse_millis() < coarse_begin + PASSED_MIN {
            assert!(begin.elapsed() < Duration::from_secs(10), "it stands still");
        }
        let (passed, tick) = (millis(begin.elapsed()), tick_millis());
        assert!(passed + tick >= PASSED_MIN, "{PASSED_MIN} in {passed}");
        assert!((2..=20).contains(&tick), "{tick}");
    }

    #[test]
    fn a_panic_lets_go_of_the_time() {
        let panicked = std::panic::catch_unwind(|| {
            held(|| {
                assert!(now() < Instant::now(), "held");
                panic!("a test asked for it");
            });
        });
        assert!(panicked.is_err());
        let first = now();
        spin();
        assert!(now() > first);
    }
}
