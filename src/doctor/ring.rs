//! The kernel and io_uring: which driver the workers would get, and what stands in the way.

use super::host::{Host, Ring};
use super::{Finding, Subject};
use crate::config::DriverChoice;
use crate::worker::driver::COMPLETIONS_PER_ENTRY;

/// Whether the kernel is new enough for the best ring.
pub(super) fn kernel(host: &Host) -> Finding {
    const CHECK: &str = "kernel";
    let Some(version) = host.kernel() else {
        return Finding::unreadable(CHECK, "/proc/sys/kernel/osrelease");
    };
    let found = format!("Linux {}.{}", version.0, version.1);
    let lack = match version {
        _ if version >= DEFER_TASKRUN_SINCE => return Finding::ok(CHECK, found),
        _ if version >= COOP_TASKRUN_SINCE => "it has no deferred task work in io_uring",
        _ if version >= NETWORK_OPERATIONS_SINCE => "it has no cooperative task work in io_uring",
        _ => "its io_uring cannot send and receive; workers would run on epoll",
    };
    let advice = "Linux 6.1 or newer costs the least processor time per request";
    Finding::warn(CHECK, format!("{found}: {lack}"), advice)
}

/// Whether the system's administrator has switched io_uring off.
pub(super) fn disabled(host: &Host, subject: &Subject, ring: &Ring) -> Finding {
    const CHECK: &str = "kernel.io_uring_disabled";
    let who = match host.sysctl(SYSCTL_DISABLED).as_deref() {
        None => return Finding::ok(CHECK, "this kernel has no such switch"),
        Some("0") => return Finding::ok(CHECK, "0: everyone may use io_uring"),
        Some("1") if ring.best().is_some() => {
            return Finding::ok(CHECK, "1: this user is one of the few who may use io_uring");
        }
        Some("1") => "1: only kernel.io_uring_group and CAP_SYS_ADMIN may use io_uring",
        Some(_) => "2: nobody may use io_uring",
    };
    if subject.driver == DriverChoice::Epoll {
        return Finding::ok(CHECK, format!("{who}, and --driver epoll does not"));
    }
    Finding::warn(CHECK, who, "sysctl -w kernel.io_uring_disabled=0")
}

/// Whether a container's filter of system calls refuses rings.
pub(super) fn seccomp(host: &Host, ring: &Ring) -> Finding {
    const CHECK: &str = "seccomp";
    let mode = match host.status("Seccomp").as_deref() {
        None => return Finding::ok(CHECK, "this kernel has no seccomp"),
        Some("0") => return Finding::ok(CHECK, "no filter of system calls"),
        Some("1") => "strict mode",
        Some(_) => "a filter of system calls is in force",
    };
    let is_switched_off = host.sysctl(SYSCTL_DISABLED).is_some_and(|value| value != "0");
    if ring.best().is_some() {
        Finding::ok(CHECK, format!("{mode}, and lets io_uring_setup pass"))
    } else if is_switched_off {
        Finding::ok(CHECK, format!("{mode}; kernel.io_uring_disabled refuses first"))
    } else {
        Finding::warn(
            CHECK,
            format!("{mode}, and io_uring_setup is refused"),
            "allow io_uring_setup, io_uring_enter and io_uring_register in its profile (docker run \
             --security-opt seccomp=FILE)",
        )
    }
}

/// Which driver the workers get, and why not a better one.
pub(super) fn driver(subject: &Subject, ring: &Ring) -> Finding {
    const CHECK: &str = "driver";
    if subject.driver == DriverChoice::Epoll {
        return Finding::ok(CHECK, "epoll, as --driver asks");
    }
    let refused = ring.attempts.iter().filter_map(|attempt| {
        Some(format!("{} is refused ({})", attempt.name, attempt.refusal.as_ref()?.reason))
    });
    let refused: Vec<String> = refused.collect();
    match ring.best() {
        Some(best) if refused.is_empty() => Finding::ok(CHECK, best.name),
        Some(best) => {
            let found = format!("{}, since {}", best.name, refused.join(", "));
            Finding::warn(CHECK, found, "a newer kernel has the better ring")
        }
        None => {
            let refusal = ring.attempts.iter().find_map(|attempt| attempt.refusal.as_ref());
            let advice =
                refusal.map_or_else(|| "check the kernel".to_owned(), |it| it.advice.clone());
            match subject.driver {
                DriverChoice::Uring => Finding::fail(CHECK, "none: --driver uring", advice),
                DriverChoice::Auto | DriverChoice::Epoll => {
                    Finding::warn(CHECK, "epoll, since no ring can be had", advice)
                }
            }
        }
    }
}

/// Whether the kernel has every operation that workers put on a ring.
pub(super) fn operations(subject: &Subject, ring: &Ring) -> Finding {
    const CHECK: &str = "io_uring operations";
    if subject.driver == DriverChoice::Epoll {
        return Finding::ok(CHECK, "not needed with --driver epoll");
    }
    match ring.missing_operations.as_deref() {
        Some([]) => Finding::ok(CHECK, "all that workers use"),
        Some(missing) => Finding::fail(
            CHECK,
            format!("this kernel has no {}", missing.join(", ")),
            "use a newer kernel, or --driver epoll",
        ),
        None => Finding::warn(CHECK, "no ring to ask", "see driver"),
    }
}

/// Whether the rings fit in the memory that may be locked, where the kernel counts them there.
pub(super) fn locked_memory(host: &Host, subject: &Subject) -> Finding {
    const CHECK: &str = "RLIMIT_MEMLOCK";
    let Some((limit, _)) = host.limit("Max locked memory") else {
        return Finding::unreadable(CHECK, "/proc/self/limits");
    };
    let limit_text = if limit == u64::MAX { "unlimited".to_owned() } else { kibibytes(limit) };
    let is_uncounted = host.kernel().is_some_and(|version| version >= UNLOCKED_RINGS_SINCE);
    if is_uncounted || subject.driver == DriverChoice::Epoll {
        return Finding::ok(CHECK, format!("{limit_text}; rings are not counted in it here"));
    }
    let entry = SUBMISSION_BYTES + COMPLETION_BYTES * u64::from(COMPLETIONS_PER_ENTRY);
    let needed = u64::from(subject.ring_entries) * entry * subject.cores.len() as u64;
    if needed <= limit {
        return Finding::ok(CHECK, format!("{limit_text}; the rings take {}", kibibytes(needed)));
    }
    Finding::warn(
        CHECK,
        format!("{limit_text}, and the rings take {}", kibibytes(needed)),
        format!("ulimit -l {} (LimitMEMLOCK= in systemd), or lower --ring-entries", needed / 1024),
    )
}

fn kibibytes(bytes: u64) -> String {
    format!("{} KiB", bytes / 1024)
}

const SYSCTL_DISABLED: &str = "kernel.io_uring_disabled";
/// The kernels that first had what the rings of `worker::driver` ask for.
const DEFER_TASKRUN_SINCE: (u32, u32) = (6, 1);
const COOP_TASKRUN_SINCE: (u32, u32) = (5, 19);
const NETWORK_OPERATIONS_SINCE: (u32, u32) = (5, 6);
/// The kernel that first counted rings in the cgroup's memory instead of in locked memory.
const UNLOCKED_RINGS_SINCE: (u32, u32) = (5, 12);
/// The bytes of an entry of either queue, `struct io_uring_sqe` with its index, and `io_uring_cqe`.
const SUBMISSION_BYTES: u64 = 68;
const COMPLETION_BYTES: u64 = 16;
