//! Which backend each policy picks: shares over two workers, keys that stay, backups, and backends
//! that drain or are in maintenance.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::client::{Client, Fate};
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::free_addr;
use crate::support::upstream::{Health, Upstream, ok};
use crate::support::wire::Wire;
use crate::support::{Gate, SOON, Scratch, wait_until};

/// Enough connections that all on one of two workers is an accident of one in 30,000.
const CLIENTS: usize = 16;
/// An accident of one in 1.7 million, where a share is binomial.
const DEVIATIONS: f64 = 5.0;

fn named(name: &str) -> Upstream {
    Upstream::answering(ok(name, false))
}

fn three() -> [Upstream; 3] {
    ["a", "b", "c"].map(named)
}

/// Backends with these weights behind two workers.
fn weighted(upstreams: &[Upstream], weights: &[u32], policy: &str) -> Flags {
    let flags = Flags::to(&[]).with("--workers", "2").with("--policy", policy);
    upstreams.iter().zip(weights).fold(flags, |flags, (upstream, weight)| {
        flags.and("--backend", &format!("{},weight={weight}", upstream.url()))
    })
}

fn clients(proxy: &Proxy, count: usize) -> Vec<Client> {
    (0..count).map(|_| proxy.client()).collect()
}

fn counts(upstreams: &[Upstream]) -> Vec<usize> {
    upstreams.iter().map(Upstream::request_count).collect()
}

/// The requests that each of three backends gets of `total`, one after another over many connections.
fn shares(policy: &str, weights: &[u32], total: usize) -> Vec<usize> {
    let upstreams = three();
    let proxy = match policy {
        "maglev" => weighted(&upstreams, weights, policy).with("--hash-key", "uri").start(),
        _ => weighted(&upstreams, weights, policy).start(),
    };
    let mut clients = clients(&proxy, CLIENTS);
    for number in 0..total {
        clients[number % CLIENTS].get(&format!("/{number}")).expect(200);
    }
    counts(&upstreams)
}

/// Each backend's share is within chance of its weight's.
#[track_caller]
fn check_binomial(policy: &str, weights: &[u32]) {
    let total = 3000;
    let counts = shares(policy, weights, total);
    let weight_total: u32 = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        let share = f64::from(*weight) / f64::from(weight_total);
        let (mean, variance) = (total as f64 * share, total as f64 * share * (1.0 - share));
        let deviations = (*count as f64 - mean) / variance.sqrt();
        assert!(deviations.abs() < DEVIATIONS, "{policy} {weights:?}: {counts:?}, {deviations}");
    }
}

/// A backend that holds every request until the gate opens.
fn holding(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::scripted(move |served| {
        while served.request().is_some() {
            gate.wait();
            served.write(&ok("held", false));
        }
    })
}

/// The requests in flight on each of three backends, when so many were sent and none is answered.
fn shares_in_flight(
    flags: impl Fn(&[Upstream]) -> Flags,
    target: &str,
    total: usize,
) -> Vec<usize> {
    let gate = Gate::default();
    let upstreams = [(); 3].map(|()| holding(&gate));
    let proxy = flags(&upstreams).start();
    let mut clients = clients(&proxy, total);
    for (sent, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        wait_until("it has arrived", SOON, || counts(&upstreams).iter().sum::<usize>() == sent + 1);
    }
    let counts = counts(&upstreams);
    gate.open();
    for mut client in clients {
        client.read_response("GET").expect(200);
    }
    counts
}

#[test]
fn round_robin_on_two_workers_gives_each_backend_its_share_to_a_round() {
    for (weights, expected) in [([1, 1, 1], [1000, 1000, 1000]), ([5, 1, 1], [2143, 428, 428])] {
        let counts = shares("round-robin", &weights, 3000);
        for (count, expected) in counts.iter().zip(expected) {
            // Each worker may be within a round.
            let rounds = 2 * weights[0] as usize;
            assert!(count.abs_diff(expected) <= rounds, "{weights:?}: {counts:?}");
        }
    }
}

#[test]
fn random_picks_in_proportion_to_the_weights() {
    check_binomial("random", &[1, 1, 1]);
    check_binomial("random", &[5, 1, 1]);
}

