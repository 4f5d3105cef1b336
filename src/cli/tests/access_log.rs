//! The access log's flags and its format.

use super::{check_refused, config_of, config_of_words};
use crate::config::{AccessLogConfig, Item, LineFormat, LinePart, LogTarget, Span};

fn access_log_of(flags: &str) -> Option<AccessLogConfig> {
    config_of(flags).unwrap().access_log
}

fn format_of(text: &str) -> Result<LineFormat, String> {
    let words = ["--access-log", "stdout", "--access-log-format", text];
    config_of_words(&words).map(|config| config.access_log.unwrap().format)
}

fn text(text: &str) -> LinePart {
    LinePart::Text(text.to_owned())
}

#[test]
fn there_is_no_access_log_unless_a_target_is_named() {
    assert!(access_log_of("").is_none());
    assert!(access_log_of("--access-log off").is_none());
    let log = access_log_of("--access-log stdout").unwrap();
    assert_eq!((log.target, log.sample.get(), log.bytes_max), (LogTarget::Stdout, 1, 16 << 20));
    let log = access_log_of("--access-log ./off --access-log-sample 10").unwrap();
    assert_eq!((log.target, log.sample.get()), (LogTarget::File("./off".into()), 10));
}

#[test]
fn a_format_is_texts_and_items_in_order() {
    let format = format_of("%h 100%% \"%{User-Agent}i\" %>s%b %{user-agent}i %{total}x.").unwrap();
    let expected = [
        LinePart::Item(Item::ClientAddr),
        text(" 100% \""),
        LinePart::Item(Item::Header(0)),
        text("\" "),
        LinePart::Item(Item::Status),
        LinePart::Item(Item::BodyBytes),
        text(" "),
        LinePart::Item(Item::Header(0)),
        text(" "),
        LinePart::Item(Item::Time(Span::Total)),
        text("."),
    ];
    assert_eq!((&format.parts[..], format.is_json), (&expected[..], false));
    assert_eq!(format.headers, ["User-Agent"]);
    assert_eq!(format_of("common").unwrap(), format_of("%h %l %u %t \"%r\" %>s %b").unwrap());
    assert!(format_of("json").unwrap().is_json);
}

#[test]
fn formats_that_mean_nothing_are_refused() {
    for (format, reason) in [
        ("extended", "is no format: give common"),
        ("%z", "%z is unknown"),
        ("%{a}z", "%{a}z is unknown"),
        ("%{latency}x", "there are target, head"),
        ("%{User Agent}i", "no name of a header"),
        ("%{User-Agent", "has no closing"),
        ("100%", "a % at the end"),
        ("%>", "a % at the end"),
        ("%h\n%h", "no control characters"),
    ] {
        let error = format_of(format).unwrap_err();
        assert!(error.contains(reason), "{format}: {error}");
    }
    let many: String = (0..=16).map(|number| format!("%{{x-{number}}}i")).collect();
    assert!(format_of(&many).unwrap_err().contains("at most 16 headers"));
    assert!(format_of(&"%h".repeat(65)).unwrap_err().contains("at most 64 directives"));
    assert!(format_of(&"%h ".repeat(700)).unwrap_err().contains("at most 2048 bytes"));
    check_refused("--access-log-sample 0", "1 to 1000000");
    check_refused("--access-log-bytes-max 100", "65536 to 1073741824");
}
