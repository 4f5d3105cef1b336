//! What probing costs: processor time of the control thread with 200 endpoints and a 2 s interval.
//!
//! `cargo bench --bench probing`, or with other numbers `-- --bench ENDPOINTS INTERVAL_MS SECONDS`.
//! The backend runs in a process of its own; nothing is measured but the control thread, whose
//! processor time the kernel tells in nanoseconds (`/proc/self/task/*/schedstat`).
//! The aim: less than 2 % of a core. Measured on 2 shared cores: see `AIM_PERCENT`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use corelane::cli::{Cli, Machine};
use corelane::config::{BackendConfig, Config, Mode, SLOTS_MAX};
use corelane::control::{Bell, Control};
use corelane::metrics::Lanes;
use corelane::upstream::outcome;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "serve") {
        return serve();
    }
    // Whoever builds all targets to test them does not want to wait for this.
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let numbers: Vec<u64> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let number = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
    let endpoints = usize::try_from(number(0, 200)).expect("a number of endpoints");
    let interval = Duration::from_millis(number(1, 2000));
    let time = Duration::from_secs(number(2, 20));

    let program = std::env::current_exe().expect("this program's path");
    let mut server =
        Command::new(program).arg("serve").stdout(Stdio::piped()).spawn().expect("a server");
    let mut line = String::new();
    let stdout = server.stdout.take().expect("the server's output");
    BufReader::new(stdout).read_line(&mut line).expect("the server's address");
    measure(&config(line.trim().parse().expect("an address"), endpoints, interval), time);
    server.kill().and_then(|()| server.wait()).expect("the server's end");
}

/// Answers each request on a fresh connection, until it is killed.
fn serve() {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    println!("{}", listener.local_addr().expect("its address"));
    std::io::stdout().flush().expect("an output");
    let mut buffer = [0; 4096];
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        if stream.read(&mut buffer).is_ok_and(|read| read > 0) {
            // A probe that gave up is not this benchmark's.
            drop(stream.write_all(ANSWER));
        }
    }
}

fn config(addr: SocketAddr, endpoints: usize, interval: Duration) -> Config {
    let flags = ["corelane", "--listen", "127.0.0.1:0", "--backend", "http://127.0.0.1:1"];
    let machine = Machine { cores: vec![0], parallelism: 1, descriptors: 1000 };
    let cli = Cli::read_flags(flags.into_iter().map(str::to_owned)).expect("flags");
    let mut config = cli.proxy.into_config(&machine).expect("a configuration");
    config.pools[0].health.interval = interval;
    config.pools[0].health.interval_changing = interval;
    config.pools[0].health.interval_down = interval;
    // Each on an address of its own, which the one server has all of.
    let backend = |number: usize| BackendConfig {
        host: format!("127.0.{}.{}", number / 250, number % 250 + 1),
        port: addr.port(),
        weight: NonZeroU16::MIN,
        conns_max: None,
        is_backup: false,
        mode: Mode::Ready,
    };
    config.pools[0].backends = (0..endpoints).map(backend).collect();
    config
}

fn measure(config: &Config, time: Duration) {
    let (_sender, outcomes) = outcome::channel();
    let bell = Bell(Box::new(|| {}));
    let control = Control::start(config, Lanes::new(1, SLOTS_MAX), outcomes, bell, None)
        .expect("the control thread");
    control.first_round().recv().expect("the first round");
    let (began, before) = (Instant::now(), processor_time());
    // Waits for an end that does not come.
    assert!(control.ended().recv_timeout(time).is_err(), "it never gives a message");
    let (used, elapsed) = (processor_time() - before, began.elapsed());
    let published = control.published().load().clone();
    let up = published.pools[0].endpoints.iter().filter(|it| it.is_eligible()).count();
    // With half of the jitter of 10 % on average.
    let probes = config.pools[0].backends.len() as f64 * elapsed.as_secs_f64()
        / (config.pools[0].health.interval.as_secs_f64() * 1.05);
    println!(
        "{} endpoints ({up} up) at {:?}: {:.2} % of a core, {:.1} µs a probe (aim: {AIM_PERCENT} %)",
        config.pools[0].backends.len(),
        config.pools[0].health.interval,
        100.0 * used.as_secs_f64() / elapsed.as_secs_f64(),
        used.as_secs_f64() * 1e6 / probes,
    );
    control.stop();
}

/// Processor time of the control thread so far.
fn processor_time() -> Duration {
    for task in std::fs::read_dir("/proc/self/task").expect("threads").flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.starts_with("corelane-contro") {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).expect("schedstat");
            let nanos = stat.split(' ').next().and_then(|it| it.parse().ok());
            return Duration::from_nanos(nanos.expect("processor time"));
        }
    }
    panic!("no control thread");
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
/// The most of a core that 200 endpoints at 2 s may cost.
const AIM_PERCENT: u32 = 2;