#[test]
fn p2c_on_an_idle_pool_picks_in_proportion_to_the_weights() {
    check_binomial("p2c", &[1, 1, 1]);
    check_binomial("p2c", &[5, 1, 1]);
}

#[test]
fn maglev_spreads_keys_in_proportion_to_the_weights() {
    check_binomial("maglev", &[1, 1, 1]);
    check_binomial("maglev", &[5, 1, 1]);
}

#[test]
fn least_connections_fills_backends_by_their_weights_over_both_workers() {
    for (weights, total, expected) in [([1, 1, 1], 60, [20, 20, 20]), ([5, 1, 1], 70, [50, 10, 10])]
    {
        let flags = |upstreams: &[Upstream]| weighted(upstreams, &weights, "least-connections");
        assert_eq!(shares_in_flight(flags, "/", total), expected, "{weights:?}");
    }
}

#[test]
fn p2c_evens_out_what_is_in_flight() {
    for (weights, total, expected) in [([1, 1, 1], 60, [20, 20, 20]), ([5, 1, 1], 70, [50, 10, 10])]
    {
        let flags = |upstreams: &[Upstream]| weighted(upstreams, &weights, "p2c");
        let counts = shares_in_flight(flags, "/", total);
        let is_near = |(count, expected): (&usize, &usize)| count.abs_diff(*expected) <= 8;
        assert!(counts.iter().zip(&expected).all(is_near), "{weights:?}: {counts:?}");
    }
}

#[test]
fn ewma_prefers_the_backends_that_answer_sooner() {
    let slow = Upstream::scripted(|served| {
        while served.request().is_some() {
            let start = Instant::now();
            wait_until("it was slow", SOON, || start.elapsed() > Duration::from_millis(50));
            served.write(&ok("slow", false));
        }
    });
    let upstreams = [named("a"), named("b"), slow];
    let proxy = weighted(&upstreams, &[1, 1, 1], "ewma").start();
    let mut clients = clients(&proxy, CLIENTS);
    for number in 0..600 {
        clients[number % CLIENTS].get("/").expect(200);
    }
    let counts = counts(&upstreams);
    assert!(counts[2] < 100 && counts[0] > 100 && counts[1] > 100, "{counts:?}");
}

#[test]
fn least_connections_and_p2c_avoid_a_backend_that_holds_requests_of_either_worker() {
    for policy in ["least-connections", "p2c"] {
        let (held_gate, well_gate) = (Gate::default(), Gate::default());
        let (held, well) = (holding(&held_gate), holding(&well_gate));
        let proxy =
            Flags::to(&[&held, &well]).with("--workers", "2").with("--policy", policy).start();
        let mut holders = clients(&proxy, 8);
        for (sent, client) in holders.iter_mut().enumerate() {
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
            wait_until("it has arrived", SOON, || {
                held.request_count() + well.request_count() == sent + 1
            });
        }
        assert_eq!((held.request_count(), well.request_count()), (4, 4), "{policy}");
        // From here on one answers at once: of eight in flight, four are left.
        well_gate.open();
        wait_until("four are answered", SOON, || {
            holders.retain_mut(|client| client.fate(Duration::from_millis(5)) != Fate::Bytes);
            holders.len() == 4
        });
        for mut client in clients(&proxy, CLIENTS) {
            (0..20).for_each(|_| drop(client.get("/").expect(200)));
        }
        assert_eq!(held.request_count(), 4, "{policy}");
        held_gate.open();
        for mut client in holders {
            client.read_response("GET").expect(200);
        }
    }
}

/// A request whose key of this kind is `key`.
fn keyed(kind: &str, key: &str) -> String {
    let (target, host, header) = match kind {
        "uri" => (format!("/u/{key}?q={key}"), "h".to_owned(), String::new()),
        "path" => (format!("/p/{key}?q={}", fastrand::u32(..)), "h".to_owned(), String::new()),
        "host" => ("/".to_owned(), format!("{key}.example"), String::new()),
        "query:id" => {
            (format!("/{}?a=b&id={key}", fastrand::u32(..)), "h".to_owned(), String::new())
        }
        "header:X-User" => ("/".to_owned(), "h".to_owned(), format!("x-user: {key}\r\n")),
        "cookie:id" => ("/".to_owned(), "h".to_owned(), format!("Cookie: a=b; id={key}\r\n")),
        "source" => {
            let addr = format!("10.1.2.{}", key.trim_start_matches("key-"));
            ("/".to_owned(), "h".to_owned(), format!("X-Forwarded-For: {addr}\r\n"))
        }
        other => panic!("{other}"),
    };
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n")
}

