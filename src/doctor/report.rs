//! What the doctor found, as lines for people and as JSON for programs.

use std::fmt;

use serde_json::{Value, json};

use super::{Finding, Level};
use crate::error::EXIT_SYSTEM;

/// The findings of one examination, in order.
#[derive(Clone, Debug)]
pub struct Report(pub Vec<Finding>);

impl Report {
    /// The exit code: 0 unless something fails, else 71 (`EX_OSERR`).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.count(Level::Fail) > 0 { EXIT_SYSTEM } else { 0 }
    }

    /// `checks`, a list of objects with `check`, `level`, `found` and `advice` (null where there is
    /// nothing to do), and how many are `ok`, `warn` and `fail`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let checks = self.0.iter().map(|finding| {
            json!({
                "check": finding.check,
                "level": finding.level.name(),
                "found": finding.found,
                "advice": finding.advice,
            })
        });
        json!({
            "checks": checks.collect::<Vec<_>>(),
            "ok": self.count(Level::Ok),
            "warn": self.count(Level::Warn),
            "fail": self.count(Level::Fail),
        })
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }
}

/// One line for each finding, `LEVEL CHECK FOUND; ADVICE`, and one that counts them.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        for Finding { check, level, found, advice } in &self.0 {
            write!(f, "{:<4}  {check:<width$}  {found}", level.name())?;
            match advice {
                Some(advice) => writeln!(f, "; {advice}")?,
                None => writeln!(f)?,
            }
        }
        let [ok, warn, fail] = [Level::Ok, Level::Warn, Level::Fail].map(|level| self.count(level));
        write!(f, "{ok} ok, {warn} to mend if you can (warn), {fail} that cannot work (fail)")
    }
}
