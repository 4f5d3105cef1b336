//! Which route takes a request, and that none depends on who reads its path.

use std::mem::MaybeUninit;

use proptest::prelude::*;

use super::*;
use crate::config::{HeadLimits, plain_prefix};
use crate::http1::request;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 9000, headers_max: 8, target_bytes_max: 8000 };

/// `POOL [METHOD] [HOST]PATH [@LISTENER] [> REWRITE]`, where `=` before the path makes it exact.
fn route(text: &str) -> RouteConfig {
    let mut route = RouteConfig::catch_all();
    let (text, rewrite) = text.split_once(" > ").map_or((text, None), |(a, b)| (a, Some(b)));
    route.rewrite = rewrite.map(|text| plain_prefix(text).unwrap());
    let mut words = text.split_whitespace();
    route.action = Action::Pool(words.next().unwrap().to_owned());
    for word in words {
        if let Some(listener) = word.strip_prefix('@') {
            route.listener = Some(listener.parse().unwrap());
        } else if word.bytes().all(|it| it.is_ascii_uppercase()) {
            route.method = Some(word.to_owned());
        } else {
            let (host, path) = word.split_at(word.find(['/', '=']).unwrap_or(word.len()));
            if !host.is_empty() {
                route.host = HostMatch::parse(host).unwrap();
            }
            route.path = match path.strip_prefix('=') {
                Some(path) => PathMatch::exact(path).unwrap(),
                None if path.is_empty() => PathMatch::Any,
                None => PathMatch::prefix(path).unwrap(),
            };
        }
    }
    route
}

/// Pools are named by letters, in the order of their ids.
fn routes(texts: &[&str]) -> Routes {
    let routes: Vec<_> = texts.iter().map(|text| route(text)).collect();
    Routes::new(&routes, |name| Some(PoolId(usize::from(name.as_bytes()[0] - b'a'))))
}

/// The pool of a request and its target there, or the cause that it is refused for.
fn select(routes: &Routes, listener: usize, head: &str) -> String {
    let bytes = format!("{head}\r\n\r\n");
    let mut space = [const { MaybeUninit::uninit() }; 8];
    let head = request::parse(bytes.as_bytes(), &mut space, &LIMITS, true).unwrap().unwrap();
    match routes.select(listener, &head, &mut Vec::new()) {
        Ok(Way::Pool(PoolId(id), rewrite)) => {
            let pool = char::from(b'a' + u8::try_from(id).unwrap());
            let target = rewrite.map(|rewrite| rewrite.of(head.target));
            target.map_or(pool.to_string(), |it| format!("{pool} {}{}", it.prefix, it.rest))
        }
        Ok(Way::Redirect(redirect, rewrite)) => {
            let mut out = Vec::new();
            match write_location(redirect, rewrite, &head, &mut out) {
                Ok(()) => String::from_utf8(out).unwrap(),
                Err(cause) => cause.name().to_owned(),
            }
        }
        Err(cause) => cause.name().to_owned(),
    }
}

#[track_caller]
fn check(texts: &[&str], rows: &[(&str, &str)]) {
    let routes = routes(texts);
    for (request, expected) in rows {
        let (method, rest) = request.split_once(' ').unwrap();
        let (host, target) = rest.split_once(' ').unwrap();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}");
        assert_eq!(select(&routes, 0, &head), *expected, "{request} of {texts:?}");
    }
}

#[test]
fn one_route_that_takes_everything_looks_at_nothing() {
    let all = routes(&["a"]);
    assert_eq!(all.only, Some(PoolId(0)));
    for target in ["/a/../b", "/%00", "//", "*"] {
        let head = format!("OPTIONS {target} HTTP/1.1\r\nHost: %61");
        assert_eq!(select(&all, 7, &head), "a");
    }
}

