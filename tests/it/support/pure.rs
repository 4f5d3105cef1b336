//! What must hold for the pure parts of the proxy on any bytes, cut anywhere: what leaves them is
//! read in one way only. The property tests and the fuzz targets call these checks.
#![allow(dead_code, reason = "the fuzz targets and the tests use different parts")]

use std::mem::MaybeUninit;

use corelane::config::{ForwardConfig, ForwardedHeaders, HeadLimits, TraceParents};
use corelane::error::Cause;
use corelane::http1::Version;
use corelane::http1::chunked::{Chunked, Fault, Output};
use corelane::http1::forward::{self, Additions, ClientSide, Provenance};
use corelane::http1::framing::{Body, Framing};
use corelane::http1::response::AnswerTo;
use corelane::http1::{request, response};

use super::strict::{self, Message, Writer};

const LIMITS: HeadLimits =
    HeadLimits { bytes_max: 16384, headers_max: 100, target_bytes_max: 8192 };

/// Where bytes are cut into pieces: after each of these counts, again from the start when they
/// are used up. None is "not at all".
#[derive(Clone, Copy, Debug)]
pub struct Cuts<'a>(pub &'a [usize]);

impl Cuts<'_> {
    fn pieces<'d>(&self, data: &'d [u8]) -> Vec<&'d [u8]> {
        let (mut rest, mut pieces, mut turn) = (data, Vec::new(), 0);
        while !rest.is_empty() {
            let count = match self.0 {
                [] => rest.len(),
                counts => counts[turn % counts.len()].clamp(1, rest.len()),
            };
            turn += 1;
            let (piece, after) = rest.split_at(count);
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}

/// How a connection's bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Between two messages.
    Clean,
    /// Inside one.
    Inside,
    /// By a refusal.
    Refused(Cause),
}

/// What the other side got.
#[derive(Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Whole messages, each as it was written.
    pub complete: Vec<Vec<u8>>,
    /// What was written of one that is not whole.
    pub partial: Vec<u8>,
    pub ended: Ended,
}

/// A request as the head says it, with what corelane wrote for it.
struct Forwarded {
    bytes: usize,
    framing: Framing,
    out: Vec<u8>,
}

fn forward_request(data: &[u8]) -> Result<Option<Forwarded>, Cause> {
    let mut space = [MaybeUninit::uninit(); 128];
    let Some(head) = request::parse(data, &mut space, &LIMITS, true)? else { return Ok(None) };
    let config = ForwardConfig {
        upgrades: vec!["websocket".to_owned()],
        connect: true,
        forwarded_headers: ForwardedHeaders::Append,
        forwarded: true,
        request_id: true,
        traceparent: TraceParents::AsTheyAre,
        trusted_proxies: Vec::new(),
    };
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 80));
    let provenance = Provenance::new(addr.ip(), addr, &config);
    let additions = Additions {
        provenance: &provenance,
        upgrade: head.upgrade.map(|_| "websocket"),
        request_id: Some(7),
        traceparent: None,
    };
    let mut out = Vec::new();
    forward::request(&head, &additions, &mut out);
    Ok(Some(Forwarded { bytes: head.bytes, framing: head.framing, out }))
}

