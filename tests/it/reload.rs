//! SIGHUP, or the admin API: the file is read again and becomes one more snapshot, or is refused whole.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::json;

use crate::admin::{check_problem, json_of};
use crate::admin_writes::send;
use crate::support::load::{Fate, Load, Reuse};
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Upstream, ok};
use crate::support::{SOON, Scratch, wait_until};

const DONE: &str = "the configuration was read again";
const REFUSED: &str = "the configuration is refused, the last one stays";

/// A proxy whose configuration is a file.
struct Filed {
    proxy: Proxy,
    path: PathBuf,
    _scratch: Scratch,
}

impl Filed {
    fn start(text: &str) -> Filed {
        let scratch = Scratch::new("reload");
        let path = scratch.join("lane.toml");
        std::fs::write(&path, text).unwrap();
        let flags = Flags::none().with("--config", &path.display().to_string());
        let proxy = flags.with("--admin", "127.0.0.1:0").start();
        Filed { proxy, path, _scratch: scratch }
    }

    /// Writes the file, asks for it to be read, and waits until the log says so once more.
    fn reload(&self, text: &str, said: &str) {
        let count = || self.proxy.log().matches(said).count();
        let before = count();
        std::fs::write(&self.path, text).unwrap();
        self.proxy.signal(Signal::HUP);
        wait_until(said, SOON, || count() > before);
    }

    fn get(&self, target: &str) -> (u16, String) {
        let mut client = self.proxy.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"));
        let response = client.read_response("GET");
        (response.status(), response.text())
    }
}

fn pool(name: &str, upstreams: &[&Upstream], more: &str) -> String {
    let urls: Vec<_> = upstreams.iter().map(|it| format!("{:?}", it.url())).collect();
    format!("[[pools]]\nname = {name:?}\nbackends = [{}]\n{more}\n", urls.join(", "))
}

#[test]
fn a_hundred_reloads_under_load_fail_no_request() {
    let [one, two] = [(); 2].map(|()| Upstream::naming_targets());
    let to = |name: &str| format!("[[routes]]\npool = {name:?}\n");
    let first = pool("a", &[&one], "") + &to("a");
    let variants = [
        pool("a", &[&one, &two], "policy = \"p2c\"") + &to("a"),
        pool("a", &[&one], "") + &pool("b", &[&two], "retries = 1") + &to("b"),
        "listen = 5\n[[pools]]\n".to_owned(),
        pool("b", &[&two, &one], "policy = \"maglev\"") + &to("b"),
        first.clone(),
        pool("a", &[&one], "health-timeout = \"1m\"") + &to("nowhere"),
    ];
    let mut filed = Filed::start(&first);
    let load = Load::start(filed.proxy.addr(), 8, Reuse::KeepAlive, "/x");
    for number in 0..100 {
        let said = if number % 3 == 2 { REFUSED } else { DONE };
        filed.reload(&variants[number % variants.len()], said);
    }
    let answered = load.answered();
    wait_until("requests go on", SOON, || load.answered() > answered + 100);
    let fates = load.stop();
    assert_eq!(fates.keys().collect::<Vec<_>>(), [&Fate::Answered(200)], "{fates:?}");
    assert!(one.request_count() > 0 && two.request_count() > 0);
    filed.proxy.drain();
}

#[test]
fn pools_and_routes_come_and_go_and_what_is_refused_changes_nothing() {
    let (one, two) = (Upstream::answering(ok("one", false)), Upstream::answering(ok("two", false)));
    let a = pool("a", &[&one], "") + "[[routes]]\npool = \"a\"\n";
    let b = pool("b", &[&two], "") + "[[routes]]\npool = \"b\"\npath-prefix = \"/b\"\n";
    let mut filed = Filed::start(&a);
    assert_eq!(filed.get("/b"), (200, "one".to_owned()));
    filed.reload(&format!("{a}{b}"), DONE);
    wait_until("the new pool answers", SOON, || filed.get("/b") == (200, "two".to_owned()));
    assert_eq!(filed.get("/"), (200, "one".to_owned()));
    filed.reload(&format!("{b}retires = 1\n"), REFUSED);
    assert_eq!((filed.get("/b").1, filed.get("/").1), ("two".to_owned(), "one".to_owned()));
    filed.reload(&b, DONE);
    wait_until("the old route is gone", SOON, || filed.get("/").0 == 404);
    assert_eq!(filed.get("/b"), (200, "two".to_owned()));
    filed.proxy.drain();
}

#[test]
fn the_admin_api_reloads_as_sighup_does_and_says_what_is_refused() {
    let (one, two) = (Upstream::answering(ok("one", false)), Upstream::answering(ok("two", false)));
    let a = pool("a", &[&one], "") + "[[routes]]\npool = \"a\"\n";
    let b = pool("b", &[&two], "") + "[[routes]]\npool = \"b\"\npath-prefix = \"/b\"\n";
    let mut filed = Filed::start(&a);
    let reload = |text: &str| {
        std::fs::write(&filed.path, text).unwrap();
        send(filed.proxy.admin_addr(), "POST /api/v1/reload", "", "{}")
    };
    let done = reload(&format!("drain-timeout = \"7s\"\n{a}{b}")).expect(200);
    assert_eq!(json_of(&done), json!({ "needs_restart": ["drain-timeout"] }));
    wait_until("the new pool answers", SOON, || filed.get("/b") == (200, "two".to_owned()));
    for (text, word) in [(format!("{a}retires = 1\n"), "retires"), ("[[".to_owned(), "lane.toml:1")]
    {
        check_problem(&reload(&text), 422, word);
        assert_eq!((filed.get("/b").1, filed.get("/").1), ("two".to_owned(), "one".to_owned()));
    }
    assert_eq!(json_of(&reload(&a).expect(200)), json!({ "needs_restart": [] }));
    wait_until("the pool is gone", SOON, || filed.get("/b") == (200, "one".to_owned()));
    filed.proxy.drain();
}

#[test]
fn what_waits_for_a_restart_is_named() {
    let one = Upstream::naming_targets();
    let text = pool("a", &[&one], "");
    let mut filed = Filed::start(&text);
    filed.reload(&format!("drain-timeout = \"7s\"\nheaders-max = 50\n{text}"), DONE);
    let log = filed.proxy.log();
    assert!(log.contains("drain-timeout, headers-max") && log.contains("restart"), "{log}");
    filed.proxy.drain();
}

#[test]
fn what_routes_and_pools_depend_on_is_refused_before_a_restart() {
    let one = Upstream::answering(ok("one", false));
    let text = pool("a", &[&one], "");
    let mut filed = Filed::start(&text);
    for more in ["listen = [\"127.0.0.1:1\"]", "backends-file = \"b.toml\""] {
        let is_flag = more.starts_with("listen");
        // A flag wins over the file: nothing has changed.
        filed.reload(&format!("{more}\n{text}"), if is_flag { DONE } else { REFUSED });
        assert_eq!(filed.get("/"), (200, "one".to_owned()));
    }
    assert!(filed.proxy.log().contains("backends-file has changed"), "{}", filed.proxy.log());
    filed.proxy.drain();
}

#[test]
fn a_process_without_a_file_goes_on_after_sighup() {
    let upstream = Upstream::naming_targets();
    let mut proxy = Flags::to(&[&upstream]).start();
    proxy.signal(Signal::HUP);
    wait_until("it says so", SOON, || proxy.log().contains("no file to read again"));
    proxy.client().send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(proxy.is_running());
    proxy.drain();
}
