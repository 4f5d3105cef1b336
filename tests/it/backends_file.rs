//! `--backends-file`: edits that are right, wrong, half done and many, and a file that goes away.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::load::{Fate, Load, Reuse};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Upstream, ok};
use crate::support::{SOON, Scratch, wait_until};

/// A backend that answers each request with its name.
fn named(name: &'static str) -> Upstream {
    Upstream::answering(ok(name, false))
}

fn toml_of(upstreams: &[&Upstream]) -> String {
    let table = |it: &&Upstream| format!("[[backends]]\nurl = \"{}\"\n", it.url());
    let tables: String = upstreams.iter().map(table).collect();
    if tables.is_empty() { "backends = []\n".to_owned() } else { tables }
}

/// Puts another file in the place of the one at `path`, as editors do.
fn replace(path: &Path, text: &str) {
    let part = path.with_extension("part");
    fs::write(&part, text).unwrap();
    fs::rename(part, path).unwrap();
}

fn start(path: &Path) -> Proxy {
    Flags::to(&[]).with("--backends-file", path.to_str().unwrap()).start()
}

fn file_in(scratch: &Scratch, text: &str) -> PathBuf {
    let path = scratch.join("backends.toml");
    fs::write(&path, text).unwrap();
    path
}

/// Which backends answer now: the names in twelve answers, or the statuses of others.
fn answering(proxy: &Proxy) -> String {
    let mut client = proxy.client();
    let mut names: Vec<String> = (0..12)
        .map(|_| {
            let response = client.get("/");
            match response.status() {
                200 => String::from_utf8(response.body).unwrap(),
                status => status.to_string(),
            }
        })
        .collect();
    names.sort();
    names.dedup();
    names.join(" ")
}

#[track_caller]
fn expect(proxy: &Proxy, names: &str) {
    let mut last = String::new();
    let took = wait_until(&format!("{names} answer"), SOON, || {
        last = answering(proxy);
        last == names
    });
    assert!(took < Duration::from_secs(1) + NOISE, "{names} after {took:?}");
}

#[test]
fn ready_counts_the_backends_of_every_source() {
    let [a, b, c] = ["a", "b", "c"].map(named);
    let scratch = Scratch::new("backends-file");
    let path = file_in(&scratch, &toml_of(&[&a, &b]));
    let proxy = Flags::to(&[&c]).with("--backends-file", path.to_str().unwrap()).start();
    wait_until("it is told", SOON, || proxy.log().contains("ready on"));
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("ready on")).unwrap();
    assert!(line.contains("backends=3"), "{line}");
}

#[test]
fn each_edit_counts_within_a_second_and_a_broken_one_changes_nothing() {
    let [a, b] = ["a", "b"].map(named);
    let scratch = Scratch::new("backends-file");
    let path = file_in(&scratch, &toml_of(&[&a]));
    let proxy = start(&path);
    expect(&proxy, "a");
    replace(&path, &toml_of(&[&a, &b]));
    expect(&proxy, "a b");
    // Written in place.
    fs::write(&path, toml_of(&[&b])).unwrap();
    expect(&proxy, "b");
    wait_until("no connection to a is kept", SOON, || a.open_connections() == 0);
    for (text, reason) in [
        ("[[backends]]\nurl = \"nonsense\"\n", "line 2: url"),
        ("", "line 1: it is empty"),
        ("[[backends]]\nurl = \"http://127.0.0.1:1\"\nweight = 999\n", "line 3: the weight"),
    ] {
        let before = proxy.log().len();
        replace(&path, text);
        // Once a second at most: the second is told when the file is looked at again.
        wait_until(reason, SOON, || proxy.log()[before..].contains(reason));
        assert_eq!(answering(&proxy), "b");
    }
    fs::remove_file(&path).unwrap();
    wait_until("the loss is told", SOON, || proxy.log().contains("No such file"));
    assert_eq!(answering(&proxy), "b");
    replace(&path, &toml_of(&[&a]));
    expect(&proxy, "a");
    replace(&path, &toml_of(&[]));
    expect(&proxy, "503");
}

#[test]
fn a_file_that_is_not_there_or_broken_at_start_is_a_usage_error() {
    let scratch = Scratch::new("backends-file");
    for (name, text, reason) in [
        ("none.toml", None, "No such file"),
        ("broken.json", Some("{"), "line 1"),
        ("backends.yaml", Some("a: 1"), "neither .toml nor .json"),
    ] {
        let path = scratch.join(name);
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let mut proxy = Flags::to(&[]).with("--backends-file", path.to_str().unwrap()).spawn();
        assert_eq!(proxy.wait_exit(SOON).code(), Some(64), "{name}");
        let log = proxy.log();
        assert!(log.contains("--backends-file") && log.contains(reason), "{name}: {log}");
    }
}

#[test]
fn a_flag_goes_before_the_file_and_options_change_in_place() {
    let [a, b] = ["a", "b"].map(named);
    let scratch = Scratch::new("backends-file");
    let drained = format!("{}mode = \"maintenance\"\n", toml_of(&[&a]));
    let path = file_in(&scratch, &drained);
    let proxy = Flags::to(&[&a]).with("--backends-file", path.to_str().unwrap()).start();
    expect(&proxy, "a");
    replace(&path, &format!("{}{}weight = 3\n", drained, toml_of(&[&b])));
    expect(&proxy, "a b");
    replace(&path, &format!("{}{}mode = \"maintenance\"\n", drained, toml_of(&[&b])));
    expect(&proxy, "a");
    replace(&path, &format!("{}{}mode = \"ready\"\n", drained, toml_of(&[&b])));
    expect(&proxy, "a b");
}

#[test]
fn a_hundred_edits_a_second_under_load_fail_no_request() {
    let [a, b, c] = ["a", "b", "c"].map(named);
    let scratch = Scratch::new("backends-file");
    let path = file_in(&scratch, &toml_of(&[&a, &b]));
    let mut proxy = start(&path);
    let load = Load::start(proxy.addr(), 4, Reuse::KeepAlive, "/");
    let is_full = std::env::var("CORELANE_TEST_LOAD").is_ok_and(|it| it == "full");
    let length = Duration::from_secs(if is_full { 10 } else { 2 });
    let started = Instant::now();
    let mut edits = 0_u32;
    while started.elapsed() < length {
        let text = match edits % 6 {
            0 => toml_of(&[&a, &c]),
            1 => toml_of(&[&a, &b, &c]),
            3 => toml_of(&[&c, &a]),
            4 => format!("{}weight = {}\n", toml_of(&[&a, &b]), 1 + edits % 250),
            2 => "[[backends]]\nurl = \"http://".to_owned(),
            _ => String::new(),
        };
        if edits.is_multiple_of(2) {
            replace(&path, &text)
        } else {
            fs::write(&path, text).unwrap()
        }
        edits += 1;
        let next = started + Duration::from_millis(10) * edits;
        wait_until("it is time for the next edit", SOON, || Instant::now() >= next);
    }
    replace(&path, &toml_of(&[&b]));
    expect(&proxy, "b");
    let fates = load.stop();
    let answered = fates.get(&Fate::Answered(200)).copied().unwrap_or_default();
    assert!(fates.len() == 1 && answered > 100, "{fates:?} after {edits} edits");
    proxy.drain();
}

/// What a busy machine may add to a second.
const NOISE: Duration = Duration::from_secs(2);
