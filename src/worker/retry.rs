//! Whether an attempt that failed may be followed by another: what was sent, what the method
//! allows, and what the operator asked for. Pure; called by `exchange` and `download`.

use crate::config::{RetryConfig, RetryOn};
use crate::error::{Class, Retry};
use crate::worker::progress::{Failure, Progress};

/// How often a request was tried again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retries {
    /// In all,
    pub count: u32,
    /// and after it had been sent.
    pub after_sent: u32,
}

/// What of a request decides whether it may be sent again.
#[derive(Clone, Copy, Debug)]
pub struct Repeatable {
    /// Whether its method is idempotent.
    pub is_idempotent: bool,
    /// Whether all of it that was sent is held.
    pub is_held: bool,
}

/// Whether another attempt may follow this failure, the budget apart.
#[must_use]
pub fn may_follow(
    failure: Failure,
    request: Repeatable,
    retries: Retries,
    config: &RetryConfig,
) -> bool {
    if retries.count >= config.retries_max || !request.is_held {
        return false;
    }
    match failure.progress {
        Progress::Untouched => failure.cause.verdict().retry != Retry::Never,
        Progress::Sent | Progress::ResponseStarted => {
            may_follow_sent(request.is_idempotent, retries, config) && is_asked(failure, &config.on)
        }
        Progress::Shown => false,
    }
}

/// Whether an attempt that has sent the request may be followed by another at all. A request that
/// kills its backends must not kill them all.
#[must_use]
pub fn may_follow_sent(is_idempotent: bool, retries: Retries, config: &RetryConfig) -> bool {
    is_idempotent && retries.count < config.retries_max && retries.after_sent < AFTER_SENT_MAX
}

/// Whether the operator wants such a failure tried again.
#[must_use]
pub fn is_asked(failure: Failure, on: &RetryOn) -> bool {
    if failure.progress == Progress::Shown {
        return false;
    }
    match failure.cause.verdict().retry {
        Retry::Never => false,
        Retry::Always => true,
        Retry::IfIdempotent(Class::Lost) => on.lost && failure.progress == Progress::Sent,
        Retry::IfIdempotent(Class::Down) => on.down && failure.progress == Progress::Sent,
        Retry::IfIdempotent(Class::TimedOut) => on.timeout,
        Retry::IfIdempotent(Class::Invalid) => on.invalid,
        Retry::IfIdempotent(Class::Status) => on.statuses.is_some(),
    }
}

/// How often a request that was sent is sent again.
const AFTER_SENT_MAX: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Statuses;
    use crate::error::Cause;

    const DEFAULT: RetryOn =
        RetryOn { lost: true, down: true, timeout: false, invalid: false, statuses: None };

    fn config(on: RetryOn) -> RetryConfig {
        let (budget_percent, budget_per_second) = (20, 3);
        RetryConfig { retries_max: 3, on, body_bytes_max: 9, budget_percent, budget_per_second }
    }

    fn check(config: &RetryConfig, rows: &[(Cause, Progress, bool, bool)]) {
        for (cause, progress, if_idempotent, if_not) in rows.iter().copied() {
            let failure = Failure { cause, progress };
            let may = |is_idempotent| {
                let request = Repeatable { is_idempotent, is_held: true };
                may_follow(failure, request, Retries::default(), config)
            };
            assert_eq!((may(true), may(false)), (if_idempotent, if_not), "{failure:?}");
        }
    }

    #[test]
    fn a_request_runs_twice_only_where_that_is_safe() {
        check(
            &config(DEFAULT),
            &[
                (Cause::ConnectFailed, Progress::Untouched, true, true),
                (Cause::ConnectTimeout, Progress::Untouched, true, true),
                (Cause::BackendLost, Progress::Untouched, true, true),
                (Cause::BackendLost, Progress::Sent, true, false),
                (Cause::BackendDown, Progress::Sent, true, false),
                (Cause::BackendLost, Progress::ResponseStarted, false, false),
                (Cause::BackendLost, Progress::Shown, false, false),
                (Cause::ResponseTimeout, Progress::Sent, false, false),
                (Cause::ResponseInvalid, Progress::ResponseStarted, false, false),
                (Cause::ClientLeft, Progress::Sent, false, false),
            ],
        );
    }

    #[test]
    fn more_is_tried_again_where_that_is_asked_for() {
        let statuses = Some(Statuses(vec![500..=599]));
        let all = RetryOn { lost: true, down: true, timeout: true, invalid: true, statuses };
        check(
            &config(all),
            &[
                (Cause::ResponseTimeout, Progress::Sent, true, false),
                (Cause::ResponseTimeout, Progress::ResponseStarted, true, false),
                (Cause::ResponseTimeout, Progress::Shown, false, false),
                (Cause::ResponseInvalid, Progress::ResponseStarted, true, false),
                (Cause::ResponseStatus, Progress::ResponseStarted, true, false),
                (Cause::ClientBodyTimeout, Progress::Sent, false, false),
            ],
        );
        let none = RetryOn { lost: false, down: false, ..DEFAULT };
        check(
            &config(none),
            &[
                (Cause::BackendLost, Progress::Sent, false, false),
                (Cause::ConnectFailed, Progress::Untouched, true, true),
            ],
        );
    }

    #[test]
    fn what_is_not_held_cannot_be_sent_again() {
        let failure = Failure { cause: Cause::BackendLost, progress: Progress::Sent };
        let request = Repeatable { is_idempotent: true, is_held: false };
        assert!(!may_follow(failure, request, Retries::default(), &config(DEFAULT)));
    }

    #[test]
    fn retries_end() {
        let request = Repeatable { is_idempotent: true, is_held: true };
        let config = config(DEFAULT);
        let untouched = Failure { cause: Cause::ConnectFailed, progress: Progress::Untouched };
        let counts = |count| Retries { count, after_sent: 0 };
        let after = [2, 3].map(|count| may_follow(untouched, request, counts(count), &config));
        assert_eq!(after, [true, false]);
        let sent = Failure { cause: Cause::BackendLost, progress: Progress::Sent };
        let counts = |after_sent| Retries { count: after_sent, after_sent };
        let after = [0, 1].map(|count| may_follow(sent, request, counts(count), &config));
        assert_eq!(after, [true, false]);
    }
}
