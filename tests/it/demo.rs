//! `corelane demo` and `corelane backend`: the quick start works as the README says.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::client::Client;
use crate::support::proxy::CORELANE;
use crate::support::servers::Server;
use crate::support::{SOON, Scratch, wait_until};

/// Killed when the test is over, whatever has happened.
struct Demo(Child, Scratch);

impl Drop for Demo {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        self.0.kill().ok();
        self.0.wait().unwrap();
    }
}

fn start() -> (Demo, SocketAddr) {
    let scratch = Scratch::new("demo");
    let log = std::fs::File::create(scratch.join("log")).unwrap();
    let child = Command::new(CORELANE)
        .args(["demo", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap();
    let demo = Demo(child, scratch);
    let mut addr = None;
    wait_until("the demo is ready and has said what to try", SOON, || {
        let text = std::fs::read_to_string(demo.1.join("log")).unwrap();
        addr = curl_line(&text).filter(|_| text.contains("ready on"));
        addr.is_some()
    });
    (demo, addr.unwrap())
}

/// The address in the first `curl …http://ADDR` that is printed in a whole line.
fn curl_line(text: &str) -> Option<SocketAddr> {
    let line =
        text.split_inclusive('\n').find(|line| line.contains("curl") && line.ends_with('\n'))?;
    let rest = line.split("http://").nth(1)?;
    rest.split(['/', ' ', '\n', '\'', '"']).next()?.parse().ok()
}

#[test]
fn the_demo_goes_round_its_three_backends_and_ends_on_ctrl_c() {
    let (mut demo, addr) = start();
    let mut client = Client::connect(addr);
    let name = |client: &mut Client| {
        let body: serde_json::Value =
            serde_json::from_slice(&client.get("/").expect(200).body).unwrap();
        body["backend"].as_str().unwrap().to_string()
    };
    let names: std::collections::BTreeSet<_> = (0..9).map(|_| name(&mut client)).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    kill_process(Pid::from_child(&demo.0), Signal::INT).unwrap();
    let mut status = None;
    wait_until("the demo has ended", SOON, || {
        status = demo.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    assert!(Client::try_connect(addr).is_err());
}

#[test]
fn curl_lines_are_found() {
    let text = "up\n  curl -i http://127.0.0.1:8080/work?ms=5  # work\n";
    assert_eq!(curl_line(text), Some("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(curl_line("  curl http://127.0.0.1:80"), None);
}

#[test]
fn the_demo_backend_answers_by_its_paths() {
    let server = Server::demo("alpha");
    let mut client = Client::connect(server.addr);
    let body: serde_json::Value =
        serde_json::from_slice(&client.get("/").expect(200).body).unwrap();
    assert_eq!(body["backend"], "alpha");
    assert_eq!(client.get("/bytes/12345").expect(200).body.len(), 12345);
    let echo = client
        .request("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello")
        .expect(200);
    assert_eq!(echo.text(), "hello");
    client.get("/work?ms=1").expect(200);
    let start = std::time::Instant::now();
    client.get("/sleep?ms=50").expect(200);
    assert!(start.elapsed() >= Duration::from_millis(50));
    client.get("/stream?chunks=3&interval_ms=1").expect(200);
    client.get("/health").expect(200);
    let switch = |client: &mut Client, path: &str| {
        let request = format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
        assert!((200..300).contains(&client.request(request).status()), "{path}");
    };
    switch(&mut client, "/health/fail");
    client.get("/health").expect(503);
    switch(&mut client, "/health/recover");
    client.get("/health").expect(200);
}

#[test]
fn the_demo_backend_says_where_it_listens() {
    let mut child = Command::new(CORELANE)
        .args(["backend", "--listen", "127.0.0.1:0", "--name", "x"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("listening on 127.0.0.1:"), "{line}");
}

/// As a rotation of logs sends it to all that is named corelane.
#[test]
fn a_backend_outlives_the_signal_that_opens_access_logs_again() {
    let mut server = Server::demo("a");
    server.signal(Signal::USR1);
    assert_eq!(server.terminate(), Some(0));
}