/// Carries all requests of a client's connection, as the worker does.
pub fn relay_requests(data: &[u8], cuts: Cuts<'_>) -> Relayed {
    let mut relayed = Relayed { complete: Vec::new(), partial: Vec::new(), ended: Ended::Clean };
    let (mut buffer, mut current): (Vec<u8>, Option<(Body, Vec<u8>)>) = (Vec::new(), None);
    for piece in cuts.pieces(data) {
        buffer.extend_from_slice(piece);
        loop {
            if let Some((body, out)) = &mut current {
                let taken = match body.take(&mut buffer) {
                    Ok(taken) => taken,
                    Err(fault) => {
                        relayed.partial = std::mem::take(out);
                        relayed.ended = Ended::Refused(fault.in_request());
                        return relayed;
                    }
                };
                out.extend_from_slice(&buffer[..taken.kept]);
                buffer.drain(..taken.used);
                if !body.is_complete() {
                    break;
                }
                relayed.complete.push(std::mem::take(out));
                current = None;
            }
            if buffer.is_empty() {
                break;
            }
            match forward_request(&buffer) {
                Ok(None) => break,
                Ok(Some(head)) => {
                    buffer.drain(..head.bytes);
                    let body = Body::new(head.framing, Output::Chunks, u64::MAX);
                    current = Some((body, head.out));
                }
                Err(cause) => {
                    relayed.ended = Ended::Refused(cause);
                    return relayed;
                }
            }
        }
    }
    if let Some((_, out)) = current {
        relayed.partial = out;
        relayed.ended = Ended::Inside;
    } else if !buffer.is_empty() {
        relayed.ended = Ended::Inside;
    }
    relayed
}

/// A request's head, whatever the bytes are: read the same with anything behind it, and written
/// so that the strict reader sees the same message.
pub fn check_request_head(data: &[u8]) {
    let parsed = forward_request(data);
    let Ok(Some(head)) = parsed else { return };
    let start = &data[..head.bytes];
    let alone = forward_request(start).ok().flatten().expect("a head alone is a head");
    assert_eq!((alone.bytes, &alone.out), (head.bytes, &head.out), "what follows matters");
    for end in [start.len() - 1, start.len() / 2] {
        if let Ok(Some(early)) = forward_request(&start[..end]) {
            panic!("complete after {} of {} bytes", early.bytes, start.len());
        }
    }
    let sent = strict::request(&head.out, Writer::Proxy);
    match (head.framing, sent) {
        (Framing::Empty, Ok(Some(message))) => assert_eq!(message.bytes, head.out.len()),
        (Framing::Length(0), Ok(Some(message))) => {
            assert_eq!(message.framing, strict::Framing::Length(0));
        }
        (Framing::Length(_) | Framing::Chunked, Ok(None)) => {}
        (framing, sent) => panic!("{framing:?} was written as {sent:?}"),
    }
    let received = strict::request(start, Writer::Anyone);
    assert!(received.is_ok(), "{received:?} was taken: {}", start.escape_ascii());
}

