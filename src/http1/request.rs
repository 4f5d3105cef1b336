//! Reads a request's head: what may be forwarded, and everything the way of the request needs.
//!
//! httparse tokenises; the rules it does not enforce are here, each with a cause of its own in
//! `error::Cause`. Called with all bytes of a connection that no request has used yet.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::config::HeadLimits;
use crate::error::Cause;
use crate::http1::framing::{self, Coding, Framing};
use crate::http1::{ConnectionOptions, Known, Version, lines_end_in_crlf};

/// A request's head, in the bytes it was read from.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// The method, a token.
    pub method: &'b str,
    /// The target in the form it is forwarded in: origin-form or `*`.
    pub target: Target<'b>,
    /// The version the client speaks.
    pub version: Version,
    /// The authority the request is for: of an absolute target, else of Host.
    pub host: Option<&'b [u8]>,
    /// All headers in their order.
    pub headers: &'h [Header<'b>],
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client wants the connection to outlive the answer.
    pub keep_alive: bool,
    /// Whether `Connection` names headers beyond the hop-by-hop ones.
    pub names_headers: bool,
    /// What `Upgrade` asks for, where it may be granted: in HTTP/1.1, without a body.
    pub upgrade: Option<&'b [u8]>,
    /// Whether the client may wait for a 100 before it sends its body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The length of the head, with its empty line.
    pub bytes: usize,
}

/// A request target, split so that it can be written without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'b> {
    /// `/` or `*` where an absolute target has no path of its own, or what a route puts in front of
    /// the path; else nothing.
    pub prefix: &'b str,
    /// The path and query, `*`, or the authority of a CONNECT.
    pub rest: &'b str,
}

impl RequestHead<'_, '_> {
    /// Whether the request may be sent twice (RFC 9110 §9.2.2).
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }
}

/// The storage for the headers of one head; it is not initialised before it is used.
pub type HeaderSpace<'b> = [MaybeUninit<Header<'b>>];

/// Reads the head at the front of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// The rule that it breaks. The connection must not be read further then.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    space: &'h mut HeaderSpace<'b>,
    limits: &HeadLimits,
    connect_is_on: bool,
) -> Result<Option<RequestHead<'h, 'b>>, Cause> {
    let space_len = space.len().min(limits.headers_max);
    let mut request = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut request, bytes, &mut space[..space_len])
        .map_err(|error| cause_of(error, bytes))?;
    let httparse::Status::Complete(head_bytes) = status else {
        let is_in_target = bytes.len() > limits.target_bytes_max + REQUEST_LINE_BYTES
            && memchr::memchr(b'\n', bytes).is_none();
        return if is_in_target {
            Err(Cause::RequestTargetTooLong)
        } else if bytes.len() >= limits.bytes_max {
            Err(Cause::RequestHeadTooLarge)
        } else {
            Ok(None)
        };
    };
    if head_bytes > limits.bytes_max {
        return Err(Cause::RequestHeadTooLarge);
    }
    if !bytes.get(..head_bytes).is_some_and(lines_end_in_crlf) {
        return Err(Cause::RequestBareLineEnd);
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(Cause::RequestSyntax);
    };
    if target.len() > limits.target_bytes_max {
        return Err(Cause::RequestTargetTooLong);
    }
    if method == "CONNECT" && !connect_is_on {
        return Err(Cause::ConnectOff);
    }
    let version = Version::from_minor(request.version);
    let (target, authority) = target_of(method, target)?;
    let facts = Facts::read(request.headers)?;
    let framing = facts.framing(version)?;
    if method == "CONNECT" && framing != Framing::Empty {
        return Err(Cause::ConnectBody);
    }
    Ok(Some(RequestHead {
        method,
        target,
        version,
        host: host_of(version, facts.host, authority)?,
        framing,
        upgrade: facts.upgrade_of(version, framing),
        keep_alive: facts.connection.persists(version),
        names_headers: facts.connection.names_headers,
        expects_continue: facts.expects_continue,
        headers: request.headers,
        bytes: head_bytes,
    }))
}

/// What the headers say about framing, target and connection.
#[derive(Default)]
struct Facts<'b> {
    host: Option<&'b [u8]>,
    length: Option<u64>,
    coding: Option<Coding>,
    connection: ConnectionOptions,
    expects_continue: bool,
    upgrade: Option<&'b [u8]>,
}

