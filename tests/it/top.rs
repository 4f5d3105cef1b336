//! `corelane top` against a scripted admin API: one frame as text, and the live screen under a pty.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::admin::Admin;
use crate::support::proxy::CORELANE;
use crate::support::{SOON, Scratch, wait_until};

const STATUS: &str = r#"{"version":"7.7.7","now":"2026-01-01T00:01:30Z","uptime_seconds":90,
"epoch":17,"ready":true,"last_second":{"requests":1203,"errors":0},"totals":{"requests":5000},
"pools":[{"name":"default","backends":[{"id":"default/one:80","state":"up","weight":1,
"effective_weight":1,"since":"2026-01-01T00:00:00Z"},{"id":"default/two:80","state":"down",
"why":"refused","weight":1,"effective_weight":1}]}],"workers":[{"id":0,"core":3}]}"#;

fn token() -> Scratch {
    let scratch = Scratch::new("top");
    std::fs::write(scratch.join("token"), "key\n").unwrap();
    scratch
}

fn top(words: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["20", CORELANE, "top"]).args(words).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn one_frame_is_plain_text_over_tcp_and_a_unix_socket() {
    let (admin, scratch) = (Admin::new(STATUS, Some("key")), token());
    let token = scratch.join("token").display().to_string();
    admin.on_unix(scratch.join("socket"));
    let socket = format!("unix:{}", scratch.join("socket").display());
    for target in [admin.on_tcp().to_string(), socket] {
        let words = ["--admin", &target, "--admin-token-file", &token, "--once"];
        let output = top(&words);
        let frame = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        for shown in
            ["7.7.7", "1,203", "● up", "default/one:80", "■ down", "refused", "0 on core 3"]
        {
            assert!(frame.contains(shown), "no {shown} in\n{frame}");
        }
        assert!(!frame.contains('\u{1b}'), "{frame:?}");
        let narrow = top(&[&words[..], &["--columns", "40"]].concat());
        assert!(text(&narrow.stdout).lines().all(|line| line.chars().count() <= 40), "{narrow:?}");
    }
}

#[test]
fn what_cannot_be_shown_says_the_next_step() {
    let (admin, scratch) = (Admin::new(STATUS, Some("key")), token());
    let target = admin.on_tcp().to_string();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let nowhere = scratch.join("nowhere").display().to_string();
    for (words, code, told) in [
        (&["--once", "--admin", &nobody][..], 71, "start corelane with --admin"),
        (&["--once", "--admin", &target], 71, "A token is needed; give the token by --admin-token"),
        (&["--once", "--admin", "9900"], 64, "127.0.0.1:9900"),
        (&["--once", "--admin-token-file", &nowhere], 64, "--admin-token-file"),
        (&["--columns", "80"], 64, "--once"),
        (&["--admin", &target], 71, "corelane top --once"),
    ] {
        let output = top(words);
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{output:?}");
        assert!(stderr.contains(told) && stderr.lines().count() == 1, "{words:?}: {stderr}");
    }
}

/// `corelane top` on a terminal of 100 columns and 30 rows.
struct Live {
    script: Child,
    scratch: Scratch,
}

impl Live {
    fn start(addr: SocketAddr) -> Live {
        let scratch = token();
        let path = |name| scratch.join(name).display().to_string();
        let run = format!(
            "stty cols 100 rows 30; echo $$ > {}; \
             exec {CORELANE} top --admin {addr} --admin-token-file {}",
            path("pid"),
            path("token")
        );
        let screen = File::create(scratch.join("screen")).unwrap();
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--flush", "--command", &run, "/dev/null"]);
        command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(screen).stderr(Stdio::null());
        Live { script: command.spawn().unwrap(), scratch }
    }

    fn screen(&self) -> String {
        text(&std::fs::read(self.scratch.join("screen")).unwrap())
    }

    #[track_caller]
    fn wait_for(&self, shown: &str) {
        let mut screen = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("the screen shows it", SOON, || {
                screen = self.screen();
                screen.contains(shown)
            });
        }));
        assert!(found.is_ok(), "no {shown:?} on {screen:?}");
    }

    fn press(&mut self, keys: &str) {
        self.script.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Its exit code, once it has ended and the terminal is as it was.
    #[track_caller]
    fn end(mut self) -> Option<i32> {
        let mut code = None;
        wait_until("top has ended", SOON, || {
            code = self.script.try_wait().unwrap();
            code.is_some()
        });
        let screen = self.screen();
        assert!(screen.contains(LEAVE), "the terminal is not put back: {screen:?}");
        code.unwrap().code()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        self.script.kill().ok();
        self.script.wait().unwrap();
    }
}

/// What makes a terminal leave its second screen.
const LEAVE: &str = "\u{1b}[?1049l";

#[test]
fn the_live_screen_takes_keys_notices_silence_and_connects_again() {
    let admin = Admin::new(STATUS, Some("key"));
    let mut live = Live::start(admin.on_tcp());
    live.wait_for("default/two:80");
    live.wait_for("● live");
    live.press("?");
    live.wait_for("reverses");
    live.press("x/two");
    live.wait_for("filter:");
    live.press("\r");
    admin.set_open(false);
    live.wait_for("STALE");
    let before = live.screen().matches("live").count();
    admin.set_open(true);
    wait_until("it is live again", SOON, || live.screen().matches("live").count() > before);
    live.press("q");
    assert_eq!(live.end(), Some(0));
}

/// One that is for access logs does not.
#[test]
fn a_signal_ends_it_and_puts_the_terminal_back() {
    let admin = Admin::new(STATUS, Some("key"));
    let live = Live::start(admin.on_tcp());
    live.wait_for("● live");
    let pid = std::fs::read_to_string(live.scratch.join("pid")).unwrap().trim().parse().unwrap();
    for signal in [Signal::USR1, Signal::TERM] {
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
    assert_eq!(live.end(), Some(143));
}