/// All requests of a connection: the whole ones leave as the strict reader sees them come, an
/// unfinished one never looks whole, and cuts change nothing.
pub fn check_requests(data: &[u8], cuts: Cuts<'_>) {
    let relayed = relay_requests(data, Cuts(&[]));
    let cut = relay_requests(data, cuts);
    assert_eq!(cut.complete, relayed.complete, "cuts change what is whole");
    assert_eq!(kind_of(cut.ended), kind_of(relayed.ended), "cuts change the end");
    for partial in [&relayed.partial, &cut.partial] {
        match strict::request(partial, Writer::Proxy) {
            Ok(None) => {}
            other => panic!("an unfinished request looks like {other:?}"),
        }
    }
    let mut rest = data;
    for out in &relayed.complete {
        let sent = strict::request(out, Writer::Proxy)
            .unwrap_or_else(|fault| panic!("{fault}: {}", out.escape_ascii()))
            .expect("a whole request is whole");
        assert_eq!(sent.bytes, out.len(), "{}", out.escape_ascii());
        let received = strict::request(rest, Writer::Anyone)
            .unwrap_or_else(|fault| panic!("{fault} was forwarded: {}", rest.escape_ascii()))
            .expect("what was forwarded had come whole");
        check_same_request(&received, &sent);
        rest = &rest[received.bytes..];
    }
    if relayed.ended == Ended::Clean {
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
    if let Ended::Refused(cause) = relayed.ended
        && let Ok(Some(legal)) = strict::request(rest, Writer::Anyone)
    {
        assert!(may_refuse_legal(cause), "{cause:?} for the legal {legal:?}");
    }
}

/// The end without the name of a fault in the start line, which may depend on how much of the
/// line had come.
fn kind_of(ended: Ended) -> Ended {
    use Cause as C;
    match ended {
        Ended::Refused(
            C::RequestMethod | C::RequestTarget | C::RequestVersion | C::RequestBareLineEnd,
        ) => Ended::Refused(C::RequestSyntax),
        // A line that is too long for its own limit may be too long for the head's at once.
        Ended::Refused(C::RequestTargetTooLong) => Ended::Refused(C::RequestHeadTooLarge),
        ended => ended,
    }
}

/// What corelane refuses although RFC 9112 allows it: limits, what it does not serve, and what a
/// lenient reader behind it could take for something else.
fn may_refuse_legal(cause: Cause) -> bool {
    use Cause as C;
    matches!(
        cause,
        C::RequestHeadTooLarge
            | C::RequestHeadersTooMany
            | C::RequestTargetTooLong
            | C::RequestTrailerInvalid
            | C::RequestChunkInvalid
            | C::ConnectBody
    )
}

fn check_same_request(received: &Message, sent: &Message) {
    assert_eq!(received.start[0], sent.start[0], "the method");
    assert_eq!(received.framing, sent.framing, "the framing of {received:?}");
    assert_eq!(received.body, sent.body, "the body");
    assert_eq!(received.trailers, sent.trailers, "the trailers");
    if received.start[1].starts_with('/') {
        assert_eq!(received.start[1], sent.start[1], "the target");
    }
    check_same_fields(received, sent);
}

/// Everything that is not the next hop's own business arrives, in its order.
fn check_same_fields(received: &Message, sent: &Message) {
    let named: Vec<String> = received
        .all("connection")
        .iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .collect();
    let is_end_to_end = |name: &str| {
        !HANDLED.split(' ').any(|handled| handled == name)
            && !named.iter().any(|known| known == name)
    };
    let wanted: Vec<_> = received.fields.iter().filter(|(name, _)| is_end_to_end(name)).collect();
    let found: Vec<_> = sent.fields.iter().filter(|(name, _)| is_end_to_end(name)).collect();
    assert_eq!(wanted, found, "the headers");
}

/// Headers that corelane removes, replaces or adds, so that they need not arrive as they came.
const HANDLED: &str = "close connection content-length date forwarded host keep-alive proxy-authenticate \
    proxy-authorization proxy-connection te transfer-encoding upgrade via x-forwarded-for \
    x-forwarded-host x-forwarded-proto x-request-id x_forwarded_for x_forwarded_host x_forwarded_proto";

/// The client that an answer is for.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub is_old: bool,
    pub keeps: bool,
    pub to: AnswerTo,
}

impl Asker {
    fn method(self) -> &'static str {
        match self.to {
            AnswerTo::Head => "HEAD",
            AnswerTo::Connect => "CONNECT",
            AnswerTo::Other => "GET",
        }
    }
}

/// An answer's body, what was written of the answer, and whether it is an interim one.
type Answering = (Body, Vec<u8>, bool);

/// One answer with its interim ones, as the worker carries it to a client.
pub fn relay_response(data: &[u8], cuts: Cuts<'_>, asker: Asker) -> Relayed {
    let mut relayed = Relayed { complete: Vec::new(), partial: Vec::new(), ended: Ended::Inside };
    let mut buffer = Vec::new();
    let mut current: Option<Answering> = None;
    for piece in cuts.pieces(data) {
        buffer.extend_from_slice(piece);
        loop {
            if let Some((body, out, is_interim)) = &mut current {
                let Ok(taken) = body.take(&mut buffer) else {
                    relayed.partial = std::mem::take(out);
                    relayed.ended = Ended::Refused(Cause::ResponseChunkInvalid);
                    return relayed;
                };
                out.extend_from_slice(&buffer[..taken.kept]);
                buffer.drain(..taken.used);
                if !body.is_complete() {
                    break;
                }
                relayed.complete.push(std::mem::take(out));
                if !*is_interim {
                    relayed.ended = Ended::Clean;
                    return relayed;
                }
                current = None;
            }
            match forward_response(&buffer, asker) {
                Ok(None) => break,
                Ok(Some((head, is_interim))) => {
                    buffer.drain(..head.bytes);
                    let output = if asker.is_old { Output::Data } else { Output::Chunks };
                    current =
                        Some((Body::new(head.framing, output, u64::MAX), head.out, is_interim));
                }
                Err(cause) => {
                    relayed.ended = Ended::Refused(cause);
                    return relayed;
                }
            }
        }
    }
    // The backend's connection ends here.
    if let Some((body, out, _)) = current {
        if body.may_end() {
            relayed.complete.push(out);
            relayed.ended = Ended::Clean;
        } else {
            relayed.partial = out;
        }
    }
    relayed
}

