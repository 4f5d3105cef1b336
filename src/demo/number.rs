//! Reads the whole numbers that a request's query or path carries.
//!
//! Decides which text is a number within its limit. A refusal says what would
//! be taken. Called by `service`.

use std::fmt;

use super::query::value_of;

/// A number that a request may give: its name and the most it may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) name: &'static str,
    pub(super) max: u64,
}

/// Why a number was refused.
#[derive(Debug)]
pub(super) struct BadNumber {
    number: Number,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Missing,
    NotWhole,
    AboveMax,
}

impl Number {
    /// The number as `name=digits` in a query; of several, the first.
    pub(super) fn in_query(self, query: Option<&str>) -> Result<u64, BadNumber> {
        self.parse(value_of(query, self.name).unwrap_or_default())
    }

    /// The same where it may be left out.
    pub(super) fn find_in_query(self, query: Option<&str>) -> Result<Option<u64>, BadNumber> {
        value_of(query, self.name).map(|text| self.parse(text)).transpose()
    }

    /// The number in decimal digits, without a sign.
    pub(super) fn parse(self, text: &str) -> Result<u64, BadNumber> {
        if text.is_empty() {
            return Err(self.refused(Cause::Missing));
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.refused(Cause::NotWhole));
        }
        // Only digits are left, so parsing fails where they exceed a u64.
        match text.parse() {
            Ok(value) if value <= self.max => Ok(value),
            Ok(_) | Err(_) => Err(self.refused(Cause::AboveMax)),
        }
    }

    fn refused(self, cause: Cause) -> BadNumber {
        BadNumber { number: self, cause }
    }
}

impl fmt::Display for BadNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = match self.cause {
            Cause::Missing => "is missing",
            Cause::NotWhole => "is not a whole number",
            Cause::AboveMax => "is above its limit",
        };
        let Number { name, max } = self.number;
        write!(f, "{name} {cause}: give 0 to {max}")
    }
}

impl std::error::Error for BadNumber {}
