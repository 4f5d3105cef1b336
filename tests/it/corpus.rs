//! Every request of tests/data through the real proxy, whole and in pieces, to a backend that reads
//! with the strict reader: it sees exactly the forwarded ones, and never half of one that looks whole.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::corpus::{Case, cases};
use crate::support::proxy::{Flags, Proxy};
use crate::support::strict::{self, Message, Writer};
use crate::support::upstream::{HEALTH_PATH, Served, Upstream};
use crate::support::wire::End;

/// How many proxies with a backend each try the cases at the same time.
pub const LANES: usize = 4;
const PART_FORWARDED: &str = "a part of a refused request was forwarded";
/// How long a run may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the backend of one lane saw, without probes and the requests that only pass time.
#[derive(Default)]
struct Seen {
    requests: Vec<Message>,
    faults: Vec<String>,
    /// Connections on which a request has begun and is not whole.
    unfinished: usize,
    /// How many requests began and were never whole.
    abandoned: usize,
}

/// One proxy before one reading backend.
struct Lane {
    proxy: Proxy,
    other: Client,
    seen: Arc<Mutex<Seen>>,
    _upstream: Upstream,
}

impl Lane {
    fn start() -> Lane {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let upstream = Upstream::scripted({
            let seen = seen.clone();
            move |served| read_strictly(served, &seen)
        });
        let proxy = Flags::to(&[&upstream]).start();
        let mut other = proxy.client();
        other.get("/other").expect(200);
        Lane { proxy, other, seen, _upstream: upstream }
    }

    /// Sends the message in pieces, each read by the proxy before the next one is sent.
    fn send(&mut self, client: &mut Client, message: &[u8], ends: &[usize]) {
        let mut start = 0;
        for end in ends {
            if start > 0 {
                self.other.get("/other").expect(200);
            }
            // A client that was refused may find the connection closed.
            if client.wire.write(&message[start..*end]).is_err() {
                break;
            }
            start = *end;
        }
    }

    /// Tries a case; once more where an earlier one's cut connection may have ended only now.
    fn check(&mut self, case: &Case, ends: &[usize]) -> Result<(), String> {
        match self.check_once(case, ends) {
            Err(fault) if fault == PART_FORWARDED => self.check_once(case, ends),
            checked => checked,
        }
    }

    fn check_once(&mut self, case: &Case, ends: &[usize]) -> Result<(), String> {
        let first = self.seen.lock().unwrap().requests.len();
        let abandoned = self.seen.lock().unwrap().abandoned;
        let verdict = Verdict::of(&case.verdict);
        let mut client = self.proxy.client();
        client.wire.patience(PATIENCE);
        self.send(&mut client, &case.message, ends);
        if verdict.kind == Kind::Cut && verdict.status.is_none() {
            client.wire.half_close();
        }
        let mut answers = Answers { client: &mut client, bytes: Vec::new(), ended: None };
        for number in 0..verdict.complete {
            let method = self.method(first + number);
            let answer = answers.next(&method)?;
            let target = match self.seen.lock().unwrap().requests.get(first + number) {
                Some(request) => request.start[1].clone(),
                None => return Err(format!("answered before it came whole: {answer:?}")),
            };
            let is_whole =
                answer.status() == 200 && (method == "HEAD" || answer.body == target.as_bytes());
            if !is_whole {
                return Err(format!("answer {number} is {answer:?}"));
            }
        }
        let mut expected = verdict.complete;
        match (verdict.kind, verdict.status) {
            (Kind::Forward, _) if case.text("closes") == "yes" => answers.expect_end()?,
            (Kind::Forward, _) => {
                answers.client.send("GET /after HTTP/1.1\r\nHost: t\r\n\r\n");
                let answer = answers.next("GET")?;
                expected += 1;
                if answer.body != b"/after" {
                    return Err(format!("the next request got {answer:?}"));
                }
            }
            (_, Some(status)) => {
                let answer = answers.next("GET")?;
                check_refusal(&answer, status, &verdict.cause)?;
                answers.expect_end()?;
            }
            (_, None) => match answers.next("GET") {
                Ok(answer) if answer.status() < 400 => return Err(format!("got {answer:?}")),
                _ => {}
            },
        }
        self.settle()?;
        let seen = self.seen.lock().unwrap();
        if let Some(fault) = seen.faults.first() {
            return Err(format!("the backend got bytes that are no request: {fault}"));
        }
        let requests = &seen.requests[first..];
        if requests.len() != expected {
            return Err(format!("the backend saw {requests:?}"));
        }
        if let Some(request) = requests.iter().find(|request| request.start[1].contains("smuggled"))
        {
            return Err(format!("smuggled: {request:?}"));
        }
        if verdict.kind == Kind::Refuse && seen.abandoned > abandoned {
            return Err(PART_FORWARDED.into());
        }
        match verdict.complete {
            0 => Ok(()),
            count if verdict.kind == Kind::Forward => check_content(case, &requests[count - 1]),
            _ => Ok(()),
        }
    }

