//! Writes heads for the other side: hop-by-hop headers out, corelane's own in, the rest as it was.
//!
//! Each head is built in one pass over the parsed one, into a buffer that the body's first bytes
//! may follow. What is forwarded can be read in one way only.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use httparse::Header;

use crate::http1::framing::Framing;
use crate::http1::request::RequestHead;
use crate::http1::response::{ResponseHead, forbids_framing};
use crate::http1::{Known, Version, is_named, list_of};

/// The headers that tell a backend about the client; the same for every request of a connection.
#[derive(Debug)]
pub struct Provenance {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`, two whole lines.
    lines: Vec<u8>,
    /// What stands for the Host that an HTTP/1.0 client did not send.
    local: SocketAddr,
}

impl Provenance {
    /// For a client at `client` that connected to `local`.
    #[must_use]
    pub fn new(client: IpAddr, local: SocketAddr) -> Provenance {
        let client = client.to_canonical();
        let lines = format!("X-Forwarded-For: {client}\r\nX-Forwarded-Proto: http\r\n");
        Provenance { lines: lines.into_bytes(), local }
    }
}

/// Writes the head of a request for a backend to the end of `out`.
pub fn request(head: &RequestHead<'_, '_>, provenance: &Provenance, out: &mut Vec<u8>) {
    out.reserve(head.bytes + provenance.lines.len() + ADDED_BYTES);
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
    let mut wants_trailers = false;
    let mut has_length = false;
    for header in head.headers {
        match Known::of(header.name) {
            Some(Known::Host | Known::Forwarded) => continue,
            Some(Known::XForwardedFor | Known::XForwardedHost | Known::XForwardedProto) => continue,
            Some(Known::Te) => {
                wants_trailers |=
                    list_of(header.value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                continue;
            }
            Some(Known::ContentLength) if std::mem::replace(&mut has_length, true) => continue,
            Some(known) if known.is_hop_by_hop() => continue,
            None if head.names_headers && is_named(head.headers, header.name) => continue,
            _ => {}
        }
        write_header(out, header);
    }
    if wants_trailers {
        out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n");
    }
    out.extend_from_slice(&provenance.lines);
    if let Some(host) = head.host {
        out.extend_from_slice(b"X-Forwarded-Host: ");
        out.extend_from_slice(host);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match head.version {
        Version::Http11 => b"Via: 1.1 corelane\r\n\r\n",
        Version::Http10 => b"Via: 1.0 corelane\r\n\r\n",
    });
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
    head.version == Version::Http11
        && !head.has_hop_by_hop
        && client == ClientSide { version: Version::Http11, keep_alive: true }
}

/// Writes the head of a response for a client to the end of `out`.
pub fn response(head: &ResponseHead<'_, '_>, client: ClientSide, out: &mut Vec<u8>) {
    out.reserve(head.bytes + ADDED_BYTES);
    out.extend_from_slice(b"HTTP/1.1 ");
    write_display(out, head.status);
    out.push(b' ');
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let drops_length = forbids_framing(head.status);
    let drops_coding = drops_length || client.version == Version::Http10;
    let mut has_length = false;
    for header in head.headers {
        match Known::of(header.name) {
            Some(Known::ContentLength) if drops_length => continue,
            Some(Known::ContentLength) if std::mem::replace(&mut has_length, true) => continue,
            Some(Known::TransferEncoding) if drops_coding => continue,
            Some(known) if known.is_hop_by_hop() => continue,
            None if head.names_headers && is_named(head.headers, header.name) => continue,
            _ => {}
        }
        write_header(out, header);
    }
    if !head.is_interim() {
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

/// Room for what corelane adds to a head, beyond the client's own lines, in bytes.
const ADDED_BYTES: usize = 320;

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use super::*;
    use crate::config::HeadLimits;
    use crate::http1::{request as request_head, response as response_head};

    const LIMITS: HeadLimits = HeadLimits { bytes_max: 4096, headers_max: 32 };

    fn check_request(head: &str, expected: &str) {
        let mut space = [MaybeUninit::uninit(); 32];
        let head = request_head::parse(head.as_bytes(), &mut space, &LIMITS).unwrap().unwrap();
        let client = "::ffff:10.0.0.1".parse().unwrap();
        let provenance = Provenance::new(client, "127.0.0.1:80".parse().unwrap());
        let mut out = b"before".to_vec();
        request(&head, &provenance, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), format!("before{expected}"));
    }

    const ADDED: &str = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\n";

    #[test]
    fn a_request_keeps_its_order_and_its_bytes() {
        check_request(
            "PUT /p HTTP/1.1\r\nB: 1\r\nHost: h\r\naA:  x\u{e9} y \r\nContent-Length: 3\r\nE:\r\n\r\n",
            &format!(
                "PUT /p HTTP/1.1\r\nHost: h\r\nB: 1\r\naA: x\u{e9} y\r\nContent-Length: 3\r\nE: \r\n\
                 {ADDED}X-Forwarded-Host: h\r\nVia: 1.1 corelane\r\n\r\n"
            ),
        );
    }

    #[test]
    fn what_speaks_to_the_next_hop_alone_is_left_out() {
        check_request(
            "GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: x-secret, close\r\nX-Secret: 1\r\n\
             Keep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nTE: gzip, trailers\r\n\
             X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nVia: 1.0 other\r\n\
             Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            &format!(
                "GET / HTTP/1.1\r\nHost: b\r\nVia: 1.0 other\r\nContent-Length: 1\r\n\
                 Connection: TE\r\nTE: trailers\r\n{ADDED}X-Forwarded-Host: b\r\n\
                 Via: 1.1 corelane\r\n\r\n"
            ),
        );
    }

    #[test]
    fn a_host_is_made_up_for_http_1_0() {
        check_request(
            "GET / HTTP/1.0\r\n\r\n",
            &format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n{ADDED}Via: 1.0 corelane\r\n\r\n"),
        );
    }

    fn check_response(head: &str, client: ClientSide, expected: Option<&str>) {
        let mut space = [MaybeUninit::uninit(); 32];
        let parsed = response_head::parse(head.as_bytes(), &mut space, &LIMITS, false);
        let parsed = parsed.unwrap().unwrap();
        assert_eq!(passes_as_is(&parsed, client), expected.is_none());
        let mut out = Vec::new();
        response(&parsed, client, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected.unwrap_or(head));
    }

    #[test]
    fn responses_tell_the_client_about_its_own_connection() {
        let modern = ClientSide { version: Version::Http11, keep_alive: true };
        let closing = ClientSide { keep_alive: false, ..modern };
        let old = ClientSide { version: Version::Http10, keep_alive: true };
        check_response("HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 1\r\n\r\n", modern, None);
        check_response(
            "HTTP/1.1 200 OK\r\nConnection: close, a\r\nA: 1\r\nContent-Length: 1\r\n\r\n",
            modern,
            Some("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"),
        );
        check_response(
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
            closing,
            Some("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"),
        );
        check_response(
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
            ClientSide { keep_alive: false, ..old },
            Some("HTTP/1.1 200 \r\nConnection: close\r\n\r\n"),
        );
        check_response(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
            old,
            Some("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"),
        );
        check_response(
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            modern,
            Some("HTTP/1.1 204 No Content\r\n\r\n"),
        );
        check_response("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", modern, None);
    }
}
