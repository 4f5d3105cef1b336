//! Changes, reloads and the dashboard while oha sends requests: none fails, and all agree on how many
//! there were. Only where oha is installed: it takes minutes to build (`tests/run --with-oha`).

use std::thread;

use rustix::process::Signal;
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::load;
use crate::support::openmetrics::Scrape;
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::Server;
use crate::support::{SOON, Scratch, wait_until};

/// How many answers of status 200 oha tells of; it must tell of nothing else.
#[track_caller]
fn answers(report: &str) -> u64 {
    let statuses = report.split_once("Status code distribution:").expect(report).1;
    let mut lines = statuses.lines().filter(|line| !line.trim().is_empty());
    let line = lines.next().expect(report).trim();
    assert_eq!(lines.next(), None, "{report}");
    let count = line.strip_prefix("[200] ").and_then(|it| it.strip_suffix(" responses"));
    count.expect(report).parse().expect(report)
}

fn scrape(proxy: &Proxy) -> Scrape {
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\nAccept: application/openmetrics-text\r\n\r\n",
        proxy.admin_addr()
    );
    Scrape::read(&Client::connect(proxy.admin_addr()).request(request).expect(200).text()).unwrap()
}

#[test]
fn thousands_of_changes_and_a_hundred_reloads_fail_none_of_oha() {
    if !load::is_installed("oha") {
        return;
    }
    let servers = ["a", "b", "c"].map(Server::demo);
    let scratch = Scratch::new("under-oha");
    let path = scratch.join("lane.toml");
    let text = |policy: &str| {
        format!(
            "admin = \"127.0.0.1:0\"\n[[pools]]\nname = \"default\"\npolicy = {policy:?}\n\
             backends = [\"http://{}\"]\n[[routes]]\npool = \"default\"\n",
            servers[0].addr
        )
    };
    std::fs::write(&path, text("p2c")).unwrap();
    let mut proxy = Flags::to(&[]).with("--config", &path.display().to_string()).start();
    let url = format!("http://{}/bytes/100", proxy.addr());
    let oha = thread::spawn(move || {
        load::run("oha", &["-c", "64", "-z", OHA_TIME, "-w", "--no-tui", &url])
    });
    let asked = || scrape(&proxy).sum("corelane_worker_requests_received_total", &[]);
    wait_until("oha has begun", SOON, || asked() > 0.0);

    let admin = proxy.admin_addr();
    let mut client = Client::connect(admin);
    let mut change = |count: usize| {
        for number in 0..count {
            let id = servers[1 + number / 2 % 2].addr.to_string();
            let (line, body) = if number % 2 == 0 {
                (
                    "POST /api/v1/pools/default/backends".to_owned(),
                    json!({ "address": id }).to_string(),
                )
            } else {
                (format!("DELETE /api/v1/pools/default/backends/{id}"), String::new())
            };
            let response = client.request(format!(
                "{line} HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            assert!((200..300).contains(&response.status()), "{response:?}");
        }
    };
    let done = || proxy.log().matches("the configuration was read again").count();
    let reload = |policy: &str| {
        let before = done();
        std::fs::write(&path, text(policy)).unwrap();
        proxy.signal(Signal::HUP);
        wait_until("it is read again", SOON, || done() > before);
    };
    change(200);
    let before = proxy.memory();
    let mut after = Vec::new();
    for _ in 0..3 {
        for number in 0..34 {
            change(30);
            reload(["ewma", "p2c", "maglev"][number % 3]);
        }
        after.push(proxy.memory());
    }
    assert!(!oha.is_finished(), "the changes took longer than oha, {OHA_TIME}");
    let answered = answers(&oha.join().unwrap());
    println!("{answered} requests, memory {before} B before, {after:?} B after each thousand");
    assert!(answered > 0);
    assert!(after[2] <= before + MEMORY_MAX, "{before} then {after:?}");
    assert!(after[2] <= after[1] + MEMORY_NOISE, "{before} then {after:?}");
    proxy.drain();
}

#[test]
fn the_dashboard_the_metrics_and_oha_tell_of_the_same_requests() {
    if !load::is_installed("oha") {
        return;
    }
    const REQUESTS: &str = "20000";
    let servers = ["a", "b", "c"].map(Server::demo);
    let proxy = Flags::to_addrs(&servers.each_ref().map(|server| server.addr))
        .with("--admin", "127.0.0.1:0")
        .start();
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", proxy.admin_addr()));
    browser.wait_for("document.querySelector('#link').dataset.link === 'live'");
    let url = format!("http://{}/bytes/100", proxy.addr());
    let report = load::run("oha", &["-c", "64", "-n", REQUESTS, "--no-tui", &url]);
    assert_eq!(answers(&report).to_string(), REQUESTS);
    let shown = "document.querySelector('#totals dd').textContent.replace(/[^0-9]/g, '')";
    browser.wait_for(&format!("{shown} === '{REQUESTS}'"));
    let counted = scrape(&proxy);
    let counted = |labels: &[(&str, &str)]| counted.sum("corelane_requests_total", labels);
    assert_eq!(counted(&[("status_class", "2xx")]).to_string(), REQUESTS);
    for server in &servers {
        let authority = server.addr.to_string();
        let script = format!(
            "[...document.querySelectorAll('#backends tr[data-state]')]\
             .find((row) => row.item.address === {authority:?})\
             .querySelector('td[data-label=Requests]').textContent.replace(/[^0-9]/g, '')"
        );
        let shown = browser.value(&script);
        assert_eq!(shown, counted(&[("backend", &authority)]).to_string(), "{authority}");
    }
    browser.keep_picture("dashboard-oha.png");
    browser.close();
}

/// How long oha sends while things change.
const OHA_TIME: &str = "40s";
/// What three thousand changes and a hundred reloads may leave,
const MEMORY_MAX: u64 = 16 * 1024 * 1024;
/// and what of the third thousand is the allocator's noise.
const MEMORY_NOISE: u64 = 1024 * 1024;
