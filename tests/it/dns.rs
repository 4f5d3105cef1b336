//! Backends by DNS: a server whose answers change, are empty, fail, lie and are too large.
//!
//! The source is asked directly, on a thread of its own; what the proxy makes of its sets is tested
//! at the end.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use corelane::config::{DiscoveryConfig, DnsConfig, DnsRecords, ResolverConfig};

use crate::support::dns::{A, AAAA, DnsServer, Reply, SRV, addresses, data_of, srv};
use crate::support::load::{Fate, Load, Reuse};
use crate::support::proxy::Flags;
use crate::support::servers::Server;
use crate::support::source::Source;
use crate::support::{SOON, wait_until};

const NAME: &str = "app.test";
const TTL_MIN: Duration = Duration::from_millis(100);

fn start(records: DnsRecords, server: &DnsServer) -> Source {
    with_ttl_max(records, server, TTL_MIN)
}

fn with_ttl_max(records: DnsRecords, server: &DnsServer, ttl_max: Duration) -> Source {
    let name = DnsConfig {
        name: format!("{NAME}."),
        records,
        pool: "default".to_owned(),
        conns_max: None,
    };
    let resolver = ResolverConfig { servers: vec![server.addr], ttl_min: TTL_MIN, ttl_max };
    Source::start(&DiscoveryConfig { dns: vec![name], resolver, etcd: None })
}

/// Waits until it has asked some times more; nothing may come of it.
#[track_caller]
fn expect_no_change(source: &mut Source, server: &DnsServer, kind: u16) {
    let (told, count) = (source.told().to_vec(), source.count);
    let asked = server.asked(NAME, kind);
    wait_until("it asks again", SOON * 2, || server.asked(NAME, kind) >= asked + 3);
    assert_eq!((source.told().to_vec(), source.count), (told, count));
}

fn plain() -> DnsRecords {
    DnsRecords::Addresses { port: 80, weight: NonZeroU16::new(2).unwrap(), is_backup: false }
}

#[test]
fn addresses_of_both_families_are_backends_and_follow_each_change() {
    let server = DnsServer::start();
    server.set(NAME, A, addresses(0, &["10.0.0.1"]));
    let mut source = start(plain(), &server);
    source.expect(&["10.0.0.1:80 2"]);
    server.set(NAME, AAAA, addresses(0, &["fd00::1"]));
    source.expect(&["10.0.0.1:80 2", "[fd00::1]:80 2"]);
    server.set(NAME, A, addresses(0, &["10.0.0.3", "10.0.0.2"]));
    source.expect(&["10.0.0.2:80 2", "10.0.0.3:80 2", "[fd00::1]:80 2"]);
    server.set(NAME, A, Reply::Empty);
    source.expect(&["[fd00::1]:80 2"]);
}

#[test]
fn the_order_of_an_answer_is_no_change() {
    let server = DnsServer::start();
    server.set(NAME, A, addresses(0, &["10.0.0.1", "10.0.0.2"]));
    let mut source = start(plain(), &server);
    source.expect(&["10.0.0.1:80 2", "10.0.0.2:80 2"]);
    server.set(NAME, A, addresses(0, &["10.0.0.2", "10.0.0.1", "10.0.0.2"]));
    expect_no_change(&mut source, &server, A);
}

