//! The cores: whether each worker really has one to itself, and near to the others.

use super::host::{Host, names, ranges_of};
use super::{Finding, Subject};

/// Which worker runs where.
pub(super) fn map(subject: &Subject) -> Finding {
    const CHECK: &str = "workers";
    let workers = subject.cores.iter().enumerate();
    let mut pairs: Vec<String> =
        workers.map(|(worker, core)| format!("{worker} on core {core}")).take(PAIRS_MAX).collect();
    if subject.cores.len() > PAIRS_MAX {
        pairs.push(format!("and {} more", subject.cores.len() - PAIRS_MAX));
    }
    if pairs.is_empty() {
        let advice = "name some by --cores";
        return Finding::fail(CHECK, "none: the allowed cores cannot be told", advice);
    }
    Finding::ok(CHECK, format!("{}: {}", subject.cores.len(), pairs.join(", ")))
}

/// Whether the workers leave cores unused that they may run on, or want others.
pub(super) fn allowed(host: &Host, subject: &Subject) -> Finding {
    const CHECK: &str = "cpu affinity";
    let Some(list) = host.status("Cpus_allowed_list") else {
        return Finding::unreadable(CHECK, "/proc/self/status");
    };
    let Some(ranges) = ranges_of(&list) else {
        return Finding::warn(CHECK, format!("{list:?} is no list"), "name cores by --cores");
    };
    if let Some(core) = subject.cores.iter().find(|core| !names(&ranges, **core)) {
        return Finding::fail(
            CHECK,
            format!("core {core} is not among the allowed ones, {list}"),
            "choose other --cores, or allow it (taskset -p $$, cpuset of the cgroup)",
        );
    }
    let online = host.read("sys/devices/system/cpu/online").unwrap_or_else(|| list.clone());
    if online == list {
        return Finding::ok(CHECK, format!("all cores, {list}"));
    }
    Finding::ok(CHECK, format!("cores {list} of {online}"))
}

/// Whether the cgroup gives the workers as much time as their cores have.
pub(super) fn quota(host: &Host, subject: &Subject) -> Finding {
    const CHECK: &str = "cpu quota";
    let Some(cores) = quota_of(host) else {
        return Finding::ok(CHECK, "none in this cgroup");
    };
    let workers = subject.cores.len();
    // At most 512 workers: exact as a floating-point number.
    if cores >= workers as f64 {
        return Finding::ok(CHECK, format!("{cores:.2} cores for {workers} workers"));
    }
    let whole = cores.floor().max(1.0);
    Finding::warn(
        CHECK,
        format!("{cores:.2} cores for {workers} workers, which are stopped when it is used up"),
        format!("raise the quota (cpu.max, docker run --cpus), or --workers {whole}"),
    )
}

/// The least quota on the way from this process' cgroup to the root, in cores.
fn quota_of(host: &Host) -> Option<f64> {
    let groups = host.read("proc/self/cgroup")?;
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let is_v1 = controllers.split(',').any(|name| name == "cpu");
        if !is_v1 && !controllers.is_empty() {
            continue;
        }
        let mut path = path.trim_matches('/');
        loop {
            let quota = if is_v1 { quota_v1(host, path) } else { quota_v2(host, path) };
            least = match (least, quota) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            if path.is_empty() {
                break;
            }
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
    least
}

/// `cpu.max` is `QUOTA PERIOD` in µs, or `max PERIOD`.
fn quota_v2(host: &Host, path: &str) -> Option<f64> {
    let text = host.read(&format!("sys/fs/cgroup/{path}/cpu.max"))?;
    let (quota, period) = text.split_once(' ')?;
    share(quota, period)
}

/// The same in two files; a quota of -1 is none.
fn quota_v1(host: &Host, path: &str) -> Option<f64> {
    let read = |name: &str| {
        let mounts = ["cpu", "cpu,cpuacct"];
        mounts.iter().find_map(|mount| host.read(&format!("sys/fs/cgroup/{mount}/{path}/{name}")))
    };
    share(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?)
}

fn share(quota: &str, period: &str) -> Option<f64> {
    let quota: f64 = quota.parse().ok()?;
    let period: f64 = period.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// Whether two workers share one core's units, as hyper-threads do.
pub(super) fn siblings(host: &Host, subject: &Subject) -> Finding {
    const CHECK: &str = "hyper-threads";
    let mut taken: Vec<(usize, usize)> = Vec::new();
    let mut first_of_each = Vec::new();
    let mut shared = None;
    for core in &subject.cores {
        let path = format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        let list = host.read(&path).and_then(|list| ranges_of(&list)).unwrap_or_default();
        match taken.iter().find(|(other, _)| names(&list, *other)) {
            Some((other, _)) => shared = shared.or(Some((*other, *core))),
            None => first_of_each.push(core.to_string()),
        }
        let siblings = list.iter().map(|range| range.clone().count()).sum::<usize>();
        taken.push((*core, siblings));
    }
    match shared {
        Some((one, other)) => Finding::warn(
            CHECK,
            format!("workers on {one} and {other} share one core"),
            format!(
                "one worker a core is steadier: --cores {}; measure both",
                first_of_each.join(",")
            ),
        ),
        None if taken.iter().any(|(_, siblings)| *siblings > 1) => {
            Finding::ok(CHECK, "each worker has a core of its own, without its siblings")
        }
        None => Finding::ok(CHECK, "none"),
    }
}

/// Whether the workers' cores lie in one NUMA node.
pub(super) fn nodes(host: &Host, subject: &Subject) -> Finding {
    const CHECK: &str = "numa nodes";
    let online = host.read("sys/devices/system/node/online").unwrap_or_else(|| "0".to_owned());
    let online = ranges_of(&online).unwrap_or_default();
    let mut used = Vec::new();
    for node in online.iter().cloned().flatten() {
        let list = host.read(&format!("sys/devices/system/node/node{node}/cpulist"));
        let Some(list) = list else { continue };
        let cores = ranges_of(&list).unwrap_or_default();
        if subject.cores.iter().any(|core| names(&cores, *core)) {
            used.push((node, list));
        }
    }
    let count = online.iter().map(|range| range.clone().count()).sum::<usize>();
    match used.as_slice() {
        [] => Finding::ok(CHECK, "not told; one is assumed"),
        [(node, _)] => Finding::ok(CHECK, format!("all workers on node {node} of {count}")),
        [(_, cores), ..] => Finding::warn(
            CHECK,
            format!("workers on {} of {count} nodes share counters across them", used.len()),
            format!("run one process a node, the first with --cores {cores}"),
        ),
    }
}

/// The most workers that are named one by one.
const PAIRS_MAX: usize = 8;
