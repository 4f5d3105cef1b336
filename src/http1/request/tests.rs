//! Table tests of request heads, each byte by byte as well as whole.

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 256, headers_max: 4, target_bytes_max: 128 };

/// What a head is read as, in a form that tables can hold: target, host, framing, keep-alive.
type Read = (String, Option<String>, Framing, bool);

fn read(head: &[u8]) -> Result<Option<Read>, Cause> {
    let mut space = [MaybeUninit::uninit(); 8];
    let parsed = parse(head, &mut space, &LIMITS, false)?;
    Ok(parsed.map(|head| {
        (
            format!("{}{}", head.target.prefix, head.target.rest),
            head.host.map(|host| String::from_utf8_lossy(host).into_owned()),
            head.framing,
            head.keep_alive,
        )
    }))
}

fn check(head: &str, expected: (&str, Option<&str>, Framing, bool)) {
    let (target, host, framing, keep_alive) = expected;
    let expected = (target.to_owned(), host.map(str::to_owned), framing, keep_alive);
    for end in 0..head.len() {
        assert_eq!(read(&head.as_bytes()[..end]), Ok(None), "{head:?} up to {end}");
    }
    assert_eq!(read(head.as_bytes()), Ok(Some(expected)), "{head:?}");
}

fn check_refused(head: &[u8], cause: Cause) {
    assert_eq!(read(head), Err(cause), "{:?}", String::from_utf8_lossy(head));
}

#[test]
fn targets_are_forwarded_in_origin_form() {
    for (line, target, host) in [
        ("GET / HTTP/1.1", "/", "a"),
        ("GET /p?q=1 HTTP/1.1", "/p?q=1", "a"),
        ("OPTIONS * HTTP/1.1", "*", "a"),
        ("GET http://b:80/p HTTP/1.1", "/p", "b:80"),
        ("GET HTTP://b?q HTTP/1.1", "/?q", "b"),
        ("GET https://[::1]:8443 HTTP/1.1", "/", "[::1]:8443"),
        ("OPTIONS http://b HTTP/1.1", "*", "b"),
        ("PURGE /x HTTP/1.1", "/x", "a"),
    ] {
        check(&format!("{line}\r\nHost: a\r\n\r\n"), (target, Some(host), Framing::Empty, true));
    }
}

#[test]
fn framing_and_persistence_follow_the_headers() {
    for (lines, version, framing, keep_alive) in [
        ("", 1, Framing::Empty, true),
        ("", 0, Framing::Empty, false),
        ("Connection: close\r\n", 1, Framing::Empty, false),
        ("connection: x, Close\r\n", 1, Framing::Empty, false),
        ("Connection: keep-alive\r\n", 0, Framing::Empty, true),
        ("Connection: keep-alive, close\r\n", 0, Framing::Empty, false),
        ("Content-Length: 0\r\n", 1, Framing::Length(0), true),
        ("Content-Length: 7\r\n", 0, Framing::Length(7), false),
        ("Content-Length: 7\r\ncontent-length: 07\r\n", 1, Framing::Length(7), true),
        ("Transfer-Encoding: chunked\r\n", 1, Framing::Chunked, true),
        ("Transfer-Encoding: \t CHUNKED \t\r\n", 1, Framing::Chunked, true),
    ] {
        check(
            &format!("POST / HTTP/1.{version}\r\nHost: a\r\n{lines}\r\n"),
            ("/", Some("a"), framing, keep_alive),
        );
    }
    check("GET / HTTP/1.0\r\n\r\n", ("/", None, Framing::Empty, false));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, a row a rule")]
fn each_rule_refuses_with_its_own_cause() {
    use Cause as C;
    for (head, cause) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", C::RequestBareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", C::RequestBareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", C::RequestBareLineEnd),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestBareLineEnd),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", C::RequestIsTls),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestMethod),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestMethod),
        ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestTarget),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestTarget),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestTarget),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestTarget),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestTarget),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestTarget),
        ("GET http:///p HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestTarget),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestTarget),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", C::ConnectOff),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", C::RequestVersion),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", C::RequestVersion),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", C::RequestSyntax),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", C::RequestHeaderName),
        ("GET / HTTP/1.1\r\nHost: a\r\nB@d: x\r\n\r\n", C::RequestHeaderName),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", C::RequestHeaderName),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", C::RequestHeaderName),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", C::RequestHeaderValue),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", C::RequestHeaderValue),
        ("GET / HTTP/1.1\r\n\r\n", C::HostMissing),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", C::HostRepeated),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", C::HostInvalid),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", C::HostInvalid),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", C::HostInvalid),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", C::HostInvalid),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", C::HostInvalid),
        ("GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n", C::HostInvalid),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", C::RequestLengthInvalid),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", C::RequestLengthInvalid),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", C::RequestLengthInvalid),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            C::RequestLengthsDiffer,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            C::RequestLengthAndCoding,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            C::RequestCodingInvalid,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n",
            C::RequestCodingInvalid,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", C::RequestCodingInvalid),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            C::RequestCodingUnknown,
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            C::RequestCodingInHttp10,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n", C::RequestConnection),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: a, content-length\r\nContent-Length: 1\r\n\r\n",
            C::RequestConnection,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n",
            C::RequestHeadersTooMany,
        ),
    ] {
        check_refused(head.as_bytes(), cause);
    }
}

#[test]
fn the_head_limit_holds_at_the_byte() {
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let head = |bytes: usize| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame))
    };
    assert!(read(head(LIMITS.bytes_max).as_bytes()).is_ok_and(|parsed| parsed.is_some()));
    check_refused(head(LIMITS.bytes_max + 1).as_bytes(), Cause::RequestHeadTooLarge);
    check_refused(
        &head(LIMITS.bytes_max + 9).as_bytes()[..LIMITS.bytes_max],
        Cause::RequestHeadTooLarge,
    );
}

#[test]
fn bytes_after_the_head_are_left_alone() {
    let mut space = [MaybeUninit::uninit(); 8];
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbare\nline";
    let head = parse(bytes, &mut space, &LIMITS, false).ok().flatten().map(|head| head.bytes);
    assert_eq!(head, Some(bytes.len() - "bare\nline".len()));
}
