//! Every answer of tests/data from a raw backend through the real proxy to clients: whole, a 502, or
//! a cut that shows; nothing behind its end reaches a client, and that connection is never used again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::corpus::{check_content, report, run_all};
use crate::support::client::Client;
use crate::support::corpus::{Case, cases};
use crate::support::proxy::{Flags, Proxy};
use crate::support::strict::{self, Framing, Message, Writer};
use crate::support::upstream::{Served, Upstream};
use crate::support::wire::End;

const PATIENCE: Duration = Duration::from_secs(5);
/// What a client that is not served the case gets.
const OWN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown";
/// Must never reach a client.
const SMUGGLED: &[u8] = b"smuggled";

/// What the backend of one lane is told, and what it saw.
#[derive(Default)]
struct Script {
    /// What the next request to `/case` gets, in pieces, and how its connection ends then.
    pieces: Vec<Vec<u8>>,
    end: String,
    /// How often a connection that has carried a case that spoils it carried another request.
    reused: usize,
    /// Whether the case leaves the connection as it was.
    keeps: bool,
}

struct Lane {
    proxy: Proxy,
    script: Arc<Mutex<Script>>,
    _upstream: Upstream,
}

impl Lane {
    fn start() -> Lane {
        let script = Arc::new(Mutex::new(Script::default()));
        let addr: Arc<OnceLock<SocketAddr>> = Arc::default();
        let upstream = Upstream::scripted({
            let (script, addr) = (script.clone(), addr.clone());
            let other = Mutex::new(None);
            move |served| serve(served, &script, &other, &addr)
        });
        let proxy = Flags::to(&[&upstream]).start();
        addr.set(proxy.addr()).unwrap();
        Lane { proxy, script, _upstream: upstream }
    }

