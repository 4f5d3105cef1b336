//! Backends by etcd, a real one: changes, leases, its death and return with and without its data,
//! compaction, passwords and TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelane::config::{
    DiscoveryConfig, EtcdConfig, EtcdLogin, EtcdMember, EtcdTls, ResolverConfig,
};

use crate::support::etcd::Etcd;
use crate::support::load::{Fate, Load, Reuse};
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::Server;
use crate::support::source::Source;
use crate::support::{SOON, wait_until};

const KEYS: &str = "/corelane/pools/default/backends";

fn member(addr: SocketAddr) -> EtcdMember {
    EtcdMember { is_tls: false, host: addr.ip().to_string(), port: addr.port() }
}

fn config(members: Vec<EtcdMember>) -> EtcdConfig {
    let tls = EtcdTls::default();
    EtcdConfig { members, prefix: "/corelane/".to_owned(), login: None, tls }
}

fn follow(etcd: EtcdConfig) -> Source {
    let second = Duration::from_secs(1);
    let resolver = ResolverConfig { servers: Vec::new(), ttl_min: second, ttl_max: second };
    Source::start(&DiscoveryConfig { dns: Vec::new(), resolver, etcd: Some(etcd) })
}

fn source_of(etcd: &Etcd) -> Source {
    follow(config(vec![member(etcd.addr())]))
}

fn backend(n: u8) -> String {
    format!("{KEYS}/10.0.0.{n}:80")
}

