//! hyper as the backend, an independent strict reader: it must see exactly the requests that the
//! client gets answers for, in their order, as they were sent.

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
use crate::support::upstream::HEALTH_PATH;
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
        let are_equal = expected.starts_with(&seen);
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