impl<'b> Facts<'b> {
    fn read(headers: &[Header<'b>]) -> Result<Facts<'b>, Cause> {
        let mut facts = Facts::default();
        for header in headers {
            match Known::of(header.name) {
                Some(Known::Host) if facts.host.is_some() => return Err(Cause::HostRepeated),
                Some(Known::Host) => facts.host = Some(header.value),
                Some(Known::ContentLength) => {
                    let length =
                        framing::length_of(header.value).ok_or(Cause::RequestLengthInvalid)?;
                    if facts.length.is_some_and(|other| other != length) {
                        return Err(Cause::RequestLengthsDiffer);
                    }
                    facts.length = Some(length);
                }
                Some(Known::TransferEncoding) => {
                    facts.coding = Some(match facts.coding {
                        None => framing::coding_of(header.value),
                        Some(_) => Coding::Invalid,
                    });
                }
                Some(Known::Connection) => facts.connection.read(header.value),
                Some(Known::Upgrade) => facts.upgrade = facts.upgrade.or(Some(header.value)),
                Some(Known::Expect) => {
                    facts.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
                }
                _ => {}
            }
        }
        if facts.connection.names_framing {
            return Err(Cause::RequestConnection);
        }
        Ok(facts)
    }

    fn upgrade_of(&self, version: Version, framing: Framing) -> Option<&'b [u8]> {
        let may_switch = version == Version::Http11 && framing == Framing::Empty;
        self.upgrade.filter(|_| may_switch && self.connection.upgrade)
    }

    fn framing(&self, version: Version) -> Result<Framing, Cause> {
        match (self.coding, self.length) {
            (None, None) => Ok(Framing::Empty),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(_), _) if version == Version::Http10 => Err(Cause::RequestCodingInHttp10),
            (Some(Coding::Invalid), _) => Err(Cause::RequestCodingInvalid),
            (Some(_), Some(_)) => Err(Cause::RequestLengthAndCoding),
            (Some(Coding::Unknown), None) => Err(Cause::RequestCodingUnknown),
            (Some(Coding::Chunked), None) => Ok(Framing::Chunked),
        }
    }
}

/// The target as it is forwarded and the authority it names, by its form (RFC 9112 §3.2).
fn target_of<'b>(method: &str, target: &'b str) -> Result<(Target<'b>, Option<&'b [u8]>), Cause> {
    if method == "CONNECT" {
        let has_port = target.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !has_port || !is_authority(target.as_bytes()) {
            return Err(Cause::RequestTarget);
        }
        return Ok((Target { prefix: "", rest: target }, Some(target.as_bytes())));
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Cause::RequestTarget);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((Target { prefix: "", rest: target }, None));
    }
    let (scheme, rest) = target.split_once("://").ok_or(Cause::RequestTarget)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Cause::RequestTarget);
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || !is_authority(authority.as_bytes()) {
        return Err(Cause::RequestTarget);
    }
    let target = match rest {
        "" if method == "OPTIONS" => Target { prefix: "*", rest },
        _ if rest.starts_with('/') => Target { prefix: "", rest },
        _ => Target { prefix: "/", rest },
    };
    Ok((target, Some(authority.as_bytes())))
}

/// The authority that the request is for (RFC 9112 §3.2.2, §3.3).
fn host_of<'b>(
    version: Version,
    host: Option<&'b [u8]>,
    authority: Option<&'b [u8]>,
) -> Result<Option<&'b [u8]>, Cause> {
    match host {
        None if version == Version::Http11 => Err(Cause::HostMissing),
        Some(host) if !is_authority(host) => Err(Cause::HostInvalid),
        _ => Ok(authority.or(host)),
    }
}

/// Whether a value is `host [ ":" port ]` without user information (RFC 3986 §3.2.2).
fn is_authority(value: &[u8]) -> bool {
    let (host, port) = if value.first() == Some(&b'[') {
        let Some(end) = memchr::memchr(b']', value) else { return false };
        let literal = &value[1..end];
        let is_address = literal.contains(&b':')
            && literal.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
        if !is_address {
            return false;
        }
        (&b""[..], &value[end + 1..])
    } else {
        value.split_at(memchr::memchr(b':', value).unwrap_or(value.len()))
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= PORT_DIGITS && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_port && host.iter().all(|byte| is_host_byte(*byte))
}

/// Whether a byte may stand in a registered name (RFC 3986 §3.2.2).
fn is_host_byte(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$'
        | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// What a request line holds beside its target: a method, two spaces, the version, CRLF, and an
/// empty line before it.
const REQUEST_LINE_BYTES: usize = 64;
/// The first byte of a TLS connection (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// The most digits of a port.
const PORT_DIGITS: usize = 5;

/// The cause for what httparse found.
fn cause_of(error: httparse::Error, bytes: &[u8]) -> Cause {
    match error {
        httparse::Error::HeaderName => Cause::RequestHeaderName,
        httparse::Error::HeaderValue => Cause::RequestHeaderValue,
        httparse::Error::NewLine => Cause::RequestBareLineEnd,
        httparse::Error::TooManyHeaders => Cause::RequestHeadersTooMany,
        httparse::Error::Version if names_other_version(bytes) => Cause::RequestVersion,
        httparse::Error::Token if bytes.starts_with(&[TLS_HANDSHAKE]) => Cause::RequestIsTls,
        httparse::Error::Token if !starts_with_token(bytes) => Cause::RequestMethod,
        httparse::Error::Token => Cause::RequestTarget,
        httparse::Error::Version | httparse::Error::Status => Cause::RequestSyntax,
    }
}

/// Whether the request line is well-formed but for a version that corelane does not serve.
fn names_other_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let version = words.nth(2).unwrap_or_default();
    words.next().is_none()
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Whether the first word of the request line is a token.
fn starts_with_token(bytes: &[u8]) -> bool {
    let word = bytes.trim_ascii_start().split(|byte| *byte == b' ').next().unwrap_or_default();
    !word.is_empty() && word.iter().all(|byte| super::is_token_byte(*byte))
}

#[cfg(test)]
mod tests;
