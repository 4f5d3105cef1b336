//! The flags of health checks, ejection and breaker.

use std::time::Duration;

use super::{check_refused, config_of_words, pool_of};
use crate::config::{HealthHeader, InitialHealth, Statuses};

#[test]
fn a_probe_asks_what_its_flags_say() {
    let health = pool_of("").health;
    assert_eq!((health.path.as_deref(), health.method.as_str()), (Some("/health"), "GET"));
    assert_eq!((health.host, health.headers, health.body), (None, Vec::new(), None));
    assert_eq!(health.statuses, Statuses(vec![200..=399]));
    assert_eq!((health.initial, health.agent_port), (InitialHealth::Probe, None));
    let flags = "--health-method OPTIONS --health-host a.example:81 --health-body ok \
                 --health-status 301,200-250,251-299 --health-initial up --agent-port 65535";
    let health = pool_of(flags).health;
    assert_eq!((health.method.as_str(), health.host.as_deref()), ("OPTIONS", Some("a.example:81")));
    assert_eq!((health.body.as_deref(), health.agent_port), (Some("ok"), Some(65535)));
    assert_eq!(health.statuses, Statuses(vec![200..=299, 301..=301]));
    assert_eq!(health.initial, InitialHealth::Up);
    assert_eq!(config_of_words(&["--health-path", ""]).unwrap().pools[0].health.path, None);
}

#[test]
fn what_a_probe_cannot_ask_is_refused() {
    for (flags, reason) in [
        ("--health-path health", "is no path"),
        ("--health-path /a#b", "is no path"),
        ("--health-method CONNECT", "tunnel"),
        ("--health-method G(T", "is no method"),
        ("--health-method HEAD --health-body ok", "HEAD has none"),
        ("--health-host http://a", "no HOST"),
        ("--health-host user@a", "no HOST"),
        ("--health-host :80", "no HOST"),
        ("--health-status 2xx", "no status from 200 to 599"),
        ("--health-status 199", "no status from 200 to 599"),
        ("--health-status 299-200", "runs backwards"),
        ("--health-status ,", "no status"),
        ("--health-initial down", "probe"),
        ("--agent-port 0", "1 to 65535"),
        ("--agent-port 65536", "1 to 65535"),
    ] {
        check_refused(flags, reason);
    }
    for words in [
        ["--health-method", "GET"],
        ["--health-host", "a"],
        ["--health-header", "a: b"],
        ["--health-status", "200"],
        ["--health-body", "ok"],
    ] {
        let error = config_of_words(&[&["--health-path", ""], &words[..]].concat()).unwrap_err();
        assert!(error.contains("needs a --health-path"), "{words:?}: {error}");
    }
}