    /// The method of the request with this number, once the backend has it; "GET" if it never does.
    fn method(&self, number: usize) -> String {
        let start = Instant::now();
        loop {
            if let Some(request) = self.seen.lock().unwrap().requests.get(number) {
                return request.start[0].clone();
            }
            if start.elapsed() > PATIENCE {
                return "GET".into();
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Waits until no connection to the backend has half a request on it.
    fn settle(&self) -> Result<(), String> {
        let start = Instant::now();
        while self.seen.lock().unwrap().unfinished > 0 {
            if start.elapsed() > PATIENCE {
                return Err("half a request stays on its connection to the backend".into());
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// The backend: every whole request is answered with its target.
fn read_strictly(served: &mut Served, seen: &Mutex<Seen>) {
    served.wire.patience(Duration::from_secs(120));
    let mut bytes = Vec::new();
    loop {
        match strict::request(&bytes, Writer::Proxy) {
            Ok(Some(message)) => {
                bytes.drain(..message.bytes);
                let (method, target) = (message.start[0].clone(), message.start[1].clone());
                if target != HEALTH_PATH && target != "/other" {
                    let mut seen = seen.lock().unwrap();
                    seen.requests.push(message);
                }
                served.write(&crate::support::upstream::ok(&target, method == "HEAD"));
                continue;
            }
            Ok(None) => {}
            Err(fault) => {
                let text = format!("{fault}: {}", bytes.escape_ascii());
                return seen.lock().unwrap().faults.push(text);
            }
        }
        let is_inside = !bytes.is_empty();
        seen.lock().unwrap().unfinished += usize::from(is_inside);
        let filled = served.wire.fill();
        let mut seen = seen.lock().unwrap();
        seen.unfinished -= usize::from(is_inside);
        if filled.is_err() {
            seen.abandoned += usize::from(is_inside);
            return;
        }
        bytes.extend(served.wire.take_ahead());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Forward,
    Refuse,
    Cut,
}

/// What must become of a request.
struct Verdict {
    kind: Kind,
    status: Option<u16>,
    cause: String,
    /// How many whole requests reach the backend.
    complete: usize,
}

impl Verdict {
    /// `forward N`, `refuse STATUS [CAUSE] [after N]`, `cut [STATUS CAUSE]`.
    fn of(text: &str) -> Verdict {
        let (text, after) = text.split_once(" after ").unwrap_or((text, "0"));
        let mut words = text.split(' ');
        let kind = match words.next() {
            Some("forward") => Kind::Forward,
            Some("refuse") => Kind::Refuse,
            Some("cut") => Kind::Cut,
            other => panic!("unknown verdict {other:?}"),
        };
        let number = words.next().map(|word| word.parse::<u16>().expect("a number"));
        let is_forward = kind == Kind::Forward;
        Verdict {
            kind,
            status: number.filter(|_| !is_forward),
            cause: words.next().unwrap_or_default().to_string(),
            complete: match number {
                Some(count) if is_forward => usize::from(count),
                _ => after.parse().expect("a number"),
            },
        }
    }
}

/// What a client gets, read with the strict reader.
struct Answers<'a> {
    client: &'a mut Client,
    bytes: Vec<u8>,
    ended: Option<End>,
}

impl Answers<'_> {
    fn next(&mut self, method: &str) -> Result<Message, String> {
        loop {
            match strict::response(&self.bytes, Writer::Proxy, method, self.ended.is_some()) {
                Ok(Some(message)) => {
                    self.bytes.drain(..message.bytes);
                    return Ok(message);
                }
                Ok(None) => {}
                Err(fault) => return Err(format!("{fault}: {}", self.bytes.escape_ascii())),
            }
            if let Some(end) = self.ended {
                return Err(format!("{end:?} behind {:?}", self.bytes.escape_ascii().to_string()));
            }
            self.read();
        }
    }

    fn read(&mut self) {
        match self.client.wire.fill() {
            Ok(()) => self.bytes.extend(self.client.wire.take_ahead()),
            Err(end) => self.ended = Some(end),
        }
    }

    /// A close without another byte.
    fn expect_end(&mut self) -> Result<(), String> {
        if self.ended.is_none() && self.bytes.is_empty() {
            self.read();
        }
        match (self.ended, self.bytes.is_empty()) {
            (Some(End::CleanClose), true) => Ok(()),
            (end, _) => Err(format!("{end:?} and more bytes: {}", self.bytes.escape_ascii())),
        }
    }
}

fn check_refusal(answer: &Message, status: u16, cause: &str) -> Result<(), String> {
    let details = format!("details=\"{cause}");
    let proxy_status = answer.all("proxy-status").concat();
    let is_named = String::from_utf8_lossy(&proxy_status).contains(&details);
    let is_closed = answer.all("connection") == [b"close"];
    if answer.status() == status && is_named && is_closed {
        return Ok(());
    }
    Err(format!("refused with {} {}", answer.status(), proxy_status.escape_ascii()))
}

/// The fields `sees`, `lacks`, `body` and `trailer` of a case.
pub fn check_content(case: &Case, message: &Message) -> Result<(), String> {
    let lines: Vec<Vec<u8>> = message
        .fields
        .iter()
        .map(|(name, value)| [name.as_bytes(), b": ", value].concat())
        .chain([message.start.join(" ").into_bytes()])
        .collect();
    for wanted in case.all("sees") {
        // Names are in lower case here; values and the first line are as they came.
        let colon =
            wanted.iter().position(|byte| *byte == b':').filter(|_| !wanted.contains(&b'/'));
        let mut wanted = wanted.to_vec();
        wanted[..colon.unwrap_or(0)].make_ascii_lowercase();
        if !lines.contains(&wanted) && !lines.contains(&lower_name(&wanted)) {
            return Err(format!("no {:?} in {message:?}", wanted.escape_ascii().to_string()));
        }
    }
    let trailers: Vec<_> =
        message.trailers.iter().map(|(n, v)| [n.as_bytes(), b": ", v].concat()).collect();
    for unwanted in case.all("lacks") {
        let text = String::from_utf8_lossy(unwanted).to_lowercase();
        let found = lines
            .iter()
            .chain(&trailers)
            .find(|line| String::from_utf8_lossy(line).to_lowercase().contains(&text));
        if let Some(line) = found {
            return Err(format!("{:?} came through", line.escape_ascii().to_string()));
        }
    }
    if case.get("body").is_some_and(|body| body != message.body) {
        return Err(format!("the body is {:?}", message.body.escape_ascii().to_string()));
    }
    match case.get("trailer") {
        Some(trailer) if !trailers.iter().any(|line| line == trailer) => {
            Err(format!("the trailers are {trailers:?}"))
        }
        _ => Ok(()),
    }
}

fn lower_name(line: &[u8]) -> Vec<u8> {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
    [line[..colon].to_ascii_lowercase(), line[colon..].to_vec()].concat()
}

/// Tries every case on some lane; what failed, by case.
pub fn run_all<L>(
    cases: &[Case],
    start: impl Fn() -> L + Sync,
    check: impl Fn(&mut L, &Case, &[usize]) -> Result<(), String> + Sync,
) -> BTreeMap<String, String> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let mut lane = start();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { return };
                    let ways = case.ways();
                    let failed = ways.iter().find_map(|ends| {
                        let fault = check(&mut lane, case, ends).err()?;
                        let pieces = if ends.len() > 2 { &ends[..0] } else { ends };
                        Some(format!("{} pieces {pieces:?}: {fault}", ends.len()))
                    });
                    if let Some(fault) = failed {
                        // What went wrong may still be in the lane.
                        lane = start();
                        failures.lock().unwrap().insert(case.name.clone(), fault);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

/// Fails for every case that does not do what its verdict says, and for every one that does
/// although it is marked as open.
#[track_caller]
pub fn report(cases: &[Case], mut failures: BTreeMap<String, String>) {
    for case in cases.iter().filter(|case| case.is_open()) {
        match failures.remove(&case.name) {
            Some(fault) => eprintln!("open: {}: {fault}", case.name),
            None => drop(failures.insert(case.name.clone(), "is mended: unmark it".into())),
        }
    }
    let lines: Vec<_> = failures.iter().map(|(name, fault)| format!("{name}: {fault}")).collect();
    assert!(lines.is_empty(), "{} of {}:\n{}", lines.len(), cases.len(), lines.join("\n"));
}

#[test]
fn every_request_of_the_corpus_meets_its_verdict() {
    let cases = cases("requests");
    report(&cases, run_all(&cases, Lane::start, Lane::check));
}
