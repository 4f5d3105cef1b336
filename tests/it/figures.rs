//! The metrics of a running proxy: after a known script of requests, each figure is the truth.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::client::Client;
use crate::support::openmetrics::Scrape;
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::Upstream;
use crate::support::{SOON, wait_until};

/// A scrape of the proxy's admin server.
#[track_caller]
pub fn scrape(proxy: &Proxy) -> Scrape {
    let mut client = Client::connect(proxy.admin_addr());
    let request =
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n";
    let response = client.request(request).expect(200);
    let content_type = response.get("content-type").unwrap_or_default().to_owned();
    assert!(content_type.starts_with("application/openmetrics-text"), "{content_type}");
    Scrape::read(&response.text()).unwrap()
}

/// An upstream whose answer's status is the target, `/200`; beside that it loses the first
/// connection that asks for `/lose`, never answers `/hang`, and sends back what comes in an upgrade.
fn upstream() -> Upstream {
    let is_lost = std::sync::atomic::AtomicBool::new(false);
    Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            let target = request.head.target().trim_start_matches('/').to_owned();
            if request.head.get("upgrade").is_some() {
                served.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                );
                while served.wire.fill().is_ok() {
                    let bytes = served.wire.take_ahead();
                    served.write(&bytes);
                }
                return;
            }
            let status = match target.as_str() {
                "lose" if !is_lost.swap(true, std::sync::atomic::Ordering::SeqCst) => return,
                "lose" => "200",
                "hang" => {
                    served.wait_for_end();
                    return;
                }
                status => status,
            };
            let body = if request.head.method() == "HEAD" { "" } else { "ok" };
            let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: 2\r\n\r\n{body}");
            served.write(head.as_bytes());
        }
    })
}

/// Method, status and how often.
const SCRIPT: [(&str, u16, usize); 9] = [
    ("GET", 200, 5),
    ("HEAD", 200, 2),
    ("POST", 201, 3),
    ("PUT", 404, 2),
    ("DELETE", 301, 1),
    ("OPTIONS", 200, 1),
    ("PATCH", 500, 2),
    ("BREW", 200, 1),
    ("GET", 599, 1),
];

