//! Table tests of response heads, each byte by byte as well as whole.

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 256, headers_max: 4, target_bytes_max: 1 };

fn to(head_request: bool) -> AnswerTo {
    if head_request { AnswerTo::Head } else { AnswerTo::Other }
}

/// What a head is read as: status, framing, whether the connection persists.
fn read(head: &[u8], to_head_request: bool) -> Result<Option<(u16, Framing, bool)>, Cause> {
    let mut space = [MaybeUninit::uninit(); 8];
    let parsed = parse(head, &mut space, &LIMITS, to(to_head_request))?;
    Ok(parsed.map(|head| (head.status, head.framing, head.keep_alive)))
}

fn check(head: &str, to_head_request: bool, expected: (u16, Framing, bool)) {
    for end in 0..head.len() {
        assert_eq!(read(&head.as_bytes()[..end], to_head_request), Ok(None), "{head:?} to {end}");
    }
    assert_eq!(read(head.as_bytes(), to_head_request), Ok(Some(expected)), "{head:?}");
}

#[test]
fn framing_follows_status_and_headers() {
    for (line, headers, framing, keep_alive) in [
        ("HTTP/1.1 200 OK", "", Framing::UntilClose, false),
        ("HTTP/1.1 200 OK", "Content-Length: 5\r\n", Framing::Length(5), true),
        ("HTTP/1.1 200", "Content-Length: 0\r\n", Framing::Length(0), true),
        ("HTTP/1.1 200 ", "Transfer-Encoding: chunked\r\n", Framing::Chunked, true),
        (
            "HTTP/1.1 200 OK",
            "Content-Length: 5\r\nConnection: close\r\n",
            Framing::Length(5),
            false,
        ),
        ("HTTP/1.0 200 OK", "Content-Length: 5\r\n", Framing::Length(5), false),
        (
            "HTTP/1.0 200 OK",
            "Content-Length: 5\r\nConnection: keep-alive\r\n",
            Framing::Length(5),
            true,
        ),
        ("HTTP/1.1 204 No Content", "Content-Length: 5\r\n", Framing::Empty, true),
        ("HTTP/1.1 304 Not Modified", "Content-Length: 5\r\n", Framing::Empty, true),
        ("HTTP/1.1 100 Continue", "", Framing::Empty, true),
    ] {
        let status = line[9..12].parse().unwrap();
        check(&format!("{line}\r\n{headers}\r\n"), false, (status, framing, keep_alive));
    }
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, (200, Framing::Empty, true));
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        true,
        (200, Framing::Empty, true),
    );
}

#[test]
fn what_can_be_read_two_ways_is_refused() {
    for head in [
        "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \x01\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert_eq!(read(head.as_bytes(), false), Err(Cause::ResponseInvalid), "{head:?}");
    }
}

#[test]
fn the_head_limits_hold() {
    let frame = "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len();
    let head =
        |bytes: usize| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame));
    assert!(read(head(LIMITS.bytes_max).as_bytes(), false).is_ok_and(|parsed| parsed.is_some()));
    let too_large = Err(Cause::ResponseHeadTooLarge);
    assert_eq!(read(head(LIMITS.bytes_max + 1).as_bytes(), false), too_large);
    let headers = "HTTP/1.1 200 OK\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\nE: 1\r\n\r\n";
    assert_eq!(read(headers.as_bytes(), false), too_large);
}
