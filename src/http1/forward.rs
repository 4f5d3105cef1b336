//! Writes heads for the other side: hop-by-hop headers out, corelane's own in, the rest as it was.
//!
//! Each head is built in one pass over the parsed one, into a buffer that the body's first bytes
//! may follow. What is forwarded can be read in one way only.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use httparse::Header;

use crate::config::{ForwardConfig, ForwardedHeaders};
use crate::http1::framing::Framing;
use crate::http1::request::RequestHead;
use crate::http1::response::{ResponseHead, SWITCHING_PROTOCOLS, forbids_framing, opens_tunnel};
use crate::http1::trace::TraceParent;
use crate::http1::{Known, Version, client, is_named, list_of};

/// What backends are told about a client; the same for every request of a connection.
#[derive(Debug)]
pub struct Provenance {
    mode: ForwardedHeaders,
    /// Whether what the client itself sent under these headers is kept.
    keeps: bool,
    /// Whether what the client sent as `Forwarded` is replaced all the same.
    replaces_forwarded: bool,
    /// A whole `X-Forwarded-For` line.
    forwarded_for: Vec<u8>,
    /// The `for` part of `Forwarded`, if that is added (RFC 7239 §5.2).
    forwarded: Option<Vec<u8>>,
    /// What stands for the Host that an HTTP/1.0 client did not send.
    local: SocketAddr,
}

impl Provenance {
    /// For a client at `client` that connected to `local`.
    #[must_use]
    pub fn new(client: IpAddr, local: SocketAddr, config: &ForwardConfig) -> Provenance {
        let is_trusted = client::is_trusted(client, &config.trusted_proxies);
        let client = client.to_canonical();
        let node = match client {
            IpAddr::V4(addr) => format!("for={addr}"),
            IpAddr::V6(addr) => format!("for=\"[{addr}]\""),
        };
        let mode = config.forwarded_headers;
        Provenance {
            mode,
            keeps: mode == ForwardedHeaders::Off
                || (mode == ForwardedHeaders::Append && is_trusted),
            replaces_forwarded: config.forwarded && !is_trusted,
            forwarded_for: format!("X-Forwarded-For: {client}\r\n").into_bytes(),
            forwarded: config.forwarded.then(|| node.into_bytes()),
            local,
        }
    }
}

/// What a request for a backend has beyond what the client sent.
#[derive(Clone, Copy, Debug)]
pub struct Additions<'a> {
    /// What the backend is told about the client.
    pub provenance: &'a Provenance,
    /// The protocol that the connection may be upgraded to.
    pub upgrade: Option<&'a str>,
    /// The `X-Request-Id` of a request that has none.
    pub request_id: Option<u128>,
    /// What stands for `traceparent`, and for the `tracestate` that belongs to the one it replaces.
    pub traceparent: Option<TraceParent>,
}

/// The `X-Request-Id` that a backend gets of the client's, the first of several.
#[must_use]
pub fn request_id_of<'b>(head: &RequestHead<'_, 'b>) -> Option<&'b [u8]> {
    let is_it = |header: &&Header<'_>| Known::of(header.name) == Some(Known::XRequestId);
    let header = head.headers.iter().find(is_it)?;
    let is_taken_out = head.names_headers && is_named(head.headers, header.name);
    (!is_taken_out).then_some(header.value)
}

