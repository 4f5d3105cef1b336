//! What a request pays for its key: the hash, the cookie, and the endpoint that the cookie names.

use corelane::http1::key;
use corelane::upstream::{hash, sticky};
use divan::{Bencher, black_box};
use httparse::Header;

use crate::endpoints;
use crate::table::sticky_config;

#[divan::bench(sample_size = 1000)]
fn hash_of_40_bytes(bencher: Bencher<'_, '_>) {
    let key = [b'k'; 40];
    bencher.bench(|| hash::of_bytes(black_box(&key), black_box(1)));
}

#[divan::bench(sample_size = 1000)]
fn cookie_among_10_headers(bencher: Bencher<'_, '_>) {
    let names = ["host", "user-agent", "accept", "accept-language", "accept-encoding", "referer"];
    let mut headers: Vec<_> = names.map(|name| Header { name, value: b"a value" }).into();
    headers.extend(["dnt", "range", "cookie"].map(|name| Header { name, value: b"a=b; c=d" }));
    headers.push(Header { name: "Cookie", value: b"theme=dark; lang=en; lane=0123456789" });
    bencher.bench(|| key::cookie(black_box(&headers), black_box("lane")).map(<[u8]>::len));
}

#[divan::bench(sample_size = 1000)]
fn endpoint_of_a_sticky_cookie(bencher: Bencher<'_, '_>) {
    let endpoints = endpoints(|_| 1);
    let table = sticky::Table::new(&sticky_config(), &endpoints);
    let line = table.line_of(77);
    let start = b"Set-Cookie: lane=".len();
    let value = &line[start..start + 32];
    assert_eq!(table.endpoint_of(value), Some(77));
    bencher.bench(|| table.endpoint_of(black_box(value)));
}