fn forward_response(data: &[u8], asker: Asker) -> Result<Option<(Forwarded, bool)>, Cause> {
    let mut space = [MaybeUninit::uninit(); 128];
    let Some(head) = response::parse(data, &mut space, &LIMITS, asker.to)? else {
        return Ok(None);
    };
    let version = if asker.is_old { Version::Http10 } else { Version::Http11 };
    let keeps = asker.keeps && forward::client_sees_end(head.framing, version);
    let side = ClientSide { version, keep_alive: head.is_interim() || keeps };
    let mut out = Vec::new();
    if forward::passes_as_is(&head, side) {
        out.extend_from_slice(&data[..head.bytes]);
    } else {
        forward::response(&head, side, b"", &mut out);
    }
    Ok(Some((Forwarded { bytes: head.bytes, framing: head.framing, out }, head.is_interim())))
}

/// A response's head, whatever the bytes are.
pub fn check_response_head(data: &[u8]) {
    for to in [AnswerTo::Other, AnswerTo::Head, AnswerTo::Connect] {
        for (is_old, keeps) in [(false, true), (false, false), (true, true)] {
            let asker = Asker { is_old, keeps, to };
            let Ok(Some((head, _))) = forward_response(data, asker) else { continue };
            let start = &data[..head.bytes];
            for end in [start.len() - 1, start.len() / 2] {
                let early = forward_response(&start[..end], asker);
                assert!(!matches!(early, Ok(Some(_))), "complete after {end} bytes");
            }
            let sent = strict::response(&head.out, Writer::Proxy, asker.method(), false);
            let is_fine = match head.framing {
                Framing::Empty | Framing::Length(0) => matches!(sent, Ok(Some(_))),
                _ => matches!(sent, Ok(None)),
            };
            assert!(
                is_fine,
                "{:?} was written as {sent:?}: {}",
                head.framing,
                head.out.escape_ascii()
            );
            let received = strict::response(start, Writer::Anyone, asker.method(), false);
            assert!(received.is_ok(), "{received:?} was taken: {}", start.escape_ascii());
        }
    }
}

/// An answer: what is whole arrives as the strict reader sees it come, what is not never looks
/// whole, and cuts change nothing.
pub fn check_response(data: &[u8], cuts: Cuts<'_>, asker: Asker) {
    let relayed = relay_response(data, Cuts(&[]), asker);
    let cut = relay_response(data, cuts, asker);
    assert_eq!(cut.complete, relayed.complete, "cuts change what is whole");
    assert_eq!(cut.ended, relayed.ended, "cuts change the end");
    let method = asker.method();
    // An HTTP/1.0 client knows a cut from an end by a reset, which the worker makes.
    for partial in [&relayed.partial, &cut.partial] {
        let is_end_of_old = asker.is_old;
        match strict::response(partial, Writer::Proxy, method, !is_end_of_old) {
            Ok(None) => {}
            Ok(Some(message)) if message.framing == strict::Framing::UntilClose => {}
            other => panic!("an unfinished answer looks like {other:?}"),
        }
    }
    let mut rest = data;
    for out in &relayed.complete {
        let sent = strict::response(out, Writer::Proxy, method, true)
            .unwrap_or_else(|fault| panic!("{fault}: {}", out.escape_ascii()))
            .expect("a whole answer is whole");
        assert_eq!(sent.bytes, out.len(), "{}", out.escape_ascii());
        let received = strict::response(rest, Writer::Anyone, method, true)
            .unwrap_or_else(|fault| panic!("{fault} was passed on: {}", rest.escape_ascii()))
            .expect("what was passed on had come whole");
        assert_eq!(received.start[1], sent.start[1], "the status");
        assert_eq!(received.body, sent.body, "the body");
        if !asker.is_old {
            assert_eq!(received.framing, sent.framing, "the framing");
            assert_eq!(received.trailers, sent.trailers, "the trailers");
        }
        check_same_fields(&received, &sent);
        rest = &rest[received.bytes..];
    }
}