#[test]
fn a_probes_headers_are_lines() {
    let headers = |text: &str| {
        config_of_words(&["--health-header", text])
            .map(|config| config.pools[0].health.headers.clone())
    };
    let header = |name: &str, value: &str| HealthHeader { name: name.into(), value: value.into() };
    for (text, expected) in [
        ("Authorization: Bearer a b", vec![header("Authorization", "Bearer a b")]),
        ("X-Empty:", vec![header("X-Empty", "")]),
        ("X-Tab:\ta\tb ", vec![header("X-Tab", "a\tb")]),
        ("A: 1\n\nB: 2\n", vec![header("A", "1"), header("B", "2")]),
    ] {
        assert_eq!(headers(text), Ok(expected), "{text}");
    }
    let two = ["--health-header", "A: 1", "--health-header", "A: 2"];
    let two = config_of_words(&two).unwrap().pools[0].health.headers.clone();
    assert_eq!(two, [header("A", "1"), header("A", "2")]);
    for (text, reason) in [
        ("A", "no 'NAME: VALUE'"),
        (": b", "is no name"),
        ("A b: c", "is no name"),
        ("A : c", "is no name"),
        ("host: a", "--health-host"),
        ("Connection: close", "a probe's own"),
        ("content-length: 0", "a probe's own"),
        ("Transfer-Encoding: chunked", "a probe's own"),
        ("A: b\rB: c", "control characters"),
        ("A: \u{0}", "control characters"),
    ] {
        let error = headers(text).unwrap_err();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
    let many = ["--health-header", "A: 1"].repeat(33);
    assert!(config_of_words(&many).unwrap_err().contains("more than 32 times"));
}

#[test]
fn a_probe_takes_no_longer_than_the_shortest_interval() {
    let times = |flags: &str| {
        let health = pool_of(flags).health;
        [health.interval, health.interval_changing, health.interval_down, health.timeout]
            .map(|time| time.as_millis())
    };
    assert_eq!(times(""), [2000, 2000, 2000, 1000]);
    assert_eq!(times("--health-interval 500ms"), [500; 4]);
    assert_eq!(times("--health-interval-down 100ms"), [2000, 2000, 100, 100]);
    assert_eq!(times("--health-interval-changing 5s"), [2000, 5000, 2000, 1000]);
    check_refused("--health-timeout 9s", "--health-timeout 9s is longer than --health-interval 2s");
    check_refused(
        "--health-timeout 1s --health-interval-down 900ms",
        "is longer than --health-interval-down 900ms",
    );
    check_refused(
        "--health-timeout 1s --health-interval-changing 900ms",
        "is longer than --health-interval-changing 900ms",
    );
    check_refused("--health-interval-down 9ms", "10ms to 1h");
    check_refused("--health-interval 0s", "it is not 10ms to 1h");
    check_refused("--health-interval 5", "it is no duration");
}

#[test]
fn ejection_has_defaults_and_can_be_off() {
    let eject = pool_of("").eject;
    assert_eq!(eject.consecutive_max.map(u32::from), Some(5));
    assert_eq!(eject.success_gap_percent.map(u32::from), Some(30));
    assert_eq!((eject.interval, eject.requests_min), (Duration::from_secs(10), 100));
    assert_eq!((eject.time, eject.time_max), (Duration::from_secs(5), Duration::from_secs(300)));
    assert_eq!(eject.percent_max, 50);
    let flags = "--eject-after 0 --eject-success-gap 0 --eject-interval 1s --eject-requests-min 1 \
                 --eject-time 1s --eject-time-max 1s --eject-max-percent 0";
    let eject = pool_of(flags).eject;
    assert_eq!((eject.consecutive_max, eject.success_gap_percent), (None, None));
    assert_eq!((eject.requests_min, eject.percent_max), (1, 0));
    check_refused("--eject-time 6m", "--eject-time 6m is longer than --eject-time-max 5m");
    check_refused("--eject-success-gap 101", "0 to 100");
    check_refused("--eject-max-percent 101", "0 to 100");
    check_refused("--eject-requests-min 0", "1 to 1000000");
}

#[test]
fn the_breaker_is_off_by_default() {
    let breaker = pool_of("").breaker;
    assert_eq!((breaker.requests_max, breaker.pending_max), (None, None));
    assert_eq!((breaker.error_percent, breaker.requests_min), (None, 20));
    assert_eq!(breaker.window, Duration::from_secs(10));
    assert_eq!((breaker.open_time, breaker.trials.get()), (Duration::from_secs(5), 3));
    let flags = "--breaker-requests-max 1 --breaker-pending-max 2 --breaker-error-percent 100 \
                 --breaker-window 1s --breaker-requests-min 1 --breaker-open-time 1s --breaker-trials 1";
    let breaker = pool_of(flags).breaker;
    assert_eq!(breaker.requests_max.map(u32::from), Some(1));
    assert_eq!(breaker.pending_max.map(u32::from), Some(2));
    assert_eq!(breaker.error_percent.map(u32::from), Some(100));
    check_refused("--breaker-requests-max 0", "it is not a number from 1");
    check_refused("--breaker-error-percent 101", "0 to 100");
    check_refused("--breaker-error-percent 1 --breaker-trials 0", "1 to 1000");
    for flag in [
        "--breaker-window 10s",
        "--breaker-requests-min 20",
        "--breaker-open-time 5s",
        "--breaker-trials 3 --breaker-error-percent 0",
    ] {
        check_refused(flag, "needs a --breaker-error-percent");
    }
}
