//! hyper as the backend, an independent strict reader: it must see exactly the requests that the
//! client gets answers for, in their order, as they were sent. And a backend that answers with
//! anything: its client gets what was sent, a 502, or a cut that shows.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use crate::support::client::Client;
use crate::support::messages::{self, changed, changes, requests};
use crate::support::proxy::{Flags, Proxy};
use crate::support::strict::{self, Message, Writer};
use crate::support::upstream::{HEALTH_PATH, Upstream};
use crate::support::wire::End;

/// How many random connections each test makes.
const CONNECTIONS: u32 = 1200;

/// A request as hyper read it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    body: Vec<u8>,
    trailers: usize,
}

/// hyper on a thread of its own. Every whole request is noted and answered with its number.
struct Reader {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Reader {
    fn start() -> Reader {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn({
            let seen = seen.clone();
            move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    tokio::select! {
                        () = accept(&listener, &seen) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        Reader { addr, seen, _stop: stop }
    }
}

async fn accept(listener: &tokio::net::TcpListener, seen: &Arc<Mutex<Vec<Seen>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let seen = seen.clone();
        let service = service_fn(move |request| answer(request, seen.clone()));
        let io = hyper_util::rt::TokioIo::new(stream);
        tokio::spawn(async move {
            // A request that was cut short ends its connection, as it must.
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.ok();
        });
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let text = |body: String| hyper::Response::new(Full::new(Bytes::from(body)));
    if parts.uri.path() == HEALTH_PATH {
        return Ok(text(String::new()));
    }
    let Ok(body) = body.collect().await else { return Ok(text("cut".into())) };
    let trailers = body.trailers().map_or(0, hyper::HeaderMap::len);
    let mut seen = seen.lock().unwrap();
    seen.push(Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        body: body.to_bytes().to_vec(),
        trailers,
    });
    Ok(text(format!("number {}", seen.len() - 1)))
}

struct Bench {
    reader: Reader,
    proxy: Proxy,
}

impl Bench {
    fn start() -> Bench {
        let reader = Reader::start();
        let proxy = Flags::to_addrs(&[reader.addr]).start();
        Bench { reader, proxy }
    }

    /// Sends these bytes in pieces on one connection, ends the sending side, and reads to the end:
    /// what hyper saw, and whether a refusal followed.
    fn run(&self, bytes: &[u8], cuts: &[usize]) -> Result<(Vec<Seen>, bool), String> {
        let first = self.reader.seen.lock().unwrap().len();
        let mut client = self.proxy.client();
        client.wire.patience(Duration::from_secs(5));
        let (mut rest, mut turn) = (bytes, 0);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts[turn % cuts.len()].min(rest.len()));
            // A client that was refused may find the connection closed.
            if client.wire.write(piece).is_err() {
                break;
            }
            (rest, turn) = (after, turn + 1);
        }
        // Fails where the proxy has closed already.
        socket2::SockRef::from(&**client.wire.stream()).shutdown(std::net::Shutdown::Write).ok();
        let received = read_to_end(&mut client)?;
        let mut answers = Vec::new();
        let mut at = 0;
        while at < received.len() {
            let seen = self.reader.seen.lock().unwrap();
            let method = seen.get(first + answers.len()).map_or("GET", |seen| &seen.method);
            let answer = strict::response(&received[at..], Writer::Proxy, method, true);
            let Ok(Some(answer)) = answer else {
                return Err(format!("{answer:?}: {}", received.escape_ascii()));
            };
            at += answer.bytes;
            answers.push(answer);
        }
        // hyper takes some bytes in a target for a fault that the proxy passes on.
        answers.retain(|answer| answer.status() != 400 || !answer.all("proxy-status").is_empty());
        let is_refused = answers.pop_if(|answer| answer.status() >= 400).is_some();
        let seen = self.reader.seen.lock().unwrap()[first..].to_vec();
        let numbers = (first..).map(|number| format!("number {number}").into_bytes());
        let is_in_order = answers.len() == seen.len()
            && answers.iter().zip(&seen).zip(numbers).all(|((answer, seen), number)| {
                answer.status() == 200 && (seen.method == "HEAD" || answer.body == number)
            });
        if !is_in_order {
            return Err(format!("hyper saw {seen:?}, the client got {answers:?}"));
        }
        Ok((seen, is_refused))
    }
}

fn read_to_end(client: &mut Client) -> Result<Vec<u8>, String> {
    let mut received = Vec::new();
    loop {
        match client.wire.fill() {
            Ok(()) => received.extend(client.wire.take_ahead()),
            Err(End::CleanClose | End::Reset) => return Ok(received),
            Err(end) => return Err(format!("{end:?} behind {}", received.escape_ascii())),
        }
    }
}

/// What the strict reader takes from the front of these bytes, as hyper would note it.
fn expected(bytes: &[u8]) -> Vec<Seen> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Ok(Some(message)) = strict::request(rest, Writer::Anyone) {
        rest = &rest[message.bytes..];
        let closes = closes(&message);
        let [method, target, _] = message.start;
        let trailers = message.trailers.len();
        found.push(Seen { method, target, body: message.body, trailers });
        if closes {
            break;
        }
    }
    found
}