    fn check(&mut self, case: &Case, ends: &[usize]) -> Result<(), String> {
        let asked = Asked::of(&case.text("request"));
        let kind = Kind::of(&case.verdict);
        let mut start = 0;
        let pieces = ends.iter().map(|end| {
            let piece = case.message[start..*end].to_vec();
            start = *end;
            piece
        });
        let end = case.text("end");
        let keeps = kind == Kind::Forward && end.is_empty() && case.text("pool") != "closed";
        let pieces = pieces.collect();
        *self.script.lock().unwrap() = Script { pieces, end, reused: 0, keeps };
        let mut client = self.proxy.client();
        client.wire.patience(PATIENCE);
        client.send(asked.request());
        let mut answer = Answer::read(&mut client, asked.method)?;
        let is_kept = answer.ended.is_none();
        if is_kept {
            client.send("GET /own HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
            let own = Answer::read(&mut client, "GET")?;
            if own.last.as_ref().is_none_or(|message| message.body != b"own") {
                return Err(format!("the next request got {own:?}"));
            }
            answer.raw.extend(own.raw);
        }
        // Another client's request takes the same connection to the backend, if it may be taken.
        let mut second = self.proxy.client();
        second.wire.patience(PATIENCE);
        second.send("GET /own HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let second = Answer::read(&mut second, "GET")?;
        if second.last.as_ref().is_none_or(|message| message.body != b"own") {
            return Err(format!("another client got {second:?}"));
        }
        for raw in [&answer.raw, &second.raw] {
            if raw.windows(SMUGGLED.len()).any(|window| window == SMUGGLED) {
                return Err(format!("smuggled: {}", raw.escape_ascii()));
            }
        }
        if self.script.lock().unwrap().reused > 0 {
            return Err("the connection to the backend was used again".into());
        }
        kind.check(case, &answer)
    }
}

/// The backend: what the script says to `/case`, and a plain answer to everything else.
fn serve(
    served: &mut Served,
    script: &Mutex<Script>,
    other: &Mutex<Option<Client>>,
    proxy: &OnceLock<SocketAddr>,
) {
    let mut is_spoilt = false;
    while let Some(request) = served.request() {
        if is_spoilt {
            script.lock().unwrap().reused += 1;
        }
        if request.head.target() != "/case" {
            served.write(OWN);
            continue;
        }
        let (pieces, end, keeps) = {
            let mut script = script.lock().unwrap();
            (std::mem::take(&mut script.pieces), script.end.clone(), script.keeps)
        };
        is_spoilt = !keeps;
        for (number, piece) in pieces.iter().enumerate() {
            if number > 0 {
                let addr = *proxy.get().expect("set before the first case");
                let mut other = other.lock().unwrap();
                other.get_or_insert_with(|| Client::connect(addr)).get("/other").expect(200);
            }
            if !served.write(piece) {
                break;
            }
        }
        match end.as_str() {
            "close" => return,
            "reset" => return served.reset_on_return(),
            _ => {}
        }
    }
}

/// What the client asks for.
struct Asked {
    method: &'static str,
    is_old: bool,
    lines: &'static str,
}

impl Asked {
    fn of(text: &str) -> Asked {
        let (method, is_old, lines) = match text {
            "" => ("GET", false, ""),
            "HEAD" => ("HEAD", false, ""),
            "GET HTTP/1.0" => ("GET", true, ""),
            "GET HTTP/1.0 keep" => ("GET", true, "Connection: keep-alive\r\n"),
            "GET websocket" => ("GET", false, "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            other => panic!("unknown request {other:?}"),
        };
        Asked { method, is_old, lines }
    }

    fn request(&self) -> String {
        let version = if self.is_old { "1.0" } else { "1.1" };
        format!("{} /case HTTP/{version}\r\nHost: t\r\n{}\r\n", self.method, self.lines)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It arrives.
    Forward,
    /// The client gets a 502 in its place.
    Refuse,
    /// The client gets a 502, or sees that the answer is not whole.
    Cut,
}

impl Kind {
    fn of(verdict: &str) -> Kind {
        match verdict.split(' ').next() {
            Some("forward") => Kind::Forward,
            Some("refuse") => Kind::Refuse,
            Some("cut") => Kind::Cut,
            other => panic!("unknown verdict {other:?}"),
        }
    }

    fn check(self, case: &Case, answer: &Answer) -> Result<(), String> {
        let is_own = answer.last.as_ref().is_some_and(is_corelanes);
        let fault = Err(format!("{answer:?}"));
        match (self, &answer.last) {
            (Kind::Forward, Some(message)) if !is_own => {
                let status = case.text("status");
                if message.start[1] != if status.is_empty() { "200" } else { &status } {
                    return fault;
                }
                let interim = case.text("interim").parse().unwrap_or(answer.interim);
                if answer.interim != interim {
                    return Err(format!("{} interim answers", answer.interim));
                }
                if answer.ended == Some(End::Reset) {
                    return Err(format!("a reset behind a whole answer: {answer:?}"));
                }
                check_content(case, message)
            }
            (Kind::Refuse, Some(message)) if is_own && message.status() == 502 => {
                let cause = case.verdict.split(' ').nth(2).unwrap_or_default();
                let named = message.all("proxy-status").concat();
                let is_named = String::from_utf8_lossy(&named).contains(cause);
                if is_named { Ok(()) } else { fault }
            }
            (Kind::Cut, Some(message)) if is_own && message.status() == 502 => Ok(()),
            // Where a clean close would make it whole, only a reset leaves it without its end.
            (Kind::Cut, None) if answer.ended.is_some() => Ok(()),
            _ => fault,
        }
    }
}

fn is_corelanes(message: &Message) -> bool {
    message.all("proxy-status").concat().starts_with(b"corelane;")
}

/// What one request brought a client.
#[derive(Debug)]
struct Answer {
    /// The final answer, if it looks whole.
    last: Option<Message>,
    interim: usize,
    /// How the connection ended, where it did.
    ended: Option<End>,
    raw: Vec<u8>,
}

impl Answer {
    /// Reads one answer, and the connection's end where the answer announces it.
    fn read(client: &mut Client, method: &str) -> Result<Answer, String> {
        let mut answer = Answer { last: None, interim: 0, ended: None, raw: Vec::new() };
        let mut at = 0;
        loop {
            let rest = &answer.raw[at..];
            let has_ended = answer.ended == Some(End::CleanClose);
            match strict::response(rest, Writer::Proxy, method, has_ended) {
                Ok(Some(message)) => {
                    at += message.bytes;
                    if message.status() < 200 && message.status() != 101 {
                        answer.interim += 1;
                        continue;
                    }
                    let closes = message.all("connection").contains(&&b"close"[..])
                        || message.framing == Framing::UntilClose
                        || message.status() == 101;
                    answer.last = Some(message);
                    if closes && answer.ended.is_none() {
                        answer.ended = Some(fill(client, &mut answer.raw)?.unwrap_or(End::Garbled));
                    }
                    if at < answer.raw.len() {
                        return Err(format!("bytes behind the answer: {answer:?}"));
                    }
                    return Ok(answer);
                }
                Ok(None) if answer.ended.is_some() => return Ok(answer),
                Ok(None) => answer.ended = fill(client, &mut answer.raw)?,
                Err(fault) => return Err(format!("{fault}: {}", rest.escape_ascii())),
            }
        }
    }
}

/// Reads some more; how the connection ended, if it has.
fn fill(client: &mut Client, raw: &mut Vec<u8>) -> Result<Option<End>, String> {
    match client.wire.fill() {
        Ok(()) => {
            raw.extend(client.wire.take_ahead());
            Ok(None)
        }
        Err(End::Timeout) => Err(format!("the client waits behind {}", raw.escape_ascii())),
        Err(end) => Ok(Some(end)),
    }
}

#[test]
fn every_answer_of_the_corpus_meets_its_verdict() {
    let cases = cases("responses");
    report(&cases, run_all(&cases, Lane::start, Lane::check));
}
