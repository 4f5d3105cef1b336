//! Reads what a line of the access log is made of: the name of a format, or directives as Apache's
//! `LogFormat` has them, and corelane's own under `%{…}x`.

use std::path::PathBuf;

use crate::cli::read::is_token;
use crate::config::{Item, LINE_HEADERS_MAX, LineFormat, LinePart, LogTarget, Span};

/// Reads `off`, `stdout` or a path.
pub(in crate::cli) fn parse_access_log(text: &str) -> Result<Option<LogTarget>, String> {
    match text {
        "" => Err("give off, stdout or the path of a file".to_owned()),
        "off" => Ok(None),
        "stdout" => Ok(Some(LogTarget::Stdout)),
        path => Ok(Some(LogTarget::File(PathBuf::from(path)))),
    }
}

/// Reads `common`, `combined`, `json` or directives.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn parse_line_format(text: &str) -> Result<LineFormat, String> {
    match text {
        "common" => directives(COMMON),
        "combined" => directives(COMBINED),
        "json" => Ok(json()),
        _ if !text.contains('%') => Err(format!(
            "{text:?} is no format: give common, combined, json or directives such as '%h %t \
             \"%r\" %>s %b'"
        )),
        _ if text.len() > FORMAT_BYTES_MAX => {
            Err(format!("a format has at most {FORMAT_BYTES_MAX} bytes"))
        }
        _ if text.chars().any(char::is_control) => {
            Err("a format has no control characters: lines end by themselves".to_owned())
        }
        _ => directives(text),
    }
}

fn directives(text: &str) -> Result<LineFormat, String> {
    let mut format = LineFormat { parts: Vec::new(), headers: Vec::new(), is_json: false };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        add_text(&mut format.parts, before);
        if let Some(after) = after.strip_prefix('%') {
            add_text(&mut format.parts, "%");
            rest = after;
            continue;
        }
        // Apache's "of the final answer": there is no other here.
        let after = after.strip_prefix('>').unwrap_or(after);
        let (argument, after) = match after.strip_prefix('{') {
            Some(inside) => inside
                .split_once('}')
                .map(|(argument, after)| (Some(argument), after))
                .ok_or_else(|| format!("%{{{inside} has no closing }}"))?,
            None => (None, after),
        };
        let mut letters = after.chars();
        let letter = letters.next().ok_or("a % at the end: write %% for a percent sign")?;
        let item = item_of(argument, letter, &mut format.headers)?;
        format.parts.push(LinePart::Item(item));
        rest = letters.as_str();
    }
    add_text(&mut format.parts, rest);
    let items = format.parts.iter().filter(|part| matches!(part, LinePart::Item(_))).count();
    if items > ITEMS_MAX {
        return Err(format!("a format has at most {ITEMS_MAX} directives"));
    }
    Ok(format)
}

fn add_text(parts: &mut Vec<LinePart>, more: &str) {
    match parts.last_mut() {
        _ if more.is_empty() => {}
        Some(LinePart::Text(text)) => text.push_str(more),
        _ => parts.push(LinePart::Text(more.to_owned())),
    }
}

fn item_of(
    argument: Option<&str>,
    letter: char,
    headers: &mut Vec<String>,
) -> Result<Item, String> {
    let item = match (argument, letter) {
        (None, 'a' | 'h') => Item::ClientAddr,
        (None, 'A') => Item::LocalAddr,
        (None, 'p') | (Some("local"), 'p') => Item::LocalPort,
        (Some("c"), 'a') => Item::PeerAddr,
        (Some("remote"), 'p') => Item::PeerPort,
        (None, 'l' | 'u') => Item::Nothing,
        (None, 't') => Item::TimeClf,
        (Some("iso"), 't') => Item::TimeIso,
        (Some("sec"), 't') => Item::EpochSeconds,
        (Some("msec"), 't') => Item::EpochMillis,
        (Some("usec"), 't') => Item::EpochMicros,
        (None, 'r') => Item::RequestLine,
        (None, 'm') => Item::Method,
        (None, 'U') => Item::Path,
        (None, 'q') => Item::Query,
        (None, 'H') => Item::Protocol,
        (None, 'v' | 'V') => Item::Host,
        (None, 's') => Item::Status,
        (None, 'b') => Item::BodyBytes,
        (None, 'B') => Item::BodyBytesCount,
        (None, 'I') => Item::Received,
        (None, 'O') => Item::Sent,
        (None, 'D') | (Some("us"), 'T') => Item::TotalMicros,
        (Some("ms"), 'T') => Item::TotalMillis,
        (None, 'T') | (Some("s"), 'T') => Item::TotalSeconds,
        (None, 'k') => Item::RequestsBefore,
        (Some(name), 'i') => return header(name, headers),
        (Some(name), 'x') => own(name).ok_or_else(|| unknown_own(name))?,
        (argument, letter) => {
            let argument = argument.map_or_else(String::new, |it| format!("{{{it}}}"));
            return Err(format!("%{argument}{letter} is unknown; the README lists the directives"));
        }
    };
    Ok(item)
}

