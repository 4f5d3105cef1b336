//! When a failed request is tried again.

use std::fmt;

use crate::config::Statuses;

/// When a failed request is tried again.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// The most further attempts of one request.
    pub retries_max: u32,
    /// What may be tried again.
    pub on: RetryOn,
    /// The most bytes of a request's body that are held to be sent again.
    pub body_bytes_max: usize,
    /// The most retries, in percent of requests, if `budget_per_second` is not more.
    pub budget_percent: u32,
    /// The retries a second that are always allowed.
    pub budget_per_second: u32,
}

/// What may be tried again. A connection that could not be made always may: nothing was sent.
/// All else only if the request is idempotent (RFC 9110 §9.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// A connection lost before an answer began.
    pub lost: bool,
    /// An endpoint that went down, or was ejected, before an answer began, as long as another
    /// endpoint can be asked.
    pub down: bool,
    /// An answer whose head did not come in time.
    pub timeout: bool,
    /// An answer that breaks the grammar.
    pub invalid: bool,
    /// An answer of one of these statuses, as long as another endpoint can be asked.
    pub statuses: Option<Statuses>,
}

impl fmt::Display for RetryOn {
    /// As a flag has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetryOn { lost, down, timeout, invalid, statuses } = self;
        let named = [("lost", lost), ("down", down), ("timeout", timeout), ("invalid", invalid)];
        let mut words: Vec<String> =
            named.into_iter().filter(|(_, is_on)| **is_on).map(|(it, _)| it.to_owned()).collect();
        words.extend(statuses.as_ref().map(Statuses::to_string));
        let text = words.join(",");
        f.write_str(if text.is_empty() { "none" } else { &text })
    }
}
