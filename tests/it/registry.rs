//! Backends that are added, changed and removed while requests are under way, and a restart with
//! the state file.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use corelane::cli::{Cli, Machine};
use corelane::config::{BackendConfig, Mode, parse_backend_url};
use corelane::control::{Handle, Patch, Refusal};
use corelane::server::{Server, Stopper};
use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::etcd::Etcd;
use crate::support::load::{Fate, Load, Reuse};
use crate::support::proxy::Flags;
use crate::support::upstream::{Upstream, ok};
use crate::support::{Gate, SOON, Scratch, wait_until};

const POOL: &str = "default";

fn named(name: &'static str) -> Upstream {
    Upstream::answering(ok(name, false))
}

/// A load balancer in this process, whose backends are changed through its handle.
struct Running {
    handle: Handle,
    addr: std::net::SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<u8>>,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    fn start(flags: Flags) -> Running {
        let words = std::iter::once("corelane".to_owned()).chain(flags.words());
        let machine = Machine { cores: vec![0], parallelism: 1, descriptors: 4000 };
        let config = Cli::read_flags(words).unwrap().proxy.into_config(&machine).unwrap();
        let (sender, started) = mpsc::channel();
        let serve = move || {
            let server = Server::bind(config).unwrap();
            sender.send((server.handle(), server.addrs()[0], server.stopper())).unwrap();
            server.run().unwrap()
        };
        let thread = Some(std::thread::spawn(serve));
        let (handle, addr, stopper) = started.recv_timeout(SOON).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Running { handle, addr, stopper, thread, runtime }
    }

    fn add(&self, upstream: &Upstream, mode: Mode) {
        let backend = backend_of(&upstream.url(), mode);
        self.runtime.block_on(self.handle.add(POOL, backend)).unwrap();
    }

    fn remove(&self, upstream: &Upstream) -> Result<(), Refusal> {
        let authority = upstream.addr.to_string();
        self.runtime.block_on(self.handle.remove(POOL, &authority, None)).map(drop)
    }

    fn patch(&self, upstream: &Upstream, patch: Patch) {
        let authority = upstream.addr.to_string();
        self.runtime.block_on(self.handle.patch(POOL, &authority, patch, None)).unwrap();
    }

    fn names(&self) -> String {
        let mut client = Client::connect(self.addr);
        let mut names: Vec<_> = (0..12).map(|_| client.get("/").text()).collect();
        names.sort();
        names.dedup();
        names.join(" ")
    }

    #[track_caller]
    fn expect(&self, names: &str) {
        wait_until(&format!("{names} answer"), SOON, || self.names() == names);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok_and(|code| code == 0) || std::thread::panicking());
        }
    }
}

fn backend_of(url: &str, mode: Mode) -> BackendConfig {
    let (host, port) = parse_backend_url(url).unwrap();
    let weight = std::num::NonZeroU16::MIN;
    BackendConfig { host, port, weight, conns_max: None, is_backup: false, mode }
}

#[test]
fn changes_through_the_handle_under_load_fail_no_request() {
    let [a, b, c] = ["a", "b", "c"].map(named);
    let running = Running::start(Flags::to(&[&a]));
    running.expect("a");
    let load = Load::start(running.addr, 4, Reuse::KeepAlive, "/");
    for round in 0..300_u16 {
        running.add(&b, Mode::Ready);
        running.add(&c, Mode::Drain);
        let weight = Some(1 + round % 256);
        let limit = Some((round % 3 == 0).then_some(2 + u32::from(round % 5)));
        running.patch(&a, Patch { weight, conns_max: limit, ..Patch::default() });
        let mode = Some(if round % 2 == 0 { Mode::Ready } else { Mode::Maintenance });
        running.patch(&c, Patch { mode, ..Patch::default() });
        if round % 10 == 0 {
            let before = load.answered();
            wait_until("requests go on", SOON, || load.answered() > before + 20);
        }
        running.remove(&b).unwrap();
        running.remove(&c).unwrap();
    }
    assert!(matches!(running.remove(&b), Err(Refusal::UnknownBackend(_))));
    running.patch(&a, Patch { conns_max: Some(None), ..Patch::default() });
    let fates = load.stop();
    let answered = fates.get(&Fate::Answered(200)).copied().unwrap_or_default();
    assert!(fates.len() == 1 && answered > 600, "{fates:?}");
    running.expect("a");
    wait_until("no connection to b is kept", SOON, || b.open_connections() == 0);
}