fn header(name: &str, headers: &mut Vec<String>) -> Result<Item, String> {
    if !is_token(name) {
        return Err(format!("{name:?} is no name of a header"));
    }
    let known = headers.iter().position(|known| known.eq_ignore_ascii_case(name));
    let index = known.unwrap_or_else(|| {
        headers.push(name.to_owned());
        headers.len() - 1
    });
    if headers.len() > LINE_HEADERS_MAX {
        return Err(format!("a format names at most {LINE_HEADERS_MAX} headers"));
    }
    Ok(Item::Header(index))
}

/// What stands under `%{…}x`, by its name there and in JSON.
const OWN: [(&str, Item); 18] = [
    ("target", Item::Target),
    ("head", Item::Time(Span::Head)),
    ("queue", Item::Time(Span::Queue)),
    ("connect", Item::Time(Span::Connect)),
    ("first-byte", Item::Time(Span::FirstByte)),
    ("total", Item::Time(Span::Total)),
    ("pool", Item::Pool),
    ("backend", Item::Backend),
    ("answered-by", Item::AnsweredBy),
    ("cause", Item::Cause),
    ("retries", Item::Retries),
    ("epoch", Item::Epoch),
    ("worker", Item::Worker),
    ("reused", Item::Reused),
    ("request-id", Item::RequestId),
    ("trace-id", Item::TraceId),
    ("received", Item::Received),
    ("sent", Item::Sent),
];

fn own(name: &str) -> Option<Item> {
    OWN.iter().find(|(known, _)| *known == name).map(|(_, item)| *item)
}

fn unknown_own(name: &str) -> String {
    let names: Vec<&str> = OWN.iter().map(|(name, _)| *name).collect();
    format!("%{{{name}}}x is unknown: there are {}", names.join(", "))
}

/// One object a line, with each name always there.
fn json() -> LineFormat {
    let headers = ["User-Agent", "Referer"].map(str::to_owned).to_vec();
    let mut parts = Vec::new();
    let items = [
        ("time", Item::TimeIso),
        ("client", Item::ClientAddr),
        ("peer", Item::PeerAddr),
        ("peer_port", Item::PeerPort),
        ("method", Item::Method),
        ("target", Item::Target),
        ("protocol", Item::Protocol),
        ("host", Item::Host),
        ("user_agent", Item::Header(0)),
        ("referer", Item::Header(1)),
        ("status", Item::Status),
        ("answered_by", Item::AnsweredBy),
        ("cause", Item::Cause),
        ("pool", Item::Pool),
        ("backend", Item::Backend),
        ("retries", Item::Retries),
        ("reused", Item::Reused),
        ("received_bytes", Item::Received),
        ("sent_bytes", Item::Sent),
        ("head_seconds", Item::Time(Span::Head)),
        ("queue_seconds", Item::Time(Span::Queue)),
        ("connect_seconds", Item::Time(Span::Connect)),
        ("first_byte_seconds", Item::Time(Span::FirstByte)),
        ("total_seconds", Item::Time(Span::Total)),
        ("request_id", Item::RequestId),
        ("trace_id", Item::TraceId),
        ("epoch", Item::Epoch),
        ("worker", Item::Worker),
    ];
    for (index, (name, item)) in items.into_iter().enumerate() {
        let begin = if index == 0 { '{' } else { ',' };
        parts.push(LinePart::Text(format!("{begin}\"{name}\":")));
        parts.push(LinePart::Item(item));
    }
    parts.push(LinePart::Text("}".to_owned()));
    LineFormat { parts, headers, is_json: true }
}

const COMMON: &str = "%h %l %u %t \"%r\" %>s %b";
const COMBINED: &str = "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\"";
/// The longest format, and the most directives in it.
const FORMAT_BYTES_MAX: usize = 2048;
const ITEMS_MAX: usize = 64;
