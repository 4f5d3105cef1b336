//! The dashboard in headless Chromium: its numbers against the metrics and what a client sent, changes
//! by keyboard and of the real API, a token, a lost link, a phone. Pictures are kept under tests/output.

use std::net::SocketAddr;

use rustix::process::Signal;

use crate::admin::{get, json_of};
use crate::admin_writes::{BACKENDS, authority, send};
use crate::support::admin::Admin;
use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::proxy::Flags;
use crate::support::upstream::{Upstream, ok};
use crate::support::{SOON, Scratch, wait_until};

/// The sum of a metric's samples with this label.
fn metric(addr: SocketAddr, name: &str, label: &str) -> f64 {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    let answer = Client::connect(addr).request(request).expect(200);
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let samples = text
        .lines()
        .filter(|line| line.starts_with(name) && !line.starts_with('#') && line.contains(label));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// The text of a backend's cell, by its column's label; that of the state where there is none.
fn cell(browser: &mut Browser, authority: &str, label: &str) -> String {
    let script = format!(
        "[...document.querySelectorAll('#backends tr[data-state]')]\
         .find((row) => row.item.address === {authority:?})\
         ?.querySelector('td[data-label={label:?}]')?.textContent ?? ''"
    );
    browser.value(&script).as_str().unwrap_or_default().to_string()
}

#[test]
fn the_numbers_on_the_page_are_those_of_the_metrics_and_of_the_client() {
    let upstreams: Vec<_> = (0..3).map(|_| Upstream::answering(ok("hello", false))).collect();
    let upstreams: Vec<_> = upstreams.iter().collect();
    let proxy = Flags::to(&upstreams).with("--admin", "127.0.0.1:0").start();
    let admin = proxy.admin_addr();
    let mut browser = Browser::start();
    browser.resize(1400, 1000);
    browser.prefer("light");
    browser.open(&format!("http://{admin}/"));
    browser.wait_for("document.querySelector('#link').dataset.link === 'live'");

    let mut client = proxy.client();
    for _ in 0..301 {
        client.get("/").expect(200);
    }
    browser.wait_for("document.querySelector('#totals dd').textContent === '301'");
    assert_eq!(metric(admin, "corelane_requests_received_total", ""), 301.0);
    let mut shown = 0.0;
    for upstream in &upstreams {
        let authority = upstream.url().trim_start_matches("http://").to_string();
        let requests: f64 = cell(&mut browser, &authority, "Requests").parse().unwrap();
        let label = format!("backend=\"{authority}\"");
        let counted = metric(admin, "corelane_requests_total{", &label);
        assert_eq!(requests, counted, "{authority}");
        assert_eq!(cell(&mut browser, &authority, "State"), "up");
        shown += requests;
    }
    assert_eq!(shown, 301.0);
    browser.wait_for(
        "document.querySelectorAll('#plot-requests path.curve')[0].getAttribute('d') !== ''",
    );

    browser.keep_picture("dashboard-light.png");
    browser.prefer("dark");
    browser.keep_picture("dashboard-dark.png");
    for width in [1121, 1000, 900, 700, 600, 320] {
        browser.resize(width, 640);
        browser.wait_for(&format!("document.documentElement.scrollWidth <= {width}"));
    }
    browser.keep_picture("dashboard-phone.png");
    browser.close();
}

#[test]
fn the_page_asks_for_the_token_and_says_when_the_link_is_lost() {
    const TOKEN: &str = "0123456789abcdef-of-the-page";
    let one = Upstream::answering(ok("", false));
    let scratch = Scratch::new("dashboard");
    std::fs::write(scratch.join("token"), TOKEN).unwrap();
    let file = scratch.join("token").display().to_string();
    let flags = Flags::to(&[&one]).with("--admin", "127.0.0.1:0").with("--admin-token-file", &file);
    let mut proxy = flags.start();
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", proxy.admin_addr()));
    browser.wait_for("document.querySelector('#login').open");
    for (token, is_taken) in [("wrong", false), (TOKEN, true)] {
        browser.value(&format!("document.querySelector('#token').value = {token:?}"));
        browser.press(&["Enter"]);
        let state = if is_taken { "!" } else { "" };
        browser.wait_for(&format!("{state}document.querySelector('#login').open"));
        if !is_taken {
            browser.wait_for("!document.querySelector('#login-error').hidden");
        }
    }
    browser.wait_for("document.querySelector('#link').dataset.link === 'live'");
    proxy.signal(Signal::KILL);
    proxy.wait_exit(SOON);
    browser.wait_for("document.querySelector('#link').dataset.link === 'stale'");
    wait_until("the page says why", SOON, || {
        browser.text("#notice").contains("corelane cannot be reached")
    });
    browser.keep_picture("dashboard-stale.png");
    browser.close();
}

/// One backend of this state, mode, weight and revision, as the status document has it.
fn status_of(state: &str, mode: &str, weight: u32, revision: u32) -> String {
    format!(
        r#"{{"version":"1","now":"2026-01-01T00:00:00Z","uptime_seconds":9,"epoch":1,"ready":true,
        "totals":{{"requests":0}},"last_second":{{"requests":0,"errors":0}},"imbalance":1,
        "pools":[{{"name":"default","policy":"p2c","backends":[{{"id":"default/[::1]:80",
        "address":"[::1]:80","state":"{state}","why":"<b>bold</b>","since":"2026-01-01T00:00:00Z",
        "mode":"{mode}","weight":{weight},"effective_weight":{weight},"revision":"{revision}",
        "in_flight":0,"requests":0,"failures":0}}]}}],"workers":[]}}"#
    )
}

