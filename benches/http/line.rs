//! A line of the access log, written as a worker does.

use std::time::Duration;

use corelane::access_log::{Captured, Entry, Field, Stamp, write_line};
use corelane::cli::parse_line_format;
use corelane::http1::Version;
use divan::{Bencher, black_box};

#[divan::bench(args = ["common", "combined", "json"], sample_size = 1000)]
fn write_log_line(bencher: Bencher<'_, '_>, format: &str) {
    let format = parse_line_format(format).expect("the format has this name");
    let mut captured = Captured::default();
    captured.keep(Field::Method, &[b"GET"]);
    captured.keep(Field::Target, &[b"/some/where?with=a&query=too"]);
    captured.keep(Field::Host, &[b"www.example.org"]);
    for index in 0..format.headers.len() {
        captured
            .keep(Field::Header(index), &[b"Mozilla/5.0 (X11; Linux x86_64) Gecko Firefox/146"]);
    }
    let entry = Entry {
        begun: Duration::from_micros(1_795_403_400_123_456),
        client: [192, 0, 2, 7].into(),
        peer: ([192, 0, 2, 7], 40_000).into(),
        local: ([192, 0, 2, 1], 80).into(),
        captured: &captured,
        version: Some(Version::Http11),
        status: 200,
        is_own_answer: false,
        cause: None,
        pool: Some("default"),
        backend: Some("default/127.0.0.1:3001"),
        retries: 0,
        epoch: 17,
        worker: 1,
        is_reused: Some(true),
        number: 5,
        received: 345,
        sent: 5678,
        sent_in_heads: 200,
        head: Some(Duration::ZERO),
        queue: None,
        connect: None,
        first_byte: Some(Duration::from_micros(321)),
        total: Duration::from_micros(345),
    };
    let (mut stamp, mut out) = (Stamp::default(), Vec::with_capacity(64 * 1024));
    bencher.bench_local(|| {
        out.clear();
        write_line(black_box(&format), black_box(&entry), &mut stamp, &mut out);
        out.len()
    });
}

#[divan::bench(sample_size = 1000)]
fn keep_for_log_line(bencher: Bencher<'_, '_>) {
    let mut captured = Captured::default();
    bencher.bench_local(|| {
        captured.clear();
        captured.keep(Field::Method, &[black_box(b"GET")]);
        captured.keep(Field::Target, &[b"", black_box(b"/some/where?with=a&query=too")]);
        captured.keep(Field::Host, &[black_box(b"www.example.org")]);
    });
}
