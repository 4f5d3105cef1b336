//! Keeps a panic where it happened, and what it said: the boundary in which a connection's task polls.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::task::Poll;

use crate::clock;
use crate::sys;

/// Runs a future to its end or its panic; within each of its polls, the time is held.
///
/// The future gets a place of its own on the heap: within an `async fn` it would stand in the
/// task twice, 5 kB more for each connection.
///
/// # Errors
/// What the panic said; the future's values were dropped by then.
pub fn contained<T>(future: impl Future<Output = T>) -> impl Future<Output = Result<T, String>> {
    let mut future = Box::pin(future);
    poll_fn(move |context| {
        // With many clients, it has left the processor's cache since its last poll.
        sys::prefetch(&*future);
        let poll = || clock::held(|| future.as_mut().poll(context));
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(message_of(panic.as_ref()))),
        }
    })
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps where a thread panicked for `message_of`, instead of writing it to standard error, where
/// a worker would wait for whoever reads that.
pub fn keep_place(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    PLACE.with(|kept| {
        if let Ok(mut kept) = kept.try_borrow_mut() {
            *kept = place;
        }
    });
    tracing::debug!(backtrace = %Backtrace::force_capture(), "{panic}");
}

/// What this thread's last panic said, and where, if `keep_place` is the hook.
#[must_use]
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    let place = PLACE.with(|kept| kept.take());
    if place.is_empty() { text } else { format!("{text} at {place}") }
}
