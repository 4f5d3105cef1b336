//! `corelane doctor`: what of this machine helps or hinders a load balancer with given flags.
//!
//! Decides what is well, what costs something and what cannot work, and says what to do. Each check
//! is pure: it judges values that [`Host`] has read, and changes nothing. Called by `main`.

mod cores;
mod host;
mod network;
mod report;
mod ring;
mod surroundings;
#[cfg(test)]
mod tests;

use crate::config::DriverChoice;

pub use host::{Host, Ring};
pub use report::Report;

/// What the machine is judged for: the load balancer that would run with the flags given.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The core of each worker, in order.
    pub cores: Vec<usize>,
    /// The driver asked for.
    pub driver: DriverChoice,
    /// Submission queue entries of each worker's ring.
    pub ring_entries: u32,
    /// Connections that the kernel is asked to hold for each worker until they are accepted.
    pub backlog: u32,
    /// Whether other processes share the listening addresses.
    pub is_shared: bool,
    /// The most client connections that were asked for, if any.
    pub client_conns_max: Option<u32>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// It works, and something is lost.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at; no two findings of a report have the same.
    pub check: &'static str,
    /// How it came out.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it, where there is something to do.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, level: Level::Ok, found: found.into(), advice: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, level: Level::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, level: Level::Fail, found: found.into(), advice: Some(advice.into()) }
    }

    /// What cannot be read cannot be judged.
    fn unreadable(check: &'static str, path: &str) -> Finding {
        Finding::warn(
            check,
            format!("{path} cannot be read"),
            "run it as the user that corelane runs as, with /proc and /sys mounted",
        )
    }
}

/// Every check, in the order in which they are printed.
#[must_use]
pub fn examine(subject: &Subject, host: &Host, ring: &Ring) -> Report {
    Report(vec![
        ring::kernel(host),
        ring::disabled(host, subject, ring),
        ring::seccomp(host, ring),
        ring::driver(subject, ring),
        ring::operations(subject, ring),
        ring::locked_memory(host, subject),
        cores::map(subject),
        cores::allowed(host, subject),
        cores::quota(host, subject),
        cores::siblings(host, subject),
        cores::nodes(host, subject),
        network::open_files(host, subject),
        network::accept_queue(host, subject),
        network::handshakes(host, subject),
        network::ports(host, subject),
        network::reuse_of_ports(host),
        network::migration(host, subject),
        network::congestion(host),
        surroundings::huge_pages(host),
        surroundings::allocator(),
        surroundings::container(host),
    ])
}
