//! Changes of the admin API that are written to etcd, by two processes on one prefix, and what of etcd
//! outlives a restart.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::admin::{check_problem, get, json_of};
use crate::admin_writes::send;
use crate::support::etcd::Etcd;
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::Server;
use crate::support::upstream::{Upstream, ok};
use crate::support::{SOON, Scratch, wait_until};

const BACKENDS: &str = "/api/v1/pools/default/backends";
const KEYS: &str = "/corelane/pools/default/backends";
/// A backend that nobody needs to reach.
const ID: &str = "127.0.0.1:9";
/// Within which every process follows, and what a busy machine adds.
const SECOND: Duration = Duration::from_secs(3);

fn fleet_flags(etcd: &Etcd) -> Flags {
    Flags::none()
        .with("--etcd", &etcd.url())
        .with("--admin", "127.0.0.1:0")
        .with("--admin-writes", "etcd")
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
}

/// Two processes that follow this etcd and write to it, and their admin APIs.
fn fleet(etcd: &Etcd) -> ([Proxy; 2], [SocketAddr; 2]) {
    let proxies = [(), ()].map(|()| fleet_flags(etcd).start());
    let addrs = proxies.each_ref().map(Proxy::admin_addr);
    (proxies, addrs)
}

fn patch(addr: SocketAddr, id: &str, body: &Value) -> Value {
    let line = format!("PATCH {BACKENDS}/{id}");
    json_of(&send(addr, &line, "", &body.to_string()).expect(200))
}

fn add(addr: SocketAddr, id: &str) -> Value {
    let body = json!({ "address": id }).to_string();
    json_of(&send(addr, &format!("POST {BACKENDS}"), "", &body).expect(201))
}

