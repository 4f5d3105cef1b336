//! What the kernel says of the process, by the names that Prometheus' exporters agree on, and which
//! build runs.
//!
//! What the kernel does not tell is left out.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::control::prometheus::page::{About, Page};

/// Writes which build runs.
pub(super) fn write_build(page: &mut Page<'_>) -> fmt::Result {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    page.info(BUILD, &[("version", env!("CARGO_PKG_VERSION")), ("profile", profile)])
}

/// Writes what the kernel says of the process, which started then.
pub(super) fn write_process(started: SystemTime, page: &mut Page<'_>) -> fmt::Result {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    page.counter_in(Some(Unit::Seconds), CPU, seconds)?;
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    page.gauge_in(Some(Unit::Seconds), START_TIME, started.as_secs_f64())?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (about, field) in [(RESIDENT, "VmRSS:"), (VIRTUAL, "VmSize:")] {
        if let Some(kibibytes) = number_of(&status, field) {
            page.gauge_in(Some(Unit::Bytes), about, kibibytes * 1024)?;
        }
    }
    if let Some(threads) = number_of(&status, "Threads:") {
        page.gauge(THREADS, threads)?;
    }
    if let Some(open) = descriptors() {
        page.gauge(OPEN_FDS, open)?;
    }
    match getrlimit(Resource::Nofile).current {
        Some(max) => page.gauge(MAX_FDS, max),
        None => Ok(()),
    }
}

/// The number behind a field's name in `/proc/self/status`.
fn number_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many descriptors are open. Linux tells since 6.2; before, they are counted.
fn descriptors() -> Option<u64> {
    match std::fs::metadata("/proc/self/fd").ok()?.len() {
        0 => u64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok(),
        open => Some(open),
    }
}

const BUILD: About = ("build", "The version that runs, and whether it was built for release.");
const CPU: About = ("cpu", "Processor time of all threads.");
const START_TIME: About = ("start_time", "When the process started, in Unix time.");
const RESIDENT: About = ("resident_memory", "Memory in use.");
const VIRTUAL: About = ("virtual_memory", "Address space in use.");
const THREADS: About = ("threads", "Threads.");
const OPEN_FDS: About = ("open_fds", "File descriptors in use.");
const MAX_FDS: About = ("max_fds", "File descriptors that may be in use.");