#[test]
fn maglev_sends_a_key_to_one_backend_over_connections_workers_and_processes() {
    let upstreams = ["a", "b", "c", "d"].map(named);
    let [a, b, c, d] = &upstreams;
    for kind in ["uri", "path", "host", "query:id", "header:X-User", "cookie:id", "source"] {
        let flags = |upstreams: &[&Upstream]| {
            Flags::to(upstreams)
                .with("--workers", "2")
                .with("--policy", "maglev")
                .with("--hash-key", kind)
                .with("--hash-seed", "7")
                .with("--trusted-proxies", "127.0.0.1/32")
        };
        let proxies = [flags(&[a, b, c, d]).start(), flags(&[d, b, a, c]).start()];
        let mut clients: Vec<_> = proxies.iter().flat_map(|proxy| clients(proxy, 6)).collect();
        let mut used = BTreeMap::new();
        for number in 0..40 {
            let request = |client: &mut Client| {
                client.request(keyed(kind, &format!("key-{number}"))).expect(200).text()
            };
            let names: Vec<_> = clients.iter_mut().map(request).collect();
            assert!(names.iter().all(|name| *name == names[0]), "{kind} {number}: {names:?}");
            *used.entry(names[0].clone()).or_insert(0) += 1;
        }
        assert_eq!(used.len(), 4, "{kind}: 40 keys on {used:?}");
    }
}

#[test]
fn the_source_is_the_clients_address() {
    let upstreams = three();
    let proxy = weighted(&upstreams, &[1, 1, 1], "maglev").start();
    let mut used = BTreeMap::new();
    for number in 1..=30 {
        let names: Vec<_> = (0..3).map(|_| from(number, proxy.addr()).get("/").text()).collect();
        assert!(names.iter().all(|name| *name == names[0]), "{number}: {names:?}");
        *used.entry(names[0].clone()).or_insert(0) += 1;
    }
    assert_eq!(used.len(), 3, "{used:?}");
}

/// A client at 127.0.1.N.
fn from(number: u8, addr: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 1, number], 0)).into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    Client { wire: Wire::new(TcpStream::from(socket)) }
}

#[test]
fn keys_stay_while_another_backend_is_lost_and_return_with_it() {
    let mut upstreams = ["a", "b", "c", "d"].map(named);
    let proxy = Flags::to(&upstreams.each_ref())
        .with("--workers", "2")
        .with("--policy", "maglev")
        .with("--hash-key", "uri")
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
        .start();
    let mut clients = clients(&proxy, 4);
    let mut places = || -> Vec<String> {
        let place =
            |number: usize| clients[number % 4].get(&format!("/{number}")).expect(200).text();
        (0..400).map(place).collect()
    };
    let before = places();
    let addr = upstreams[3].addr;
    upstreams[3].stop();
    wait_until("it is down", SOON, || proxy.log().contains("backend is down"));
    wait_until("the snapshot is in force", SOON, || !places().contains(&"d".to_owned()));
    let without = places();
    let others = before.iter().zip(&without).filter(|(before, _)| *before != "d");
    let (moved, all) =
        others.fold((0, 0), |(moved, all), (a, b)| (moved + usize::from(a != b), all + 1));
    assert!(moved * 20 <= all, "{moved} of {all} keys moved for another backend's sake");
    upstreams[3] = Upstream::scripted_at(addr, |served| {
        while served.request().is_some() {
            served.write(&ok("d", false));
        }
    });
    wait_until("all keys are back", SOON, || places() == before);
}

