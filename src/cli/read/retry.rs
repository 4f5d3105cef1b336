//! Reads what is tried again.

use crate::cli::read::statuses;
use crate::config::RetryOn;

/// Reads `none`, or a list of `lost`, `down`, `timeout`, `invalid` and statuses.
pub(in crate::cli) fn parse_retry_on(text: &str) -> Result<RetryOn, String> {
    let mut on =
        RetryOn { lost: false, down: false, timeout: false, invalid: false, statuses: None };
    if text == "none" {
        return Ok(on);
    }
    let mut ranges = Vec::new();
    for word in text.split(',') {
        match word {
            "lost" => on.lost = true,
            "down" => on.down = true,
            "timeout" => on.timeout = true,
            "invalid" => on.invalid = true,
            "none" => return Err("none stands alone".to_owned()),
            _ if word.starts_with(|first: char| first.is_ascii_digit()) => ranges.push(word),
            _ => return Err(format!("{word:?} is none of {WORDS}")),
        }
    }
    if !ranges.is_empty() {
        on.statuses = Some(statuses(&ranges.join(","), STATUS_MIN)?);
    }
    Ok(on)
}

/// An answer below is none of a failed request.
const STATUS_MIN: u16 = 400;
const WORDS: &str = "lost, down, timeout, invalid, none, and statuses like 503 or 500-599";
