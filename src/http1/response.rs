//! Reads a response's head with the strictness that requests are read with.
//!
//! A backend that breaks the grammar gets its connection closed and the client a 502. Called with
//! all bytes of a backend's connection that no response has used yet.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::config::HeadLimits;
use crate::error::Cause;
use crate::http1::framing::{self, Coding, Framing};
use crate::http1::{ConnectionOptions, Known, Version, lines_end_in_crlf};

/// A response's head, in the bytes it was read from.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// The version the backend speaks.
    pub version: Version,
    /// The status, 100 to 599.
    pub status: u16,
    /// The reason phrase, perhaps empty.
    pub reason: &'b str,
    /// All headers in their order.
    pub headers: &'h [Header<'b>],
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the backend keeps the connection open after this answer.
    pub keep_alive: bool,
    /// How many seconds the backend says it keeps an unused connection (`Keep-Alive: timeout=N`).
    pub keep_alive_seconds: Option<u32>,
    /// Whether `Connection` names headers beyond the hop-by-hop ones.
    pub names_headers: bool,
    /// What a 101 switches to.
    pub upgrade: Option<&'b [u8]>,
    /// Whether a header must be left out when it is forwarded.
    pub has_hop_by_hop: bool,
    /// What it answers.
    pub to: AnswerTo,
    /// The length of the head, with its empty line.
    pub bytes: usize,
}

/// What a response answers, which decides whether it can have a body (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerTo {
    /// HEAD: no body, whatever the head says.
    Head,
    /// CONNECT: a 2xx has no body and is the end of HTTP on this connection.
    Connect,
    /// Any other method.
    Other,
}

impl ResponseHead<'_, '_> {
    /// Whether another head follows this one (RFC 9110 §15.2).
    #[must_use]
    pub fn is_interim(&self) -> bool {
        is_interim(self.status) && self.status != SWITCHING_PROTOCOLS
    }
}

/// Reads the head at the front of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// `ResponseInvalid` or `ResponseHeadTooLarge`; the connection must not be read further then.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    space: &'h mut [MaybeUninit<Header<'b>>],
    limits: &HeadLimits,
    to: AnswerTo,
) -> Result<Option<ResponseHead<'h, 'b>>, Cause> {
    let space_len = space.len().min(limits.headers_max);
    let mut response = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, bytes, &mut space[..space_len])
        .map_err(|error| match error {
            httparse::Error::TooManyHeaders => Cause::ResponseHeadTooLarge,
            _ => Cause::ResponseInvalid,
        })?;
    let httparse::Status::Complete(head_bytes) = status else {
        return if bytes.len() >= limits.bytes_max {
            Err(Cause::ResponseHeadTooLarge)
        } else {
            Ok(None)
        };
    };
    if head_bytes > limits.bytes_max {
        return Err(Cause::ResponseHeadTooLarge);
    }
    let is_strict =
        bytes.get(..head_bytes).is_some_and(lines_end_in_crlf) && bytes.starts_with(b"HTTP/");
    let (true, Some(status), Some(reason)) = (is_strict, response.code, response.reason) else {
        return Err(Cause::ResponseInvalid);
    };
    if !STATUSES.contains(&status) {
        return Err(Cause::ResponseInvalid);
    }
    let version = Version::from_minor(response.version);
    let facts = Facts::read(response.headers)?;
    let framing = facts.framing(version, status, to)?;
    Ok(Some(ResponseHead {
        version,
        status,
        reason,
        framing,
        keep_alive: framing != Framing::UntilClose && facts.connection.persists(version),
        keep_alive_seconds: facts.keep_alive_seconds,
        names_headers: facts.connection.names_headers,
        has_hop_by_hop: facts.has_hop_by_hop
            || (facts.has_framing() && forbids_framing(status, to)),
        upgrade: facts.upgrade.filter(|_| facts.connection.upgrade),
        headers: response.headers,
        to,
        bytes: head_bytes,
    }))
}