#[test]
fn a_popular_key_overflows_to_others_at_the_bound() {
    let bounded = |upstreams: &[Upstream]| {
        weighted(upstreams, &[1, 1, 1], "maglev")
            .with("--hash-key", "uri")
            .with("--hash-balance-factor", "125")
    };
    let counts = shares_in_flight(bounded, "/popular", 36);
    assert!(counts.iter().all(|count| *count <= 15), "at most 1.25 of 12: {counts:?}");
    let free = |upstreams: &[Upstream]| {
        weighted(upstreams, &[1, 1, 1], "maglev").with("--hash-key", "uri")
    };
    let mut counts = shares_in_flight(free, "/popular", 36);
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 36]);
}

#[test]
fn backups_take_requests_only_while_no_primary_can() {
    let mut primaries = [named("a"), named("b")];
    let backup = named("backup");
    let proxy = Flags::to(&primaries.each_ref())
        .and("--backend", &format!("{},backup", backup.url()))
        .with("--health-interval", "60s")
        .with("--eject-after", "0")
        .start();
    let mut client = proxy.client();
    for _ in 0..50 {
        client.get("/").expect(200);
    }
    assert_eq!(backup.request_count(), 0);
    primaries[0].stop();
    for _ in 0..20 {
        assert_eq!(client.get("/").expect(200).text(), "b");
    }
    assert_eq!(backup.request_count(), 0);
    // Both are still taken for healthy: one request finds the two refusing and goes on.
    primaries[1].stop();
    assert_eq!(client.get("/").expect(200).text(), "backup");
}

#[test]
fn backups_rest_again_when_a_primary_is_back() {
    let (primary, backup) = (named("primary"), named("backup"));
    let proxy = Flags::to(&[&primary])
        .and("--backend", &format!("{},backup", backup.url()))
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
        .start();
    let mut client = proxy.client();
    for (health, expected) in
        [(Health::Up, "primary"), (Health::Down, "backup"), (Health::Up, "primary")]
    {
        primary.set_health(health);
        wait_until(expected, SOON, || client.get("/").expect(200).text() == expected);
        assert!((0..20).all(|_| client.get("/").expect(200).text() == expected));
    }
}

#[test]
fn a_backend_in_maintenance_is_neither_used_nor_probed() {
    let (well, resting) = (named("well"), named("resting"));
    let proxy = Flags::to(&[&well])
        .and("--backend", &format!("{},maintenance", resting.url()))
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
        .with("--panic-percent", "100")
        .start();
    let mut client = proxy.client();
    wait_until("the other was probed often", SOON, || {
        assert_eq!(client.get("/").expect(200).text(), "well");
        well.probes_passed() > 5
    });
    assert_eq!(resting.probes_passed() + resting.probes_failed() + resting.request_count(), 0);
    let alone = Flags::to(&[]).and("--backend", &format!("{},maintenance", resting.url())).start();
    alone.client().get("/").expect(503);
}

#[test]
fn a_backend_that_drains_takes_its_sessions_and_nothing_else() {
    let (well, draining) = (named("well"), named("draining"));
    let scratch = Scratch::new("sticky");
    let secret = scratch.join("secret");
    std::fs::write(&secret, "a secret of sixteen bytes or more").unwrap();
    let sticky = |flags: Flags| {
        flags
            .with("--sticky-cookie", "lane")
            .with("--sticky-secret-file", secret.to_str().unwrap())
            .start()
    };
    let before = sticky(Flags::to(&[&draining]));
    let answer = before.client().get("/").expect(200);
    let cookie = answer.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let proxy = sticky(Flags::to(&[&well]).and("--backend", &format!("{},drain", draining.url())));
    let mut client = proxy.client();
    let request = format!("GET / HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(client.get("/").expect(200).text(), "well");
        let answer = client.request(&request).expect(200);
        assert_eq!((answer.get("set-cookie"), answer.text()), (None, "draining".to_owned()));
    }
    // Nor does it take what the other one cannot.
    let nobody = format!("http://{}", free_addr());
    let last = sticky(
        Flags::to(&[])
            .and("--backend", &nobody)
            .and("--backend", &format!("{},drain", draining.url())),
    );
    last.client().get("/").expect(503);
    assert_eq!(last.client().request(&request).expect(200).text(), "draining");
}