#[test]
fn hosts_match_in_any_case_without_port_or_last_dot() {
    check(
        &["a example.org", "b *.example.org", "c *.b.example.org", "d [::1]", "e 10.0.0.1"],
        &[
            ("GET example.org /", "a"),
            ("GET EXAMPLE.org:8080 /", "a"),
            ("GET example.org. /", "a"),
            ("GET example.org.:80 /", "a"),
            ("GET other http://example.org/", "a"),
            ("GET example.org http://other/", "no-route"),
            ("GET www.example.org /", "b"),
            ("GET a.b.c.Example.ORG:1 /", "b"),
            ("GET a.b.example.org /", "c"),
            ("GET b.example.org /", "b"),
            ("GET .example.org /", "no-route"),
            ("GET wwwexample.org /", "no-route"),
            ("GET example.org.evil /", "no-route"),
            ("GET [::1] /", "d"),
            ("GET [0:0::1]:80 /", "d"),
            ("GET [::2] /", "no-route"),
            ("GET 10.0.0.1:80 /", "e"),
            ("GET ex%61mple.org /", "host-invalid"),
            ("CONNECT x example.org:443", "a"),
            ("OPTIONS example.org *", "a"),
        ],
    );
}

#[test]
fn paths_match_at_the_borders_of_segments() {
    check(
        &["a /api", "b /api/v1", "c =/api", "d =/api/v1/x", "e"],
        &[
            ("GET h /api", "c"),
            ("GET h /api?x", "c"),
            ("GET h /api/", "a"),
            ("GET h /api/x", "a"),
            ("GET h /apix", "e"),
            ("GET h /API", "e"),
            ("GET h /api/v1", "b"),
            ("GET h /api/v1/", "b"),
            ("GET h /api/v1/x", "d"),
            ("GET h /api/v1/x/", "b"),
            ("GET h /api/v12", "a"),
            ("GET h /", "e"),
            ("GET h /x?/api", "e"),
            ("GET h http://h/api/x", "a"),
            ("GET h http://h", "e"),
            ("GET h http://h?/api", "e"),
            ("OPTIONS h *", "e"),
            ("CONNECT h api:80", "e"),
        ],
    );
}

#[test]
fn the_most_specific_route_counts_by_host_path_method_and_listener() {
    // Each next one takes precedence.
    let texts = [
        "a",
        "b @0",
        "c GET",
        "d GET @0",
        "e /x",
        "f /x @0",
        "g GET /x",
        "h /x/y",
        "i =/x/y",
        "j GET =/x/y",
        "k *.org",
        "l *.h.org",
        "m a.h.org",
        "n a.h.org/x",
        "o a.h.org=/x/y",
        "p GET a.h.org=/x/y",
        "q GET a.h.org=/x/y @0",
    ];
    for count in 1..=texts.len() {
        let expected = &texts[count - 1][..1];
        let head = "GET /x/y HTTP/1.1\r\nHost: a.h.org";
        let mut some: Vec<_> = texts[..count].to_vec();
        assert_eq!(select(&routes(&some), 0, head), expected);
        some.reverse();
        assert_eq!(select(&routes(&some), 0, head), expected, "whatever their order");
    }
    let routes = routes(&["a @0", "b @1", "c POST"]);
    let select =
        |listener, method| select(&routes, listener, &format!("{method} / HTTP/1.1\r\nHost: h"));
    assert_eq!([select(0, "GET"), select(1, "GET"), select(2, "GET")], ["a", "b", "no-route"]);
    assert_eq!([select(1, "POST"), select(1, "post")], ["c", "b"]);
}

