//! Memory, and the container around the process if there is one.

use super::Finding;
use super::host::Host;

/// Whether huge pages could keep memory that clients no longer need.
pub(super) fn huge_pages(host: &Host) -> Finding {
    const CHECK: &str = "transparent huge pages";
    let Some(text) = host.read("sys/kernel/mm/transparent_hugepage/enabled") else {
        return Finding::ok(CHECK, "this kernel has none");
    };
    let chosen = text.split(['[', ']']).nth(1).unwrap_or(&text);
    let is_off_here = host.status("THP_enabled").is_some_and(|value| value == "0");
    if chosen != "always" || is_off_here {
        let here = if is_off_here { ", and off for corelane" } else { "" };
        return Finding::ok(CHECK, format!("{chosen}{here}"));
    }
    Finding::warn(
        CHECK,
        "always: an idle client may keep 2 MiB alive",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    )
}

/// Which allocator is in use, and whether the environment changes what it does.
pub(super) fn allocator() -> Finding {
    const CHECK: &str = "allocator";
    let version = crate::sys::allocator_version();
    let found = format!("mimalloc {}.{}.{}", version / 10_000, version / 100 % 100, version % 100);
    let set: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.to_ascii_lowercase().starts_with("mimalloc_"))
        .collect();
    if set.is_empty() {
        return Finding::ok(CHECK, found);
    }
    let advice = "unset it, unless you have measured it";
    Finding::warn(CHECK, format!("{found}, with {} set", set.join(", ")), advice)
}

/// Which container this is, by what container runtimes leave behind.
pub(super) fn container(host: &Host) -> Finding {
    const CHECK: &str = "container";
    let groups = host.read("proc/1/cgroup").unwrap_or_default();
    let by_group = [("kubepods", "Kubernetes"), ("docker", "Docker"), ("lxc", "LXC")];
    let kind = if host.has("var/run/secrets/kubernetes.io") {
        Some("Kubernetes")
    } else if host.has("run/.containerenv") {
        Some("Podman")
    } else if host.has(".dockerenv") {
        Some("Docker")
    } else {
        by_group.iter().find(|(mark, _)| groups.contains(mark)).map(|(_, kind)| *kind)
    };
    match kind {
        None => Finding::ok(CHECK, "none"),
        Some("Docker") => Finding::ok(
            CHECK,
            "Docker: set net.* settings by --sysctl, limits by --ulimit; --network host saves a hop",
        ),
        Some(kind) => {
            Finding::ok(CHECK, format!("{kind}: net.* settings are those of its own network"))
        }
    }
}
