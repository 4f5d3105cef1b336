//! Each item of a line, as text and in JSON.

use super::*;
use crate::config::LineFormat;

/// A request that went well, with all that can be known of it.
fn captured(target: &str, agent: Option<&[u8]>) -> Captured {
    let mut captured = Captured::default();
    captured.keep(Field::Method, &[b"GET"]);
    captured.keep(Field::Target, &[target.as_bytes()]);
    captured.keep(Field::Host, &[b"example.org"]);
    captured.keep(Field::RequestId, &[b"0af7651916cd43dd8448eb211c80319c"]);
    if let Some(agent) = agent {
        captured.keep(Field::Header(0), &[agent]);
    }
    captured
}

pub(in crate::access_log) fn entry(captured: &Captured) -> Entry<'_> {
    Entry {
        begun: Duration::from_micros(1_795_403_400_123_456),
        client: "192.0.2.7".parse().unwrap(),
        peer: "[2001:db8::7]:40000".parse().unwrap(),
        local: "[::1]:8080".parse().unwrap(),
        captured,
        version: Some(Version::Http11),
        status: 200,
        is_own_answer: false,
        cause: None,
        pool: Some("default"),
        backend: Some("default/127.0.0.1:3001"),
        retries: 1,
        epoch: 17,
        worker: 3,
        is_reused: Some(true),
        number: 5,
        received: 1234,
        sent: 5678,
        sent_in_heads: 678,
        head: Some(Duration::from_micros(5)),
        queue: None,
        connect: None,
        first_byte: Some(Duration::from_micros(1_500_000)),
        total: Duration::from_micros(2_345_678),
    }
}

/// What came of nothing but some bytes.
fn refused(captured: &Captured) -> Entry<'_> {
    Entry {
        version: None,
        status: 400,
        is_own_answer: true,
        cause: Some(Cause::RequestSyntax),
        pool: None,
        backend: None,
        retries: 0,
        is_reused: None,
        number: 1,
        sent: 678,
        head: None,
        first_byte: None,
        ..entry(captured)
    }
}

fn line_of(item: Item, is_json: bool, entry: &Entry<'_>) -> String {
    let parts = vec![LinePart::Item(item)];
    let format = LineFormat { parts, headers: vec!["User-Agent".to_owned()], is_json };
    let mut out = Vec::new();
    write_line(&format, entry, &mut Stamp::default(), &mut out);
    let line = String::from_utf8(out).unwrap();
    line.strip_suffix('\n').unwrap().to_owned()
}