fn stored(etcd: &Etcd, id: &str) -> Value {
    let text = etcd.etcdctl(&["get", "--print-value-only", &format!("{KEYS}/{id}")]);
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

#[track_caller]
fn expect_within_a_second(what: &str, condition: impl FnMut() -> bool) {
    let took = wait_until(what, SOON, condition);
    assert!(took < SECOND, "{what}: {took:?}");
}

#[test]
fn a_change_by_one_process_is_every_processs_within_a_second() {
    let (etcd, server) = (Etcd::start(), Server::demo("one"));
    let (proxies, [first, second]) = fleet(&etcd);
    let id = server.addr.to_string();
    let path = format!("{BACKENDS}/{id}");
    let added = add(first, &id);
    assert_eq!((&added["source"], &added["weight"]), (&"etcd".into(), &1.into()));
    expect_within_a_second("both send requests there", || {
        proxies.iter().all(|proxy| proxy.client().get("/").status() == 200)
    });
    let again = json!({ "address": id }).to_string();
    check_problem(&send(second, &format!("POST {BACKENDS}"), "", &again), 409, "already");

    let settings = json!({ "weight": 7, "max_conns": 9, "backup": true, "mode": "drain" });
    let changed = patch(second, &id, &settings);
    let is_so = |shown: &Value| {
        let names = ["weight", "max_conns", "backup", "mode"];
        names.iter().all(|name| shown[*name] == settings[*name])
    };
    assert!(is_so(&changed), "a writer reads what it has written: {changed}");
    expect_within_a_second("the other follows", || is_so(&json_of(&get(first, &path))));
    let value = json!({
        "url": format!("http://{id}"), "weight": 7, "max-conns": 9, "backup": true, "mode": "drain",
    });
    assert_eq!(stored(&etcd, &id), value);
    let same = patch(second, &id, &json!({ "weight": 7 }));
    assert_eq!(same["revision"], changed["revision"], "nothing has changed");

    assert_eq!(send(first, &format!("DELETE {path}"), "", "").status(), 204);
    check_problem(&get(first, &path), 404, "no backend");
    expect_within_a_second("the other follows", || get(second, &path).status() == 404);
    assert_eq!(stored(&etcd, &id), Value::Null);
    check_problem(&send(second, &format!("DELETE {path}"), "", ""), 404, "no backend");
}

#[test]
fn a_backend_of_another_source_or_under_another_key_is_not_written_over() {
    let etcd = Etcd::start();
    let file = etcd.file("backends.toml", "[[backends]]\nurl = \"http://127.0.0.1:8\"\n");
    etcd.put(&format!("{KEYS}/{ID}"), r#"{"url":"http://127.0.0.1:7"}"#);
    etcd.put(&format!("{KEYS}/zz"), r#"{"url":"http://127.0.0.1:7","weight":3}"#);
    let flags = fleet_flags(&etcd).with("--backend", "http://127.0.0.1:10");
    let proxy = flags.with("--backends-file", &file.display().to_string()).start();
    let addr = proxy.admin_addr();
    for (id, source) in [("127.0.0.1:10", "flags"), ("127.0.0.1:8", "file")] {
        let path = format!("{BACKENDS}/{id}");
        let patched = send(addr, &format!("PATCH {path}"), "", r#"{"weight":2}"#);
        check_problem(&patched, 409, &format!("comes from {source}"));
        check_problem(&send(addr, &format!("DELETE {path}"), "", ""), 409, source);
        assert_eq!(stored(&etcd, id), Value::Null);
    }
    let body = json!({ "address": ID }).to_string();
    check_problem(&send(addr, &format!("POST {BACKENDS}"), "", &body), 409, "holds something else");
    // The key that counts is written; with the backend go all keys that name it.
    patch(addr, "127.0.0.1:7", &json!({ "weight": 5 }));
    assert_eq!(stored(&etcd, ID)["weight"], 5);
    assert_eq!(stored(&etcd, "zz")["weight"], 3);
    send(addr, &format!("DELETE {BACKENDS}/127.0.0.1:7"), "", "").expect(204);
    assert_eq!((stored(&etcd, ID), stored(&etcd, "zz")), (Value::Null, Value::Null));
}

/// Each writer, at a process of its own, adds one to the weight until it has done so often enough,
/// and reads again where somebody was quicker.
#[test]
fn two_processes_that_write_at_once_lose_no_update() {
    const WRITES: u64 = 20;
    let etcd = Etcd::start();
    let (_proxies, addrs) = fleet(&etcd);
    add(addrs[0], ID);
    let path = format!("{BACKENDS}/{ID}");
    expect_within_a_second("both know it", || get(addrs[1], &path).status() == 200);
    let count = |addr: SocketAddr| {
        let path = path.clone();
        thread::spawn(move || {
            let since = Instant::now();
            let mut done = 0;
            while done < WRITES {
                assert!(since.elapsed() < SOON * 3, "{done} writes");
                let read = get(addr, &path).expect(200);
                let weight = json_of(&read)["weight"].as_u64().unwrap() + 1;
                let condition = format!("If-Match: {}\r\n", read.get("etag").unwrap());
                let body = json!({ "weight": weight }).to_string();
                match send(addr, &format!("PATCH {path}"), &condition, &body).status() {
                    200 => done += 1,
                    412 => {}
                    status => panic!("{status}"),
                }
            }
        })
    };
    addrs.map(count).into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(stored(&etcd, ID)["weight"], 1 + 2 * WRITES);
    // Without a condition each changes what it names, and leaves what the other does.
    let set = |addr: SocketAddr, name: &'static str| {
        thread::spawn(move || (1..=10).for_each(|n| drop(patch(addr, ID, &json!({ name: n })))))
    };
    let writers = [set(addrs[0], "weight"), set(addrs[1], "max_conns")];
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let both = stored(&etcd, ID);
    assert_eq!((&both["weight"], &both["max-conns"]), (&10.into(), &10.into()));
}

#[test]
fn while_etcd_is_away_a_change_is_refused_and_nothing_changes() {
    let mut etcd = Etcd::start();
    let (_proxies, [addr, _]) = fleet(&etcd);
    add(addr, ID);
    let path = format!("{BACKENDS}/{ID}");
    let before = json_of(&get(addr, &path).expect(200))["revision"].clone();
    etcd.kill();
    let since = Instant::now();
    let body = json!({ "address": "127.0.0.1:10" }).to_string();
    for (line, body) in [
        (format!("POST {BACKENDS}"), &*body),
        (format!("PATCH {path}"), r#"{"weight":2}"#),
        (format!("DELETE {path}"), ""),
    ] {
        let refused = send(addr, &line, "", body);
        check_problem(&refused, 503, "nothing has changed");
        assert!(json_of(&refused)["type"].as_str().unwrap().ends_with("etcd-away"));
        assert!(refused.get("retry-after").is_some());
    }
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert_eq!(json_of(&get(addr, &path).expect(200))["revision"], before);
    check_problem(&get(addr, &format!("{BACKENDS}/127.0.0.1:10")), 404, "no backend");
    etcd.restart();
    assert_eq!(patch(addr, ID, &json!({ "weight": 2 }))["weight"], 2);
}

#[test]
fn a_change_keeps_a_services_lease() {
    let etcd = Etcd::start();
    let mut service = Server::registered(&etcd, "service", "2s");
    let (_proxies, [first, second]) = fleet(&etcd);
    let id = service.addr.to_string();
    let path = format!("{BACKENDS}/{id}");
    expect_within_a_second("it is found", || get(first, &path).status() == 200);
    assert_eq!(patch(first, &id, &json!({ "weight": 5 }))["weight"], 5);
    service.kill();
    wait_until("its lease is over", SOON, || stored(&etcd, &id) == Value::Null);
    expect_within_a_second("both let it go", || {
        [first, second].iter().all(|addr| get(*addr, &path).status() == 404)
    });
}

#[test]
fn what_etcd_lost_during_a_restart_is_held() {
    let mut etcd = Etcd::start();
    let servers = [Server::demo("one"), Server::demo("two")];
    let put = |etcd: &Etcd, server: &Server| etcd.put(&format!("{KEYS}/{}", server.addr), "{}");
    servers.iter().for_each(|server| put(&etcd, server));
    let scratch = Scratch::new("etcd-held");
    let state = scratch.join("state").display().to_string();
    let start = |etcd: &Etcd| fleet_flags(etcd).with("--state-file", &state).start();
    let expect = |proxy: &Proxy, names: &[&str]| {
        wait_until(&format!("{names:?} answer"), SOON, || {
            proxy.names().iter().map(String::as_str).eq(names.iter().copied())
        });
    };
    let mut proxy = start(&etcd);
    expect(&proxy, &["one", "two"]);
    let kept = || std::fs::read_to_string(&state).unwrap_or_default();
    wait_until("both are kept", SOON, || {
        servers.iter().all(|server| kept().contains(&server.addr.to_string()))
    });
    proxy.drain();
    etcd.restart_empty();
    put(&etcd, &servers[0]);
    // It has read etcd when it is ready; twice, since what is held is kept as well.
    for _ in 0..2 {
        let mut proxy = start(&etcd);
        expect(&proxy, &["one", "two"]);
        proxy.drain();
    }
}

#[test]
fn while_what_etcd_lost_is_held_changes_are_followed_and_refusals_say_what_to_do() {
    const WRITES: u16 = 9;
    let mut etcd = Etcd::start();
    let [known, held] = ["127.0.0.1:7", "127.0.0.1:8"];
    let put = |etcd: &Etcd, id: &str, weight: u16| {
        etcd.put(&format!("{KEYS}/{id}"), &json!({ "weight": weight }).to_string());
    };
    for (id, weight) in [known, held].into_iter().flat_map(|id| (1..=WRITES).map(move |n| (id, n)))
    {
        put(&etcd, id, weight);
    }
    let scratch = Scratch::new("etcd-lost");
    let state = scratch.join("state").display().to_string();
    let proxy = fleet_flags(&etcd).with("--state-file", &state).start();
    let addr = proxy.admin_addr();
    let weight_of = |id: &str| json_of(&get(addr, &format!("{BACKENDS}/{id}")))["weight"].clone();
    let kept = || {
        let text = std::fs::read_to_string(&state).unwrap_or_default();
        let state: Value = serde_json::from_str(&text).unwrap_or_default();
        state["etcd"][0]["mark"]["revision"].as_u64()
    };
    expect_within_a_second("it follows", || weight_of(held) == WRITES);
    wait_until("that is kept", SOON, || kept() > Some(u64::from(WRITES)));
    etcd.restart_empty();
    put(&etcd, known, WRITES + 1);
    wait_until("it follows what etcd has now", SOON, || weight_of(known) == WRITES + 1);
    for weight in 1..=3 {
        let changed = patch(addr, known, &json!({ "weight": weight }));
        assert_eq!(changed["weight"], weight, "a writer reads what it has written");
    }
    let path = format!("{BACKENDS}/{held}");
    assert_eq!(weight_of(held), WRITES, "it is held");
    for (method, body) in [("PATCH", r#"{"weight":2}"#), ("DELETE", "")] {
        check_problem(&send(addr, &format!("{method} {path}"), "", body), 409, "POST it");
    }
    assert!(kept() > Some(u64::from(WRITES)), "it is held after a restart as well");
    assert_eq!(add(addr, held)["weight"], 1);
    wait_until("nothing is held any more", SOON, || kept() < Some(u64::from(WRITES)));
    send(addr, &format!("DELETE {path}"), "", "").expect(204);
    check_problem(&get(addr, &path), 404, "no backend");
}

/// An etcd that does what it is asked, and whose watch tells nothing.
fn silent_etcd() -> Upstream {
    let key = BASE64.encode(format!("{KEYS}/{ID}"));
    let kv = json!({ "key": key, "value": BASE64.encode("{}"), "mod_revision": "5" });
    let header = |revision: &str| json!({ "cluster_id": "1", "revision": revision });
    let range = json!({ "header": header("5"), "kvs": [kv], "count": "1" }).to_string();
    let swapped = json!({ "header": header("6"), "succeeded": true }).to_string();
    let line = json!({ "result": { "header": header("5"), "created": true } }).to_string() + "\n";
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let watch = format!("{head}{:x}\r\n{line}\r\n", line.len());
    Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            match request.head.target() {
                "/v3/kv/range" => served.write(&ok(&range, false)),
                "/v3/kv/txn" => served.write(&ok(&swapped, false)),
                _ => {
                    served.write(watch.as_bytes());
                    served.wait_for_end();
                    return;
                }
            };
        }
    })
}

#[test]
fn a_change_that_is_in_etcd_and_not_followed_yet_is_accepted() {
    let etcd = silent_etcd();
    let flags = Flags::none().with("--etcd", &etcd.url()).with("--admin", "127.0.0.1:0");
    let proxy = flags.with("--admin-writes", "etcd").with("--health-timeout", "200ms").start();
    let addr = proxy.admin_addr();
    let new = "127.0.0.1:10";
    let writes = [
        (format!("POST {BACKENDS}"), json!({ "address": new }).to_string()),
        (format!("PATCH {BACKENDS}/{ID}"), r#"{"weight":2}"#.to_owned()),
        (format!("DELETE {BACKENDS}/{ID}"), String::new()),
    ];
    let write =
        |(line, body): (String, String)| thread::spawn(move || send(addr, &line, "", &body));
    for (writer, location) in writes.map(write).into_iter().zip([Some(new), None, None]) {
        let answer = writer.join().unwrap().expect(202);
        assert_eq!(json_of(&answer), json!({ "followed": false }));
        assert_eq!(
            answer.get("location"),
            location.map(|id| format!("{BACKENDS}/{id}")).as_deref()
        );
        assert_eq!(answer.get("etag"), None, "it would be that of other settings");
    }
    // Nothing changes, so nothing is to come.
    patch(addr, ID, &json!({ "weight": 1 }));
}

#[test]
fn what_etcd_refuses_is_told_and_not_to_be_tried_again() {
    let mut etcd = Etcd::start();
    for words in [
        "user add reader:secret",
        "role add reader",
        "role grant-permission reader read --prefix=true /corelane/",
        "user grant-role reader reader",
    ] {
        etcd.etcdctl(&words.split(' ').collect::<Vec<_>>());
    }
    etcd.require_login("secret");
    let password = etcd.file("password", "secret\n").display().to_string();
    let flags = fleet_flags(&etcd).with("--etcd-user", "reader");
    let proxy = flags.with("--etcd-password-file", &password).start();
    let addr = proxy.admin_addr();
    let body = json!({ "address": ID }).to_string();
    let refused = send(addr, &format!("POST {BACKENDS}"), "", &body);
    check_problem(&refused, 502, "permission denied");
    assert!(json_of(&refused)["type"].as_str().unwrap().ends_with("etcd-refused"));
    assert_eq!(refused.get("retry-after"), None);
    check_problem(&get(addr, &format!("{BACKENDS}/{ID}")), 404, "no backend");
}
