//! The configuration file: what is refused with its line, which source wins, and what `corelane check` prints.

use std::process::{Command, Stdio};

use crate::support::Scratch;
use crate::support::proxy::{CORELANE, Flags};
use crate::support::upstream::{Upstream, ok};

/// Exit code, standard output and standard error of `corelane check` on a file of this text.
fn check(text: &str, words: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let scratch = Scratch::new("check");
    std::fs::write(scratch.join("lane.toml"), text).unwrap();
    let mut command = Command::new("timeout");
    command.args(["10", CORELANE, "check", "--config", "lane.toml"]).args(words);
    command.envs(env.iter().copied()).current_dir(&scratch.0).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const GOOD: &str = r#"
listen = ["127.0.0.1:0"]
workers = 1
retries = 2
connect = true

[[pools]]
name = "web"
backends = ["http://127.0.0.1:1,weight=2", "http://127.0.0.1:2"]

[[pools]]
name = "api"
backends = ["http://127.0.0.1:1"]
policy = "least-connections"
health-interval = "250ms"

[[routes]]
host = "*.example.org"
path-prefix = "/api"
pool = "api"

[[routes]]
path = "/old"
redirect = "https://{host}{path}"
status = 308

[[routes]]
pool = "web"
"#;

#[test]
fn what_check_prints_is_a_file_that_says_the_same() {
    let (code, printed, stderr) = check(GOOD, &[], &[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for line in ["workers = 1", "connect = true", "policy = \"round-robin\"", "status = 308"] {
        assert!(printed.lines().any(|it| it == line), "{line}: {printed}");
    }
    assert!(printed.contains("name = \"api\"\nbackends = [\"http://127.0.0.1:1\"]\npolicy = "));
    let (code, again, stderr) = check(&printed, &[], &[]);
    assert_eq!((code, again, stderr.as_str()), (Some(0), printed, ""));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let (four, five) = ([("CORELANE_RETRIES", "4")], ["--retries", "5"]);
    for (words, env, expected) in [
        (&[][..], &[][..], "retries = 2"),
        (&[], &four, "retries = 4"),
        (&five, &four, "retries = 5"),
    ] {
        let (code, printed, stderr) = check(GOOD, words, env);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(printed.lines().any(|line| line == expected), "{expected}: {printed}");
    }
    // Over what a pool has of its own as well.
    let (_, printed, _) = check(GOOD, &["--policy", "p2c"], &[]);
    assert!(!printed.contains("least-connections") && printed.contains("policy = \"p2c\""));
}

/// What stands in front of each case: three lines.
const FRONT: &str = "listen = \"127.0.0.1:0\"\n[[pools]]\nname = \"a\"\n";

#[test]
fn all_that_is_wrong_is_told_with_its_line() {
    let pool = "backends = [\"http://h:1\"]\n";
    let cases: [(&str, &[&str]); 30] = [
        ("", &[":2: pool a names no backends"]),
        ("backends = [\"h:1\"]", &[":4: backends: \"h:1\": it does not begin with http://"]),
        ("backends = [\"http://h:1\", \"http://h:1\"]", &[":2: pool a has http://h:1 twice"]),
        ("backends = \"http://h:1\"", &[":4: backends is text; it has to be a list"]),
        ("backend = []", &[":4: backend is the same for all pools"]),
        (
            "polcy = 1\nretries = 11",
            &[
                ":4: polcy is no setting of a pool; did you mean policy?",
                ":5: retries = \"11\": it is not a number from 0 to 10",
            ],
        ),
        ("policy = \"best\"", &[":4: policy = \"best\": it is none of round-robin, "]),
        ("health-path = false", &[":4: health-path is true or false; it has to be text"]),
        ("POOLname = \"a\"", &[":5: duplicate key"]),
        ("POOLhealth-timeout = \"9s\"", &[":2: pool a: --health-timeout 9s is longer"]),
        ("POOL[[pools]]\nname = \"a\"\nbackends = []", &[":5: pool a is there twice"]),
        ("POOL[[pools]]\nbackends = []", &[":5: a pool needs a name"]),
        ("POOL[[routes]]\npool = \"b\"", &[":5: there is no pool b; there are a"]),
        ("POOL[[routes]]", &[":5: a route needs a pool or a redirect"]),
        (
            "POOL[[routes]]\npool = \"a\"\nhots = \"h\"",
            &[":7: hots is no key of a route; did you mean host?"],
        ),
        ("POOL[[routes]]\npool = \"a\"\nhost = \"h:80\"", &[":7: host is no host name"]),
        ("POOL[[routes]]\npool = \"a\"\npath = \"/a/../b\"", &[":7: path has an empty segment"]),
        ("POOL[[routes]]\npool = \"a\"\npath-prefix = \"/%61\"", &[":7: path-prefix holds a %"]),
        (
            "POOL[[routes]]\npool = \"a\"\nlistener = \"127.0.0.1:1\"",
            &[":5: there is no listener 127.0.0.1:1"],
        ),
        ("POOL[[routes]]\nredirect = \"//{host}\"", &[":6: redirect begins with none of"]),
        ("POOL[[routes]]\nredirect = \"http://{path}\"", &[":6: redirect begins with none of"]),
        ("POOL[[routes]]\nredirect = \"/a\"\nstatus = 200", &[":7: status is none of 301"]),
        (
            "POOL[[routes]]\npool = \"a\"\n[[routes]]\npool = \"a\"\npath-prefix = \"/\"",
            &[":7: never taken: the route on line 5 takes the same requests"],
        ),
        (
            "POOL[[routes]]\npool = \"a\"\n[[routes]]\npool = \"a\"\nlistener = \"127.0.0.1:0\"",
            &[":5: never taken: each listener has a route"],
        ),
        (
            "POOLpolcy = 1\n[[routes]]\npool = \"b\"",
            &[":5: polcy is no setting of a pool", ":6: there is no pool b; there are a"],
        ),
        (
            "POOL[[routes]]\npool = \"a\"\nredirect = \"/\"\nlistener = \"127.0.0.1:1\"",
            &[":5: pool and redirect exclude each other", ":5: there is no listener 127.0.0.1:1"],
        ),
        ("POOL[[pools]]\nname = \"b\"\nPOOL", &[":5: a second pool, and no [[routes]]"]),
        ("POOLretries = \"3\"", &[":5: retries is text; it has to be a number"]),
        (
            "POOL[[routes]]\npool = \"a\"\nzzz = 1",
            &[":7: zzz is no key of a route; the names are listener, host, path-prefix, path, "],
        ),
        ("x = [1,\n", &[":4: "]),
    ];
    for (text, expected) in cases {
        let text = format!("{FRONT}{}", text.replace("POOL", pool));
        let (code, stdout, stderr) = check(&text, &[], &[]);
        assert_eq!((code, stdout.as_str()), (Some(64), ""), "{text}: {stderr}");
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{text}: {stderr}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(&format!("lane.toml{expected}")), "{text}: {stderr}");
        }
    }
}

#[test]
fn what_settings_cannot_mean_together_is_told_where_each_stands() {
    let text = "listen = \"127.0.0.1:0\"\nbackend = [\"http://h:1\", \"http://h:1\"]\n\
                etcd = \"http://e:1\"\netcd-ca = \"/nowhere\"\ntarget-bytes-max = 65536\n";
    let (code, _, stderr) = check(text, &["--admin", "0.0.0.0:9"], &[]);
    assert_eq!(code, Some(64), "{stderr}");
    let expected = [
        "lane.toml:2: --backend http://h:1 is given twice",
        "lane.toml:4: --etcd-ca /nowhere",
        "lane.toml:5: --target-bytes-max is more than --head-bytes-max",
        "corelane: --admin 0.0.0.0:9 is reached from other machines",
    ];
    assert_eq!(stderr.lines().count(), expected.len(), "{stderr}");
    for (line, expected) in stderr.lines().zip(expected) {
        assert!(line.starts_with(expected), "{expected}: {stderr}");
    }
}

#[test]
fn check_ends_as_a_start_would_for_the_files_that_it_names() {
    for (words, code, expected) in [
        (["--backends-file", "c.toml"], Some(64), "--backends-file c.toml: "),
        (["--access-log", "/nowhere/x"], Some(71), "--access-log /nowhere/x: No such file"),
        (["--access-log", "."], Some(71), "--access-log .: is a directory"),
        (["--access-log", "new.log"], Some(0), ""),
    ] {
        let (found, _, stderr) = check(GOOD, &words, &[]);
        assert_eq!(found, code, "{words:?}: {stderr}");
        assert!(stderr.contains(expected), "{words:?}: {stderr}");
    }
}

#[test]
fn a_list_of_the_environment_is_printed_as_a_list() {
    let env = [("CORELANE_TRUSTED_PROXIES", "10.0.0.0/8 ::1/128"), ("CORELANE_UPGRADE", "")];
    let (code, printed, stderr) = check(GOOD, &[], &env);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for line in ["trusted-proxies = [\"10.0.0.0/8\", \"::1/128\"]", "upgrade = [\"\"]"] {
        assert!(printed.lines().any(|it| it == line), "{line}: {printed}");
    }
}

#[test]
fn a_file_that_cannot_be_read_or_names_nothing_is_refused() {
    for (text, words, expected) in [
        ("", &["--listen", "127.0.0.1:0"][..], "names no backend"),
        ("backend = \"http://h:1\"", &[], "--listen"),
        ("workers = 1", &["--config", "/nowhere"], "cannot be used multiple times"),
    ] {
        let (code, _, stderr) = check(text, words, &[]);
        assert_eq!(code, Some(64), "{stderr}");
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
    let (code, _, stderr) = check(&"#".repeat(1_048_577), &[], &[]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("more than 1048576 bytes"), "{stderr}");
}

#[test]
fn each_pool_has_its_own_settings() {
    let quick = Upstream::answering(ok("quick", false));
    let deaf = Upstream::scripted(|served| drop((served.request(), served.wait_for_end())));
    let scratch = Scratch::new("pools");
    let text = format!(
        "[[pools]]\nname = \"quick\"\nbackends = [\"{}\"]\n\
         [[pools]]\nname = \"deaf\"\nbackends = [\"{}\"]\nbackend-response-timeout = \"50ms\"\n\
         [[routes]]\npath-prefix = \"/deaf\"\npool = \"deaf\"\n[[routes]]\npool = \"quick\"\n",
        quick.url(),
        deaf.url(),
    );
    std::fs::write(scratch.join("lane.toml"), text).unwrap();
    let config = scratch.join("lane.toml").display().to_string();
    let mut proxy = Flags::to(&[]).with("--config", &config).start();
    let mut client = proxy.client();
    client.send(b"GET /deaf HTTP/1.1\r\nHost: t\r\n\r\n");
    client.read_response("GET").expect(504);
    client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.read_response("GET").expect(200).text(), "quick");
    proxy.drain();
}