#[test]
fn keys_are_backends_and_follow_each_change_in_every_process() {
    let etcd = Etcd::start();
    etcd.put(&backend(1), "{}");
    let mut sources = [source_of(&etcd), source_of(&etcd)];
    let mut expect = |expected: &[&str]| sources.iter_mut().for_each(|it| it.expect(expected));
    expect(&["10.0.0.1:80 1"]);
    etcd.put(&backend(2), r#"{"url":"http://10.0.0.2:80","weight":7,"backup":true}"#);
    expect(&["10.0.0.1:80 1", "10.0.0.2:80 7 backup"]);
    etcd.put("/corelane/pools/other/backends/x", r#"{"url":"http://[::1]:81"}"#);
    expect(&["10.0.0.1:80 1", "10.0.0.2:80 7 backup", "other/[::1]:81 1"]);
    // A broken value is passed over, and so is a key of something else.
    etcd.put(&backend(1), "{");
    etcd.put("/corelane/pools/default/settings", "{}");
    etcd.put("/corelane/else", "{}");
    expect(&["10.0.0.2:80 7 backup", "other/[::1]:81 1"]);
    etcd.put(&backend(1), "{}");
    expect(&["10.0.0.1:80 1", "10.0.0.2:80 7 backup", "other/[::1]:81 1"]);
    etcd.etcdctl(&["del", "--prefix", "/corelane/pools/other/"]);
    etcd.delete(&backend(2));
    expect(&["10.0.0.1:80 1"]);
    // The last one that an etcd in good health takes away is gone.
    etcd.delete(&backend(1));
    expect(&[]);
}

#[test]
fn the_last_set_outlives_etcd_which_goes_on_from_its_data() {
    let mut etcd = Etcd::start();
    etcd.put(&backend(1), "{}");
    let mut source = source_of(&etcd);
    source.expect(&["10.0.0.1:80 1"]);
    for round in 0..2 {
        let count = source.count;
        etcd.kill();
        let since = Instant::now();
        wait_until("it was tried some times", SOON, || since.elapsed().as_millis() > 700);
        assert_eq!((source.told().len(), source.count), (1 + usize::from(round > 0), count));
        etcd.restart();
        etcd.put(&backend(2), "{}");
        source.expect(&["10.0.0.1:80 1", "10.0.0.2:80 1"]);
    }
}

#[test]
fn a_compaction_hides_no_change() {
    let mut etcd = Etcd::start();
    etcd.put(&backend(1), "{}");
    let mut source = source_of(&etcd);
    source.expect(&["10.0.0.1:80 1"]);
    etcd.compact();
    etcd.put(&backend(2), "{}");
    source.expect(&["10.0.0.1:80 1", "10.0.0.2:80 1"]);
    // Away while the changes are made and compacted.
    let gate = Forwarder::to(etcd.addr());
    let mut cut = follow(config(vec![member(gate.addr)]));
    cut.expect(&["10.0.0.1:80 1", "10.0.0.2:80 1"]);
    gate.close();
    etcd.delete(&backend(1));
    etcd.put(&backend(3), "{}");
    etcd.compact();
    etcd.restart();
    gate.open();
    cut.expect(&["10.0.0.2:80 1", "10.0.0.3:80 1"]);
    source.expect(&["10.0.0.2:80 1", "10.0.0.3:80 1"]);
}

#[test]
fn an_etcd_that_lost_its_data_takes_nothing_away_at_once() {
    let mut etcd = Etcd::start();
    for n in 1..=3 {
        etcd.put(&backend(n), "{}");
    }
    let mut source = source_of(&etcd);
    source.expect(&["10.0.0.1:80 1", "10.0.0.2:80 1", "10.0.0.3:80 1"]);
    etcd.restart_empty();
    etcd.put(&backend(2), r#"{"weight":5}"#);
    source.expect(&["10.0.0.1:80 1", "10.0.0.2:80 5", "10.0.0.3:80 1"]);
}

#[test]
fn a_watch_that_falls_silent_is_noticed() {
    let etcd = Etcd::start();
    etcd.put(&backend(1), "{}");
    let gate = Forwarder::to(etcd.addr());
    let mut source = follow(config(vec![member(gate.addr)]));
    source.expect(&["10.0.0.1:80 1"]);
    gate.silence();
    etcd.put(&backend(2), "{}");
    wait_until("the change is found all the same", SOON, || source.told().len() == 2);
}

#[test]
fn a_backend_registers_itself_and_leaves_when_it_dies_or_is_told_to() {
    let mut etcd = Etcd::start();
    let mut source = source_of(&etcd);
    let mut dying = Server::registered(&etcd, "dying", "1s");
    let mut leaving = Server::registered(&etcd, "leaving", "1h");
    let line = |server: &Server| format!("{} 1", server.addr);
    let mut both = [line(&dying), line(&leaving)];
    both.sort_unstable();
    source.expect(&both.each_ref().map(String::as_str));
    dying.kill();
    // A second until the lease is over, and one more.
    source.expect(&[&line(&leaving)]);
    // Its lease goes, and etcd's memory: it registers again.
    let leases = etcd.etcdctl(&["lease", "list"]);
    let lease = leases.lines().last().unwrap().trim().to_owned();
    etcd.etcdctl(&["lease", "revoke", &lease]);
    let has = |etcd: &Etcd, server: &Server| {
        !etcd.etcdctl(&["get", &format!("{KEYS}/{}", server.addr)]).is_empty()
    };
    wait_until("it registers again", SOON, || has(&etcd, &leaving));
    source.expect(&[&line(&leaving)]);
    leaving.terminate();
    assert!(!has(&etcd, &leaving), "it has left before it ended");
    source.expect(&[]);
    let mut short = Server::registered(&etcd, "short", "1s");
    source.expect(&[&line(&short)]);
    etcd.restart_empty();
    wait_until("it registers again", SOON, || has(&etcd, &short));
    source.expect(&[&line(&short)]);
    short.terminate();
    source.expect(&[]);
}

#[test]
fn members_are_tried_in_turn() {
    let etcd = Etcd::start();
    etcd.put(&backend(1), "{}");
    let dead = crate::support::servers::free_addr();
    let mut source = follow(config(vec![member(dead), member(etcd.addr())]));
    source.expect(&["10.0.0.1:80 1"]);
}

#[test]
fn etcd_is_entered_by_password_and_over_tls() {
    let mut etcd = Etcd::start_tls();
    etcd.put(&backend(1), "{}");
    etcd.require_login("secret");
    let read = |path: &std::path::PathBuf| std::fs::read(path).unwrap();
    let [certificate, key, authority] = etcd.tls().unwrap().each_ref().map(read);
    let tls = EtcdTls { authorities: Some(authority), identity: Some((certificate, key)) };
    let addr = etcd.addr();
    let with = |password: &str| {
        let login = EtcdLogin { user: "root".to_owned(), password: password.to_owned() };
        let member = EtcdMember { is_tls: true, ..member(addr) };
        EtcdConfig { login: Some(login), tls: tls.clone(), ..config(vec![member]) }
    };
    let mut source = follow(with("secret"));
    source.expect(&["10.0.0.1:80 1"]);
    let mut stranger = follow(with("wrong"));
    // It forgets the tokens with its memory; the user logs in again.
    etcd.restart();
    etcd.put(&backend(2), "{}");
    source.expect(&["10.0.0.1:80 1", "10.0.0.2:80 1"]);
    assert_eq!(stranger.told(), Vec::<String>::new());
}

fn proxy_of(etcd: &Etcd) -> Proxy {
    Flags::none()
        .with("--etcd", &etcd.url())
        .with("--health-interval", "200ms")
        .with("--health-timeout", "200ms")
        .start()
}

/// Waits until these demo backends answer, in each process; within a second, and what a busy
/// machine adds.
#[track_caller]
fn expect_names(proxies: &[&Proxy], names: &[&str]) {
    for proxy in proxies {
        let took = wait_until(&format!("{names:?} answer"), SOON, || {
            proxy.names().iter().map(String::as_str).eq(names.iter().copied())
        });
        assert!(took < Duration::from_secs(3), "{names:?}: {took:?}");
    }
}

/// How long etcd is away under load.
fn outage() -> Duration {
    let is_full = std::env::var("CORELANE_TEST_LOAD").is_ok_and(|load| load == "full");
    Duration::from_secs(if is_full { 30 } else { 2 })
}

#[test]
fn no_request_fails_under_load_whatever_becomes_of_etcd() {
    let mut etcd = Etcd::start();
    let _one = Server::registered(&etcd, "one", "2s");
    let mut two = Server::registered(&etcd, "two", "2s");
    let (first, second) = (proxy_of(&etcd), proxy_of(&etcd));
    let both = [&first, &second];
    expect_names(&both, &["one", "two"]);
    let loads = both.map(|proxy| Load::start(proxy.addr(), 4, Reuse::KeepAlive, "/"));
    let answered = || loads.iter().map(Load::answered).sum::<usize>();

    // It dies, and returns with its data: leases outlive it.
    etcd.kill();
    let (since, before) = (Instant::now(), answered());
    wait_until("it is away for a while", outage() + SOON, || since.elapsed() > outage());
    assert!(answered() > before, "requests are answered without etcd");
    expect_names(&both, &["one", "two"]);
    etcd.restart();
    let _three = Server::registered(&etcd, "three", "2s");
    expect_names(&both, &["one", "three", "two"]);

    // A backend dies; its lease ends after two seconds.
    two.kill();
    let key = format!("{KEYS}/{}", two.addr);
    wait_until("its lease is over", SOON, || etcd.etcdctl(&["get", &key]).is_empty());
    expect_names(&both, &["one", "three"]);
    etcd.compact();
    let mut four = Server::registered(&etcd, "four", "2s");
    expect_names(&both, &["four", "one", "three"]);

    // It loses its data: all are held until they are back.
    etcd.restart_empty();
    expect_names(&both, &["four", "one", "three"]);
    let key = format!("{KEYS}/{}", four.addr);
    wait_until("it registers again", SOON, || !etcd.etcdctl(&["get", &key]).is_empty());
    // One that is told to end leaves first.
    four.terminate();
    expect_names(&both, &["one", "three"]);
    for load in loads {
        assert_eq!(load.stop().into_keys().collect::<Vec<_>>(), [Fate::Answered(200)]);
    }
}

#[test]
fn proxies_and_backends_enter_etcd_with_what_their_flags_name() {
    let mut etcd = Etcd::start_tls();
    let server = Server::demo("one");
    etcd.put(&format!("{KEYS}/{}", server.addr), "{}");
    etcd.require_login("secret");
    let password = etcd.file("password", "secret\n");
    let [certificate, key, authority] = etcd.tls().unwrap();
    let path = |path: &std::path::Path| path.display().to_string();
    let access = [
        ["--etcd-user", "root"],
        ["--etcd-password-file", &path(&password)],
        ["--etcd-ca", &path(authority)],
        ["--etcd-cert", &path(certificate)],
        ["--etcd-key", &path(key)],
    ];
    let flags = Flags::none().with("--etcd", &etcd.url());
    let proxy = access.iter().fold(flags, |flags, [name, value]| flags.with(name, value)).start();
    expect_names(&[&proxy], &["one"]);
    let place = format!("etcds://{}/corelane/", etcd.addr());
    let _two = Server::registered_at(&place, &[access.as_flattened(), &["--name", "two"]].concat());
    expect_names(&[&proxy], &["one", "two"]);
}

#[test]
fn a_restart_without_etcd_goes_on_with_what_the_state_file_kept() {
    let mut etcd = Etcd::start();
    let server = Server::demo("one");
    let gone = etcd.url();
    etcd.put(&format!("{KEYS}/{}", server.addr), "{}");
    let scratch = crate::support::Scratch::new("etcd-state");
    let state = scratch.join("state").display().to_string();
    let start = || {
        let flags = Flags::none().with("--etcd", &gone).with("--state-file", &state);
        flags.with("--health-timeout", "200ms").start()
    };
    let mut proxy = start();
    expect_names(&[&proxy], &["one"]);
    let kept = || std::fs::read_to_string(&state).unwrap_or_default();
    wait_until("the set is kept", SOON, || kept().contains(&server.addr.to_string()));
    proxy.drain();
    etcd.kill();
    expect_names(&[&start()], &["one"]);
}

/// What a member that is no etcd does with each connection.
fn member_that(act: impl Fn(&mut TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Ends with the process.
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut client in listener.incoming().map_while(Result::ok) {
            client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            // A request has arrived, or nothing will.
            let _count = client.read(&mut [0; 4096]).unwrap_or(0);
            act(&mut client);
            kept.push(client);
        }
    });
    addr
}

#[test]
fn a_member_that_is_no_etcd_is_passed_over() {
    let etcd = Etcd::start();
    etcd.put(&backend(1), "{}");
    fn says(head: &'static str, body: &str) -> SocketAddr {
        let length = body.len();
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}");
        // Whoever asked may have heard enough.
        member_that(move |client| drop(client.write_all(answer.as_bytes())))
    }
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    let members = [
        ("html", says("200 OK", "<html>")),
        ("other JSON", says("200 OK", "[1]")),
        ("an error", says("500 Oops", "no")),
        ("no such path", says("404 Not Found", "{}")),
        ("no HTTP", member_that(|client| drop(client.write_all(b"220 smtp\r\n")))),
        ("silence", member_that(|_| {})),
        ("an end", member_that(|client| drop(client.shutdown(std::net::Shutdown::Both)))),
        (
            "an endless answer",
            member_that(move |client| {
                client.write_all(endless.as_bytes()).ok();
                while client.write_all(&[b'x'; 64 * 1024]).is_ok() {}
            }),
        ),
    ];
    for (what, addr) in members {
        let mut source = follow(config(vec![member(addr), member(etcd.addr())]));
        wait_until(what, SOON, || source.told() == ["10.0.0.1:80 1"]);
    }
}

#[test]
fn impossible_flags_end_with_64_and_one_clear_line() {
    let scratch = crate::support::Scratch::new("etcd-flags");
    std::fs::write(scratch.join("empty"), "").unwrap();
    let empty = scratch.join("empty").display().to_string();
    let proxy = ["--listen", "127.0.0.1:0"];
    let etcd = ["--listen", "127.0.0.1:0", "--etcd", "https://127.0.0.1:1"];
    let demo = ["backend", "--listen", "0.0.0.0:0"];
    let admin = ["--backend", "http://a:1", "--admin-writes", "etcd"];
    let cases: [(&[&str], &[&str], &str); 15] = [
        (&proxy, &["--etcd", "127.0.0.1:2379"], "http://"),
        (&proxy, &["--backend", "http://a:1", "--etcd-ca", "/x"], "needs an --etcd"),
        (&proxy, &["--etcd", "http://a:1", "--etcd-ca", &empty], "https://"),
        (&proxy, &admin, "needs --admin"),
        (&proxy, &[&admin[..], &["--admin", "127.0.0.1:0"]].concat(), "needs an --etcd"),
        (&etcd, &["--etcd-ca", "/nowhere"], "/nowhere"),
        (&etcd, &["--etcd-ca", &empty], "no certificate"),
        (&etcd, &["--etcd-cert", &empty], "--etcd-key"),
        (&etcd, &["--etcd-user", "root"], "--etcd-password-file"),
        (&etcd, &["--etcd-user", "root", "--etcd-password-file", &empty], "empty"),
        (&proxy, &["--backend-dns", "http://10.0.0.1:1"], "--backend"),
        (&proxy, &["--backend-dns", "http://a:1 http://a:1"], "twice"),
        (&proxy, &["--backend-dns", "http://a:1", "--dns-ttl-min", "2m"], "--dns-ttl-max"),
        (&demo, &["--register", "etcd://127.0.0.1:1/"], "--register-as"),
        (&demo, &["--register", "http://127.0.0.1:1/"], "etcd://"),
    ];
    for (first, words, named) in cases {
        let mut command = std::process::Command::new("timeout");
        command.arg("10").arg(crate::support::proxy::CORELANE).args(first).args(words);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{words:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{words:?}: {text}");
        assert!(text.contains(named), "{words:?} should name {named}: {text}");
    }
}

/// A way to etcd that can be closed, and on which answers that have begun can fall silent.
struct Forwarder {
    addr: SocketAddr,
    state: Arc<ForwarderState>,
}

#[derive(Default)]
struct ForwarderState {
    is_closed: AtomicBool,
    /// What connections from before this carry is lost.
    generation: std::sync::atomic::AtomicUsize,
}

impl Forwarder {
    fn to(target: SocketAddr) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(ForwarderState::default());
        let shared = state.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.is_closed.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(target) else { continue };
                let ends = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
                for (from, to) in ends {
                    let state = shared.clone();
                    std::thread::spawn(move || state.copy(from.unwrap(), to.unwrap()));
                }
            }
        });
        Forwarder { addr, state }
    }

    /// Ends all connections and takes no more.
    fn close(&self) {
        self.state.is_closed.store(true, Ordering::Relaxed);
    }

    fn open(&self) {
        self.state.is_closed.store(false, Ordering::Relaxed);
    }

    /// What flows on the connections that stand now is swallowed.
    fn silence(&self) {
        self.state.generation.fetch_add(1, Ordering::Relaxed);
    }
}

impl ForwarderState {
    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let generation = self.generation.load(Ordering::Relaxed);
        let moment = Duration::from_millis(20);
        from.set_read_timeout(Some(moment)).unwrap();
        let mut buf = [0; 16 * 1024];
        while !self.is_closed.load(Ordering::Relaxed) {
            let count = match from.read(&mut buf) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            };
            let is_silent = self.generation.load(Ordering::Relaxed) != generation;
            if !is_silent && to.write_all(&buf[..count]).is_err() {
                break;
            }
        }
        // Fails only where the other direction has ended it already.
        to.shutdown(std::net::Shutdown::Both).ok();
        from.shutdown(std::net::Shutdown::Both).ok();
    }
}
