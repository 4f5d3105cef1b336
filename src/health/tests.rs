//! Watches against backends that come, go and move.

use std::net::TcpListener;
use std::num::{NonZeroU16, NonZeroU32};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::config::{InitialHealth, Mode, Statuses};

const SLOT: Slot = Slot { number: 0, generation: 0 };
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects each 5 ms; one probe decides.
pub(super) fn config(timeout: Duration) -> HealthConfig {
    let interval = Duration::from_millis(5);
    HealthConfig {
        path: None,
        method: "GET".to_owned(),
        host: None,
        headers: Vec::new(),
        statuses: Statuses(vec![200..=399]),
        body: None,
        interval,
        interval_changing: interval,
        interval_down: interval,
        timeout,
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        initial: InitialHealth::Probe,
        agent_port: None,
    }
}

pub(super) fn backend(host: &str, port: u16) -> BackendConfig {
    BackendConfig {
        host: host.to_owned(),
        port,
        weight: NonZeroU16::MIN,
        conns_max: None,
        is_backup: false,
        mode: Mode::Ready,
    }
}

fn backend_at(address: SocketAddr) -> BackendConfig {
    backend(&address.ip().to_string(), address.port())
}

fn watch(address: SocketAddr, config: &HealthConfig) -> Watch {
    // Without beats in between, each pause would pass for a stall.
    let calm = HealthConfig { interval: PATIENCE, interval_changing: PATIENCE, ..config.clone() };
    let calm = HealthConfig { interval_down: PATIENCE, timeout: PATIENCE, ..calm };
    let pulse = Arc::new(Pulse::new([&calm], Arc::default()));
    Watch::new(SLOT, "default/test", &backend_at(address), config, pulse).unwrap()
}

fn verdict_of(news: News) -> Verdict {
    match news {
        News::Verdict(verdict) => verdict,
        News::Agent(report) => panic!("{report:?}"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A listener that the kernel makes connections to and that never answers.
fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that nobody listens on while the socket, which keeps others off it, is held.
fn closed() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

#[test]
fn jitter_is_uniform_up_to_a_tenth() {
    for (interval, random, expected) in [
        (Duration::from_secs(10), 0, Duration::ZERO),
        (Duration::from_secs(10), u64::MAX / 2 + 1, Duration::from_millis(500)),
        (Duration::from_secs(10), u64::MAX, Duration::from_secs(1)),
        (Duration::ZERO, u64::MAX, Duration::ZERO),
        (Duration::MAX, u64::MAX, Duration::from_nanos(u64::MAX)),
    ] {
        assert_eq!(jitter(interval, random), expected, "{interval:?}, {random}");
    }
}

#[test]
fn a_backend_that_hangs_times_out() {
    let (_listener, address) = silent();
    let limit = Duration::from_millis(50);
    let config = HealthConfig { path: Some("/".to_owned()), ..config(limit) };
    let started = std::time::Instant::now();
    let outcome = runtime().block_on(watch(address, &config).probe());
    assert!(matches!(outcome.passed, Err(ProbeError::Timeout(told)) if told == limit));
    assert!((limit..PATIENCE).contains(&started.elapsed()));
}

#[test]
fn a_name_that_does_not_resolve_fails_within_the_timeout() {
    let config = config(Duration::from_millis(500));
    let pulse = Arc::new(Pulse::new([&config], Arc::default()));
    let backend = backend("a.invalid", 80);
    let mut watch = Watch::new(SLOT, "default/test", &backend, &config, pulse).unwrap();
    let runtime = runtime();
    let outcome = runtime.block_on(async { timeout(PATIENCE, watch.probe()).await.unwrap() });
    assert!(matches!(outcome.passed, Err(ProbeError::Unresolved(_))), "{outcome:?}");
    runtime.shutdown_background();
}

/// An address that is not connected to.
const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// Probes these addresses, by TCP without a path; gives the one that passed.
fn passing(addresses: Vec<SocketAddr>, path: Option<&str>) -> Result<SocketAddr, ProbeError> {
    let config = HealthConfig { path: path.map(str::to_owned), ..config(PATIENCE) };
    let probe = Arc::new(Probe::new(&backend_at(ANYWHERE), &config).unwrap());
    let stagger = Duration::from_millis(10);
    runtime().block_on(async {
        let passed = timeout(PATIENCE, first_passing(probe, addresses, stagger)).await.unwrap();
        passed.map(|(address, _)| address)
    })
}

#[test]
fn addresses_are_tried_in_order_until_one_passes() {
    let (_one, one) = silent();
    let (_two, two) = silent();
    let ((_three, three), (_four, last)) = (closed(), closed());
    assert_eq!(passing(vec![three, last, one, two], None).unwrap(), one);
    let error = passing(vec![three, last], None).unwrap_err();
    assert!(matches!(error, ProbeError::Refused(address, _) if address == last), "{error:?}");
    assert!(matches!(passing(Vec::new(), None), Err(ProbeError::Unresolved(_))));
}

#[test]
fn an_address_that_hangs_does_not_hide_one_that_works() {
    use std::io::{Read, Write};
    let (_listener, hanging) = silent();
    let (listener, working) = silent();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    });
    assert_eq!(passing(vec![hanging, working], Some("/")).unwrap(), working);
    server.join().unwrap();
}

#[test]
fn a_verdict_is_sent_for_a_change_only() {
    let (listener, address) = silent();
    runtime().block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (sender, mut verdicts) = mpsc::channel(16);
        let task = tokio::spawn(watch(address, &config(PATIENCE)).run(sender));
        for _ in 0..5 {
            timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        }
        let first = verdict_of(verdicts.try_recv().unwrap());
        assert!(first.healthy && first.address == Some(address), "{first:?}");
        assert!(verdicts.try_recv().is_err());
        drop(listener);
        let second = verdict_of(timeout(PATIENCE, verdicts.recv()).await.unwrap().unwrap());
        assert!(!second.healthy && second.address == Some(address), "{second:?}");
        drop(verdicts);
        task.abort();
    });
}

