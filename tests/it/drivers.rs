//! The main scenarios on each driver, and the well-known load generators with not one failed answer.
//! `CORELANE_TEST_LOAD=full` runs the load at the sizes that the README quotes.

use std::process::{Command, Stdio};

use crate::support::load;
use crate::support::proxy::{Flags, Proxy};
use crate::support::servers::Server;
use crate::support::upstream::Upstream;
use crate::support::{SOON, wait_until};

/// Runs other modules of this very test binary again, with the driver set by the environment.
#[track_caller]
fn run_again(modules: &[&str], driver: &str) {
    let tests = std::env::current_exe().unwrap();
    let mut command = Command::new("timeout");
    command.arg("240").arg(tests).args(modules).args(["--test-threads", "2"]);
    command.env("CORELANE_DRIVER", driver).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{driver}: {}\n{text}", output.status);
    assert!(!text.contains("running 0 tests"), "{text}");
}

const SCENARIOS: [&str; 8] = [
    "forward::",
    "answers::",
    "failures::",
    "drain::",
    "isolation::a_",
    "bodies::bodies_to_1_mib",
    "splice::",
    "bursts::",
];

#[test]
fn the_scenarios_hold_on_epoll() {
    run_again(&SCENARIOS, "epoll");
}

#[test]
fn the_log_names_the_driver_that_runs() {
    let upstream = Upstream::naming_targets();
    for driver in ["epoll", "uring"] {
        let proxy = Flags::to(&[&upstream]).with("--driver", driver).start();
        proxy.client().get("/").expect(200);
        wait_until("the log names the driver", SOON, || proxy.log().contains(driver));
    }
}

fn is_full() -> bool {
    std::env::var("CORELANE_TEST_LOAD").is_ok_and(|load| load == "full")
}

fn under_load(driver: &str) -> ([Server; 2], Proxy, String) {
    let servers = ["a", "b"].map(Server::demo);
    let proxy = Flags::to_addrs(&servers.each_ref().map(|server| server.addr))
        .with("--driver", driver)
        .start();
    let url = format!("http://{}/bytes/100", proxy.addr());
    (servers, proxy, url)
}

fn wrk(driver: &str) {
    let (_servers, mut proxy, url) = under_load(driver);
    let duration = if is_full() { "-d10s" } else { "-d2s" };
    let report = load::run("wrk", &["-t1", "-c64", duration, &url]);
    assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
    assert!(report.contains("requests in"), "{report}");
    proxy.drain();
}

fn h2load(driver: &str) {
    let (_servers, mut proxy, url) = under_load(driver);
    let count = if is_full() { "200000" } else { "20000" };
    let report = load::run("h2load", &["--h1", "-c", "64", "-n", count, &url]);
    let done = format!("{count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(
        report.contains(&done) && report.contains(&format!("{count} 2xx, 0 3xx, 0 4xx, 0 5xx")),
        "{report}"
    );
    proxy.drain();
}

/// Only where it is installed: it takes minutes to build (`tests/run --with-oha`).
fn oha(driver: &str) {
    if !load::is_installed("oha") {
        return;
    }
    let (_servers, mut proxy, url) = under_load(driver);
    let count = if is_full() { "200000" } else { "20000" };
    let report = load::run("oha", &["-c", "128", "-n", count, "--no-tui", &url]);
    assert!(
        report.contains(&format!("[200] {count} responses"))
            && !report.contains("Error distribution"),
        "{report}"
    );
    proxy.drain();
}

#[test]
fn wrk_sees_no_error_on_uring() {
    wrk("uring");
}

#[test]
fn wrk_sees_no_error_on_epoll() {
    wrk("epoll");
}

#[test]
fn h2load_sees_no_error_on_uring() {
    h2load("uring");
}

#[test]
fn h2load_sees_no_error_on_epoll() {
    h2load("epoll");
}

#[test]
fn oha_sees_no_error_on_uring() {
    oha("uring");
}

#[test]
fn oha_sees_no_error_on_epoll() {
    oha("epoll");
}