#[test]
fn a_request_in_flight_outlives_its_backend_and_its_slot_comes_again_after_it() {
    let gate = Gate::default();
    let (held, is_first) = (gate.clone(), AtomicBool::new(true));
    let slow = Upstream::scripted(move |served| {
        while served.request().is_some() {
            if is_first.swap(false, Ordering::SeqCst) {
                held.wait();
            }
            served.write(&ok("slow", false));
        }
    });
    let [a, b] = ["a", "b"].map(named);
    let running = Running::start(Flags::to(&[&slow]));
    let in_flight = || running.runtime.block_on(running.handle.pools()).unwrap()[0].clone();
    wait_until("slow is up", SOON, || in_flight().backends[0].state.name() == "up");
    let addr = running.addr;
    let client = std::thread::spawn(move || Client::connect(addr).get("/").text());
    wait_until("the request is in flight", SOON, || in_flight().backends[0].in_flight == 1);
    running.add(&a, Mode::Ready);
    running.remove(&slow).unwrap();
    running.expect("a");
    running.add(&b, Mode::Ready);
    let slots: Vec<u32> = in_flight().backends.iter().map(|it| it.slot.number).collect();
    assert_eq!(slots, [1, 2], "the slot of what is in flight is not given again");
    gate.open();
    assert_eq!(client.join().unwrap(), "slow");
    running.remove(&b).unwrap();
    wait_until("the first slot comes again", SOON, || {
        running.add(&b, Mode::Maintenance);
        let slot = in_flight().backends[1].slot;
        running.remove(&b).unwrap();
        (slot.number, slot.generation > 0) == (0, true)
    });
}

fn with_state(flags: Flags, path: &Path) -> Flags {
    flags.with("--state-file", path.to_str().unwrap())
}

#[test]
fn what_was_changed_survives_a_restart() {
    let [a, b, c] = ["a", "b", "c"].map(named);
    let scratch = Scratch::new("state");
    let path = scratch.join("state.json");
    {
        let running = Running::start(with_state(Flags::to(&[&a, &b]), &path));
        running.add(&c, Mode::Ready);
        running.remove(&a).unwrap();
        // It is on the disk when the handle answers.
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&c.addr.to_string()) && text.contains("removed"), "{text}");
        running.expect("b c");
    }
    let proxy = with_state(Flags::to(&[&a, &b]), &path).start();
    let names: Vec<_> = (0..8).map(|_| proxy.client().get("/").text()).collect();
    assert!(!names.contains(&"a".to_owned()), "{names:?}");
    wait_until("c answers", SOON, || proxy.client().get("/").text() == "c");
}

#[test]
fn a_state_file_that_is_broken_or_cannot_be_written_is_refused_with_the_next_step() {
    let a = named("a");
    let scratch = Scratch::new("state");
    let broken = scratch.join("broken.json");
    fs::write(&broken, "{\"version\":1,").unwrap();
    for (path, reason) in [
        (broken, "move it away"),
        (scratch.join(""), "no regular file"),
        (scratch.join("no/state.json"), "make its directory"),
    ] {
        let mut proxy = with_state(Flags::to(&[&a]), &path).spawn();
        assert_eq!(proxy.wait_exit(SOON).code(), Some(64));
        let log = proxy.log();
        assert!(log.contains("--state-file") && log.contains(reason), "{log}");
    }
}

#[test]
fn a_state_file_is_one_processs_until_that_drains() {
    let a = named("a");
    let scratch = Scratch::new("state");
    let path = scratch.join("state.json");
    let flags = || with_state(Flags::to(&[&a]), &path);
    let mut first = flags().start();
    let mut second = flags().spawn();
    assert_eq!(second.wait_exit(SOON).code(), Some(71));
    let log = second.log();
    assert!(log.contains("state.json is in use by another corelane"), "{log}");
    // A request in flight: the first one drains, and the next one need not wait for its end.
    let mut client = first.client();
    client.get("/");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    // Whoever connects later was accepted later.
    assert_eq!(first.client().get("/").text(), "a");
    first.signal(Signal::TERM);
    let third = flags().start();
    assert_eq!(third.client().get("/").text(), "a");
    client.send("\r\n");
    assert_eq!(client.read_response("GET").text(), "a");
    first.expect_drained();
}

#[test]
fn a_restart_without_etcd_has_what_etcd_told_last() {
    let a = named("a");
    let scratch = Scratch::new("state");
    let path = scratch.join("state.json");
    let mut etcd = Etcd::start();
    let key = format!("/corelane/pools/default/backends/{}", a.addr);
    etcd.put(&key, "{}");
    let flags = || with_state(Flags::to(&[]).with("--etcd", &etcd.url()), &path);
    {
        let proxy = flags().start();
        wait_until("a answers", SOON, || proxy.client().get("/").text() == "a");
        wait_until("it is kept", SOON, || {
            fs::read_to_string(&path).unwrap().contains(&a.addr.to_string())
        });
    }
    let again = flags();
    etcd.kill();
    let proxy = again.start();
    assert_eq!(proxy.client().get("/").text(), "a");
}