/// Writes the head of a request for a backend to the end of `out`.
pub fn request(head: &RequestHead<'_, '_>, additions: &Additions<'_>, out: &mut Vec<u8>) {
    let provenance = additions.provenance;
    out.reserve(head.bytes + ADDED_BYTES);
    write_request_line(head, provenance, out);
    let keeps = provenance.keeps;
    let (mut wants_trailers, mut has_length, mut has_id) = (false, false, false);
    let (mut has_proto, mut has_host) = (false, false);
    for header in head.headers {
        if head.names_headers && is_named(head.headers, header.name) {
            continue;
        }
        match Known::of(header.name) {
            Some(Known::Host) => continue,
            Some(Known::Forwarded) if !keeps || provenance.replaces_forwarded => continue,
            Some(Known::XForwardedFor) if !keeps => continue,
            Some(Known::XForwardedHost | Known::XForwardedProto) if !keeps => continue,
            Some(Known::XForwardedHost) => has_host = true,
            Some(Known::XForwardedProto) => has_proto = true,
            Some(Known::XRequestId) => has_id = true,
            Some(Known::TraceParent | Known::TraceState) if additions.traceparent.is_some() => {
                continue;
            }
            Some(Known::Te) => {
                wants_trailers |=
                    list_of(header.value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                continue;
            }
            Some(Known::ContentLength) if std::mem::replace(&mut has_length, true) => continue,
            Some(known) if known.is_hop_by_hop() => continue,
            _ => {}
        }
        write_header(out, header);
    }
    if wants_trailers {
        out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n");
    }
    if let Some(protocol) = additions.upgrade {
        write_upgrade(out, protocol.as_bytes());
    }
    if provenance.mode != ForwardedHeaders::Off {
        out.extend_from_slice(&provenance.forwarded_for);
        if !has_proto {
            out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
        }
        if let Some(host) = head.host.filter(|_| !has_host) {
            write_header(out, &Header { name: "X-Forwarded-Host", value: host });
        }
    }
    if let Some(node) = &provenance.forwarded {
        write_forwarded(out, node, head.host);
    }
    if let Some(id) = additions.request_id.filter(|_| !has_id) {
        write_display(out, format_args!("X-Request-Id: {id:032x}\r\n"));
    }
    if let Some(traceparent) = &additions.traceparent {
        write_header(out, &Header { name: "traceparent", value: traceparent });
    }
    out.extend_from_slice(match head.version {
        Version::Http11 => b"Via: 1.1 corelane\r\n\r\n",
        Version::Http10 => b"Via: 1.0 corelane\r\n\r\n",
    });
}

fn write_request_line(head: &RequestHead<'_, '_>, provenance: &Provenance, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.prefix.as_bytes());
    out.extend_from_slice(head.target.rest.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    match head.host {
        Some(host) => out.extend_from_slice(host),
        None => write_display(out, provenance.local),
    }
    out.extend_from_slice(b"\r\n");
}

/// `Forwarded` with the client, the Host and the protocol (RFC 7239 §4); a Host is an authority,
/// which needs no escapes in quotes.
fn write_forwarded(out: &mut Vec<u8>, node: &[u8], host: Option<&[u8]>) {
    out.extend_from_slice(b"Forwarded: ");
    out.extend_from_slice(node);
    if let Some(host) = host {
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(host);
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=http\r\n");
}

fn write_upgrade(out: &mut Vec<u8>, protocol: &[u8]) {
    out.extend_from_slice(b"Connection: Upgrade\r\n");
    write_header(out, &Header { name: "Upgrade", value: protocol });
}

/// What a client needs to know about its connection in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSide {
    /// The version the client speaks.
    pub version: Version,
    /// Whether its connection outlives the response.
    pub keep_alive: bool,
}

/// Whether the head can go to this client byte for byte.
#[must_use]
pub fn passes_as_is(head: &ResponseHead<'_, '_>, client: ClientSide) -> bool {
    // Without a reason, the space before it may be missing too (RFC 9112 §4).
    head.version == Version::Http11
        && !head.reason.is_empty()
        && !head.has_hop_by_hop
        && client == ClientSide { version: Version::Http11, keep_alive: true }
}

/// Writes the head of a response for a client to the end of `out`, with one more header line (or
/// nothing) in `added`.
pub fn response(head: &ResponseHead<'_, '_>, client: ClientSide, added: &[u8], out: &mut Vec<u8>) {
    out.reserve(head.bytes + ADDED_BYTES);
    out.extend_from_slice(b"HTTP/1.1 ");
    write_display(out, head.status);
    out.push(b' ');
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let drops_length = forbids_framing(head.status, head.to);
    let drops_coding = drops_length || client.version == Version::Http10;
    let mut has_length = false;
    for header in head.headers {
        if head.names_headers && is_named(head.headers, header.name) {
            continue;
        }
        match Known::of(header.name) {
            Some(Known::ContentLength) if drops_length => continue,
            Some(Known::ContentLength) if std::mem::replace(&mut has_length, true) => continue,
            Some(Known::TransferEncoding) if drops_coding => continue,
            Some(known) if known.is_hop_by_hop() => continue,
            _ => {}
        }
        write_header(out, header);
    }
    out.extend_from_slice(added);
    if head.status == SWITCHING_PROTOCOLS {
        write_upgrade(out, head.upgrade.unwrap_or_default());
    } else if !head.is_interim() && !opens_tunnel(head.status, head.to) {
        out.extend_from_slice(connection_line(client));
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether the client's connection can outlive a response with this body: the client must be
/// able to see where it ends.
#[must_use]
pub fn client_sees_end(framing: Framing, client: Version) -> bool {
    match framing {
        Framing::Empty | Framing::Length(_) => true,
        Framing::Chunked => client == Version::Http11,
        Framing::UntilClose => false,
    }
}

/// The `Connection` header a client needs, or nothing where the version's default says it.
pub(super) fn connection_line(client: ClientSide) -> &'static [u8] {
    match client {
        ClientSide { keep_alive: false, .. } => b"Connection: close\r\n",
        ClientSide { version: Version::Http10, .. } => b"Connection: keep-alive\r\n",
        ClientSide { version: Version::Http11, .. } => b"",
    }
}

fn write_header(out: &mut Vec<u8>, header: &Header<'_>) {
    out.extend_from_slice(header.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(header.value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a value's text.
pub(super) fn write_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a Vec takes every byte");
}

/// Room for what corelane adds to a head, in bytes: more is grown for a long Host.
const ADDED_BYTES: usize = 512;

#[cfg(test)]
mod tests;