/// The chunked scanner: cuts change nothing, its chunks decode to its data, and it reads what the
/// strict reader reads.
pub fn check_chunked(data: &[u8], cuts: Cuts<'_>) {
    let whole = scan(data, Cuts(&[]), Output::Chunks);
    let cut = scan(data, cuts, Output::Chunks);
    let plain = scan(data, cuts, Output::Data);
    assert_eq!(whole.1, cut.1, "cuts change the verdict");
    assert_eq!(whole.1, plain.1, "the output changes the verdict");
    if whole.1.is_ok() {
        assert_eq!(whole.0, cut.0, "cuts change what is kept");
    }
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let with_head = |body: &[u8]| [&head[..], body].concat();
    let received = strict::request(&with_head(data), Writer::Anyone);
    match whole.1 {
        Ok(Some(used)) => {
            let sent = strict::request(&with_head(&whole.0), Writer::Proxy);
            let sent = sent.expect("what is kept is legal").expect("and whole");
            assert_eq!(sent.body, plain.0);
            assert_eq!(sent.bytes, head.len() + whole.0.len());
            let received = received.expect("what was taken is legal").expect("and whole");
            assert_eq!((&received.body, received.bytes), (&sent.body, head.len() + used));
            assert_eq!(received.trailers, sent.trailers);
        }
        Ok(None) => {
            assert!(!matches!(received, Ok(Some(_))), "{received:?} is waited for");
            let sent = strict::request(&with_head(&whole.0), Writer::Proxy);
            assert!(matches!(sent, Ok(None)), "an unfinished body looks like {sent:?}");
        }
        Err(Fault::TooLong) => {}
        Err(_) => {
            let sent = strict::request(&with_head(&cut.0), Writer::Proxy);
            assert!(!matches!(sent, Ok(Some(_))), "a refused body looks like {sent:?}");
        }
    }
}

/// What is kept, and after how many bytes the body was whole.
fn scan(data: &[u8], cuts: Cuts<'_>, output: Output) -> (Vec<u8>, Result<Option<usize>, Fault>) {
    let mut scanner = Chunked::new(output, u64::MAX);
    let (mut kept, mut used) = (Vec::new(), 0);
    for piece in cuts.pieces(data) {
        let mut piece = piece.to_vec();
        match scanner.take(&mut piece) {
            Ok(taken) => {
                kept.extend_from_slice(&piece[..taken.kept]);
                used += taken.used;
            }
            Err(fault) => return (kept, Err(fault)),
        }
        if scanner.is_complete() {
            return (kept, Ok(Some(used)));
        }
    }
    (kept, Ok(None))
}

/// Either direction, by the bits of `mode`: requests, or an answer to one of six kinds of asker.
pub fn check_exchange(mode: u8, cuts: Cuts<'_>, data: &[u8]) {
    if mode & 1 == 0 {
        return check_requests(data, cuts);
    }
    let to = match mode >> 3 & 3 {
        0 | 1 => AnswerTo::Other,
        2 => AnswerTo::Head,
        _ => AnswerTo::Connect,
    };
    check_response(data, cuts, Asker { is_old: mode & 2 != 0, keeps: mode & 4 != 0, to });
}
