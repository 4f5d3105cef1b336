//! Writes the line of one request, by the format's parts. Called by `pen`.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::access_log::captured::{Captured, Field};
use crate::access_log::stamp::Stamp;
use crate::access_log::{escape, number};
use crate::config::{Item, LineFormat, LinePart, Span};
use crate::error::Cause;
use crate::http1::Version;

/// What a line can tell of a request; `None` for what has not happened.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When its first byte came, since 1970.
    pub begun: Duration,
    /// The client's address, by what trusted proxies say.
    pub client: IpAddr,
    /// Where the connection came from,
    pub peer: SocketAddr,
    /// and the address that it reached.
    pub local: SocketAddr,
    /// The texts of its head.
    pub captured: &'a Captured,
    /// Its version.
    pub version: Option<Version>,
    /// The status of its answer; 0 for none.
    pub status: u16,
    /// Whether the answer is corelane's own.
    pub is_own_answer: bool,
    /// What ended it, or was answered for.
    pub cause: Option<Cause>,
    /// Its pool.
    pub pool: Option<&'a str>,
    /// The endpoint of its last attempt.
    pub backend: Option<&'a str>,
    /// The attempts after the first.
    pub retries: u16,
    /// The snapshot that placed it.
    pub epoch: u64,
    /// Its worker.
    pub worker: usize,
    /// Whether its last attempt's connection was used before; `None` without an attempt.
    pub is_reused: Option<bool>,
    /// The requests of its connection, with it.
    pub number: u32,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client,
    pub sent: u64,
    /// of them those of heads.
    pub sent_in_heads: u64,
    /// From its first byte to its head's end.
    pub head: Option<Duration>,
    /// In the queue.
    pub queue: Option<Duration>,
    /// The last attempt's connect.
    pub connect: Option<Duration>,
    /// From the last attempt's begin to its answer.
    pub first_byte: Option<Duration>,
    /// From its first byte to its end.
    pub total: Duration,
}

/// Writes the line of `entry`, with its LF, to the end of `out`.
pub fn write_line(format: &LineFormat, entry: &Entry<'_>, stamp: &mut Stamp, out: &mut Vec<u8>) {
    let mut line = Line { entry, stamp, out, is_json: format.is_json };
    for part in &format.parts {
        match part {
            LinePart::Text(text) => line.out.extend_from_slice(text.as_bytes()),
            LinePart::Item(item) => line.item(*item),
        }
    }
    out.push(b'\n');
}

struct Line<'a> {
    entry: &'a Entry<'a>,
    stamp: &'a mut Stamp,
    out: &'a mut Vec<u8>,
    is_json: bool,
}

