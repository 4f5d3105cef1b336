//! Load: raw keep-alive clients that log the fate of every request, and the well-known tools.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use super::client::{Client, Ended};
use super::{SOON, wait_until};

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Answered(u16),
    /// A clean close before the first byte of an answer.
    ClosedBefore,
    /// No connection came about.
    Refused,
    Reset,
    /// A clean close inside an answer.
    Cut,
    Timeout,
}

/// Whether a client keeps its connection for the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    KeepAlive,
    PerRequest,
}

/// Clients that send GET after GET, until they are stopped or refused.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<Fate>>>,
}

impl Load {
    pub fn start(addr: SocketAddr, clients: usize, reuse: Reuse, target: &'static str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let client = || {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || drive(addr, reuse, target, &stop, &answered))
        };
        let clients = (0..clients).map(|_| client()).collect();
        Load { stop, answered, clients }
    }

    /// Answers of any status so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Relaxed)
    }

    /// Waits until every client has been refused; how many requests met which fate.
    #[track_caller]
    pub fn until_refused(self) -> BTreeMap<Fate, usize> {
        wait_until("every client has been refused", SOON * 2, || {
            self.clients.iter().all(JoinHandle::is_finished)
        });
        self.stop()
    }

    /// Stops the clients after their present request; how many requests met which fate.
    pub fn stop(self) -> BTreeMap<Fate, usize> {
        self.stop.store(true, Relaxed);
        let mut tally = BTreeMap::new();
        for client in self.clients {
            for fate in client.join().unwrap() {
                *tally.entry(fate).or_default() += 1;
            }
        }
        tally
    }
}

fn drive(
    addr: SocketAddr,
    reuse: Reuse,
    target: &str,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> Vec<Fate> {
    let close = if reuse == Reuse::PerRequest { "Connection: close\r\n" } else { "" };
    let request = format!("GET {target} HTTP/1.1\r\nHost: load\r\n{close}\r\n");
    let mut fates = Vec::new();
    let mut kept: Option<Client> = None;
    while !stop.load(Relaxed) && !matches!(fates.last(), Some(Fate::Refused)) {
        let Some(mut client) = kept.take().or_else(|| Client::try_connect(addr).ok()) else {
            fates.push(Fate::Refused);
            break;
        };
        let (fate, keep) = one(&mut client, request.as_bytes());
        if matches!(fate, Fate::Answered(_)) {
            answered.fetch_add(1, Relaxed);
        }
        fates.push(fate);
        if keep {
            kept = Some(client);
        }
    }
    fates
}

/// Sends one request; its fate, and whether the connection may carry another.
fn one(client: &mut Client, request: &[u8]) -> (Fate, bool) {
    // A failed write says little: what can still be read tells a close from a reset.
    client.wire.write(request).ok();
    let response = client.read_response("GET");
    let fate = match (&response.head, response.ended) {
        (Some(head), Ended::Complete) => Fate::Answered(head.status()),
        (_, Ended::Reset) => Fate::Reset,
        (_, Ended::Timeout) => Fate::Timeout,
        (None, _) if client.wire.ahead().is_empty() => Fate::ClosedBefore,
        _ => Fate::Cut,
    };
    let keep = matches!(fate, Fate::Answered(_))
        && !response.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    (fate, keep)
}

/// Whether a program can be found.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a load generator for at most two minutes; what it printed. Its exit code must be 0.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    assert!(
        is_installed(program),
        "{program} is not installed: tests/run installs what the tests need"
    );
    let output = Command::new("timeout")
        .arg("120")
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}\n{text}", output.status);
    text
}
