//! Every check, well and not well, on files that the tests write.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::worker::driver::{Attempt, Refusal};

/// A root of files, removed at its end.
struct Root(PathBuf);

impl Root {
    fn with(files: &[(&str, &str)]) -> Root {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "corelane-doctor-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let root = Root(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&root.0).unwrap();
        for (path, text) in files {
            let path = root.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
        root
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn subject() -> Subject {
    Subject {
        cores: vec![0, 1],
        driver: DriverChoice::Auto,
        ring_entries: 4096,
        backlog: 4096,
        is_shared: false,
        client_conns_max: None,
    }
}

/// What the kernel said to each of two kinds of ring.
fn ring(refusals: [Option<&str>; 2]) -> Ring {
    let attempt = |(name, refusal): (&'static str, Option<&str>)| Attempt {
        name,
        refusal: refusal
            .map(|reason| Refusal { reason: reason.to_owned(), advice: "allow it".to_owned() }),
    };
    let missing_operations = refusals.contains(&None).then(Vec::new);
    let attempts = ["best ring", "plain ring"].into_iter().zip(refusals).map(attempt).collect();
    Ring { attempts, missing_operations }
}

const GRANTED: [Option<&str>; 2] = [None, None];
const REFUSED: [Option<&str>; 2] = [Some("not permitted"), Some("not permitted")];

/// Examines a machine with these files; the finding of `check` must have this level and contain
/// this text, in what was found or in the advice.
#[track_caller]
fn check_with(
    subject: &Subject,
    ring: &Ring,
    files: &[(&str, &str)],
    (check, level, text): (&str, Level, &str),
) {
    let root = Root::with(files);
    let report = examine(subject, &Host::at(root.0.clone()), ring);
    let finding = report.0.iter().find(|finding| finding.check == check);
    let finding = finding.unwrap_or_else(|| panic!("no {check} in\n{report}"));
    assert_eq!(finding.level, level, "{finding:?} of {files:?}");
    let advice = finding.advice.as_deref().unwrap_or_default();
    assert!(finding.found.contains(text) || advice.contains(text), "{text}: {finding:?}");
    assert_eq!(level == Level::Ok, finding.advice.is_none(), "{finding:?}");
}

/// The same for one file, the usual flags and every ring.
#[track_caller]
fn check(file: &str, rows: &[(&str, &str, Level, &str)]) {
    for (text, check, level, told) in rows {
        check_with(&subject(), &ring(GRANTED), &[(file, text)], (check, *level, told));
    }
}

const STATUS: &str = "proc/self/status";
const LIMITS: &str = "proc/self/limits";
const RELEASE: &str = "proc/sys/kernel/osrelease";
const DISABLED: &str = "proc/sys/kernel/io_uring_disabled";

#[test]
fn an_old_kernel_is_told_what_it_lacks() {
    check(
        RELEASE,
        &[
            ("6.1.0-13-amd64", "kernel", Level::Ok, "Linux 6.1"),
            ("7.0", "kernel", Level::Ok, "Linux 7.0"),
            ("6.0.9", "kernel", Level::Warn, "deferred"),
            ("5.15.0-91-generic", "kernel", Level::Warn, "cooperative"),
            ("5.4.0", "kernel", Level::Warn, "epoll"),
            ("unknown", "kernel", Level::Warn, "cannot be read"),
        ],
    );
}

#[test]
fn io_uring_is_found_switched_off() {
    const NAME: &str = "kernel.io_uring_disabled";
    for (value, refusals, driver, level, told) in [
        (Some("0"), GRANTED, DriverChoice::Auto, Level::Ok, "everyone"),
        (Some("1"), GRANTED, DriverChoice::Auto, Level::Ok, "this user"),
        (Some("1"), REFUSED, DriverChoice::Auto, Level::Warn, "io_uring_group"),
        (Some("2"), REFUSED, DriverChoice::Uring, Level::Warn, "sysctl -w"),
        (Some("2"), REFUSED, DriverChoice::Epoll, Level::Ok, "--driver epoll"),
        (None, GRANTED, DriverChoice::Auto, Level::Ok, "no such switch"),
    ] {
        let files: Vec<_> = value.map(|value| (DISABLED, value)).into_iter().collect();
        let subject = Subject { driver, ..subject() };
        check_with(&subject, &ring(refusals), &files, (NAME, level, told));
    }
}

#[test]
fn a_filter_of_system_calls_is_found_guilty_only_where_it_refuses_rings() {
    for (seccomp, disabled, refusals, level, told) in [
        ("0", "0", REFUSED, Level::Ok, "no filter"),
        ("2", "0", GRANTED, Level::Ok, "lets io_uring_setup pass"),
        ("2", "0", REFUSED, Level::Warn, "--security-opt"),
        ("2", "2", REFUSED, Level::Ok, "refuses first"),
    ] {
        let status = format!("Name:\tx\nSeccomp:\t{seccomp}\nSeccomp_filters:\t1");
        let files = [(STATUS, status.as_str()), (DISABLED, disabled)];
        check_with(&subject(), &ring(refusals), &files, ("seccomp", level, told));
    }
}

#[test]
fn the_driver_that_wins_is_named_with_why() {
    for (driver, refusals, level, told) in [
        (DriverChoice::Auto, GRANTED, Level::Ok, "best ring"),
        (DriverChoice::Auto, [Some("invalid"), None], Level::Warn, "plain ring, since best ring"),
        (DriverChoice::Auto, REFUSED, Level::Warn, "allow it"),
        (DriverChoice::Uring, REFUSED, Level::Fail, "allow it"),
        (DriverChoice::Epoll, REFUSED, Level::Ok, "as --driver asks"),
    ] {
        let subject = Subject { driver, ..subject() };
        check_with(&subject, &ring(refusals), &[], ("driver", level, told));
    }
}

#[test]
fn operations_that_the_kernel_lacks_are_named() {
    let lacking = Ring { missing_operations: Some(vec!["IORING_OP_SEND"]), ..ring(GRANTED) };
    const NAME: &str = "io_uring operations";
    check_with(&subject(), &ring(GRANTED), &[], (NAME, Level::Ok, "all"));
    check_with(&subject(), &lacking, &[], (NAME, Level::Fail, "IORING_OP_SEND"));
    check_with(&subject(), &ring(REFUSED), &[], (NAME, Level::Warn, "no ring"));
}

#[test]
fn locked_memory_matters_to_old_kernels_alone() {
    const NAME: &str = "RLIMIT_MEMLOCK";
    let limits = |soft: &str| format!("Max locked memory         {soft}     {soft}     bytes");
    for (release, soft, level, told) in [
        ("6.1.0", "65536", Level::Ok, "not counted"),
        ("5.10.0", "65536", Level::Warn, "ulimit -l 1056"),
        ("5.10.0", "8388608", Level::Ok, "8192 KiB"),
        ("5.10.0", "unlimited", Level::Ok, "unlimited"),
    ] {
        let limits = limits(soft);
        let files = [(RELEASE, release), (LIMITS, limits.as_str())];
        check_with(&subject(), &ring(GRANTED), &files, (NAME, level, told));
    }
    check_with(&subject(), &ring(GRANTED), &[], (NAME, Level::Warn, "cannot be read"));
}

#[test]
fn descriptors_are_held_against_the_clients_asked_for() {
    for (hard, clients, level, told) in [
        ("1048576", None, Level::Ok, "524256 clients"),
        ("4096", None, Level::Warn, "ulimit -n 8256"),
        ("20000", Some(9000), Level::Ok, "--client-conns-max 9000"),
        ("20000", Some(10_000), Level::Warn, "LimitNOFILE"),
        ("128", None, Level::Fail, "ulimit -n"),
    ] {
        let limits = format!("Limit   Soft  Hard  Units\nMax open files   1024   {hard}   files");
        let subject = Subject { client_conns_max: clients, ..subject() };
        let expected = ("RLIMIT_NOFILE", level, told);
        check_with(&subject, &ring(GRANTED), &[(LIMITS, &limits)], expected);
    }
}

#[test]
fn queues_of_the_kernel_are_held_against_the_backlog() {
    const SOMAXCONN: &str = "net.core.somaxconn";
    check(
        "proc/sys/net/core/somaxconn",
        &[
            ("4096", SOMAXCONN, Level::Ok, "--backlog 4096"),
            ("128", SOMAXCONN, Level::Warn, "sysctl -w net.core.somaxconn=4096"),
            ("", SOMAXCONN, Level::Warn, "cannot be read"),
        ],
    );
    const SYN: &str = "net.ipv4.tcp_max_syn_backlog";
    for (max, cookies, level, told) in [
        ("128", "1", Level::Ok, "limits nothing"),
        ("4096", "0", Level::Ok, "4096"),
        ("128", "0", Level::Warn, "tcp_syncookies=1"),
    ] {
        let files = [
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", max),
            ("proc/sys/net/ipv4/tcp_syncookies", cookies),
        ];
        check_with(&subject(), &ring(GRANTED), &files, (SYN, level, told));
    }
}

#[test]
fn ports_are_held_against_the_clients_asked_for() {
    const NAME: &str = "net.ipv4.ip_local_port_range";
    for (range, clients, level, told) in [
        ("32768\t60999", None, Level::Ok, "28232 connections"),
        ("60000\t60999", None, Level::Warn, "1024 65535"),
        ("32768\t60999", Some(30_000), Level::Warn, "30000 clients"),
        ("1024\t65535", Some(1_000_000), Level::Ok, "64512"),
        ("all", None, Level::Warn, "cannot be read"),
    ] {
        let subject = Subject { client_conns_max: clients, ..subject() };
        let files = [("proc/sys/net/ipv4/ip_local_port_range", range)];
        check_with(&subject, &ring(GRANTED), &files, (NAME, level, told));
    }
    const REUSE: &str = "net.ipv4.tcp_tw_reuse";
    check(
        "proc/sys/net/ipv4/tcp_tw_reuse",
        &[
            ("1", REUSE, Level::Ok, "after 1 s"),
            ("2", REUSE, Level::Ok, "on this machine"),
            ("0", REUSE, Level::Warn, "sysctl -w"),
        ],
    );
}

#[test]
fn migration_of_waiting_connections_matters_to_shared_addresses_alone() {
    for (value, is_shared, level, told) in [
        (Some("1"), true, Level::Ok, "takes over"),
        (Some("0"), false, Level::Ok, "--reuse-port-with-others"),
        (Some("0"), true, Level::Warn, "sysctl -w"),
        (None, true, Level::Warn, "5.14"),
    ] {
        let file = "proc/sys/net/ipv4/tcp_migrate_req";
        let files: Vec<_> = value.map(|value| (file, value)).into_iter().collect();
        let subject = Subject { is_shared, ..subject() };
        let expected = ("net.ipv4.tcp_migrate_req", level, told);
        check_with(&subject, &ring(GRANTED), &files, expected);
    }
    const CONGESTION: &str = "net.ipv4.tcp_congestion_control";
    check(
        "proc/sys/net/ipv4/tcp_congestion_control",
        &[("cubic", CONGESTION, Level::Ok, "cubic"), ("reno", CONGESTION, Level::Warn, "=cubic")],
    );
}

#[test]
fn workers_need_cores_that_are_allowed() {
    const NAME: &str = "cpu affinity";
    check(
        STATUS,
        &[
            ("Cpus_allowed_list:\t0-3", NAME, Level::Ok, "0-3"),
            ("Cpus_allowed_list:\t0,2-3", NAME, Level::Fail, "core 1 is not"),
            ("Cpus_allowed_list:\tall", NAME, Level::Warn, "no list"),
            ("Name:\tx", NAME, Level::Warn, "cannot be read"),
        ],
    );
    let many = Subject { cores: (0..12).collect(), ..subject() };
    let told = ("workers", Level::Ok, "12: 0 on core 0, ");
    check_with(&many, &ring(GRANTED), &[], told);
    let none = Subject { cores: Vec::new(), ..subject() };
    check_with(&none, &ring(GRANTED), &[], ("workers", Level::Fail, "--cores"));
}

#[test]
fn the_least_quota_of_the_cgroups_above_counts() {
    const NAME: &str = "cpu quota";
    let v2 = |inner: &str, outer: &str, level, told: &str| {
        let files = [
            ("proc/self/cgroup", "0::/a.slice/b"),
            ("sys/fs/cgroup/a.slice/b/cpu.max", inner),
            ("sys/fs/cgroup/a.slice/cpu.max", outer),
        ];
        check_with(&subject(), &ring(GRANTED), &files, (NAME, level, told));
    };
    v2("max 100000", "max 100000", Level::Ok, "none");
    v2("max 100000", "150000 100000", Level::Warn, "1.50 cores for 2 workers");
    v2("50000 100000", "max 100000", Level::Warn, "--workers 1");
    v2("200000 100000", "400000 100000", Level::Ok, "2.00 cores");
    for (quota, level, told) in
        [("-1", Level::Ok, "none"), ("50000", Level::Warn, "0.50 cores"), ("x", Level::Ok, "none")]
    {
        let files = [
            ("proc/self/cgroup", "2:pids:/\n1:cpu,cpuacct:/docker/x"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", quota),
            ("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000"),
        ];
        check_with(&subject(), &ring(GRANTED), &files, (NAME, level, told));
    }
}

#[test]
fn workers_on_one_core_or_two_nodes_are_pointed_out() {
    const THREADS: &str = "hyper-threads";
    let [cpu0, cpu1, cpu2] =
        [0, 1, 2].map(|id| format!("sys/devices/system/cpu/cpu{id}/topology/thread_siblings_list"));
    let apart = [(cpu0.as_str(), "0,2"), (cpu1.as_str(), "1,3")];
    check_with(&subject(), &ring(GRANTED), &apart, (THREADS, Level::Ok, "without its siblings"));
    let alone = [(cpu0.as_str(), "0"), (cpu1.as_str(), "1")];
    check_with(&subject(), &ring(GRANTED), &alone, (THREADS, Level::Ok, "none"));
    let three = Subject { cores: vec![0, 1, 2], ..subject() };
    let shared = [(cpu0.as_str(), "0-1"), (cpu1.as_str(), "0-1"), (cpu2.as_str(), "2-3")];
    check_with(&three, &ring(GRANTED), &shared, (THREADS, Level::Warn, "--cores 0,2"));

    const NODES: &str = "numa nodes";
    let nodes = |online, first, second| {
        [
            ("sys/devices/system/node/online", online),
            ("sys/devices/system/node/node0/cpulist", first),
            ("sys/devices/system/node/node1/cpulist", second),
        ]
    };
    let one = nodes("0-1", "0-7", "8-15");
    check_with(&subject(), &ring(GRANTED), &one, (NODES, Level::Ok, "node 0 of 2"));
    let both = nodes("0-1", "0", "1");
    check_with(&subject(), &ring(GRANTED), &both, (NODES, Level::Warn, "--cores 0"));
    check_with(&subject(), &ring(GRANTED), &[], (NODES, Level::Ok, "one is assumed"));
}

#[test]
fn huge_pages_matter_where_they_are_not_off_for_corelane() {
    const NAME: &str = "transparent huge pages";
    for (enabled, here, level, told) in [
        ("always [madvise] never", "1", Level::Ok, "madvise"),
        ("[always] madvise never", "0", Level::Ok, "off for corelane"),
        ("[always] madvise never", "1", Level::Warn, "echo madvise"),
    ] {
        let status = format!("THP_enabled:\t{here}");
        let files =
            [("sys/kernel/mm/transparent_hugepage/enabled", enabled), (STATUS, status.as_str())];
        check_with(&subject(), &ring(GRANTED), &files, (NAME, level, told));
    }
    check_with(&subject(), &ring(GRANTED), &[], ("allocator", Level::Ok, "mimalloc "));
}

#[test]
fn a_container_is_known_by_what_its_runtime_leaves_behind() {
    for (file, text, told) in [
        (".dockerenv", "", "Docker"),
        ("run/.containerenv", "", "Podman"),
        ("var/run/secrets/kubernetes.io/x", "", "Kubernetes"),
        ("proc/1/cgroup", "0::/kubepods/x", "Kubernetes"),
        ("proc/1/cgroup", "0::/init.scope", "none"),
    ] {
        check(file, &[(text, "container", Level::Ok, told)]);
    }
}

#[test]
fn the_exit_code_and_the_json_tell_what_fails() {
    let warn = Finding::warn("a", "b", "c");
    let report = Report(vec![Finding::ok("fine", "d"), warn.clone()]);
    assert_eq!(report.exit_code(), 0);
    assert_eq!(report.to_string().lines().nth(1), Some("warn  a     b; c"));
    let report = Report(vec![warn, Finding::fail("e", "f", "g")]);
    assert_eq!(report.exit_code(), 71);
    let json = report.to_json();
    assert_eq!((&json["warn"], &json["fail"]), (&1.into(), &1.into()));
    assert_eq!(json["checks"][1]["advice"], "g");
    assert!(json["checks"][0]["found"] == "b" && report.0.len() == 2);
}

#[test]
fn a_real_kernel_is_asked_for_rings() {
    let ring = Ring::probe(std::num::NonZeroU32::new(64).unwrap());
    assert_eq!(ring.attempts.len(), 3);
    // Where rings can be had, this kernel has what the tests of this machine run on.
    if ring.best().is_some() {
        assert_eq!(ring.missing_operations.as_deref(), Some(&[][..]));
    }
}
