//! Writes corelane's own answers: what a client gets when no backend's answer can be had.
//!
//! The status comes from the table in `error`; every answer names its cause in `Proxy-Status`
//! (RFC 9209), so that a person can tell corelane's 502 from a backend's.

use crate::error::Cause;
use crate::http1::forward::{ClientSide, connection_line, write_display};

/// Writes the answer for `cause` to the end of `out`; nothing where the table says none.
///
/// `to_head_request` leaves the body out and its length in (RFC 9110 §9.3.2).
pub fn write(cause: Cause, client: ClientSide, to_head_request: bool, out: &mut Vec<u8>) {
    let verdict = cause.verdict();
    let Some(status) = verdict.status else { return };
    let reason = reason_of(status);
    let body_bytes = STATUS_DIGITS + reason.len() + verdict.message.len() + BODY_FRAME_BYTES;
    out.extend_from_slice(b"HTTP/1.1 ");
    write_display(out, format_args!("{status} {reason}\r\n"));
    out.extend_from_slice(
        b"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n",
    );
    write_display(out, format_args!("Content-Length: {body_bytes}\r\n"));
    let (error, details) = (verdict.proxy_error, verdict.name);
    write_display(
        out,
        format_args!("Proxy-Status: corelane; error={error}; details=\"{details}\"\r\n"),
    );
    if matches!(status, 429 | 503) {
        write_display(out, format_args!("Retry-After: {RETRY_AFTER_SECONDS}\r\n"));
    }
    if status == METHOD_NOT_ALLOWED {
        out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n");
    }
    out.extend_from_slice(connection_line(client));
    out.extend_from_slice(b"\r\n");
    if !to_head_request {
        write_display(out, format_args!("{status} {reason}: {}\n", verdict.message));
    }
}

/// Writes a redirect to this location to the end of `out` (RFC 9110 §15.4); the location holds
/// nothing that could end a header.
pub fn write_redirect(
    status: u16,
    location: &[u8],
    client: ClientSide,
    to_head_request: bool,
    out: &mut Vec<u8>,
) {
    let reason = reason_of(status);
    out.extend_from_slice(b"HTTP/1.1 ");
    write_display(out, format_args!("{status} {reason}\r\nLocation: "));
    out.extend_from_slice(location);
    out.extend_from_slice(
        b"\r\nContent-Type: text/plain; charset=utf-8\r\n\
          Proxy-Status: corelane; details=\"redirect\"\r\n",
    );
    // A space and an LF.
    let body_bytes = STATUS_DIGITS + reason.len() + 2;
    write_display(out, format_args!("Content-Length: {body_bytes}\r\n"));
    out.extend_from_slice(connection_line(client));
    out.extend_from_slice(b"\r\n");
    if !to_head_request {
        write_display(out, format_args!("{status} {reason}\n"));
    }
}

/// The reason phrases of the statuses in the table and of redirects (RFC 9110 §15, RFC 6585).
fn reason_of(status: u16) -> &'static str {
    match status {
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

const METHOD_NOT_ALLOWED: u16 = 405;
/// The digits of a status.
const STATUS_DIGITS: usize = 3;
/// The space, the colon, the space and the LF around reason and message.
const BODY_FRAME_BYTES: usize = 4;
/// After how many seconds a client may try again when no backend could take its request.
const RETRY_AFTER_SECONDS: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Version;

    const CLIENT: ClientSide = ClientSide { version: Version::Http11, keep_alive: true };

    #[test]
    fn every_answer_says_its_cause_and_the_right_length() {
        for cause in Cause::ALL {
            let mut out = Vec::new();
            write(cause, CLIENT, false, &mut out);
            let text = String::from_utf8(out).unwrap();
            let Some(status) = cause.verdict().status else {
                assert_eq!(text, "");
                continue;
            };
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
            assert!(head.contains(&format!("details=\"{}\"", cause.name())), "{head}");
            assert!(!head.contains("Internal Server Error"), "{status} has no reason phrase");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body_and_a_closing_one_says_so() {
        let mut out = Vec::new();
        write(Cause::NoEndpoint, ClientSide { keep_alive: false, ..CLIENT }, true, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
        assert!(text.contains("\r\nRetry-After: 1\r\n"), "{text}");
    }
}
