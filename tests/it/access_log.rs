//! The access log of the real binary: a line for each request however it ends, none lost on a disk, drops
//! counted where nobody takes lines, files that are renamed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::figures::scrape;
use crate::support::load::{Fate, Load, Reuse};
use crate::support::openmetrics::Scrape;
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::Server;
use crate::support::upstream::{Served, Upstream, ok};
use crate::support::{SOON, Scratch, wait_until};

/// A proxy that logs to a file.
pub struct Logging {
    pub proxy: Proxy,
    path: PathBuf,
    _scratch: Scratch,
}

impl Logging {
    #[track_caller]
    pub fn start_by(flags: Flags, start: impl FnOnce(Flags) -> Proxy) -> Logging {
        let scratch = Scratch::new("access-log");
        let path = scratch.join("access.log");
        let flags = flags.with("--access-log", path.to_str().unwrap());
        Logging { proxy: start(flags), path, _scratch: scratch }
    }

    #[track_caller]
    fn start(flags: Flags) -> Logging {
        Logging::start_by(flags, Flags::start)
    }

    #[track_caller]
    pub fn json(flags: Flags) -> Logging {
        Logging::start(flags.with("--access-log-format", "json"))
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<Value> {
        parsed(&self.path)
    }

    /// Waits for so many lines, and sees that no more come with them.
    #[track_caller]
    fn wait_for(&self, count: usize) -> Vec<Value> {
        wait_until("the lines are there", SOON, || lines_of(&self.path).len() >= count);
        let lines = parsed(&self.path);
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }
}

fn lines_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text:?}");
    text.lines().map(str::to_owned).collect()
}

fn parsed(path: &Path) -> Vec<Value> {
    let lines = lines_of(path);
    lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Sends bytes and reads to the end, or leaves at once.
fn talk(proxy: &Proxy, request: &[u8], leaves: bool) -> Vec<u8> {
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(request).unwrap();
    let mut answer = Vec::new();
    if !leaves {
        // A reset cuts it.
        client.read_to_end(&mut answer).ok();
    }
    answer
}

/// A backend with an ending for each path.
fn endings() -> Upstream {
    Upstream::scripted(|served: &mut Served| {
        while let Some(request) = served.request() {
            match request.head.target() {
                "/lost" => return,
                "/invalid" => {
                    served.write(b"what?\r\n\r\n");
                    return;
                }
                "/slow" => {
                    served.wait_for_end();
                    return;
                }
                "/cut" => {
                    served.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                    return;
                }
                "/500" => served.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
                "/until-close" => {
                    served.write(b"HTTP/1.1 200 OK\r\n\r\nall");
                    return;
                }
                _ => served.write(&ok("whole", false)),
            };
        }
    })
}

/// Each ending: what is sent, whether the client leaves, and what its line says: status, cause, who
/// answered, and the method.
#[test]
#[expect(clippy::too_many_lines, reason = "one table, a row an ending")]
fn every_ending_of_a_request_has_one_line() {
    let upstream = endings();
    let flags = Flags::to(&[&upstream])
        .with("--retries", "0")
        .with("--backend-response-timeout", "200ms")
        .with("--client-header-timeout", "200ms")
        .with("--client-body-timeout", "200ms")
        .with("--body-bytes-max", "1000")
        .with("--target-bytes-max", "100")
        .with("--headers-max", "4");
    let log = Logging::json(flags);
    let get =
        |target: &str| format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    let (none, corelane, backend) = (None, Some("corelane"), Some("backend"));
    let rows = [
        (get("/whole"), false, Some(200), "", backend, Some("GET")),
        (get("/500"), false, Some(500), "", backend, Some("GET")),
        (get("/until-close"), false, Some(200), "", backend, Some("GET")),
        (get("/lost"), false, Some(502), "backend-lost", corelane, Some("GET")),
        (get("/invalid"), false, Some(502), "response-invalid", corelane, Some("GET")),
        (get("/slow"), false, Some(504), "response-timeout", corelane, Some("GET")),
        (get("/cut"), false, Some(200), "response-truncated", backend, Some("GET")),
        ("\x16\x03\x01\0\x01".to_owned(), false, Some(400), "request-is-tls", corelane, none),
        ("G@T / HTTP/1.1\r\n\r\n".to_owned(), false, Some(400), "request-method", corelane, none),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), false, Some(400), "host-missing", corelane, none),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), false, Some(505), "request-version", corelane, none),
        (get(&"/".repeat(200)), false, Some(414), "request-target-too-long", corelane, none),
        (
            "GET / HTTP/1.1\r\nHost: t\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n".to_owned(),
            false,
            Some(431),
            "request-headers-too-many",
            corelane,
            none,
        ),
        ("GET / HT".to_owned(), false, Some(408), "client-head-timeout", corelane, none),
        ("GET / HT".to_owned(), true, None, "client-left", none, none),
        (
            "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2000\r\n\r\n".to_owned(),
            false,
            Some(413),
            "request-body-too-large",
            corelane,
            Some("POST"),
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(),
            false,
            Some(400),
            "request-chunk-invalid",
            corelane,
            Some("POST"),
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf".to_owned(),
            false,
            Some(408),
            "client-body-timeout",
            corelane,
            Some("POST"),
        ),
        (
            "CONNECT t:1 HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
            false,
            Some(405),
            "connect-off",
            corelane,
            none,
        ),
    ];
    for (index, (request, leaves, status, cause, by, method)) in rows.into_iter().enumerate() {
        let answer = talk(&log.proxy, request.as_bytes(), leaves);
        let lines = log.wait_for(index + 1);
        let line = &lines[index];
        let text = |name: &str| line[name].as_str();
        assert_eq!(line["status"].as_u64(), status, "{request:?} {line}");
        assert_eq!(text("cause").unwrap_or_default(), cause, "{request:?} {line}");
        assert_eq!((text("answered_by"), text("method")), (by, method), "{request:?} {line}");
        assert_eq!(line["received_bytes"], request.len(), "{request:?} {line}");
        assert_eq!(line["sent_bytes"], answer.len(), "{request:?} {line}");
        let total = line["total_seconds"].as_f64().unwrap();
        let timed_out = cause.ends_with("timeout");
        assert!(total < 5.0 && (!timed_out || total > 0.1), "{request:?} {line}");
    }
}