impl Line<'_> {
    fn item(&mut self, item: Item) {
        let entry = self.entry;
        match item {
            Item::Nothing => self.nothing(),
            Item::ClientAddr => self.addr(entry.client),
            Item::PeerAddr => self.addr(entry.peer.ip()),
            Item::LocalAddr => self.addr(entry.local.ip()),
            Item::PeerPort => self.number(entry.peer.port()),
            Item::LocalPort => self.number(entry.local.port()),
            Item::TimeClf | Item::TimeIso => self.time(item),
            Item::EpochSeconds => self.number(entry.begun.as_secs()),
            Item::EpochMillis => self.number(in_u64(entry.begun.as_millis())),
            Item::EpochMicros => self.number(in_u64(entry.begun.as_micros())),
            Item::RequestLine => self.request_line(),
            Item::Method => self.field(Field::Method),
            Item::Target => self.field(Field::Target),
            Item::Path => self.string(target_of(entry).map(|(path, _)| path)),
            Item::Query => self.string(target_of(entry).map(|(_, query)| query)),
            Item::Host => self.field(Field::Host),
            Item::Header(index) => self.field(Field::Header(index)),
            Item::Protocol => self.string(entry.version.map(name_of)),
            Item::Status => self.status(),
            Item::BodyBytes if self.body_bytes() == 0 => self.nothing(),
            Item::BodyBytes | Item::BodyBytesCount => self.number(self.body_bytes()),
            Item::Received => self.number(entry.received),
            Item::Sent => self.number(entry.sent),
            Item::TotalMicros => self.number(in_u64(entry.total.as_micros())),
            Item::TotalMillis => self.number(in_u64(entry.total.as_millis())),
            Item::TotalSeconds => self.number(entry.total.as_secs()),
            Item::Time(span) => self.span(span),
            Item::RequestsBefore => self.number(entry.number.saturating_sub(1)),
            Item::Pool => self.string(entry.pool.map(str::as_bytes)),
            Item::Backend => self.string(entry.backend.map(str::as_bytes)),
            Item::AnsweredBy => self.string(self.answered_by().map(str::as_bytes)),
            Item::Cause => self.string(entry.cause.map(|cause| cause.name().as_bytes())),
            Item::Retries => self.number(entry.retries),
            Item::Epoch => self.number(entry.epoch),
            Item::Worker => self.number(entry.worker as u64),
            Item::Reused => self.flag(entry.is_reused),
            Item::RequestId => self.field(Field::RequestId),
            Item::TraceId => self.field(Field::TraceId),
        }
    }

    fn nothing(&mut self) {
        self.out.extend_from_slice(if self.is_json { b"null" } else { b"-" });
    }

    fn number(&mut self, number: impl Into<u64>) {
        number::whole(number.into(), self.out);
    }

    fn string(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.nothing(),
            Some(bytes) if self.is_json => {
                self.out.push(b'"');
                escape::json(bytes, self.out);
                self.out.push(b'"');
            }
            Some(bytes) => escape::text(bytes, self.out),
        }
    }

    fn field(&mut self, field: Field) {
        self.string(self.entry.captured.get(field));
    }

    fn flag(&mut self, flag: Option<bool>) {
        match flag {
            None => self.nothing(),
            Some(flag) => self.out.extend_from_slice(if flag { b"true" } else { b"false" }),
        }
    }

    /// What needs no escapes.
    fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_json {
            self.out.push(b'"');
        }
        write(self.out);
        if self.is_json {
            self.out.push(b'"');
        }
    }

    fn addr(&mut self, addr: IpAddr) {
        self.quoted(|out| match addr.to_canonical() {
            IpAddr::V4(addr) => {
                let [first, rest @ ..] = addr.octets();
                number::whole(u64::from(first), out);
                for octet in rest {
                    out.push(b'.');
                    number::whole(u64::from(octet), out);
                }
            }
            IpAddr::V6(addr) => write!(out, "{addr}").expect("a Vec takes every byte"),
        });
    }

    fn time(&mut self, item: Item) {
        if self.is_json {
            self.out.push(b'"');
        }
        if item == Item::TimeClf {
            self.out.extend_from_slice(self.stamp.clf(self.entry.begun));
        } else {
            self.out.extend_from_slice(self.stamp.iso(self.entry.begun));
            self.out.push(b'.');
            number::padded::<6>(u64::from(self.entry.begun.subsec_micros()), self.out);
            self.out.push(b'Z');
        }
        if self.is_json {
            self.out.push(b'"');
        }
    }

    fn request_line(&mut self) {
        let captured = self.entry.captured;
        let parsed = captured.get(Field::Method).zip(captured.get(Field::Target));
        let Some(((method, target), version)) = parsed.zip(self.entry.version) else {
            return self.field(Field::FirstLine);
        };
        let escape = if self.is_json { escape::json } else { escape::text };
        self.quoted(|out| {
            out.extend_from_slice(method);
            out.push(b' ');
            escape(target, out);
            out.push(b' ');
            out.extend_from_slice(name_of(version));
        });
    }

    /// Three digits in any case, which readers of logs count on.
    fn status(&mut self) {
        match self.entry.status {
            0 if self.is_json => self.nothing(),
            status => number::padded::<3>(u64::from(status), self.out),
        }
    }

    fn body_bytes(&self) -> u64 {
        self.entry.sent.saturating_sub(self.entry.sent_in_heads)
    }

    fn answered_by(&self) -> Option<&'static str> {
        let by = if self.entry.is_own_answer { "corelane" } else { "backend" };
        (self.entry.status > 0).then_some(by)
    }

    fn span(&mut self, span: Span) {
        let entry = self.entry;
        let time = match span {
            Span::Head => entry.head,
            Span::Queue => entry.queue,
            Span::Connect => entry.connect,
            Span::FirstByte => entry.first_byte,
            Span::Total => Some(entry.total),
        };
        match time {
            None => self.nothing(),
            Some(time) => number::seconds(time, self.out),
        }
    }
}

/// The target's path and its query.
fn target_of<'a>(entry: &'a Entry<'_>) -> Option<(&'a [u8], &'a [u8])> {
    let target = entry.captured.get(Field::Target)?;
    let query = memchr::memchr(b'?', target).unwrap_or(target.len());
    Some(target.split_at(query))
}

fn name_of(version: Version) -> &'static [u8] {
    match version {
        Version::Http11 => b"HTTP/1.1",
        Version::Http10 => b"HTTP/1.0",
    }
}

fn in_u64(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests;
