//! A scripted admin API: the dashboard's own page, a status document that tests choose, its events,
//! and changes that are noted and answered as told. One thread a connection, one request each.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use corelane::control::dashboard;

use super::{SOON, wait_until};

/// It answers as long as it is open.
#[derive(Clone)]
pub struct Admin(Arc<Script>);

struct Script {
    status: Mutex<String>,
    token: Option<&'static str>,
    is_open: AtomicBool,
    changes: Mutex<Vec<Change>>,
    /// The statuses of the next answers to changes; 200 when there is none.
    replies: Mutex<VecDeque<u16>>,
}

/// A request that changes something.
#[derive(Clone, Debug)]
pub struct Change {
    pub line: String,
    pub if_match: String,
    pub body: String,
}

impl Admin {
    /// One that tells this status to whoever has the token.
    pub fn new(status: &str, token: Option<&'static str>) -> Admin {
        Admin(Arc::new(Script {
            status: Mutex::new(status.to_string()),
            token,
            is_open: AtomicBool::new(true),
            changes: Mutex::default(),
            replies: Mutex::default(),
        }))
    }

    pub fn on_tcp(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let admin = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let admin = admin.clone();
                std::thread::spawn(move || admin.answer(stream.try_clone().unwrap(), stream));
            }
        });
        addr
    }

    pub fn on_unix(&self, path: PathBuf) {
        let listener = UnixListener::bind(path).unwrap();
        let admin = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let admin = admin.clone();
                std::thread::spawn(move || admin.answer(stream.try_clone().unwrap(), stream));
            }
        });
    }

    /// Whether it answers and goes on with its events.
    pub fn set_open(&self, is_open: bool) {
        self.0.is_open.store(is_open, Ordering::Relaxed);
    }

    pub fn set_status(&self, status: &str) {
        *self.0.status.lock().unwrap() = status.to_string();
    }

    /// Answers the next change so.
    pub fn reply(&self, status: u16) {
        self.0.replies.lock().unwrap().push_back(status);
    }

    pub fn changes(&self) -> Vec<Change> {
        self.0.changes.lock().unwrap().clone()
    }

    fn is_open(&self) -> bool {
        self.0.is_open.load(Ordering::Relaxed)
    }

    fn status(&self) -> String {
        self.0.status.lock().unwrap().replace('\n', " ")
    }

    /// Answers one request.
    fn answer(&self, from: impl Read, mut to: impl Write) {
        let mut reader = BufReader::new(from);
        let lines = reader.by_ref().lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        if !self.is_open() || head.is_empty() {
            return;
        }
        let field = |name: &str| {
            let value = |line: &String| {
                let (given, value) = line.split_once(':')?;
                given.eq_ignore_ascii_case(name).then(|| value.trim().to_string())
            };
            head.iter().find_map(value).unwrap_or_default()
        };
        let mut words = head[0].split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let is_allowed =
            self.0.token.is_none_or(|token| field("authorization") == format!("Bearer {token}"));
        if method != "GET" {
            let mut body = vec![0; field("content-length").parse().unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            let body = String::from_utf8(body).unwrap();
            let change = Change { line: head[0].clone(), if_match: field("if-match"), body };
            self.0.changes.lock().unwrap().push(change);
            let status = self.0.replies.lock().unwrap().pop_front().unwrap_or(200);
            return send(&mut to, status, "", r#"{"title":"as told"}"#);
        }
        match path {
            "/" => {
                let page = dashboard::page();
                let policy = format!("Content-Security-Policy: {}\r\n", page.policy);
                send(&mut to, 200, &policy, &page.html);
            }
            _ if !is_allowed => send(&mut to, 401, "", r#"{"title":"A token is needed"}"#),
            "/api/v1/events" => self.tell_events(to),
            "/api/v1/history" => send(&mut to, 200, "", r#"{"points":[{"requests":5}]}"#),
            "/api/v1/status" => send(&mut to, 200, "", &self.status()),
            _ => send(&mut to, 404, "", r#"{"title":"There is no such thing"}"#),
        }
    }

    /// A status ten times a second, while it is open and somebody listens.
    fn tell_events(&self, mut to: impl Write) {
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        let mut sent = to.write_all(head.as_bytes());
        while sent.is_ok() && self.is_open() {
            sent = to.write_all(format!("event: status\ndata: {}\n\n", self.status()).as_bytes());
            let start = Instant::now();
            wait_until("the next event", SOON, || start.elapsed() > Duration::from_millis(100));
        }
    }
}

fn send(to: &mut impl Write, status: u16, fields: &str, body: &str) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} told\r\n{fields}Connection: close\r\nContent-Length: {length}");
    // The client may have left.
    to.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).ok();
}
