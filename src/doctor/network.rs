//! The kernel's limits of connections: descriptors, queues and ports.

use super::host::Host;
use super::{Finding, Subject};
use crate::config::DESCRIPTORS_RESERVED;

/// Whether there are descriptors for the clients asked for, each with a backend's connection.
pub(super) fn open_files(host: &Host, subject: &Subject) -> Finding {
    const CHECK: &str = "RLIMIT_NOFILE";
    let Some((soft, hard)) = host.limit("Max open files") else {
        return Finding::unreadable(CHECK, "/proc/self/limits");
    };
    let found = match soft == hard {
        true => soft.to_string(),
        false => format!("{soft}, which corelane raises to {hard}"),
    };
    let reserved = DESCRIPTORS_RESERVED as u64;
    let clients = hard.saturating_sub(reserved) / 2;
    let wanted = u64::from(subject.client_conns_max.unwrap_or(CLIENTS_WANTED));
    let advice = format!("ulimit -n {} (LimitNOFILE= in systemd)", wanted * 2 + reserved);
    match subject.client_conns_max {
        _ if hard <= reserved * 2 => Finding::fail(CHECK, found, advice),
        Some(_) if clients >= wanted => {
            Finding::ok(CHECK, format!("{found}: enough for --client-conns-max {wanted}"))
        }
        Some(_) => Finding::warn(
            CHECK,
            format!("{found}: {clients} clients with a backend each, not {wanted}"),
            advice,
        ),
        None if clients >= wanted => {
            Finding::ok(CHECK, format!("{found}: at most {clients} clients by default"))
        }
        None => {
            Finding::warn(CHECK, format!("{found}: at most {clients} clients by default"), advice)
        }
    }
}

/// Whether the kernel holds as many connections until they are accepted as it is asked to.
pub(super) fn accept_queue(host: &Host, subject: &Subject) -> Finding {
    const NAME: &str = "net.core.somaxconn";
    let Some(max) = host.sysctl_number(NAME) else {
        return Finding::unreadable(NAME, "/proc/sys/net/core/somaxconn");
    };
    let backlog = subject.backlog;
    if max >= u64::from(backlog) {
        return Finding::ok(NAME, format!("{max}, for --backlog {backlog}"));
    }
    Finding::warn(
        NAME,
        format!("{max} cuts --backlog {backlog}: clients beyond it wait for a second or more"),
        format!("sysctl -w net.core.somaxconn={backlog}"),
    )
}

/// Whether handshakes under way are limited further than by the backlog.
pub(super) fn handshakes(host: &Host, subject: &Subject) -> Finding {
    const NAME: &str = "net.ipv4.tcp_max_syn_backlog";
    let Some(max) = host.sysctl_number(NAME) else {
        return Finding::unreadable(NAME, "/proc/sys/net/ipv4/tcp_max_syn_backlog");
    };
    let has_cookies = host.sysctl_number("net.ipv4.tcp_syncookies").is_some_and(|value| value > 0);
    let backlog = subject.backlog;
    if has_cookies {
        Finding::ok(NAME, format!("{max}; it limits nothing while tcp_syncookies is on"))
    } else if max >= u64::from(backlog) {
        Finding::ok(NAME, format!("{max}, for --backlog {backlog}"))
    } else {
        Finding::warn(
            NAME,
            format!("{max} is less than --backlog {backlog}, and tcp_syncookies is off"),
            format!(
                "sysctl -w net.ipv4.tcp_syncookies=1, or net.ipv4.tcp_max_syn_backlog={backlog}"
            ),
        )
    }
}

/// Whether there are ports for a connection of each client to one backend.
pub(super) fn ports(host: &Host, subject: &Subject) -> Finding {
    const NAME: &str = "net.ipv4.ip_local_port_range";
    let ports = host.sysctl(NAME).and_then(|range| {
        let mut ends = range.split_whitespace().map(|end| end.parse::<u64>().ok());
        let (first, last) = (ends.next()??, ends.next()??);
        Some((range, (last + 1).saturating_sub(first)))
    });
    let Some((range, ports)) = ports else {
        return Finding::unreadable(NAME, "/proc/sys/net/ipv4/ip_local_port_range");
    };
    let found = format!("{}: {ports} connections to one backend", range.replace('\t', " to "));
    let clients = subject.client_conns_max.map_or(PORTS_WANTED, u64::from);
    if ports >= clients.min(PORTS_LIMIT) {
        return Finding::ok(NAME, found);
    }
    Finding::warn(
        NAME,
        format!("{found}, fewer than {clients} clients may need"),
        "sysctl -w net.ipv4.ip_local_port_range='1024 65535', and keep the ports of services out \
         of it by net.ipv4.ip_local_reserved_ports",
    )
}

/// Whether the ports of closed connections to backends can be used again at once.
pub(super) fn reuse_of_ports(host: &Host) -> Finding {
    const NAME: &str = "net.ipv4.tcp_tw_reuse";
    match host.sysctl(NAME).as_deref() {
        None => Finding::unreadable(NAME, "/proc/sys/net/ipv4/tcp_tw_reuse"),
        Some("1") => Finding::ok(NAME, "1: ports of closed connections are used again after 1 s"),
        Some("2") => Finding::ok(
            NAME,
            "2: the same to backends on this machine alone; with many short connections to others, \
             1 keeps ports from running out",
        ),
        Some(value) => Finding::warn(
            NAME,
            format!("{value}: the port of a connection that corelane closed lies idle for 60 s"),
            "sysctl -w net.ipv4.tcp_tw_reuse=1",
        ),
    }
}

/// Whether connections in the queue of a listener that closes go to another process' listener.
pub(super) fn migration(host: &Host, subject: &Subject) -> Finding {
    const NAME: &str = "net.ipv4.tcp_migrate_req";
    let value = host.sysctl(NAME);
    match (value.as_deref(), subject.is_shared) {
        (Some("1"), _) => Finding::ok(NAME, "1: a successor takes over what is not yet accepted"),
        (_, false) => Finding::ok(NAME, "off; it matters with --reuse-port-with-others alone"),
        (Some(_), true) => Finding::warn(
            NAME,
            "0: what one process has not accepted when it ends is reset, not left to the others",
            "sysctl -w net.ipv4.tcp_migrate_req=1",
        ),
        (None, true) => Finding::warn(
            NAME,
            "this kernel has none: what one process has not accepted when it ends is reset",
            "use Linux 5.14 or newer",
        ),
    }
}

/// What paces the connections.
pub(super) fn congestion(host: &Host) -> Finding {
    const NAME: &str = "net.ipv4.tcp_congestion_control";
    match host.sysctl(NAME).as_deref() {
        None => Finding::unreadable(NAME, "/proc/sys/net/ipv4/tcp_congestion_control"),
        Some("reno") => Finding::warn(
            NAME,
            "reno: slow on long or lossy ways",
            "sysctl -w net.ipv4.tcp_congestion_control=cubic",
        ),
        Some(name) => Finding::ok(NAME, name),
    }
}

/// The clients that a load balancer should be able to have where no number is asked for.
const CLIENTS_WANTED: u32 = 4096;
/// The connections to one backend that should be possible where no number of clients is asked for.
const PORTS_WANTED: u64 = 16_384;
/// More ports than these cannot be had.
const PORTS_LIMIT: u64 = 64_512;
