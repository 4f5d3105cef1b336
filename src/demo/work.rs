//! The computation behind `GET /work`: a load on the processor by request.
//!
//! The thread also serves the backend's other connections, so the work goes in
//! slices and lets the others run between two of them.

use std::time::{Duration, Instant};

/// A request that comes while another one computes waits about this long for
/// each request that does.
const SLICE: Duration = Duration::from_millis(1);

/// Rounds between two looks at the clock: a few microseconds' worth, so that
/// the clock is a small part of the work and a slice ends close to its time.
const ROUNDS_PER_LOOK: u64 = 1024;

/// Any fixed value: the work is the same for each request.
const SEED: u64 = 0;

/// What was computed.
#[derive(Debug)]
pub(super) struct Work {
    /// Numbers drawn from the generator.
    pub(super) rounds: u64,
    /// Their sum, given in the answer so that the compiler keeps the rounds.
    pub(super) checksum: u64,
}

/// Computes for `amount` in slices of `SLICE`, each followed by `yield_now`,
/// after which tokio polls its sockets and runs the other tasks.
///
/// Only the time within slices counts, so that two requests at once take twice
/// as long as one. It is the clock's time: where the kernel takes the thread
/// off its core within a slice, less is computed.
pub(super) async fn compute(amount: Duration) -> Work {
    let mut generator = fastrand::Rng::with_seed(SEED);
    let mut work = Work { rounds: 0, checksum: 0 };
    let mut spent = Duration::ZERO;
    while spent < amount {
        spent += compute_slice(SLICE.min(amount - spent), &mut generator, &mut work);
        tokio::task::yield_now().await;
    }
    work
}

/// Computes for at least `slice` and returns how long it was.
fn compute_slice(slice: Duration, generator: &mut fastrand::Rng, work: &mut Work) -> Duration {
    let start = Instant::now();
    loop {
        for _ in 0..ROUNDS_PER_LOOK {
            work.checksum = work.checksum.wrapping_add(generator.u64(..));
        }
        work.rounds += ROUNDS_PER_LOOK;
        let spent = start.elapsed();
        if spent >= slice {
            return spent;
        }
    }
}