/// What the headers say about framing and connection.
#[derive(Default)]
struct Facts<'b> {
    length: Option<u64>,
    coding: Option<Coding>,
    connection: ConnectionOptions,
    has_hop_by_hop: bool,
    keep_alive_seconds: Option<u32>,
    upgrade: Option<&'b [u8]>,
}

impl<'b> Facts<'b> {
    fn read(headers: &[Header<'b>]) -> Result<Facts<'b>, Cause> {
        let mut facts = Facts::default();
        for header in headers {
            let Some(known) = Known::of(header.name) else { continue };
            facts.has_hop_by_hop |= known.is_hop_by_hop();
            match known {
                Known::ContentLength => {
                    let length = framing::length_of(header.value).ok_or(Cause::ResponseInvalid)?;
                    if facts.length.is_some_and(|other| other != length) {
                        return Err(Cause::ResponseInvalid);
                    }
                    // A repeated one is left out like a hop-by-hop header.
                    facts.has_hop_by_hop |= facts.length.is_some();
                    facts.length = Some(length);
                }
                Known::TransferEncoding => {
                    facts.coding = Some(match facts.coding {
                        None => framing::coding_of(header.value),
                        Some(_) => Coding::Invalid,
                    });
                }
                Known::Connection => facts.connection.read(header.value),
                Known::KeepAlive => facts.keep_alive_seconds = timeout_of(header.value),
                Known::Upgrade => facts.upgrade = facts.upgrade.or(Some(header.value)),
                _ => {}
            }
        }
        if facts.connection.names_framing {
            return Err(Cause::ResponseInvalid);
        }
        Ok(facts)
    }

    fn has_framing(&self) -> bool {
        self.length.is_some() || self.coding.is_some()
    }

    fn framing(&self, version: Version, status: u16, to: AnswerTo) -> Result<Framing, Cause> {
        let framing = match (self.coding, self.length) {
            (None, None) => Framing::UntilClose,
            (None, Some(length)) => Framing::Length(length),
            (Some(Coding::Chunked), None) if version == Version::Http11 => Framing::Chunked,
            (Some(_), _) => return Err(Cause::ResponseInvalid),
        };
        let is_empty =
            to == AnswerTo::Head || forbids_framing(status, to) || status == NOT_MODIFIED;
        Ok(if is_empty { Framing::Empty } else { framing })
    }
}

/// The seconds that a `Keep-Alive` value says (RFC 2068 §19.7.1).
fn timeout_of(value: &[u8]) -> Option<u32> {
    let mut parameters = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let seconds = parameters.find_map(|it| it.strip_prefix(b"timeout="))?;
    str::from_utf8(seconds).ok()?.parse().ok()
}

fn is_interim(status: u16) -> bool {
    status < OK
}

/// Whether a response of this status has neither a body nor headers that say one's length
/// (RFC 9110 §8.6, RFC 9112 §6.1).
pub(super) fn forbids_framing(status: u16, to: AnswerTo) -> bool {
    is_interim(status) || status == NO_CONTENT || opens_tunnel(status, to)
}

/// Whether a CONNECT is granted by a response of this status (RFC 9110 §9.3.6).
#[must_use]
pub fn opens_tunnel(status: u16, to: AnswerTo) -> bool {
    to == AnswerTo::Connect && (OK..MULTIPLE_CHOICES).contains(&status)
}

/// The statuses that a backend may answer with (RFC 9110 §15).
const STATUSES: std::ops::RangeInclusive<u16> = 100..=599;
/// Continue: the client may send its body.
pub const CONTINUE: u16 = 100;
/// Switching Protocols: the connection becomes a tunnel.
pub const SWITCHING_PROTOCOLS: u16 = 101;
const OK: u16 = 200;
const MULTIPLE_CHOICES: u16 = 300;
const NO_CONTENT: u16 = 204;
const NOT_MODIFIED: u16 = 304;

#[cfg(test)]
mod tests;