#[test]
fn a_panic_and_a_limit_have_their_lines_and_idle_connections_none() {
    let upstream = Upstream::naming_targets();
    let flags = Flags::to(&[&upstream]).and("--fault", "panic-connection=2");
    let log = Logging::json(flags.with("--client-rate-max", "1"));
    // Connects, sends nothing, and leaves.
    drop(log.proxy.client());
    let mut client = log.proxy.client();
    client.send("GET /panics HTTP/1.1\r\nHost: t\r\n\r\n");
    log.wait_for(1);
    let mut client = log.proxy.client();
    (0..20).for_each(|_| drop(client.get("/")));
    let lines = log.wait_for(21);
    assert_eq!((&lines[0]["cause"], &lines[0]["target"]), (&"internal".into(), &"/panics".into()));
    let causes: Vec<_> = lines[1..].iter().map(|line| line["cause"].as_str()).collect();
    assert!(causes.contains(&Some("client-rate")), "{causes:?}");
}

#[test]
fn a_tunnel_has_one_line_with_the_bytes_of_both_ways() {
    let upstream = Upstream::scripted(|served| {
        if served.request().is_some() {
            served.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nserver",
            );
            served.wait_for_end();
        }
    });
    let log = Logging::json(Flags::to(&[&upstream]));
    let request =
        b"GET /chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut client = TcpStream::connect(log.proxy.addr()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(request).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"server") {
        let mut bytes = [0; 1024];
        let count = client.read(&mut bytes).unwrap();
        assert!(count > 0);
        answer.extend_from_slice(&bytes[..count]);
    }
    client.write_all(&[b'x'; 5000]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    client.read_to_end(&mut answer).unwrap();
    let line = &log.wait_for(1)[0];
    assert_eq!(line["status"], 101);
    assert_eq!(line["received_bytes"], request.len() + 5000);
    assert_eq!(line["sent_bytes"], answer.len());
}

#[test]
fn a_line_tells_the_way_of_its_request() {
    let mut gone = Upstream::naming_targets();
    let there = Upstream::answering(ok("there", false));
    let log = Logging::json(Flags::to(&[&gone, &there]).with("--health-interval", "60s"));
    gone.stop();
    let mut client = log.proxy.client();
    for _ in 0..2 {
        client.request("GET /a?b HTTP/1.1\r\nHost: t\r\nUser-Agent: \"é\r\nReferer: r\r\n\r\n");
    }
    let lines = log.wait_for(2);
    let retried = lines.iter().find(|line| line["retries"] == 1).expect("one was retried");
    let backend = format!("default/{}", there.addr);
    assert_eq!((&retried["pool"], &retried["backend"]), (&"default".into(), &backend.into()));
    assert_eq!((&retried["target"], &retried["host"]), (&"/a?b".into(), &"t".into()));
    assert_eq!(
        (&retried["user_agent"], &retried["referer"]),
        (&"\"\u{c3}\u{a9}".into(), &"r".into())
    );
    let seconds = |name: &str| retried[name].as_f64().expect(name);
    assert!(seconds("connect_seconds") <= seconds("first_byte_seconds"), "{retried}");
    assert!(seconds("first_byte_seconds") <= seconds("total_seconds"), "{retried}");
    assert!(retried["queue_seconds"].is_null() && retried["reused"] == false, "{retried}");
}

