//! Watches against backends that come, go and move.

use std::net::TcpListener;
use std::num::{NonZeroU16, NonZeroU32};

use socket2::{Domain, Socket, Type};

use super::*;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn config(timeout: Duration) -> HealthConfig {
    HealthConfig {
        path: None,
        interval: Duration::from_millis(5),
        timeout,
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
    }
}

fn backend(address: SocketAddr) -> BackendConfig {
    BackendConfig { host: address.ip().to_string(), port: address.port(), weight: NonZeroU16::MIN }
}

fn watch(address: SocketAddr, config: &HealthConfig) -> Watch {
    Watch::new(0, "default/test", &backend(address), config).unwrap()
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
    let backend = BackendConfig { host: "a.invalid".to_owned(), port: 80, weight: NonZeroU16::MIN };
    let mut watch = Watch::new(0, "default/test", &backend, &config).unwrap();
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
    let probe = Arc::new(Probe::new(&backend(ANYWHERE), &config).unwrap());
    let stagger = Duration::from_millis(10);
    runtime().block_on(async {
        timeout(PATIENCE, first_passing(probe, addresses, stagger)).await.unwrap()
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
        let first = verdicts.try_recv().unwrap();
        assert!(first.healthy && first.address == Some(address), "{first:?}");
        assert!(verdicts.try_recv().is_err());
        drop(listener);
        let second = timeout(PATIENCE, verdicts.recv()).await.unwrap().unwrap();
        assert!(!second.healthy && second.address == Some(address), "{second:?}");
        drop(verdicts);
        task.abort();
    });
}

#[test]
fn a_probe_that_cannot_be_made_leaves_the_health_as_it_was() {
    let mut watch = watch(ANYWHERE, &config(PATIENCE));
    let mut judge = |passed, is_first| {
        let verdict = watch.judge(&Outcome { passed, first: Some(ANYWHERE) }, is_first);
        verdict.map(|verdict| verdict.healthy)
    };
    let local = || Err(ProbeError::Local(std::io::ErrorKind::Other.into()));
    assert_eq!(judge(local(), true), Some(false));
    assert_eq!(judge(Ok(ANYWHERE), false), Some(true));
    assert_eq!(judge(local(), false), None);
    assert_eq!(judge(Err(ProbeError::Status(ANYWHERE, 503)), false), Some(false));
}