#[test]
fn a_probe_that_cannot_be_made_leaves_the_health_as_it_was() {
    let mut watch = watch(ANYWHERE, &config(PATIENCE));
    let mut judge = |passed, is_doubtful, is_first| {
        let outcome = Probed { passed, first: Some(ANYWHERE) };
        let verdict = watch.judge(&outcome, is_doubtful, is_first);
        verdict.map(|verdict| verdict.healthy)
    };
    let local = || Err(ProbeError::Local(std::io::ErrorKind::Other.into()));
    let sick = || Err(ProbeError::Status(ANYWHERE, 503));
    assert_eq!(judge(local(), false, true), Some(false));
    assert_eq!(judge(passed_with(None), false, false), Some(true));
    assert_eq!(judge(local(), false, false), None);
    assert_eq!(judge(sick(), true, false), None);
    assert_eq!(judge(sick(), false, false), Some(false));
}

fn passed_with(share: Option<u32>) -> Result<(SocketAddr, Passed), ProbeError> {
    Ok((ANYWHERE, Passed { share }))
}

#[test]
fn a_load_is_told_when_it_moved_by_a_step() {
    let mut watch = watch(ANYWHERE, &config(PATIENCE));
    let mut judge = |passed| {
        let verdict = watch.judge(&Probed { passed, first: Some(ANYWHERE) }, false, false);
        verdict.map(|verdict| (verdict.healthy, verdict.share))
    };
    for (share, expected) in [
        (Some(52), Some((true, 50))),
        (Some(53), None),
        (Some(47), None),
        (Some(30), Some((true, 30))),
        (None, Some((true, 100))),
    ] {
        assert_eq!(judge(passed_with(share)), expected, "{share:?}");
    }
    // A failed probe tells no load.
    assert_eq!(judge(passed_with(Some(20))), Some((true, 20)));
    assert_eq!(judge(Err(ProbeError::Status(ANYWHERE, 503))), Some((false, 20)));
}

#[test]
fn an_endpoint_that_begins_up_needs_fall_failures() {
    let fall = NonZeroU32::new(2).unwrap();
    let config = HealthConfig { initial: InitialHealth::Up, fall, ..config(PATIENCE) };
    let mut watch = watch(ANYWHERE, &config);
    let mut judge = |is_first| {
        let passed = Err(ProbeError::Status(ANYWHERE, 503));
        let verdict = watch.judge(&Probed { passed, first: Some(ANYWHERE) }, false, is_first);
        verdict.map(|verdict| verdict.healthy)
    };
    assert_eq!([judge(true), judge(false), judge(false)], [Some(true), Some(false), None]);
}