#[test]
fn a_backend_is_drained_and_weighted_by_keyboard_alone() {
    let admin = Admin::new(&status_of("up", "ready", 1, 41), None);
    let mut browser = Browser::start();
    browser.resize(1200, 900);
    browser.open(&format!("http://{}/", admin.on_tcp()));
    browser.wait_for("document.querySelectorAll('#backends tr[data-state=up]').length === 1");
    // What comes over the wire is text.
    assert_eq!(browser.text("#backends td.why"), "<b>bold</b>");

    // Tab goes through the page, as far as the backend's button.
    let mut steps = 0;
    while browser.value("document.activeElement.textContent") != "Change…" {
        browser.press(&["Tab"]);
        steps += 1;
        assert!(steps < 40, "the button cannot be reached");
    }
    let outline = browser.value("getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid", "the focus is to be seen");
    browser.press(&["Enter"]);
    browser.wait_for("document.querySelector('#change').open");
    assert_eq!(browser.value("document.querySelector('#change-apply').disabled"), true);
    // From ready to drain; then the number, which is selected, is typed over.
    browser.press(&["ArrowDown", "Tab", "7"]);
    browser.wait_for("document.querySelector('#change-sum').textContent.includes('ready → drain')");
    browser.keep_picture("dashboard-change.png");

    // Somebody else was faster: nothing is lost, and nothing is done.
    admin.reply(412);
    browser.press(&["Enter"]);
    browser.wait_for("document.querySelector('#change-error').textContent.includes('else')");
    assert_eq!(browser.value("document.querySelector('#change').open"), true);
    browser.press(&["Escape"]);
    browser.wait_for("!document.querySelector('#change').open");

    admin.set_status(&status_of("up", "ready", 1, 42));
    browser.wait_for("document.querySelector('#backends tr[data-state]').item.revision === '42'");
    browser.press(&["Enter"]);
    browser.wait_for("document.querySelector('#change').open");
    browser.press(&["ArrowDown", "Tab", "7", "Enter"]);
    browser.wait_for("!document.querySelector('#change').open");
    let told: Vec<_> =
        admin.changes().into_iter().map(|it| (it.line, it.if_match, it.body)).collect();
    let line = "PATCH /api/v1/pools/default/backends/%5B%3A%3A1%5D%3A80 HTTP/1.1".to_string();
    let body = r#"{"mode":"drain","weight":7}"#.to_string();
    let expected = ["\"41\"", "\"42\""].map(|tag| (line.clone(), tag.to_string(), body.clone()));
    assert_eq!(told, expected);

    admin.set_status(&status_of("draining", "drain", 7, 43));
    browser.wait_for("document.querySelectorAll('#backends tr[data-state=draining]').length === 1");
    assert_eq!(cell(&mut browser, "[::1]:80", "Weight"), "7");
    browser.close();
}