#[test]
fn each_request_is_counted_once_by_method_status_and_backend() {
    let upstream = upstream();
    let flags = Flags::to(&[&upstream]).with("--workers", "2").with("--admin", "127.0.0.1:0");
    let proxy = flags.start();
    let (truth, answered) = play(&proxy, &upstream);
    let mut last = Scrape::default();
    wait_until("all is at rest", SOON, || {
        last = scrape(&proxy);
        ["corelane_client_connections", "corelane_requests_in_flight", "corelane_tunnels"]
            .iter()
            .all(|gauge| last.sum(gauge, &[]) == 0.0)
    });
    let found = last.families["corelane_requests"].samples.iter();
    let found: BTreeMap<String, f64> = found
        .map(|it| {
            let label = |name: &str| it.labels[name].as_str();
            let key =
                series(label("backend"), label("method"), label("pool"), label("status_class"));
            (key, it.value)
        })
        .collect();
    assert_eq!(found, truth);
    check_others(&last, &upstream, answered);
    let older = Client::connect(proxy.admin_addr())
        .request("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect(200)
        .text();
    assert_eq!(crate::metrics::lint(&older), "", "{older}");
}

/// Sends `SCRIPT`, and what a retry, a refusal, a client that leaves and a tunnel are counted by;
/// gives what is to be counted, and how many of `SCRIPT`.
fn play(proxy: &Proxy, upstream: &Upstream) -> (BTreeMap<String, f64>, f64) {
    let addr = upstream.addr.to_string();
    let (mut truth, mut answered) = (BTreeMap::<String, f64>::new(), 0.0);
    for (method, status, times) in SCRIPT {
        let mut client = proxy.client();
        for _ in 0..times {
            let body = if method == "POST" { "hello" } else { "" };
            let length = body.len();
            client
                .request(format!(
                    "{method} /{status} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .expect(status);
        }
        let class = format!("{}xx", status / 100);
        let label = if method == "BREW" { "other" } else { method };
        *truth.entry(series(&addr, label, "default", &class)).or_default() += times as f64;
        answered += times as f64;
    }
    // A retry.
    proxy.client().get("/lose").expect(200);
    *truth.entry(series(&addr, "GET", "default", "2xx")).or_default() += 1.0;
    // Refused before there is a method.
    proxy.client().request("GET / HTTP/1.1\r\n\r\n").expect(400);
    *truth.entry(series("none", "other", "none", "4xx")).or_default() += 1.0;
    // A client that leaves before an answer.
    let before = upstream.request_count();
    let mut leaving = proxy.client();
    leaving.send("GET /hang HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_until("the request has come", SOON, || upstream.request_count() > before);
    assert_eq!(scrape(proxy).get("corelane_requests_in_flight"), Some(1.0));
    leaving.reset();
    *truth.entry(series("none", "GET", "default", "none")).or_default() += 1.0;
    // A tunnel.
    let mut tunnel = proxy.client();
    tunnel
        .send("GET /chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(tunnel.wire.head().unwrap().status(), 101);
    wait_until("a tunnel is open", SOON, || scrape(proxy).get("corelane_tunnels") == Some(1.0));
    drop(tunnel);
    *truth.entry(series(&addr, "GET", "default", "1xx")).or_default() += 1.0;
    (truth, answered)
}

/// A series of `corelane_requests_total`.
fn series(backend: &str, method: &str, pool: &str, class: &str) -> String {
    format!(
        "corelane_requests_total{{backend={backend:?},method={method:?},pool={pool:?},status_class={class:?}}}"
    )
}

/// The other figures, after `play` with so many answers.
fn check_others(last: &Scrape, upstream: &Upstream, answered: f64) {
    let addr = upstream.addr.to_string();
    let at = format!("{{backend={addr:?},pool=\"default\"}}");
    for (figure, value) in [
        ("corelane_retries_total{cause=\"backend-lost\"}".to_owned(), 1.0),
        ("corelane_failures_total{cause=\"client-left\"}".to_owned(), 1.0),
        ("corelane_failures_total{cause=\"host-missing\"}".to_owned(), 1.0),
        ("corelane_tunnels_opened_total".to_owned(), 1.0),
        // All but the one without a host.
        ("corelane_requests_received_total".to_owned(), answered + 3.0),
        ("corelane_answers_relayed_total".to_owned(), answered + 2.0),
        ("corelane_request_duration_seconds_count".to_owned(), answered + 2.0),
        (format!("corelane_backend_first_byte_seconds_count{at}"), answered + 2.0),
        (format!("corelane_backend_retries_total{at}"), 1.0),
        (format!("corelane_backend_idle_connections{at}"), upstream.open_connections() as f64),
    ] {
        assert_eq!(last.get(&figure), Some(value), "{figure}");
    }
    // Attempts: those that were answered, the one that was lost, and the one that hung.
    let [opened, reused] = ["opened", "reused"]
        .map(|how| last.sum(&format!("corelane_backend_connections_{how}_total"), &[]));
    assert_eq!(opened + reused, answered + 4.0, "{opened} {reused}");
    assert_eq!(last.get("corelane_backend_connect_seconds_count"), Some(opened));
    let received = last.sum("corelane_worker_requests_received_total", &[]);
    assert_eq!(received, answered + 3.0, "the sum over the workers");
    let sum = last.get("corelane_request_duration_seconds_sum").unwrap();
    assert!(sum > 0.0 && sum < SOON.as_secs_f64() * 10.0, "{sum}");
}

#[test]
fn bytes_are_counted_on_both_sides_to_the_last() {
    let upstream = upstream();
    let proxy = Flags::to(&[&upstream]).with("--admin", "127.0.0.1:0").start();
    let (mut sent, mut received) = (0, 0);
    for request in [
        "GET /200 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".to_owned(),
        format!(
            "POST /200 HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n{}",
            "x".repeat(300_000)
        ),
        "POST /200 HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(proxy.addr()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        sent += request.len();
        received += answer.len();
    }
    let to_backend: usize = upstream
        .raw()
        .iter()
        .filter(|raw| !String::from_utf8_lossy(raw).contains(" /health "))
        .map(Vec::len)
        .sum();
    let mut last = Scrape::default();
    wait_until("the requests are over", SOON, || {
        last = scrape(&proxy);
        last.sum("corelane_client_connections", &[]) == 0.0
    });
    for (name, value) in [
        ("corelane_client_received_bytes_total", sent),
        ("corelane_client_sent_bytes_total", received),
        ("corelane_backend_sent_bytes_total", to_backend),
        (
            "corelane_backend_received_bytes_total",
            3 * "HTTP/1.1 200 Said\r\nContent-Length: 2\r\n\r\nok".len(),
        ),
    ] {
        assert_eq!(last.sum(name, &[]), value as f64, "{name}");
    }
}

#[test]
fn a_request_on_a_warm_connection_costs_few_operations_of_the_ring() {
    const REQUESTS: u32 = 1000;
    for (driver, expected) in [("uring", 2.0..6.0), ("epoll", 0.0..0.1)] {
        let upstream = upstream();
        let flags = Flags::to(&[&upstream]).with("--admin", "127.0.0.1:0");
        let proxy = flags.with("--driver", driver).with("--workers", "1").start();
        let mut client = Client::connect(proxy.addr());
        let totals = |proxy: &Proxy| {
            ["corelane_worker_ring_submissions_total", "corelane_worker_ring_completions_total"]
                .map(|name| scrape(proxy).sum(name, &[]))
        };
        let before = totals(&proxy);
        for _ in 0..REQUESTS {
            client.wire.write(b"GET /200 HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
            client.read_response("GET");
        }
        // What the ring did is counted at a worker's next walk over its deadlines.
        wait_until(driver, SOON, || {
            let costs = [0, 1].map(|which| totals(&proxy)[which] - before[which]);
            costs.iter().all(|cost| expected.contains(&(cost / f64::from(REQUESTS))))
        });
    }
}

#[test]
fn no_counter_goes_back_when_a_worker_dies_and_is_followed() {
    let upstream = upstream();
    let flags = Flags::to(&[&upstream]).with("--admin", "127.0.0.1:0");
    let proxy = flags.with("--fault", "panic-worker=5").start();
    let mut last = BTreeMap::new();
    for number in 0..12 {
        if let Ok(mut client) = Client::try_connect(proxy.addr()) {
            // The one that the worker dies of gets no answer.
            client.wire.write(b"GET /200 HTTP/1.1\r\nHost: t\r\n\r\n").ok();
            client.read_response("GET");
        }
        let now = scrape(&proxy).growing();
        for (series, value) in &last {
            assert!(now.get(series).is_some_and(|now| now >= value), "{number}: {series} {value}");
        }
        last = now;
    }
    wait_until("the worker was followed", SOON, || proxy.log().contains("is started again"));
    let rest = scrape(&proxy);
    assert!(rest.sum("corelane_requests_total", &[("status_class", "2xx")]) >= 10.0);
    wait_until("all is at rest", SOON, || {
        let rest = scrape(&proxy);
        rest.sum("corelane_client_connections", &[]) == 0.0
            && rest.get("corelane_requests_in_flight") == Some(0.0)
    });
}
