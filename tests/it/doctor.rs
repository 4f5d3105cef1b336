//! `corelane doctor` on this machine and on made-up ones: lines, JSON and exit codes.

use std::process::Command;

use crate::support::Scratch;
use crate::support::proxy::CORELANE;

/// Exit code and standard output of the doctor with these flags and variables.
fn doctor(words: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new("timeout");
    command.args(["20", CORELANE, "doctor"]).args(words).envs(env.iter().copied());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// A machine with one file that matters.
fn machine(path: &str, text: &str) -> Scratch {
    let root = Scratch::new("doctor");
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    root
}

#[test]
fn each_line_says_how_it_stands_and_what_was_found() {
    let (_, lines) = doctor(&["--workers", "1"], &[]);
    let (last, lines) = lines.trim_end().split_once("container").map_or_else(
        || panic!("no last check: {lines}"),
        |(lines, last)| (last.lines().last().unwrap().to_owned(), lines.to_owned()),
    );
    assert!(lines.lines().count() > 15, "{lines}");
    for line in lines.lines() {
        let level = line.split_whitespace().next();
        assert!(matches!(level, Some("ok" | "warn" | "fail")), "{line}");
        let has_advice = line.contains("; ");
        assert!(has_advice || level == Some("ok"), "a line without advice: {line}");
    }
    assert!(lines.contains("1: 0 on core "), "{lines}");
    assert!(last.contains(" ok, "), "{last}");
}

#[test]
fn what_cannot_work_ends_with_71_and_what_may_be_better_with_0() {
    let limits = machine("proc/self/limits", "Max open files   64   100   files\n");
    let root = limits.0.to_str().unwrap();
    let (code, lines) = doctor(&["--root", root], &[]);
    assert_eq!(code, Some(71), "{lines}");
    assert!(lines.contains("fail  RLIMIT_NOFILE"), "{lines}");

    let somaxconn = machine("proc/sys/net/core/somaxconn", "128\n");
    let root = somaxconn.0.to_str().unwrap();
    let words = ["--root", root, "--driver", "epoll", "--json"];
    let (code, json) = doctor(&words, &[("CORELANE_BACKLOG", "999")]);
    assert_eq!(code, Some(0), "{json}");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["fail"], 0);
    let checks = report["checks"].as_array().unwrap();
    let queue = checks.iter().find(|check| check["check"] == "net.core.somaxconn").unwrap();
    assert_eq!(queue["level"], "warn");
    assert_eq!(queue["advice"], "sysctl -w net.core.somaxconn=999");
}

#[test]
fn it_takes_the_load_balancers_flags_and_its_file() {
    let somaxconn = machine("proc/sys/net/core/somaxconn", "128\n");
    let file = somaxconn.join("lane.toml");
    let text = "listen = \"127.0.0.1:80\"\nbacklog = 999\n[[pools]]\nname = \"a\"\nbackends = []\n";
    std::fs::write(&file, text).unwrap();
    let (root, file) = (somaxconn.0.to_str().unwrap(), file.to_str().unwrap());
    for (words, expected) in [
        (["--listen", "127.0.0.1:80", "--backlog", "998", "--backend", "http://h:1"], "=998"),
        (["--config", file, "--driver", "epoll", "--workers", "1"], "=999"),
        (["--config", file, "--driver", "epoll", "--backlog", "997"], "=997"),
    ] {
        let words = [&["--root", root][..], &words].concat();
        let (code, lines) = doctor(&words, &[]);
        assert!(code == Some(0) || code == Some(71), "{words:?}: {lines}");
        let advice = format!("sysctl -w net.core.somaxconn{expected}");
        assert!(lines.contains(&advice), "{words:?}: {lines}");
    }
}

#[test]
fn flags_that_cannot_work_here_are_refused_as_the_load_balancer_refuses_them() {
    let (code, lines) = doctor(&["--cores", "4000"], &[]);
    assert_eq!((code, lines.as_str()), (Some(64), ""));
}