#[test]
fn answers_that_are_empty_failed_or_broken_keep_the_last_set_and_the_next_good_one_counts() {
    let too_many: Vec<_> =
        (0..300_u16).map(|n| [10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]].to_vec()).collect();
    let cases = [
        ("empty", Reply::Empty),
        ("no such name", Reply::Code(3)),
        ("SERVFAIL", Reply::Code(2)),
        ("REFUSED", Reply::Code(5)),
        ("garbage", Reply::Garbage),
        ("another id", Reply::WrongId),
        ("data of a wrong length", Reply::Records(0, vec![vec![1, 2, 3]])),
        ("too many", Reply::Truncated(0, too_many)),
    ];
    let threads = cases.map(|(what, reply)| {
        std::thread::spawn(move || {
            let server = DnsServer::start();
            server.set(NAME, A, addresses(0, &["10.0.0.1"]));
            let mut source = start(plain(), &server);
            source.expect(&["10.0.0.1:80 2"]);
            server.set(NAME, A, reply);
            expect_no_change(&mut source, &server, A);
            server.set(NAME, A, addresses(0, &["10.0.0.2"]));
            let took = wait_until(what, SOON, || source.told() == ["10.0.0.2:80 2"]);
            assert!(took < Duration::from_secs(8), "{what}: {took:?}");
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_silent_server_keeps_the_last_set_and_is_asked_again() {
    let server = DnsServer::start();
    server.set(NAME, A, addresses(0, &["10.0.0.1"]));
    server.set(NAME, AAAA, addresses(0, &["fd00::1"]));
    let mut source = start(plain(), &server);
    source.expect(&["10.0.0.1:80 2", "[fd00::1]:80 2"]);
    // The family that is silent keeps its addresses while the other goes on.
    server.set(NAME, AAAA, Reply::Silent);
    server.set(NAME, A, addresses(0, &["10.0.0.2"]));
    wait_until("the other family changes", SOON, || {
        source.told() == ["10.0.0.2:80 2", "[fd00::1]:80 2"]
    });
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let server = DnsServer::start();
    let many: Vec<String> = (0..200).map(|n| format!("10.0.1.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    server.set(NAME, A, Reply::Truncated(0, data_of(&many)));
    let mut source = start(plain(), &server);
    wait_until("all are told", SOON, || source.told().len() == 200);
}

#[test]
fn a_ttl_of_nothing_does_not_hurry_and_a_huge_one_does_not_delay() {
    let server = DnsServer::start();
    server.set(NAME, A, addresses(0, &["10.0.0.1"]));
    let mut source = start(plain(), &server);
    source.expect(&["10.0.0.1:80 2"]);
    let (asked, since) = (server.asked(NAME, A), Instant::now());
    wait_until("some time passes", SOON, || since.elapsed() > Duration::from_secs(1));
    let most = since.elapsed().as_millis() / 75 + 2;
    let asked = server.asked(NAME, A) - asked;
    assert!(asked as u128 <= most, "{asked} times, with at least 75 ms between two");
    for huge in [u32::MAX, 1 << 30] {
        server.set(NAME, A, addresses(huge, &["10.0.0.2"]));
        source.expect(&["10.0.0.2:80 2"]);
        server.set(NAME, A, addresses(huge, &["10.0.0.1"]));
        source.expect(&["10.0.0.1:80 2"]);
    }
}

#[test]
fn a_ttl_within_the_bounds_is_kept_to() {
    let server = DnsServer::start();
    server.set(NAME, A, addresses(3600, &["10.0.0.1"]));
    let mut source = with_ttl_max(plain(), &server, Duration::from_secs(7200));
    source.expect(&["10.0.0.1:80 2"]);
    let since = Instant::now();
    wait_until("some time passes", SOON, || since.elapsed() > Duration::from_millis(500));
    assert_eq!(server.asked(NAME, A), 1);
}

#[test]
fn services_tell_ports_weights_and_tiers() {
    let server = DnsServer::start();
    server.set("one.test", A, addresses(0, &["10.0.0.1"]));
    server.set("two.test", AAAA, addresses(0, &["fd00::2"]));
    let records = vec![srv(0, 3, 81, "one.test"), srv(5, 1, 82, "two.test")];
    server.set(NAME, SRV, Reply::Records(0, records));
    let mut source = start(DnsRecords::Services, &server);
    source.expect(&["10.0.0.1:81 3", "[fd00::2]:82 1 backup"]);
    let records = vec![srv(5, 1, 82, "two.test"), srv(9, 1, 9, ".")];
    server.set(NAME, SRV, Reply::Records(0, records));
    source.expect(&["[fd00::2]:82 1"]);
    // None at all: the service is said not to be there, which keeps the last set.
    server.set(NAME, SRV, Reply::Records(0, vec![srv(0, 0, 0, ".")]));
    expect_no_change(&mut source, &server, SRV);
    server.set(NAME, SRV, Reply::Records(0, vec![srv(0, 1, 83, "one.test")]));
    source.expect(&["10.0.0.1:83 1"]);
    // A target that fails keeps its addresses.
    server.set("one.test", A, Reply::Code(2));
    expect_no_change(&mut source, &server, SRV);
}

/// The second address that a name may have; both have the same port.
fn second(first: &Server) -> SocketAddr {
    SocketAddr::new("127.0.0.2".parse().unwrap(), first.addr.port())
}

#[test]
fn no_request_fails_while_the_backends_of_a_name_change_under_load() {
    let one = Server::demo("one");
    let _two = Server::demo_at(second(&one), "two");
    let server = DnsServer::start();
    let to = |addrs: &[&str]| server.set(NAME, A, addresses(0, addrs));
    to(&["127.0.0.1"]);
    let proxy = Flags::none()
        .with("--backend-dns", &format!("http://{NAME}.:{}", one.addr.port()))
        .with("--dns-server", &server.addr.to_string())
        .with("--dns-ttl-min", "100ms")
        .with("--dns-ttl-max", "100ms")
        .start();
    let expect = |names: &[&str]| {
        let took = wait_until(&format!("{names:?} answer"), SOON, || {
            proxy.names().iter().map(String::as_str).eq(names.iter().copied())
        });
        assert!(took < Duration::from_secs(3), "{names:?}: {took:?}");
    };
    expect(&["one"]);
    let load = Load::start(proxy.addr(), 8, Reuse::KeepAlive, "/");
    let fresh = Load::start(proxy.addr(), 2, Reuse::PerRequest, "/");
    for _ in 0..3 {
        to(&["127.0.0.2", "127.0.0.1"]);
        expect(&["one", "two"]);
        to(&["127.0.0.2"]);
        expect(&["two"]);
        for reply in [Reply::Empty, Reply::Code(2), Reply::Garbage] {
            server.set(NAME, A, reply);
            let asked = server.asked(NAME, A);
            wait_until("it asks", SOON, || server.asked(NAME, A) > asked + 1);
            expect(&["two"]);
        }
        to(&["127.0.0.1"]);
        expect(&["one"]);
    }
    for tally in [load.stop(), fresh.stop()] {
        assert_eq!(tally.into_keys().collect::<Vec<_>>(), [Fate::Answered(200)]);
    }
}
