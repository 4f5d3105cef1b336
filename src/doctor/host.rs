//! What the checks read of the machine: files below a root, and what rings the kernel gives.
//!
//! Judges nothing. Tests give a root of their own, and a [`Ring`] that no kernel made.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::worker::driver::{self, Attempt};

/// The machine as its files show it.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where `proc` and `sys` are; `/` but in tests.
    root: PathBuf,
}

impl Host {
    /// The machine whose `/proc` and `/sys` lie below `root`.
    #[must_use]
    pub fn at(root: PathBuf) -> Host {
        Host { root }
    }

    /// The text of a file, without the white space around it; `None` if it cannot be read.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// A setting by its name in `sysctl`.
    pub(super) fn sysctl(&self, name: &str) -> Option<String> {
        self.read(&format!("proc/sys/{}", name.replace('.', "/")))
    }

    /// A setting that is a number.
    pub(super) fn sysctl_number(&self, name: &str) -> Option<u64> {
        self.sysctl(name)?.parse().ok()
    }

    /// The value behind `name:` in `/proc/self/status`.
    pub(super) fn status(&self, name: &str) -> Option<String> {
        let status = self.read("proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    }

    /// The soft and the hard limit of a resource by its name in `/proc/self/limits`;
    /// `u64::MAX` for none.
    pub(super) fn limit(&self, name: &str) -> Option<(u64, u64)> {
        let limits = self.read("proc/self/limits")?;
        let mut values =
            limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
        let mut next = || match values.next()? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        };
        Some((next()?, next()?))
    }

    /// The kernel's version, as its first two numbers.
    pub(super) fn kernel(&self) -> Option<(u32, u32)> {
        let release = self.sysctl("kernel.osrelease")?;
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// The ranges of a list as the kernel writes it, `0-3,6`; `None` if it is none.
pub(super) fn ranges_of(list: &str) -> Option<Vec<RangeInclusive<usize>>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter(|part| !part.trim().is_empty()).map(range).collect()
}

/// Whether a list of ranges names `number`.
pub(super) fn names(ranges: &[RangeInclusive<usize>], number: usize) -> bool {
    ranges.iter().any(|range| range.contains(&number))
}

/// What the kernel said when it was asked for rings.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Each kind of ring, the best first.
    pub attempts: Vec<Attempt>,
    /// The operations that workers use and this kernel does not have; `None` where no ring could be
    /// made to ask.
    pub missing_operations: Option<Vec<&'static str>>,
}

impl Ring {
    /// Asks the kernel for a ring of each kind, and gives each back. A thread of its own does it,
    /// since a ring belongs to the thread that made it.
    #[must_use]
    pub fn probe(entries: NonZeroU32) -> Ring {
        let asked = std::thread::spawn(move || Ring {
            attempts: driver::attempts(entries),
            missing_operations: driver::missing_operations().ok(),
        });
        asked.join().unwrap_or(Ring { attempts: Vec::new(), missing_operations: None })
    }

    /// The first that the kernel gave.
    pub(super) fn best(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.refusal.is_none())
    }
}