#[test]
fn a_path_that_readers_disagree_on_is_refused_where_that_matters() {
    check(
        &["a /api", "b /admin", "c =/api/one", "d"],
        &[
            // All readers agree on the route.
            ("GET h /api/%7Euser/a%2Fb", "a"),
            ("GET h /api/x//y", "a"),
            ("GET h /api/x;v=1/y", "a"),
            ("GET h /api/100%25", "a"),
            ("GET h /x%20y/.well-known/z", "d"),
            ("GET h /x/a..b/...", "d"),
            ("GET h /x%zz%", "d"),
            // They do not.
            ("GET h /%61pi", "request-path-ambiguous"),
            ("GET h /%2561pi", "request-path-ambiguous"),
            ("GET h //api", "request-path-ambiguous"),
            ("GET h /api%2Fx", "request-path-ambiguous"),
            ("GET h /api;x", "request-path-ambiguous"),
            ("GET h /x\\..\\api", "request-path-ambiguous"),
            ("GET h /api/one;x", "request-path-ambiguous"),
            ("GET h /api/one%3Fx", "request-path-ambiguous"),
            ("GET h /api/one;x%2Fy", "request-path-ambiguous"),
            ("GET h /%5Capi", "request-path-ambiguous"),
            ("GET h /api/..", "request-path-ambiguous"),
            ("GET h /api/../admin", "request-path-ambiguous"),
            ("GET h /api/%2e%2E/admin", "request-path-ambiguous"),
            ("GET h /api/.%2e;x/admin", "request-path-ambiguous"),
            ("GET h /api/./x", "request-path-ambiguous"),
            ("GET h /api/%252e%252e/admin", "request-path-ambiguous"),
            ("GET h /api/%c0%ae%c0%ae/admin", "request-path-ambiguous"),
            ("GET h /api/%e0%80%ae%e0%80%ae/admin", "request-path-ambiguous"),
            ("GET h /api%f0%80%80%afadmin", "request-path-ambiguous"),
            ("GET h /admin%00x", "request-path-ambiguous"),
            ("GET h http://h/api/../admin", "request-path-ambiguous"),
        ],
    );
    // Where no path matters, each goes on as it came.
    check(&["a h", "b"], &[("GET h /api/../admin", "a"), ("GET x //%2e%2e/", "b")]);
}

#[test]
fn the_front_of_a_path_is_rewritten() {
    check(
        &["a /api > /v1", "b /strip > /", "c /in/ > /out/", "d =/old > /new", "e > /all"],
        &[
            ("GET h /api/x?y=/api", "a /v1/x?y=/api"),
            ("GET h /api", "a /v1"),
            ("GET h /api?x", "a /v1?x"),
            ("GET h /api/", "a /v1/"),
            ("GET h http://h/api/x", "a /v1/x"),
            ("GET h /strip", "b /"),
            ("GET h /strip?x", "b /?x"),
            ("GET h /strip/", "b /"),
            ("GET h /strip/x", "b /x"),
            ("GET h /in/x", "c /out/x"),
            ("GET h /old?x", "d /new?x"),
            ("GET h /x", "e /all/x"),
            ("GET h /", "e /all/"),
            ("GET h http://h", "e /all"),
            ("GET h http://h?x", "e /all?x"),
            ("OPTIONS h *", "e"),
            ("CONNECT h h:80", "e"),
        ],
    );
    // Nothing leaves the prefix that it gets, also where no route has a path.
    check(
        &["a a.example > /tenants/a", "b b.example > /tenants/b"],
        &[
            ("GET a.example /x", "a /tenants/a/x"),
            ("GET a.example /../b/x", "request-path-ambiguous"),
            ("GET a.example /%2e%2e/b/x", "request-path-ambiguous"),
        ],
    );
}

fn check_redirect(target: &str, rewrite: Option<&str>, rows: &[(&str, &str)]) {
    let mut route = route("a /from");
    route.path = if rewrite.is_some() { route.path } else { PathMatch::Any };
    route.rewrite = rewrite.map(|it| plain_prefix(it).unwrap());
    route.action = Action::Redirect(Redirect::parse(308, target).unwrap());
    let routes = Routes::new(&[route], |_| None);
    for (head, expected) in rows {
        assert_eq!(select(&routes, 0, head), *expected, "{head} to {target}");
    }
}

