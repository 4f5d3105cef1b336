//! The control thread against backends that pass, fail and hang.

mod handle;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::*;
use crate::cli::{Cli, Machine};
use crate::config::{
    BackendConfig, BreakerConfig, EjectConfig, HealthConfig, InitialHealth, Mode, SLOTS_MAX,
};
use crate::control::registry::Entry;
use crate::control::view::Revision;
use crate::upstream::endpoint::{Address, Slot, Standing, WEIGHT_UNIT};
use crate::upstream::outcome::{self, Kind};
use crate::upstream::snapshot::Snapshot;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const RISE: u32 = 2;
const FALL: u32 = 3;

const PASS: u8 = 0;
const FAIL: u8 = 1;
const HANG: u8 = 2;
const DIE: u8 = 3;

/// A backend on 127.0.0.1 that answers probes as it is told to.
struct Backend {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
    /// Probes answered, or about to be, since the mode was set.
    answered: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Backend {
    fn start(mode: u8) -> Backend {
        Backend::start_at("127.0.0.1:0".parse().unwrap(), mode)
    }

    fn start_at(address: SocketAddr, mode: u8) -> Backend {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(AtomicU8::new(mode));
        let answered = Arc::new(AtomicUsize::new(0));
        let (served, counted) = (Arc::clone(&mode), Arc::clone(&answered));
        let server = std::thread::spawn(move || serve(&listener, &served, &counted));
        Backend { address, mode, answered, server }
    }

    fn set(&self, mode: u8) {
        self.answered.store(0, Ordering::SeqCst);
        self.mode.store(mode, Ordering::SeqCst);
    }

    /// Ends the server and closes its port.
    fn kill(self) {
        self.set(DIE);
        // Wakes the server, unless a probe did and the port is closed already.
        drop(TcpStream::connect(self.address));
        self.server.join().unwrap();
    }
}

fn serve(listener: &TcpListener, mode: &AtomicU8, answered: &AtomicUsize) {
    let mut held = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        match mode.load(Ordering::SeqCst) {
            DIE => return,
            HANG => held.push(stream),
            mode => {
                let status = if mode == PASS { "200 OK" } else { "503 Service Unavailable" };
                // A probe that was dropped meanwhile is no fault of the test's.
                if stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {
                    answered.fetch_add(1, Ordering::SeqCst);
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                    drop(stream.write_all(answer.as_bytes()));
                }
            }
        }
    }
}

/// A configuration with these backends, in which nothing is on but the probes.
pub(super) fn config(backends: &[(&str, u16)], timeout: Duration) -> Config {
    let flags = ["corelane", "--listen", "127.0.0.1:0", "--backend", "http://127.0.0.1:1"];
    let machine = Machine { cores: vec![0], parallelism: 1, descriptors: 1000 };
    let flags = Cli::read_flags(flags.into_iter().map(str::to_owned)).unwrap();
    let mut config = flags.proxy.into_config(&machine).unwrap();
    config.pools[0].backends =
        backends.iter().map(|(host, port)| backend(host, *port, Mode::Ready)).collect();
    let interval = Duration::from_millis(20);
    config.pools[0].health = HealthConfig {
        path: Some("/health".to_owned()),
        interval,
        interval_changing: interval,
        interval_down: interval,
        timeout,
        rise: NonZeroU32::new(RISE).unwrap(),
        fall: NonZeroU32::new(FALL).unwrap(),
        initial: InitialHealth::Probe,
        agent_port: None,
        body: None,
        ..config.pools[0].health.clone()
    };
    config.pools[0].eject = EjectConfig {
        consecutive_max: None,
        success_gap_percent: None,
        interval: Duration::from_secs(10),
        requests_min: 100,
        time: Duration::from_secs(30),
        time_max: Duration::from_secs(300),
        percent_max: 50,
    };
    config.pools[0].breaker = BreakerConfig {
        requests_max: None,
        pending_max: None,
        error_percent: None,
        window: Duration::from_secs(10),
        requests_min: 10,
        open_time: Duration::from_secs(10),
        trials: NonZeroU32::new(3).unwrap(),
    };
    config.pools[0].balance.slow_start = Duration::ZERO;
    config.pools[0].balance.panic_percent = 0;
    config
}

pub(super) fn backend(host: &str, port: u16, mode: Mode) -> BackendConfig {
    BackendConfig {
        host: host.to_owned(),
        port,
        weight: NonZeroU16::MIN,
        conns_max: None,
        is_backup: false,
        mode,
    }
}