#[test]
fn formats_of_text_are_written_as_asked() {
    let upstream = Upstream::answering(ok("four", false));
    for (format, expected) in [
        ("common", "127.0.0.1 - - [TIME] \"GET /x HTTP/1.1\" 200 4"),
        ("combined", "127.0.0.1 - - [TIME] \"GET /x HTTP/1.1\" 200 4 \"-\" \"\\\"me\\\"\""),
        ("%a %{c}a", "127.0.0.1 127.0.0.1"),
        ("%m %U%q %>s %B %k %{answered-by}x %{cause}x", "GET /x 200 4 0 backend -"),
    ] {
        let log = Logging::start(Flags::to(&[&upstream]).with("--access-log-format", format));
        log.proxy.client().request("GET /x HTTP/1.1\r\nHost: t\r\nUser-Agent: \"me\"\r\n\r\n");
        wait_until("the line is there", SOON, || lines_of(&log.path).len() == 1);
        let line = lines_of(&log.path).remove(0);
        let line = match (line.find('['), line.find(']')) {
            (Some(begin), Some(end)) => format!("{}TIME{}", &line[..=begin], &line[end..]),
            _ => line,
        };
        assert_eq!(line, expected);
    }
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What a client sends of a trace, whether the backend gets that as it came, and its `tracestate`.
#[test]
fn ids_are_passed_or_made_and_logged() {
    let upstream = Upstream::answering(ok("four", false));
    let flags = Flags::to(&[&upstream]).switch("--request-id").with("--traceparent", "sampled");
    let log = Logging::json(flags);
    let valid = format!("traceparent: {TRACE}\r\ntracestate: a=b\r\nX-Request-Id: mine\r\n");
    let invalid = format!("traceparent: {}\r\ntracestate: a=b\r\n", TRACE.to_uppercase());
    for (index, (headers, passes)) in
        [(valid, true), (invalid, false), (String::new(), false)].into_iter().enumerate()
    {
        log.proxy.client().request(format!("GET / HTTP/1.1\r\nHost: t\r\n{headers}\r\n"));
        let line = &log.wait_for(index + 1)[index];
        let head = upstream.last_request().head;
        let (parent, id) = (head.get("traceparent").unwrap(), head.get("x-request-id").unwrap());
        assert_eq!(
            (parent == TRACE, head.get("tracestate").is_some()),
            (passes, passes),
            "{headers}"
        );
        assert!(
            parent.len() == 55 && parent.starts_with("00-") && parent.ends_with("-01"),
            "{parent}"
        );
        assert_eq!((&line["trace_id"], &line["request_id"]), (&parent[3..35].into(), &id.into()));
        assert_eq!(id == "mine", passes);
    }
}

/// With one of a million, only what failed is logged, in all likelihood.
#[test]
fn sampling_keeps_what_failed() {
    let upstream = endings();
    let log = Logging::json(Flags::to(&[&upstream]).with("--access-log-sample", "1000000"));
    let mut client = log.proxy.client();
    (0..20).for_each(|_| drop(client.get("/whole")));
    client.get("/500");
    let lines = log.wait_for(1);
    assert_eq!(lines[0]["status"], 500);
}

/// Under load, with a rename and SIGUSR1 twice in it: each request has its line in one of the files.
#[test]
fn no_line_is_lost_or_torn_while_files_are_renamed_under_load() {
    let server = Server::demo("a");
    let flags = Flags::to_addrs(&[server.addr]).with("--workers", "2");
    let mut log = Logging::json(flags);
    let load = Load::start(log.proxy.addr(), 16, Reuse::KeepAlive, "/bytes/100");
    let mut paths = Vec::new();
    for number in 1..=2 {
        let many = load.answered() + 2000;
        wait_until("the load runs", SOON, || load.answered() > many);
        let old = log.path.with_extension(number.to_string());
        std::fs::rename(&log.path, &old).unwrap();
        log.proxy.signal(Signal::USR1);
        wait_until("the file is there again", SOON, || log.path.exists());
        paths.push(old);
    }
    let many = load.answered() + 2000;
    wait_until("the load runs on", SOON, || load.answered() > many);
    log.proxy.signal(Signal::TERM);
    log.proxy.expect_drained();
    let fates = load.until_refused();
    paths.push(log.path.clone());
    let lines: Vec<Value> = paths.iter().flat_map(|path| parsed(path)).collect();
    let answered = fates[&Fate::Answered(200)];
    let whole = lines.iter().filter(|line| line["status"] == 200).count();
    assert!(answered > 6000 && whole >= answered, "{answered} answers, {whole} lines: {fates:?}");
    assert_eq!(logged_requests(&log.proxy), lines.len(), "a line for each request");
    assert!(paths.iter().all(|path| !lines_of(path).is_empty()), "each file got lines");
}

/// What the last line of the proxy's own log counts.
fn logged_requests(proxy: &Proxy) -> usize {
    let last = proxy.last_line();
    let count = last.split("requests=").nth(1).unwrap();
    count.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// A pipe that is open and that nobody reads: requests go on, and what was dropped is told.
#[test]
fn requests_go_on_while_nobody_takes_the_lines() {
    let scratch = Scratch::new("access-pipe");
    let pipe = scratch.join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let _open = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let server = Server::demo("a");
    let flags = Flags::to_addrs(&[server.addr])
        .with("--access-log", pipe.to_str().unwrap())
        .with("--access-log-bytes-max", "65536");
    let mut proxy = flags.start();
    let load = Load::start(proxy.addr(), 16, Reuse::KeepAlive, "/bytes/100");
    wait_until("lines are dropped", SOON, || proxy.log().contains("dropped lines"));
    let many = load.answered() + 2000;
    wait_until("requests go on", SOON, || load.answered() > many);
    proxy.signal(Signal::TERM);
    let begin = Instant::now();
    assert_eq!(proxy.wait_exit(SOON).code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(8));
    assert!(proxy.log().contains("last lines are lost"), "{}", proxy.log());
    let fates: BTreeMap<_, _> = load.until_refused();
    let is_fair =
        |fate: &Fate| matches!(fate, Fate::Answered(200) | Fate::ClosedBefore | Fate::Refused);
    assert!(fates.keys().all(is_fair), "{fates:?}");
}

/// Whether a proxy's address, which trusts loopback or not, is taken for the client's.
#[test]
fn a_line_has_the_address_that_a_trusted_proxy_says_and_the_proxys_own() {
    let upstream = Upstream::answering(ok("four", false));
    for (trusted, client) in [("127.0.0.0/8", "192.0.2.7"), ("10.0.0.0/8", "127.0.0.1")] {
        let log = Logging::json(Flags::to(&[&upstream]).with("--trusted-proxies", trusted));
        let asked = "GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 1.2.3.4, 192.0.2.7\r\n\r\n";
        log.proxy.client().request(asked).expect(200);
        log.proxy.client().request("what?\r\n\r\n");
        let lines = log.wait_for(2);
        let line = lines.iter().find(|line| line["status"] == 200).unwrap();
        assert_eq!((&line["client"], &line["peer"]), (&client.into(), &"127.0.0.1".into()));
        assert!(line["peer_port"].as_u64() > Some(1023), "{line}");
        // Of what is no request nothing is believed.
        let refused = lines.iter().find(|line| line["status"] == 400).unwrap();
        assert_eq!(refused["client"], "127.0.0.1");
    }
}

#[test]
fn a_full_disk_is_told_once_a_second_and_service_goes_on() {
    let upstream = Upstream::answering(ok("four", false));
    let flags = Flags::to(&[&upstream]).with("--access-log", "/dev/full");
    let mut proxy = flags.with("--admin", "127.0.0.1:0").start();
    let mut client = proxy.client();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1500) {
        client.get("/").expect(200);
    }
    let lost = |scrape: Scrape| scrape.get("corelane_access_log_lines_lost_total");
    wait_until("they are counted", SOON, || lost(scrape(&proxy)) > Some(0.0));
    proxy.drain();
    let told = proxy.log().matches("the access log lost lines").count();
    assert!((1..=4).contains(&told), "told {told} times");
    assert!(proxy.log().contains("No space left"), "{}", proxy.log());
}

#[test]
fn an_access_log_that_cannot_be_opened_stops_the_start() {
    let upstream = Upstream::naming_targets();
    for (path, reason) in
        [("/nowhere/access.log", "No such file or directory"), ("/", "Is a directory")]
    {
        let mut proxy = Flags::to(&[&upstream]).with("--access-log", path).spawn();
        assert_eq!(proxy.wait_exit(SOON).code(), Some(71));
        let log = proxy.log();
        assert!(log.contains(&format!("--access-log {path}")) && log.contains(reason), "{log}");
    }
}

/// What is under way when the time to drain ends is cut, and has its line.
#[test]
fn what_a_drain_cuts_has_its_line() {
    let upstream = endings();
    let flags = Flags::to(&[&upstream]).with("--drain-timeout", "200ms");
    let mut log = Logging::json(flags);
    let mut client = log.proxy.client();
    client.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until("the backend has it", SOON, || upstream.request_count() == 1);
    log.proxy.signal(Signal::TERM);
    log.proxy.wait_exit(SOON);
    assert_eq!(log.wait_for(1)[0]["target"], "/slow");
}
