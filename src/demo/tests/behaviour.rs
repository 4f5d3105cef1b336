//! How a backend behaves when it is told to fail, and what it counts and tells.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{DEADLINE, Demo, read_until};

#[test]
fn latency_holds_answers_back_but_not_probes() {
    const LATENCY: Duration = Duration::from_millis(150);
    let demo = Demo::with(|config| config.behaviour.latency = LATENCY);
    let time = |method, target| {
        let start = Instant::now();
        assert_eq!(demo.ask(method, target).status, 200, "{target}");
        start.elapsed()
    };
    assert!(time("GET", "/") >= LATENCY);
    assert!(time("POST", "/count?id=a") >= LATENCY);
    for (method, target) in [("GET", "/health"), ("GET", "/counts"), ("POST", "/health/fail")] {
        // The later case makes /health fail, which is none of the earlier ones.
        assert!(time(method, target) < LATENCY, "{target}");
    }
}

#[test]
fn a_share_of_answers_fails_but_no_probe() {
    let demo = Demo::with(|config| config.behaviour.error_percent = 50);
    let failed = (0..200).filter(|_| demo.ask("GET", "/").status == 500).count();
    // Less likely than once in 10^12 by chance.
    assert!((50..150).contains(&failed), "{failed} of 200");
    for _ in 0..20 {
        assert_eq!(demo.ask("GET", "/health").status, 200);
    }
    assert_eq!(demo.ask("POST", "/behave?error_percent=100").json()["error_percent"], 100);
    assert_eq!(demo.ask("POST", "/count?id=a").status, 500);
    assert_eq!(demo.ask("GET", "/counts").json()["total"], 1, "it was executed");
    demo.ask("POST", "/behave?error_percent=0");
    assert_eq!(demo.ask("GET", "/").status, 200);
}

#[test]
fn a_silent_backend_executes_and_answers_probes_alone() {
    let demo = Demo::with(|config| config.behaviour.is_silent = true);
    let mut unanswered = demo.connect();
    unanswered.write_all(b"POST /count?id=a HTTP/1.1\r\nHost: demo\r\n\r\n").expect("write");
    let start = Instant::now();
    while demo.ask("GET", "/counts").json()["total"] == 0 {
        assert!(start.elapsed() < DEADLINE, "it is executed");
    }
    unanswered.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
    unanswered.read(&mut [0]).expect_err("no answer comes");
    assert_eq!(demo.ask("GET", "/health").status, 200);
    demo.ask("POST", "/behave?silent=0");
    assert_eq!(demo.ask("GET", "/").status, 200);
}

#[test]
fn idle_connections_are_closed_after_their_time() {
    const IDLE: Duration = Duration::from_millis(100);
    let demo = Demo::with(|config| {
        config.behaviour.idle_timeout = Some(IDLE);
        config.behaviour.announces_idle_timeout = true;
    });
    let mut stream = demo.connect();
    let get = |stream: &mut TcpStream| {
        stream.write_all(b"GET /sleep?ms=150 HTTP/1.1\r\nHost: demo\r\n\r\n").expect("write");
        read_until(stream, "}\n")
    };
    // A request under way is not idleness, and each starts the time anew.
    for _ in 0..2 {
        let reply = get(&mut stream);
        assert!(reply.contains("keep-alive: timeout=0\r\n"), "{reply}");
    }
    let start = Instant::now();
    assert_eq!(stream.read(&mut [0]).expect("closed in order"), 0);
    assert!(start.elapsed() >= IDLE / 2, "{:?}", start.elapsed());
    let mut unused = demo.connect();
    assert_eq!(unused.read(&mut [0]).expect("closed in order"), 0);
}

#[test]
fn an_idle_time_that_is_set_later_holds_for_open_connections() {
    let demo = Demo::start();
    let mut stream = demo.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: demo\r\n\r\n").expect("write");
    let reply = read_until(&mut stream, "\r\n\r\nok\n");
    assert!(!reply.contains("keep-alive:"), "{reply}");
    assert_eq!(demo.ask("POST", "/behave?idle_ms=50").json()["idle_ms"], 50);
    assert_eq!(stream.read(&mut [0]).expect("closed in order"), 0);
}

#[test]
fn a_change_that_is_refused_changes_nothing() {
    let demo = Demo::start();
    for query in
        ["error_percent=101", "latency_ms=x", "silent=2", "idle_ms=-1", "latency_ms=1&silent=x"]
    {
        assert_eq!(demo.ask("POST", &format!("/behave?{query}")).status, 400, "{query}");
    }
    let state = demo.ask("POST", "/behave").json();
    let expected = serde_json::json!({
        "backend": "b1", "latency_ms": 0, "error_percent": 0, "silent": false, "idle_ms": 0
    });
    assert_eq!(state, expected);
}

#[test]
fn load_is_told_on_health_and_set_at_run_time() {
    let demo = Demo::start();
    assert_eq!(demo.ask("GET", "/health").header("x-load"), None);
    for (text, header) in [("0.5", "0.5"), ("1", "1"), ("0", "0"), ("0.25", "0.25")] {
        assert_eq!(demo.ask("POST", &format!("/health/load?value={text}")).status, 200);
        assert_eq!(demo.ask("GET", "/health").header("x-load"), Some(header));
    }
    for text in ["", "x", "-1", "1.01", "NaN", "inf"] {
        assert_eq!(demo.ask("POST", &format!("/health/load?value={text}")).status, 400, "{text}");
    }
    assert_eq!(demo.ask("GET", "/health").header("x-load"), Some("0.25"));
}

#[test]
fn the_agent_tells_its_line_to_whoever_connects() {
    let demo = Demo::with(|config| config.agent_port = Some(0));
    let line = || {
        let mut stream = TcpStream::connect(demo.agent_addr.expect("an agent")).expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let mut line = String::new();
        stream.read_to_string(&mut line).expect("a line");
        line
    };
    assert_eq!(line(), "100%\n");
    assert_eq!(demo.ask("POST", "/agent?line=up%2075%25").json()["agent"], "up 75%");
    assert_eq!(line(), "up 75%\n");
    let long = format!("/agent?line={}", "a".repeat(101));
    for target in ["/agent", "/agent?line=", "/agent?line=a%0Ab", "/agent?line=%4", &long] {
        assert_eq!(demo.ask("POST", target).status, 400, "{target}");
    }
    assert_eq!(line(), "up 75%\n");
}

#[test]
fn executions_are_counted_by_id_and_kept_in_a_file() {
    let path = std::env::temp_dir().join(format!("corelane-counts-{}", std::process::id()));
    let file = std::fs::File::options().append(true).create(true).open(&path).expect("a file");
    let demo = Demo::with(|config| config.count_file = Some(Arc::new(file)));
    for (id, count) in [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("%62", 2)] {
        let target = format!("/count?id={id}");
        assert_eq!(demo.ask("POST", &target).json()["count"], count, "{id}");
    }
    let counts = demo.ask("GET", "/counts").json();
    assert_eq!(counts, serde_json::json!({ "total": 5, "distinct": 2, "repeated": 2 }));
    let kept = std::fs::read_to_string(&path).expect("the file");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(kept, "a\nb\na\na\nb\n");
    let long = format!("/count?id={}", "a".repeat(65));
    for target in ["/count", "/count?id=", &long] {
        assert_eq!(demo.ask("POST", target).status, 400, "{target}");
    }
    assert_eq!(demo.ask("GET", "/count?id=a").status, 405);
}