#[test]
fn a_redirect_keeps_what_its_target_names() {
    check_redirect(
        "https://{host}{path}{query}",
        None,
        &[
            ("GET /a%20b?c=d HTTP/1.1\r\nHost: h:80", "https://h/a%20b?c=d"),
            ("GET //evil/ HTTP/1.1\r\nHost: [::1]:80", "https://[::1]//evil/"),
            ("GET http://o:1?q HTTP/1.1\r\nHost: h", "https://o/?q"),
            ("OPTIONS * HTTP/1.1\r\nHost: h", "https://h/"),
            ("CONNECT h:80 HTTP/1.1\r\nHost: h:80", "https://h/"),
            ("GET / HTTP/1.0", "host-missing"),
            ("GET / HTTP/1.1\r\nHost:", "host-missing"),
        ],
    );
    check_redirect(
        "https://o.org{path}",
        Some("/to"),
        &[("GET /from/x?y HTTP/1.1\r\nHost: h", "https://o.org/to/x")],
    );
}

#[test]
fn a_path_cannot_lead_a_redirect_to_another_host_or_into_another_parameter() {
    check_redirect(
        "{path}{query}",
        None,
        &[
            ("GET //evil/x?y HTTP/1.1\r\nHost: h", "/evil/x?y"),
            ("GET /\\/evil HTTP/1.1\r\nHost: h", "/evil"),
            ("GET / HTTP/1.1\r\nHost: h", "/"),
        ],
    );
    check_redirect(
        "/login?to={path}{query}",
        None,
        &[("GET /a&b=c?d HTTP/1.1\r\nHost: h", "/login?to=%2Fa%26b%3Dc%3Fd")],
    );
}

/// One of the readers that a path may meet.
fn read(path: &str, decodes: u32, merges: bool, cuts: bool, turns: bool) -> String {
    let mut path = path.as_bytes().to_vec();
    for _ in 0..decodes {
        let (mut out, mut rest) = (Vec::new(), &path[..]);
        while let Some((byte, after)) = rest.split_first() {
            let code = (*byte == b'%').then(|| after.get(..2)).flatten();
            let code =
                code.and_then(|it| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok());
            out.push(code.unwrap_or(*byte));
            rest = if code.is_some() { &after[2..] } else { after };
        }
        path = out;
    }
    let text = String::from_utf8_lossy(&path).into_owned();
    let text = if turns { text.replace('\\', "/") } else { text };
    let text = if decodes > 0 { text.split('?').next().unwrap().to_owned() } else { text };
    let segments =
        text.split('/').skip(1).map(|it| if cuts { it.split(';').next().unwrap() } else { it });
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = segments.collect();
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        match *segment {
            "" if merges && !is_last => {}
            "." if !is_last => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn whoever_reads_a_path_finds_the_route_that_was_taken(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "/", "/", "/", "a", "b", "%61", "%2561", "%2f", "%5c", "\\", ";", "%3b", "..", ".",
                "%2e", "%3f", "%25", "x", "%",
            ]),
            0..8,
        ),
        decodes in 0..3u32, merges: bool, cuts: bool, turns: bool,
    ) {
        let routes = routes(&["a /a", "b /a/b", "c =/a", "d =/", "e /b", "f =/a/b/", "g"]);
        let path = format!("/{}", pieces.concat());
        let taken = select(&routes, 0, &format!("GET {path} HTTP/1.1\r\nHost: h"));
        if taken != "request-path-ambiguous" {
            let read = read(&path, decodes, merges, cuts, turns);
            let host = Host::of(b"h");
            let reading = Some(Reading::as_it_came(read.as_bytes()));
            let found = routes.rules.iter().find(|it| it.takes(0, &host, reading, "GET")).unwrap();
            let found = char::from(b'a' + u8::try_from(found.pool.unwrap().0).unwrap());
            prop_assert_eq!(taken, found.to_string(), "{} read as {}", path, read);
        }
    }
}