fn closes(message: &Message) -> bool {
    let options = message.all("connection").join(&b","[..]).to_ascii_lowercase();
    let has = |option: &[u8]| options.split(|byte| *byte == b',').any(|o| o.trim_ascii() == option);
    has(b"close") || (message.start[2] == "HTTP/1.0" && !has(b"keep-alive"))
}

fn run(strategy: impl Strategy<Value = (Vec<u8>, Vec<usize>, bool)>) {
    let bench = Bench::start();
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::with_cases(CONNECTIONS)
    };
    let result = TestRunner::new(config).run(&strategy, |(bytes, cuts, is_legal)| {
        let fail =
            |fault: String| TestCaseError::fail(format!("{fault}\n{}", bytes.escape_ascii()));
        let (seen, is_refused) = bench.run(&bytes, &cuts).map_err(fail)?;
        let expected = expected(&bytes);
        let mut left = expected.iter();
        let are_equal = seen.iter().all(|seen| left.any(|expected| expected == seen));
        let is_whole = seen.len() == expected.len() && !is_refused;
        if !are_equal || (is_legal && !is_whole) {
            return Err(fail(format!("hyper saw {seen:?} in place of {expected:?}")));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn hyper_sees_legal_requests_as_they_were_sent() {
    run((requests(), messages::cuts()).prop_map(|(requests, cuts)| {
        (requests.iter().flat_map(messages::Request::bytes).collect(), cuts, true)
    }));
}

#[test]
fn hyper_sees_of_changed_requests_only_those_that_are_answered() {
    run((requests(), changes(), messages::cuts()).prop_map(|(requests, changes, cuts)| {
        let bytes = requests.iter().flat_map(messages::Request::bytes).collect();
        (changed(bytes, &changes), cuts, false)
    }));
}

/// The final answer that a strict reader takes from these bytes, up to their end.
fn final_answer(bytes: &[u8], writer: Writer) -> Result<Option<Message>, strict::Fault> {
    let mut rest = bytes;
    while let Some(message) = strict::response(rest, writer, "GET", true)? {
        if message.status() >= 200 {
            return Ok(Some(message));
        }
        rest = &rest[message.bytes..];
    }
    Ok(None)
}

/// Random answers of a backend that closes behind each of them.
fn run_answers(strategy: impl Strategy<Value = (Vec<u8>, Vec<usize>, bool)>) {
    let script: Arc<Mutex<(Vec<u8>, Vec<usize>)>> = Arc::default();
    let upstream = Upstream::scripted({
        let script = script.clone();
        move |served| {
            if served.request().is_none() {
                return;
            }
            let (bytes, cuts) = script.lock().unwrap().clone();
            let (mut rest, mut turn) = (&bytes[..], 0);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts[turn % cuts.len()].min(rest.len()));
                if !served.write(piece) {
                    return;
                }
                (rest, turn) = (after, turn + 1);
            }
        }
    });
    let proxy = Flags::to(&[&upstream]).start();
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::with_cases(CONNECTIONS)
    };
    let result = TestRunner::new(config).run(&strategy, |(bytes, cuts, is_legal)| {
        let fail =
            |fault: String| TestCaseError::fail(format!("{fault}\n{}", bytes.escape_ascii()));
        *script.lock().unwrap() = (bytes.clone(), cuts);
        let mut client = proxy.client();
        client.wire.patience(Duration::from_secs(5));
        // Idempotent: the connection that is taken from the pool may just be closing.
        client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let mut received = Vec::new();
        let end = loop {
            match client.wire.fill() {
                Ok(()) => received.extend(client.wire.take_ahead()),
                Err(end) => break end,
            }
        };
        let found = match end {
            End::CleanClose => final_answer(&received, Writer::Proxy),
            // Whatever came is known to be cut.
            End::Reset => Ok(None),
            end => return Err(fail(format!("{end:?} behind {}", received.escape_ascii()))),
        };
        let found = found.map_err(|fault| fail(format!("{fault}: {}", received.escape_ascii())))?;
        let sent = final_answer(&bytes, Writer::Anyone).ok().flatten();
        let is_fine = match (&found, &sent) {
            (Some(found), _) if found.status() == 502 && !found.all("proxy-status").is_empty() => {
                !is_legal
            }
            (Some(found), Some(sent)) => {
                (&found.start[1], &found.body, &found.trailers)
                    == (&sent.start[1], &sent.body, &sent.trailers)
            }
            (Some(_), None) => false,
            (None, _) => !is_legal,
        };
        if is_fine { Ok(()) } else { Err(fail(format!("{found:?} in place of {sent:?}"))) }
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn clients_see_legal_answers_as_they_were_sent() {
    run_answers(
        (messages::response(), messages::cuts())
            .prop_map(|(response, cuts)| (response.bytes(), cuts, true)),
    );
}

#[test]
fn clients_see_changed_answers_as_they_were_sent_or_not_at_all() {
    run_answers(
        (messages::response(), changes(), messages::cuts()).prop_map(
            |(response, changes, cuts)| (changed(response.bytes(), &changes), cuts, false),
        ),
    );
}