/// Each item of a whole request and of a refused one, as text and in JSON.
#[test]
fn each_item_is_written_as_text_and_as_a_json_value() {
    let (whole, mut nothing) = (captured("/a?b=c", Some(b"agent/1")), Captured::default());
    nothing.keep(Field::FirstLine, &[b"\x16\x03\x01 \"x\""]);
    for (item, text, json, refused_text, refused_json) in [
        (Item::Nothing, "-", "null", "-", "null"),
        (Item::ClientAddr, "192.0.2.7", "\"192.0.2.7\"", "192.0.2.7", "\"192.0.2.7\""),
        (Item::PeerAddr, "2001:db8::7", "\"2001:db8::7\"", "2001:db8::7", "\"2001:db8::7\""),
        (Item::PeerPort, "40000", "40000", "40000", "40000"),
        (Item::LocalAddr, "::1", "\"::1\"", "::1", "\"::1\""),
        (Item::LocalPort, "8080", "8080", "8080", "8080"),
        (Item::EpochSeconds, "1795403400", "1795403400", "1795403400", "1795403400"),
        (Item::EpochMillis, "1795403400123", "1795403400123", "1795403400123", "1795403400123"),
        (Item::Method, "GET", "\"GET\"", "-", "null"),
        (Item::Target, "/a?b=c", "\"/a?b=c\"", "-", "null"),
        (Item::Path, "/a", "\"/a\"", "-", "null"),
        (Item::Query, "?b=c", "\"?b=c\"", "-", "null"),
        (Item::Protocol, "HTTP/1.1", "\"HTTP/1.1\"", "-", "null"),
        (Item::Host, "example.org", "\"example.org\"", "-", "null"),
        (Item::Header(0), "agent/1", "\"agent/1\"", "-", "null"),
        (Item::Status, "200", "200", "400", "400"),
        (Item::BodyBytes, "5000", "5000", "-", "null"),
        (Item::BodyBytesCount, "5000", "5000", "0", "0"),
        (Item::Received, "1234", "1234", "1234", "1234"),
        (Item::Sent, "5678", "5678", "678", "678"),
        (Item::TotalMicros, "2345678", "2345678", "2345678", "2345678"),
        (Item::TotalMillis, "2345", "2345", "2345", "2345"),
        (Item::TotalSeconds, "2", "2", "2", "2"),
        (Item::Time(Span::Head), "0.000005", "0.000005", "-", "null"),
        (Item::Time(Span::Queue), "-", "null", "-", "null"),
        (Item::Time(Span::FirstByte), "1.500000", "1.500000", "-", "null"),
        (Item::Time(Span::Total), "2.345678", "2.345678", "2.345678", "2.345678"),
        (Item::RequestsBefore, "4", "4", "0", "0"),
        (Item::Pool, "default", "\"default\"", "-", "null"),
        (Item::Backend, "default/127.0.0.1:3001", "\"default/127.0.0.1:3001\"", "-", "null"),
        (Item::AnsweredBy, "backend", "\"backend\"", "corelane", "\"corelane\""),
        (Item::Cause, "-", "null", "request-syntax", "\"request-syntax\""),
        (Item::Retries, "1", "1", "0", "0"),
        (Item::Epoch, "17", "17", "17", "17"),
        (Item::Worker, "3", "3", "3", "3"),
        (Item::Reused, "true", "true", "-", "null"),
        (Item::TraceId, "-", "null", "-", "null"),
    ] {
        let lines = [(false, text, refused_text), (true, json, refused_json)];
        for (is_json, expected, of_refused) in lines {
            assert_eq!(line_of(item, is_json, &entry(&whole)), expected, "{item:?}");
            assert_eq!(line_of(item, is_json, &refused(&nothing)), of_refused, "{item:?}");
        }
    }
}

#[test]
fn a_request_line_is_whole_or_what_came_instead() {
    let (whole, mut nothing) = (captured("/\"?", None), Captured::default());
    assert_eq!(line_of(Item::RequestLine, false, &entry(&whole)), r#"GET /\"? HTTP/1.1"#);
    assert_eq!(line_of(Item::RequestLine, true, &entry(&whole)), r#""GET /\"? HTTP/1.1""#);
    assert_eq!(line_of(Item::RequestLine, false, &refused(&nothing)), "-");
    nothing.keep(Field::FirstLine, &[b"\x16\x03\x01 \"x\""]);
    assert_eq!(line_of(Item::RequestLine, false, &refused(&nothing)), r#"\x16\x03\x01 \"x\""#);
}

#[test]
fn a_request_without_an_answer_has_status_000_and_null_in_json() {
    let none = Captured::default();
    let left = Entry { status: 0, ..refused(&none) };
    assert_eq!(line_of(Item::Status, false, &left), "000");
    assert_eq!(line_of(Item::Status, true, &left), "null");
    assert_eq!(line_of(Item::AnsweredBy, false, &left), "-");
}

#[test]
fn times_of_day_are_utc() {
    let whole = captured("/", None);
    assert_eq!(line_of(Item::TimeClf, false, &entry(&whole)), "[23/Nov/2026:03:10:00 +0000]");
    let iso = "\"2026-11-23T03:10:00.123456Z\"";
    assert_eq!(line_of(Item::TimeIso, true, &entry(&whole)), iso);
}

#[test]
fn no_header_can_end_a_line_or_a_string() {
    let forged = captured("/", Some(b"x\"\r\n1.2.3.4 - - \"GET / HTTP/1.1\" 200\x1b[0m\xff"));
    for is_json in [false, true] {
        let line = line_of(Item::Header(0), is_json, &entry(&forged));
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        let quotes = line.matches('"').count() - line.matches("\\\"").count();
        assert_eq!(quotes, if is_json { 2 } else { 0 }, "{line}");
    }
}