/// Opens the dialog for a backend of the real API and fills it in.
fn fill_change(browser: &mut Browser, authority: &str, mode: &str, weight: u32) {
    browser.value(&format!(
        "[...document.querySelectorAll('#backends tr[data-state]')]\
         .find((row) => row.item.address === {authority:?}).querySelector('td.act button').click()"
    ));
    browser.wait_for("document.querySelector('#change').open");
    browser.value(&format!(
        "(() => {{ const form = document.querySelector('#change-form'); \
         form.elements.mode.value = {mode:?}; document.querySelector('#weight').value = {weight}; \
         form.dispatchEvent(new Event('input')); }})()"
    ));
}

#[test]
fn a_backend_of_the_real_api_is_drained_weighted_and_taken_back() {
    const APPLY: &str = "document.querySelector('#change-apply').click()";
    const CLOSED: &str = "!document.querySelector('#change').open";
    let [one, two] = ["one", "two"].map(|body| Upstream::answering(ok(body, false)));
    let proxy = Flags::to(&[&one, &two]).with("--admin", "127.0.0.1:0").start();
    let addr = proxy.admin_addr();
    let authority = authority(&one);
    let path = format!("{BACKENDS}/{authority}");
    let told = |field: &str| json_of(&get(addr, &path).expect(200))[field].clone();
    let mut browser = Browser::start();
    browser.resize(1400, 900);
    browser.open(&format!("http://{addr}/"));
    browser.wait_for("document.querySelectorAll('#backends tr[data-state=up]').length === 2");

    fill_change(&mut browser, &authority, "drain", 7);
    browser.value(APPLY);
    browser.wait_for(CLOSED);
    assert_eq!((told("mode"), told("weight")), ("drain".into(), 7.into()));
    browser.wait_for("document.querySelectorAll('#backends tr[data-state=draining]').length === 1");
    assert_eq!(cell(&mut browser, &authority, "Weight"), "7");
    let mut client = proxy.client();
    wait_until("its place is left", SOON, || client.get("/").expect(200).text() == "two");
    assert!((0..20).all(|_| client.get("/").expect(200).text() == "two"));

    // Somebody else is faster; what is applied then is what the page shows.
    fill_change(&mut browser, &authority, "ready", 1);
    send(addr, &format!("PATCH {path}"), "", r#"{"weight":9}"#).expect(200);
    browser.value(APPLY);
    browser.wait_for("document.querySelector('#change-error').textContent.includes('else')");
    assert_eq!((told("mode"), told("weight")), ("drain".into(), 9.into()));
    browser.wait_for("document.querySelector('#change-sum').textContent.includes('weight 9 → 1')");
    browser.value(APPLY);
    browser.wait_for(CLOSED);
    assert_eq!((told("mode"), told("weight")), ("ready".into(), 1.into()));
    browser.wait_for("document.querySelectorAll('#backends tr[data-state=up]').length === 2");
    wait_until("its times are shown", SOON, || {
        client.get("/").expect(200);
        client.get("/").expect(200);
        cell(&mut browser, &authority, "p50 / p99").contains("s / ")
    });
    browser.keep_picture("dashboard-changed.png");
    browser.close();
}

#[test]
fn hundreds_of_backends_are_filtered_and_sorted() {
    let one = status_of("up", "ready", 1, 1);
    let mut status: serde_json::Value = serde_json::from_str(&one).unwrap();
    let backends: Vec<_> = (0..600)
        .map(|number| {
            let mut backend = status["pools"][0]["backends"][0].clone();
            backend["address"] = format!("n{number}:80").into();
            backend["id"] = format!("default/n{number}:80").into();
            backend["requests"] = number.into();
            backend
        })
        .collect();
    status["pools"][0]["backends"] = backends.into();
    let admin = Admin::new(&status.to_string(), None);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", admin.on_tcp()));
    let shown = "[...document.querySelectorAll('#backends tr[data-state]')]";
    browser.wait_for(&format!("{shown}.length === 600"));
    browser.press(&["/", "n", "5", "9"]);
    browser.wait_for(&format!("{shown}.length === 11"));
    browser.wait_for("document.querySelector('#backends-count').textContent.includes('11 shown')");
    let sort = "[...document.querySelectorAll('#backends th button')]\
                .find((it) => it.textContent === 'Requests')";
    browser.value(&format!("{sort}.click()"));
    assert_eq!(browser.value(&format!("{sort}.closest('th').ariaSort")), "descending");
    assert_eq!(browser.value(&format!("{shown}[0].item.address")), "n599:80");
    browser.close();
}