/// Watches an endpoint of which each probe hangs, while the thread stalls or does not; whether
/// it is down at the end, and how many probes did not count.
fn watch_hanging(stall: Option<Duration>) -> (bool, u64) {
    let limit = Duration::from_millis(400);
    let (_listener, address) = silent();
    let interval = Duration::from_millis(500);
    let config = HealthConfig {
        path: Some("/".to_owned()),
        interval,
        interval_changing: interval,
        interval_down: interval,
        initial: InitialHealth::Up,
        ..config(limit)
    };
    let vitals = Arc::<vitals::Vitals>::default();
    let pulse = Arc::new(Pulse::new([&config], Arc::clone(&vitals)));
    let watch = Watch::new(SLOT, "default/test", &backend_at(address), &config, Arc::clone(&pulse))
        .unwrap();
    runtime().block_on(async {
        let (sender, mut news) = mpsc::channel(16);
        tokio::spawn(pulse.run());
        tokio::spawn(watch.run(sender));
        if let Some(stall) = stall {
            // Well within the first probe.
            sleep(limit / 8).await;
            #[expect(clippy::disallowed_methods, reason = "the stall is what is tested")]
            std::thread::sleep(stall);
        }
        let first = verdict_of(timeout(PATIENCE, news.recv()).await.unwrap().unwrap());
        (!first.healthy, vitals.probes_discarded.get())
    })
}

#[test]
fn a_probe_that_fails_while_the_thread_stalls_does_not_count() {
    assert_eq!(watch_hanging(Some(Duration::from_millis(1000))), (false, 1));
}

#[test]
fn a_probe_that_fails_while_the_thread_is_well_counts() {
    assert_eq!(watch_hanging(None), (true, 0));
}

/// An agent that answers each question with the next of these lines; gives its port.
fn agent(lines: &'static [&'static [u8]]) -> (u16, std::thread::JoinHandle<()>) {
    use std::io::Write;
    let (listener, address) = silent();
    let server = std::thread::spawn(move || {
        for line in lines {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(line).unwrap();
        }
    });
    (address.port(), server)
}

#[test]
fn an_agent_is_heard_when_it_says_something_new() {
    let long = Box::leak(vec![b' '; 10_000].into_boxed_slice());
    long[0..4].copy_from_slice(b"75%,");
    let lines = Box::leak(Box::new([
        b"drain#deploy\n".as_slice(),
        b"drain\n",
        b"",
        b"what\r\n",
        long,
        b"ready 75%",
    ]));
    let (port, server) = agent(lines);
    let config = HealthConfig { agent_port: Some(port), ..config(PATIENCE) };
    let watch = watch(ANYWHERE, &config);
    let told: Vec<_> = runtime().block_on(async {
        let (sender, mut news) = mpsc::channel(16);
        tokio::spawn(watch.agent().unwrap().run(sender));
        let mut told = Vec::new();
        for _ in 0..3 {
            match timeout(PATIENCE, news.recv()).await.unwrap().unwrap() {
                News::Agent(report) => told.push((report.agent.mode(), report.agent.share())),
                News::Verdict(verdict) => panic!("{verdict:?}"),
            }
        }
        told
    });
    use crate::config::Mode::{Drain, Ready};
    assert_eq!(told, [(Drain, 100), (Drain, 75), (Ready, 75)]);
    server.join().unwrap();
}

#[test]
fn an_agent_that_cannot_be_reached_changes_nothing() {
    let (_socket, address) = closed();
    let config = HealthConfig { agent_port: Some(address.port()), ..config(PATIENCE) };
    let watch = watch(ANYWHERE, &config);
    runtime().block_on(async {
        let (sender, mut news) = mpsc::channel(16);
        let asking = tokio::spawn(watch.agent().unwrap().run(sender));
        assert!(timeout(Duration::from_millis(50), news.recv()).await.is_err());
        // It ends with its watch.
        drop(watch);
        timeout(PATIENCE, asking).await.unwrap().unwrap();
    });
}
