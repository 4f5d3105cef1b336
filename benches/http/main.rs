//! What a request pays on its way: heads read and written, chunks found, the snapshot, the pool.
//! README.md says what each benchmark guards.

mod line;

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use corelane::config::{
    ForwardConfig, ForwardedHeaders, HEADERS_LIMIT, HeadLimits, IdleLimits, TraceParents,
};
use corelane::http1::chunked::{Chunked, Output};
use corelane::http1::forward::{self, Additions, Provenance};
use corelane::http1::request;
use corelane::http1::response::{self, AnswerTo};
use corelane::metrics::{By, Counter, Finished, Lanes, Latency, Method};
use corelane::upstream::endpoint::Slot;
use corelane::upstream::pool::{IdlePool, Part};
use corelane::upstream::snapshot::{Held, Snapshot, View};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

#[divan::bench(args = ["wrk", "browser"], sample_size = 1000)]
fn parse_request_head(bencher: Bencher<'_, '_>, client: &str) {
    let bytes = request_of(client);
    bencher.counter(BytesCount::of_slice(bytes)).bench(|| {
        let mut space = [const { MaybeUninit::uninit() }; HEADERS_LIMIT];
        let head = request::parse(black_box(bytes), &mut space, &LIMITS, false);
        head.ok().flatten().map(|head| head.bytes)
    });
}

#[divan::bench(args = ["wrk", "browser"], sample_size = 1000)]
fn build_request_head(bencher: Bencher<'_, '_>, client: &str) {
    let mut space = [const { MaybeUninit::uninit() }; HEADERS_LIMIT];
    let head = request::parse(request_of(client), &mut space, &LIMITS, false);
    let head = head.ok().flatten().expect("the head is whole and correct");
    let config = ForwardConfig {
        upgrades: Vec::new(),
        connect: false,
        forwarded_headers: ForwardedHeaders::Append,
        forwarded: false,
        request_id: false,
        traceparent: TraceParents::AsTheyAre,
        trusted_proxies: Vec::new(),
    };
    let provenance = Provenance::new([10, 0, 0, 1].into(), ([10, 0, 0, 2], 80).into(), &config);
    let additions =
        Additions { provenance: &provenance, upgrade: None, request_id: None, traceparent: None };
    let mut out = Vec::with_capacity(8 * 1024);
    bencher.bench_local(|| {
        out.clear();
        forward::request(black_box(&head), &additions, &mut out);
        out.len()
    });
}

#[divan::bench(sample_size = 1000)]
fn parse_response_head(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::of_slice(RESPONSE)).bench(|| {
        let mut space = [const { MaybeUninit::uninit() }; HEADERS_LIMIT];
        let head = response::parse(black_box(RESPONSE), &mut space, &LIMITS, AnswerTo::Other);
        head.ok().flatten().map(|head| head.bytes)
    });
}

/// A body of 64 KiB in chunks of so many bytes, relayed as it came.
#[divan::bench(args = [16, 1024, 16384])]
fn scan_chunks(bencher: Bencher<'_, '_>, chunk_bytes: usize) {
    let mut body = Vec::new();
    for chunk in vec![b'x'; 64 * 1024].chunks(chunk_bytes) {
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    bencher.counter(BytesCount::of_slice(&body)).bench_local(|| {
        let mut scanner = Chunked::new(Output::of(false), u64::MAX);
        // What is kept of a body without trailers and extensions is the body.
        assert!(scanner.take(black_box(&mut body)).is_ok() && scanner.is_complete());
    });
}

#[divan::bench(sample_size = 1000)]
fn ask_for_a_newer_snapshot(bencher: Bencher<'_, '_>) {
    let published = Snapshot::new(1, Vec::new()).publish();
    let mut view = View::new(published);
    let held = Held::load(&mut view);
    bencher.bench_local(|| black_box(&held).is_latest(&mut view));
}

#[divan::bench(args = [1, 200], sample_size = 1000)]
fn check_out_and_in(bencher: Bencher<'_, '_>, endpoints: u32) {
    let (mut pool, now) = (IdlePool::default(), Instant::now());
    let limits = IdleLimits { timeout: Duration::from_secs(30), per_endpoint_max: 1024 };
    for number in 0..endpoints {
        (0..8).for_each(|conn| pool.checkin(Slot { number, generation: 0 }, conn, limits, now));
    }
    let slot = Slot { number: endpoints - 1, generation: 0 };
    bencher.bench_local(|| {
        if let Some((conn, _)) = pool.checkout(black_box(slot), Part::Whole, now) {
            pool.checkin(slot, conn, limits, now);
        }
    });
}

#[divan::bench(sample_size = 1000)]
fn record_latency(bencher: Bencher<'_, '_>) {
    let (lanes, mut nanos) = (Lanes::new(1, 0), 1);
    bencher.bench_local(|| {
        // From a nanosecond to 18 s, so that neither the bucket nor the branches are foreseen.
        nanos = (nanos * 3) & ((1 << 34) - 1);
        lanes.lane(0).record(Latency::Total, Duration::from_nanos(black_box(nanos)));
    });
}

/// All that the metrics cost a request over a kept connection, but its bytes' counts on the way:
/// what its lane is told from its head to its end.
#[divan::bench(sample_size = 1000)]
fn record_request(bencher: Bencher<'_, '_>) {
    let (lanes, mut nanos) = (Lanes::new(1, 256), 1);
    let lane = lanes.lane(0);
    let methods = [Method::Get, Method::Post, Method::Get, Method::Head];
    bencher.bench_local(|| {
        nanos = (nanos * 3) & ((1 << 34) - 1);
        let time = Duration::from_nanos(black_box(nanos));
        let slot = u32::try_from(nanos & 0xff).unwrap_or(0);
        lane.add(Counter::Requests);
        lane.add_reuse(slot);
        lane.begin(slot);
        lane.record_first_byte(slot, time);
        lane.add_success(slot);
        lane.add(Counter::Relayed);
        lane.record(Latency::Total, time);
        lane.add_bytes(slot, nanos, nanos);
        lane.end(slot);
        let (method, status) = (methods[nanos as usize >> 8 & 3], 200 + (nanos as u16 & 0xff));
        let by = By::Endpoint(slot);
        lane.finish(&Finished { method, status, by, received: nanos, sent: nanos });
    });
}

fn request_of(client: &str) -> &'static [u8] {
    if client == "wrk" { WRK } else { BROWSER }
}

const LIMITS: HeadLimits =
    HeadLimits { bytes_max: 32 * 1024, headers_max: 100, target_bytes_max: 16 * 1024 };
const WRK: &[u8] = b"GET /100 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const BROWSER: &[u8] =
    b"GET /articles/2024/07/a-title-of-some-length?page=2&sort=date HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Referer: https://www.example.org/articles\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Priority: u=0, i\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.26.0\r\n\
    Date: Sun, 01 Dec 2024 12:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 100\r\n\
    Last-Modified: Sat, 30 Nov 2024 12:00:00 GMT\r\n\
    Connection: keep-alive\r\n\
    ETag: \"674aff00-64\"\r\n\
    Cache-Control: max-age=60\r\n\r\n";
