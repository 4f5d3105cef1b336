//! The command line: what is refused, where values come from, and who may share an address.

use std::process::{Command, Stdio};

use crate::support::proxy::{CORELANE, Flags};
use crate::support::upstream::Upstream;

/// Exit code, standard output, standard error of a command that ends by itself.
fn run(words: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new("timeout");
    command.arg("10").arg(CORELANE).args(words).envs(env.iter().copied()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];
const BACKEND: [&str; 2] = ["--backend", "http://127.0.0.1:1"];

#[test]
fn an_impossible_command_line_ends_with_64_and_one_clear_line() {
    let cases: [(&[&str], &str); 44] = [
        (&[], "--backend"),
        (&["--backend", "127.0.0.1:1"], "127.0.0.1:1"),
        (&["--backend", "http://"], "http://"),
        (&["--backend", "ftp://127.0.0.1:1"], "ftp"),
        (&["--backend", "https://127.0.0.1:1"], "https"),
        (&["--backend", "unix:/tmp/socket"], "unix"),
        (&["--backend", "http://127.0.0.1:1,weight=0"], "weight"),
        (&["--backend", "http://127.0.0.1:1,weight=x"], "weight"),
        (&["--backend", "http://127.0.0.1:1,colour=red"], "colour"),
        (&["--backend", "http://127.0.0.1:99999"], "99999"),
        (&["--backend", "http://127.0.0.1:1/path"], "path"),
        (&["--backend", "http://127.0.0.1:1", "--backend", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (&["--listen", "nonsense"], "nonsense"),
        (&["--workers", "0"], "--workers"),
        (&["--workers", "many"], "--workers"),
        (&["--cores", "9999"], "9999"),
        (&["--cores", "3-1"], "3-1"),
        (&["--driver", "kqueue"], "kqueue"),
        (&["--health-rise", "0"], "--health-rise"),
        (&["--health-interval", "0s"], "--health-interval"),
        (&["--backend-connect-timeout", "banana"], "banana"),
        (&["--backend-connect-timeout", "5"], "--backend-connect-timeout"),
        (&["--head-bytes-max", "1"], "--head-bytes-max"),
        (&["--headers-max", "0"], "--headers-max"),
        (&["--backend", "http://127.0.0.1:1,drain,maintenance"], "exclude each other"),
        (&["--policy", "fastest"], "least-connections"),
        (&["--hash-key", "uri"], "--policy maglev"),
        (&["--sticky-cookie", "a,samesite=none"], "needs secure"),
        (&["--sticky-secret-file", "/nowhere"], "--sticky-cookie"),
        (&["--sticky-cookie", "a", "--sticky-secret-file", "/nowhere"], "/nowhere"),
        (&["--retry-on", "always"], "lost, down, timeout, invalid"),
        (&["--retries", "11"], "--retries"),
        (&["--health-header", "Host: a"], "--health-host"),
        (&["--health-path", "", "--health-body", "ok"], "--health-body"),
        (&["--health-interval-down", "50ms", "--health-timeout", "1s"], "--health-interval-down"),
        (&["--eject-time", "6m"], "--eject-time-max"),
        (&["--breaker-error-percent", "101"], "--breaker-error-percent"),
        (&["--breaker-trials", "3"], "--breaker-error-percent"),
        (&["--retries", "0", "--retry-on", "lost"], "--retries above 0"),
        (&["--retries", "-1"], "0 to 10"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--trusted-proxies", "10.0.0.1/8"], "the network is 10.0.0.0/8"),
        (&["--body-bytes-max", "10m"], "without a unit"),
        (&["lane.toml"], "--config lane.toml"),
    ];
    for (words, named) in cases {
        let listen: &[&str] = if words.contains(&"--listen") { &[] } else { &LISTEN };
        let has_backend = words.is_empty() || words.contains(&"--backend");
        let backend: &[&str] = if has_backend { &[] } else { &BACKEND };
        let (code, stdout, stderr) = run(&[words, listen, backend].concat(), &[]);
        assert_eq!((code, stdout.as_str()), (Some(64), ""), "{words:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{words:?}: {stderr}");
        assert!(stderr.contains(named), "{words:?} should name {named}: {stderr}");
    }
}

#[test]
fn without_flags_it_says_what_there_is_to_give() {
    let (code, _, stderr) = run(&[], &[]);
    assert_eq!(code, Some(64), "{stderr}");
    for flag in ["--listen", "--backend ", "--backends-file", "--backend-dns", "--etcd", "--config"]
    {
        assert!(stderr.contains(flag), "{flag}: {stderr}");
    }
}

#[test]
fn an_impossible_environment_ends_with_64_and_one_clear_line() {
    let (code, _, stderr) = run(&[LISTEN, BACKEND].concat(), &[("CORELANE_DRAIN_TIMEOUT", "soon")]);
    assert_eq!((code, stderr.lines().count()), (Some(64), 1), "{stderr}");
    assert!(stderr.contains("soon"), "{stderr}");
}

#[test]
fn a_variable_has_values_apart_by_white_space_and_health_headers_by_lines() {
    let backends = [("CORELANE_BACKEND", "http://127.0.0.1:1 http://127.0.0.1:2\nhttp://[::1]:0")];
    let (code, _, stderr) = run(&LISTEN, &backends);
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("the port is not"), "only the third is wrong: {stderr}");
    let headers = [("CORELANE_HEALTH_HEADER", "A: one two\nB c: three")];
    let (code, _, stderr) = run(&[LISTEN, BACKEND].concat(), &headers);
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("B c"), "only the second is wrong: {stderr}");
}

#[test]
fn every_flag_reads_its_environment_variable_and_the_flag_wins() {
    let upstream = Upstream::naming_targets();
    let ready = crate::support::Scratch::new("flags");
    let mut child = Command::new(CORELANE)
        .env("CORELANE_LISTEN", "127.0.0.1:0")
        .env("CORELANE_BACKEND", upstream.url())
        .env("CORELANE_WORKERS", "0")
        .env("CORELANE_READY_FILE", ready.join("ready"))
        .args(["--workers", "1"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    crate::support::wait_until("it is ready", crate::support::SOON, || {
        ready.join("ready").exists()
    });
    let addr = std::fs::read_to_string(ready.join("ready")).unwrap();
    crate::support::client::Client::connect(addr.trim().parse().unwrap()).get("/").expect(200);
    child.kill().unwrap();
    child.wait().unwrap();
    let (_, help, _) = run(&["--help"], &[]);
    for flag in flags_of(&help) {
        let variable =
            format!("CORELANE_{}", flag.trim_start_matches("--").replace('-', "_").to_uppercase());
        assert!(help.contains(&variable), "{flag}: {variable} is not in --help");
    }
}

/// The flags that a help text names at the beginning of a line, without those that every program has.
pub fn flags_of(help: &str) -> Vec<String> {
    let words = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags =
        words.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")));
    let flags = flags.map(|flag| {
        flag.trim_end_matches(',').split(['=', '[']).next().unwrap_or_default().to_string()
    });
    flags.filter(|flag| !["--help", "--version"].contains(&flag.as_str())).collect()
}

#[test]
fn help_is_grouped_and_says_units_and_defaults() {
    let (code, help, _) = run(&["--help"], &[]);
    assert_eq!(code, Some(0));
    let groups = help.lines().filter(|line| !line.starts_with(' ') && line.ends_with(':')).count();
    assert!(groups >= 4, "{help}");
    let flags = flags_of(&help);
    assert!(flags.len() >= 20, "{flags:?}");
    for flag in [
        "--listen",
        "--backend",
        "--workers",
        "--driver",
        "--health-path",
        "--drain-timeout",
        "--log-format",
    ] {
        assert!(flags.iter().any(|known| known == flag), "{flag}: {flags:?}");
    }
    assert!(!help.contains("--fault"), "the flag for tests is hidden");
    assert!(help.matches("[default: ").count() >= 15, "{help}");
}

#[test]
fn the_version_is_told() {
    let (code, stdout, _) = run(&["--version"], &[]);
    assert_eq!((code, stdout.trim()), (Some(0), concat!("corelane ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_second_process_on_the_same_address_is_refused_unless_both_agree() {
    let upstream = Upstream::naming_targets();
    let mut first = Flags::to(&[&upstream]).with("--workers", "2").start();
    let listen = first.addr().to_string();
    let words = Flags::to(&[&upstream]).with("--listen", &listen).words();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (code, _, stderr) = run(&words, &[]);
    assert_eq!(code, Some(71), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains(&listen) && last.contains("ss -ltnp"), "{stderr}");
    first.client().get("/").expect(200);
    first.drain();

    let shared =
        || Flags::to(&[&upstream]).with("--listen", &listen).switch("--reuse-port-with-others");
    let (mut one, mut two) = (shared().start(), shared().start());
    assert_eq!(one.addr(), two.addr());
    one.client().get("/").expect(200);
    one.drain();
    two.client().get("/").expect(200);
    two.drain();
}

#[test]
fn an_address_that_is_not_here_is_refused_with_the_reason() {
    let words =
        Flags::to(&[]).and("--backend", BACKEND[1]).with("--listen", "192.0.2.1:80").words();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (code, _, stderr) = run(&words, &[]);
    assert_eq!(code, Some(71), "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("192.0.2.1:80"), "{stderr}");
}

#[test]
fn several_addresses_of_both_families_are_served() {
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).with("--listen", "127.0.0.1:0").and("--listen", "[::1]:0");
    let proxy = flags.with("--workers", "2").start();
    let families: Vec<_> = proxy.addrs().iter().map(std::net::SocketAddr::is_ipv4).collect();
    assert_eq!(families, [true, false]);
    for addr in proxy.addrs() {
        let mut client = crate::support::client::Client::connect(*addr);
        client.get("/").expect(200);
        let forwarded = upstream.last_request().head;
        let expected = if addr.is_ipv4() { "127.0.0.1" } else { "::1" };
        assert_eq!(forwarded.get("x-forwarded-for"), Some(expected));
    }
}

#[test]
fn the_log_can_be_json() {
    let upstream = Upstream::naming_targets();
    let mut proxy = Flags::to(&[&upstream]).with("--log-format", "json").start();
    proxy.client().get("/").expect(200);
    proxy.signal(rustix::process::Signal::TERM);
    proxy.wait_exit(crate::support::SOON);
    let log = proxy.log();
    assert!(log.lines().count() >= 2, "{log}");
    for line in log.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.get("level").is_some(), "{line}");
    }
}

#[test]
fn one_line_says_ready_and_the_real_addresses() {
    let upstream = Upstream::naming_targets();
    let proxy = Flags::to(&[&upstream]).start();
    let addr = proxy.addr().to_string();
    crate::support::wait_until("it is logged", crate::support::SOON, || {
        proxy.log().lines().any(|line| line.contains("ready") && line.contains(&addr))
    });
    assert_ne!(proxy.addr().port(), 0);
}
