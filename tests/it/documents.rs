//! The completions, the manual page and the systemd unit, read by the programs that they are for.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::Scratch;
use crate::support::proxy::CORELANE;

fn corelane(words: &[&str]) -> Vec<u8> {
    let output = Command::new("timeout").args(["20", CORELANE]).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    output.stdout
}

/// Gives `input` to a program; its output and errors. `None` where it is not installed.
fn read_by(program: &str, words: &[&str], input: &[u8]) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        child => child.unwrap(),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn shells_read_their_completions() {
    for (shell, words) in [
        ("bash", &["-n"][..]),
        ("zsh", &["-n", "/dev/stdin"]),
        ("fish", &["--no-execute", "/dev/stdin"]),
        ("elvish", &["-compileonly", "/dev/stdin"]),
        ("powershell", &["-Command", "-"]),
    ] {
        let script = corelane(&["completions", shell]);
        let text = String::from_utf8(script.clone()).unwrap();
        for flag in ["--health-interval", "--client-conns-max"] {
            let name = flag.trim_start_matches("--");
            assert!(text.contains(name), "{shell}: no {flag}");
        }
        let Some((is_well, told)) = read_by(shell, words, &script) else {
            assert_ne!(shell, "bash", "bash is always there");
            continue;
        };
        assert!(is_well && (told.is_empty() || shell == "powershell"), "{shell}: {told}");
    }
}

#[test]
fn bash_completes_subcommands_flags_and_their_values() {
    let script = String::from_utf8(corelane(&["completions", "bash"])).unwrap();
    for (words, expected) in [
        ("corelane doc", "doctor"),
        ("corelane --health-interval-ch", "--health-interval-changing"),
        ("corelane doctor --drive", "--driver"),
        ("corelane --policy ew", "ewma"),
    ] {
        let last = words.split(' ').count() - 1;
        let asked = format!(
            "{script}\nCOMP_WORDS=({words})\nCOMP_CWORD={last}\n\
             _corelane corelane \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{last}-1]}}\"\n\
             echo \"${{COMPREPLY[@]}}\"\n"
        );
        let (_, told) = read_by("bash", &["--norc"], asked.as_bytes()).unwrap();
        assert!(told.split_whitespace().any(|word| word == expected), "{words}: {told}");
    }
}

#[test]
fn systemd_reads_the_unit() {
    let unit = include_str!("../../dist/systemd/corelane.service");
    assert!(unit.contains("TimeoutStopSec=45s"), "longer than --drain-timeout by default, 30 s");
    let scratch = Scratch::new("unit");
    let path = scratch.join("corelane.service");
    // It is not installed where the unit looks for it.
    std::fs::write(&path, unit.replace("/usr/local/bin/corelane", CORELANE)).unwrap();
    let read = read_by("systemd-analyze", &["verify", path.to_str().unwrap()], b"");
    if let Some((is_well, told)) = read {
        assert!(is_well && told.is_empty(), "{told}");
    }
}

#[test]
fn groff_sets_the_manual_page_without_a_warning() {
    let page = corelane(&["man"]);
    let (is_well, text) = read_by("groff", &["-ww", "-man", "-Tascii", "-P-cbou"], &page)
        .expect("groff is installed by tests/run");
    assert!(is_well && !text.contains("warning") && !text.contains("error:"), "{text}");
    for wanted in ["NAME", "SYNOPSIS", "--health-interval", "CORELANE DOCTOR", "CORELANE BACKEND"] {
        assert!(text.contains(wanted), "no {wanted} in\n{text}");
    }
}
