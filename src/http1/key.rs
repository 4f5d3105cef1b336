//! What of a request is hashed, and the values of its cookies: parts of its head, as they were
//! sent, neither decoded nor copied.

use std::net::IpAddr;

use httparse::Header;

use crate::config::HashKey;
use crate::http1::request::RequestHead;

/// What is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'b> {
    /// An address; IPv4 where it can be written so.
    Address(IpAddr),
    /// Some bytes.
    Bytes(&'b [u8]),
    /// Bytes that belong together.
    Joined(&'b [u8], &'b [u8]),
}

/// What `key` names in a request; `None` where the request has no such thing.
pub fn of<'b>(
    key: &HashKey,
    head: &RequestHead<'_, 'b>,
    client: impl FnOnce() -> IpAddr,
) -> Option<Key<'b>> {
    let target = head.target;
    let (path, query) = match target.rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target.rest, None),
    };
    let bytes = match key {
        HashKey::Source => return Some(Key::Address(client().to_canonical())),
        HashKey::Uri if !target.prefix.is_empty() => {
            return Some(Key::Joined(target.prefix.as_bytes(), target.rest.as_bytes()));
        }
        HashKey::Uri => target.rest.as_bytes(),
        // The target of a CONNECT is an authority.
        HashKey::Path if head.method == "CONNECT" => return None,
        // What a prefix stands in for is the path.
        HashKey::Path if !target.prefix.is_empty() => target.prefix.as_bytes(),
        HashKey::Path => path.as_bytes(),
        HashKey::Host => head.host?,
        HashKey::Header(name) => header(head.headers, name)?,
        HashKey::Cookie(name) => cookie(head.headers, name)?,
        HashKey::Query(name) => parameter(query?, name)?.as_bytes(),
    };
    Some(Key::Bytes(bytes))
}

/// The value of the first cookie of this name in all `Cookie` headers, without its quotes
/// (RFC 6265 §4.2.1, §5.4); pairs that break the grammar are passed over.
#[must_use]
pub fn cookie<'b>(headers: &[Header<'b>], name: &str) -> Option<&'b [u8]> {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("cookie"))
        .flat_map(|header| header.value.split(|byte| *byte == b';'))
        .find_map(|pair| {
            let (found, value) = pair.split_at(memchr::memchr(b'=', pair)?);
            (found.trim_ascii() == name.as_bytes()).then(|| unquoted(value[1..].trim_ascii()))
        })
}

/// The value of the first header of this name (RFC 9110 §5.1).
fn header<'b>(headers: &[Header<'b>], name: &str) -> Option<&'b [u8]> {
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(found.value)
}

/// The value of the first parameter of this name in `a=1&b=2`; without `=` it is empty.
fn parameter<'b>(query: &'b str, name: &str) -> Option<&'b str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', value @ .., b'"'] => value,
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HeadLimits;
    use crate::http1::request;

    fn check(key: &HashKey, head: &str, expected: Option<&str>) {
        let limits = HeadLimits { bytes_max: 1000, headers_max: 10, target_bytes_max: 1000 };
        let mut space = [const { std::mem::MaybeUninit::uninit() }; 10];
        let text = format!("{head}\r\n\r\n");
        let parsed = request::parse(text.as_bytes(), &mut space, &limits, true).unwrap().unwrap();
        let client = || "::ffff:10.0.0.1".parse().unwrap();
        let found = of(key, &parsed, client).map(|key| match key {
            Key::Address(addr) => addr.to_string(),
            Key::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Key::Joined(a, b) => String::from_utf8_lossy(&[a, b].concat()).into_owned(),
        });
        assert_eq!(found.as_deref(), expected, "{key:?} of {head}");
    }

    #[test]
    fn targets_are_split_at_the_first_question_mark() {
        for (target, uri, path) in [
            ("/", "/", "/"),
            ("/a/b?c=d?e", "/a/b?c=d?e", "/a/b"),
            ("http://h/a?b", "/a?b", "/a"),
            ("http://h?b", "/?b", "/"),
            ("http://h", "/", "/"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: h");
            check(&HashKey::Uri, &head, Some(uri));
            check(&HashKey::Path, &head, Some(path));
        }
        check(&HashKey::Path, "OPTIONS * HTTP/1.1\r\nHost: h", Some("*"));
        check(&HashKey::Uri, "CONNECT h:80 HTTP/1.1\r\nHost: h:80", Some("h:80"));
        check(&HashKey::Path, "CONNECT h:80 HTTP/1.1\r\nHost: h:80", None);
    }

    #[test]
    fn the_client_and_the_authority_are_keys() {
        check(&HashKey::Source, "GET / HTTP/1.1\r\nHost: h", Some("10.0.0.1"));
        check(&HashKey::Host, "GET / HTTP/1.1\r\nHost: h", Some("h"));
        check(&HashKey::Host, "GET http://other/ HTTP/1.1\r\nHost: h", Some("other"));
        check(&HashKey::Host, "GET / HTTP/1.0", None);
    }

    #[test]
    fn the_first_header_counts_in_any_case() {
        let head = "GET / HTTP/1.1\r\nHost: h\r\nX-User: one\r\nx-user: two\r\nX-Empty:";
        check(&HashKey::Header("x-user".to_owned()), head, Some("one"));
        check(&HashKey::Header("X-USER".to_owned()), head, Some("one"));
        check(&HashKey::Header("x-empty".to_owned()), head, Some(""));
        check(&HashKey::Header("x-use".to_owned()), head, None);
    }

    #[test]
    fn the_first_parameter_counts() {
        for (query, expected) in [
            ("?user=one&user=two", Some("one")),
            ("?a=b&user=x=y", Some("x=y")),
            ("?user", Some("")),
            ("?user=&b", Some("")),
            ("?&&user=%31", Some("%31")),
            ("?User=one", None),
            ("?users=one", None),
            ("?", None),
            ("", None),
        ] {
            let head = format!("GET /user=path{query} HTTP/1.1\r\nHost: h");
            check(&HashKey::Query("user".to_owned()), &head, expected);
        }
    }

    #[test]
    fn cookies_are_read_leniently() {
        for (lines, expected) in [
            ("Cookie: id=one", Some("one")),
            ("cookie: a=b; id=one; id=two", Some("one")),
            ("COOKIE: a=b\r\nCookie: id=one", Some("one")),
            ("Cookie: a=b;id=one;c", Some("one")),
            ("Cookie:  ;; id = one ;", Some("one")),
            ("Cookie: id=\"one\"", Some("one")),
            ("Cookie: id=\"one", Some("\"one")),
            ("Cookie: id=\"", Some("\"")),
            ("Cookie: id=x=y==", Some("x=y==")),
            ("Cookie: id=", Some("")),
            ("Cookie: id", None),
            ("Cookie: =id", None),
            ("Cookie: ID=one", None),
            ("Cookie: a=id=one", None),
            ("Set-Cookie: id=one", None),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}");
            check(&HashKey::Cookie("id".to_owned()), &head, expected);
        }
    }
}