/// What a source says of a backend.
pub(super) fn entry(backend: BackendConfig) -> Entry {
    let (source, origin) = (Source::Flags, "a test".to_owned());
    Entry { backend, source, origin, revision: Revision(1) }
}

fn silent() -> Bell {
    Bell(Box::new(|| {}))
}

fn start_with(config: &Config) -> Control {
    let (_, outcomes) = outcome::channel();
    Control::start(config, Lanes::new(1, SLOTS_MAX), outcomes, silent(), None).unwrap()
}

fn start(backends: &[&Backend]) -> Control {
    let hosts: Vec<_> = backends.iter().map(|it| it.address.ip().to_string()).collect();
    let ports = backends.iter().map(|it| it.address.port());
    let backends: Vec<_> = hosts.iter().map(String::as_str).zip(ports).collect();
    start_with(&config(&backends, PATIENCE))
}

/// Which endpoints are eligible, as 0 and 1.
fn eligible(snapshot: &Snapshot) -> String {
    let endpoints = &snapshot.pools[0].endpoints;
    endpoints.iter().map(|endpoint| if endpoint.is_eligible() { '1' } else { '0' }).collect()
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[track_caller]
fn wait_until(control: &Control, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = eligible(&control.published().load());
        if now == expected {
            return;
        }
        assert!(Instant::now() < deadline, "eligible {now}, not {expected}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[track_caller]
fn wait_for_first_round(control: &Control) {
    control.first_round().recv_timeout(PATIENCE).unwrap();
}

#[test]
fn nothing_is_eligible_before_the_first_probe_and_all_that_pass_are_after_it() {
    let (one, two, sick) = (Backend::start(PASS), Backend::start(PASS), Backend::start(FAIL));
    let control = start(&[&one, &two, &sick]);
    wait_for_first_round(&control);
    let published = control.published();
    let snapshot = published.load();
    assert!(snapshot.epoch > 1);
    assert_eq!(eligible(&snapshot), "110");
    let endpoint = &snapshot.pools[0].endpoints[1];
    assert_eq!(endpoint.id, format!("default/{}", two.address));
    assert_eq!(endpoint.slot, Slot { number: 1, generation: 0 });
    assert!(control.is_alive());
    let ended = control.ended().clone();
    control.stop();
    assert!(ended.try_recv() == Err(crossbeam::channel::TryRecvError::Disconnected));
}

#[test]
fn the_first_snapshot_has_every_backend_and_none_is_eligible() {
    let (one, two) = (Backend::start(HANG), Backend::start(HANG));
    let control = start(&[&one, &two]);
    let first = control.published().load_full();
    control.stop();
    assert_eq!((first.epoch, eligible(&first).as_str()), (1, "00"));
    let addresses: Vec<_> = first.pools[0].endpoints.iter().map(|it| it.address).collect();
    assert_eq!(addresses, [one, two].map(|it| Some(Address::Tcp(it.address))));
}

#[test]
fn a_backend_leaves_after_fall_failures_and_returns_after_rise_passes() {
    let (one, two) = (Backend::start(PASS), Backend::start(PASS));
    let control = start(&[&one, &two]);
    wait_until(&control, "11");
    two.set(FAIL);
    wait_until(&control, "10");
    assert!(two.answered.load(Ordering::SeqCst) >= FALL as usize);
    two.set(PASS);
    wait_until(&control, "11");
    assert!(two.answered.load(Ordering::SeqCst) >= RISE as usize);
    control.stop();
}

#[test]
fn a_killed_backend_leaves_and_returns_on_the_same_port() {
    // An address of its own, where no other test takes the port between death and return.
    let one = Backend::start_at("127.0.0.2:0".parse().unwrap(), PASS);
    let two = Backend::start(PASS);
    let control = start(&[&one, &two]);
    wait_until(&control, "11");
    let address = one.address;
    one.kill();
    wait_until(&control, "01");
    let _one = Backend::start_at(address, PASS);
    wait_until(&control, "11");
    control.stop();
}

#[test]
fn a_backend_that_hangs_delays_no_other() {
    let (hanging, good) = (Backend::start(HANG), Backend::start(PASS));
    let control = start(&[&hanging, &good]);
    wait_until(&control, "01");
    good.set(FAIL);
    wait_until(&control, "00");
    good.set(PASS);
    wait_until(&control, "01");
    assert!(control.first_round().try_recv().is_err());
    control.stop();
}

#[test]
fn the_first_round_is_in_after_one_timeout() {
    let (hanging, good) = (Backend::start(HANG), Backend::start(PASS));
    let timeout = Duration::from_millis(300);
    let ports = [("127.0.0.1", hanging.address.port()), ("127.0.0.1", good.address.port())];
    let started = Instant::now();
    let control = start_with(&config(&ports, timeout));
    wait_for_first_round(&control);
    assert!(started.elapsed() >= timeout);
    assert_eq!(eligible(&control.published().load()), "01");
    control.stop();
}

#[test]
fn stop_does_not_wait_for_a_probe_that_hangs() {
    let hanging = Backend::start(HANG);
    let control = start(&[&hanging]);
    let ended = control.ended().clone();
    let started = Instant::now();
    control.stop();
    assert!(started.elapsed() < PATIENCE / 2);
    assert!(ended.try_recv() == Err(crossbeam::channel::TryRecvError::Disconnected));
}

#[test]
fn localhost_finds_a_server_that_listens_on_ipv4_only() {
    let backend = Backend::start(PASS);
    let port = backend.address.port();
    let control = start_with(&config(&[("localhost", port)], PATIENCE));
    wait_until(&control, "1");
    let address = control.published().load().pools[0].endpoints[0].address;
    assert_eq!(address, Some(Address::Tcp(backend.address)));
    control.stop();
}

#[test]
fn many_backends_that_change_at_once_make_few_snapshots() {
    let backend = Backend::start_at("0.0.0.0:0".parse().unwrap(), PASS);
    let port = backend.address.port();
    let hosts: Vec<_> = (1..=100).map(|host| format!("127.0.0.{host}")).collect();
    let backends: Vec<_> = hosts.iter().map(|host| (host.as_str(), port)).collect();
    let started = Instant::now();
    let control = start_with(&config(&backends, PATIENCE));
    wait_for_first_round(&control);
    let epoch = control.published().load().epoch;
    let intervals = started.elapsed().as_millis() / publish::PUBLISH_INTERVAL.as_millis();
    assert!(u128::from(epoch) <= intervals + 2, "epoch {epoch} after {intervals} intervals");
    control.stop();
}

#[test]
fn a_panic_of_one_watch_ends_the_thread() {
    let thread = Thread::spawn(Thread::runtime().unwrap(), async {
        let (mut watches, _news) = Watches::new(Arc::new(Pulse::new([], Arc::default())));
        watches.begin();
        watches.tasks().spawn(async { panic!("provoked by a test") });
        match watches.panicked().await {}
    });
    let ended = thread.unwrap().ended().clone().recv_timeout(PATIENCE);
    assert_eq!(ended, Err(crossbeam::channel::RecvTimeoutError::Disconnected));
}

#[test]
fn a_health_path_that_is_none_is_a_usage_error() {
    let mut config = config(&[("127.0.0.1", 1)], PATIENCE);
    config.pools[0].health.path = Some("health".to_owned());
    let (_, outcomes) = outcome::channel();
    let started = Control::start(&config, Lanes::new(1, 1), outcomes, silent(), None);
    assert!(matches!(started, Err(StartError::Usage(_))));
}

#[test]
fn a_backend_that_begins_up_is_eligible_at_once_and_falls_like_any_other() {
    let (well, sick) = (Backend::start(PASS), Backend::start(FAIL));
    let ports = [&well, &sick].map(|it| ("127.0.0.1", it.address.port()));
    let mut config = config(&ports, PATIENCE);
    config.pools[0].health.initial = InitialHealth::Up;
    let control = start_with(&config);
    assert_eq!(eligible(&control.published().load()), "11");
    wait_until(&control, "10");
    assert!(sick.answered.load(Ordering::SeqCst) >= FALL as usize);
    control.stop();
}

#[test]
fn a_backend_in_maintenance_is_not_probed_and_holds_up_no_first_round() {
    let (well, away) = (Backend::start(PASS), Backend::start(PASS));
    let ports = [&well, &away].map(|it| ("127.0.0.1", it.address.port()));
    let mut config = config(&ports, PATIENCE);
    config.pools[0].backends[1].mode = Mode::Maintenance;
    let control = start_with(&config);
    wait_for_first_round(&control);
    assert_eq!(eligible(&control.published().load()), "10");
    assert_eq!(away.answered.load(Ordering::SeqCst), 0);
    control.stop();
}

#[test]
fn the_first_round_of_backends_in_maintenance_alone_is_in_at_once() {
    let mut config = config(&[("127.0.0.1", 1)], PATIENCE);
    config.pools[0].backends[0].mode = Mode::Maintenance;
    let control = start_with(&config);
    wait_for_first_round(&control);
    assert!(control.is_alive());
    control.stop();
}

#[test]
fn a_backend_that_drains_keeps_its_sessions_while_it_is_healthy() {
    let backend = Backend::start(PASS);
    let mut config = config(&[("127.0.0.1", backend.address.port())], PATIENCE);
    config.pools[0].backends[0].mode = Mode::Drain;
    let control = start_with(&config);
    wait_for_first_round(&control);
    let standing = || control.published().load().pools[0].endpoints[0].standing;
    assert_eq!(standing(), Standing::Draining);
    backend.set(FAIL);
    until("it is out", || standing() == Standing::Out);
    control.stop();
}

#[test]
fn failures_in_a_row_that_workers_tell_of_eject() {
    let (one, two) = (Backend::start(PASS), Backend::start(PASS));
    let ports = [&one, &two].map(|it| ("127.0.0.1", it.address.port()));
    let mut config = config(&ports, PATIENCE);
    config.pools[0].eject.consecutive_max = NonZeroU32::new(3);
    config.pools[0].eject.time = Duration::from_millis(300);
    let (sender, outcomes) = outcome::channel();
    let control = Control::start(&config, Lanes::new(1, 2), outcomes, silent(), None).unwrap();
    wait_until(&control, "11");
    let slot = Slot { number: 1, generation: 0 };
    let failure = Outcome { slot, kind: Kind::Status(500), successes: 0 };
    for _ in 0..3 {
        sender.try_send(failure).unwrap();
    }
    wait_until(&control, "10");
    assert_eq!(control.vitals().ejections.get(), 1);
    wait_until(&control, "11");
    control.stop();
}

#[test]
fn a_breaker_opens_by_the_lanes_and_lets_trials_close_it() {
    let backend = Backend::start(PASS);
    let mut config = config(&[("127.0.0.1", backend.address.port())], PATIENCE);
    config.pools[0].breaker.error_percent = NonZeroU32::new(50);
    config.pools[0].breaker.open_time = Duration::from_millis(100);
    let lanes = Lanes::new(1, 1);
    let (_sender, outcomes) = outcome::channel();
    let control = Control::start(&config, lanes.clone(), outcomes, silent(), None).unwrap();
    wait_until(&control, "1");
    (0..10).for_each(|_| lanes.lane(0).add_failure(0));
    let endpoint = || control.published().load().pools[0].endpoints[0].clone();
    until("it half-opens", || endpoint().standing == Standing::Trial);
    let limits = endpoint().limits;
    assert_eq!([(); 4].map(|()| limits.take_trial()), [true, true, true, false]);
    (0..3).for_each(|_| lanes.lane(0).add_success(0));
    until("it closes", || endpoint().standing == Standing::Open);
    assert_eq!(control.vitals().breaker_openings.get(), 1);
    control.stop();
}

#[test]
fn a_backend_that_comes_back_starts_slowly_and_one_that_was_there_does_not() {
    let backend = Backend::start(PASS);
    let mut config = config(&[("127.0.0.1", backend.address.port())], PATIENCE);
    config.pools[0].balance.slow_start = Duration::from_millis(400);
    let control = start_with(&config);
    wait_for_first_round(&control);
    let weight = || control.published().load().pools[0].endpoints[0].weight;
    assert_eq!(weight(), WEIGHT_UNIT);
    backend.set(FAIL);
    wait_until(&control, "0");
    backend.set(PASS);
    wait_until(&control, "1");
    assert!(weight() < WEIGHT_UNIT);
    until("it has its full weight", || weight() == WEIGHT_UNIT);
    let epoch = control.published().load().epoch;
    assert!((5..50).contains(&epoch), "{epoch}");
    control.stop();
}

#[test]
fn where_too_few_are_healthy_all_take_requests() {
    let (one, two) = (Backend::start(PASS), Backend::start(FAIL));
    let ports = [&one, &two].map(|it| ("127.0.0.1", it.address.port()));
    let mut config = config(&ports, PATIENCE);
    config.pools[0].balance.panic_percent = 50;
    let control = start_with(&config);
    wait_for_first_round(&control);
    let is_panicking = || control.published().load().pools[0].is_panicking;
    assert_eq!((eligible(&control.published().load()).as_str(), is_panicking()), ("10", false));
    one.set(FAIL);
    until("it panics", is_panicking);
    assert_eq!(eligible(&control.published().load()), "11");
    one.set(PASS);
    until("it panics no more", || !is_panicking());
    assert_eq!(eligible(&control.published().load()), "10");
    control.stop();
}
