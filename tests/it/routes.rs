//! Routes: whom they take, rewritten paths, redirects byte by byte, and what no route takes.

use crate::answers::check_own_answer;
use crate::support::Scratch;
use crate::support::proxy::{Flags, Proxy};
use crate::support::upstream::{Upstream, ok};

/// A backend that answers with its name and the request's target.
fn named(name: &'static str) -> Upstream {
    Upstream::scripted(move |served| {
        while let Some(request) = served.request() {
            let is_head = request.head.method() == "HEAD";
            served.write(&ok(&format!("{name} {}", request.head.target()), is_head));
        }
    })
}

/// A proxy on two listeners with these routes to the pools `a`, `b` and `c`.
fn start(upstreams: &[Upstream; 3], routes: &str) -> (Proxy, Scratch) {
    let scratch = Scratch::new("routes");
    let mut text = String::new();
    for (name, upstream) in ["a", "b", "c"].iter().zip(upstreams) {
        text += &format!("[[pools]]\nname = \"{name}\"\nbackends = [\"{}\"]\n", upstream.url());
    }
    std::fs::write(scratch.join("lane.toml"), text + routes).unwrap();
    let config = scratch.join("lane.toml").display().to_string();
    let flags = Flags::to(&[]).and("--listen", "127.0.0.2:0").with("--config", &config);
    (flags.start(), scratch)
}

const ROUTES: &str = r#"
[[routes]]
host = "example.org"
pool = "a"

[[routes]]
host = "*.example.org"
pool = "b"

[[routes]]
host = "example.org"
path-prefix = "/api"
rewrite-prefix = "/v1"
pool = "c"

[[routes]]
host = "example.org"
path = "/api/one"
pool = "a"

[[routes]]
host = "example.org"
path-prefix = "/api"
method = "POST"
pool = "b"

[[routes]]
listener = "127.0.0.2:0"
path-prefix = "/inner"
rewrite-prefix = "/"
pool = "c"

[[routes]]
path-prefix = "/old"
rewrite-prefix = "/new"
redirect = "https://{host}{path}{query}"
status = 308

[[routes]]
path = "/login"
redirect = "{path}?back={path}{query}"
"#;

#[test]
fn the_most_specific_route_takes_a_request_and_its_path_is_rewritten() {
    let upstreams = [named("a"), named("b"), named("c")];
    let (mut proxy, _scratch) = start(&upstreams, ROUTES);
    let cases = [
        (0, "GET", "example.org", "/", "a /"),
        (0, "GET", "EXAMPLE.ORG:8080", "/x?y", "a /x?y"),
        (0, "GET", "other", "http://example.org/x", "a /x"),
        (0, "GET", "www.example.org", "/api", "b /api"),
        (0, "GET", "example.org", "/api", "c /v1"),
        (0, "GET", "example.org", "/api/x?y=/api", "c /v1/x?y=/api"),
        (0, "GET", "example.org", "/apix", "a /apix"),
        (0, "GET", "example.org", "/api/one", "a /api/one"),
        (0, "POST", "example.org", "/api/x", "b /api/x"),
        (1, "GET", "t", "/inner", "c /"),
        (1, "GET", "t", "/inner/x?y", "c /x?y"),
        (1, "GET", "t", "http://t/inner/x", "c /x"),
        (0, "OPTIONS", "example.org", "*", "a *"),
    ];
    let mut clients =
        [0, 1].map(|listener| crate::support::client::Client::connect(proxy.addrs()[listener]));
    for (listener, method, host, target, expected) in cases {
        let client: &mut crate::support::client::Client = &mut clients[listener];
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.read_response(method).expect(200).text(), expected, "{host} {target}");
    }
    drop(clients);
    proxy.drain();
}

#[test]
fn what_no_route_takes_gets_404_and_an_ambiguous_path_400() {
    let upstreams = [named("a"), named("b"), named("c")];
    let (mut proxy, _scratch) = start(&upstreams, ROUTES);
    let mut client = proxy.client();
    for target in ["/", "/inner", "/login/x", "*"] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let none = client.read_response("OPTIONS");
        check_own_answer(&none, 404, "destination_not_found", "no-route");
    }
    for target in ["/api/../x", "/x/%2e%2e/api", "/%61pi", "//api", "/api;x", "/x\\..\\api"] {
        let mut client = proxy.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: example.org\r\n\r\n"));
        let refused = client.read_response("GET");
        check_own_answer(&refused, 400, "http_request_error", "request-path-ambiguous");
        client.expect_close();
    }
    assert!(upstreams.iter().all(|it| it.request_count() == 0));
    drop(client);
    proxy.drain();
}

#[test]
fn a_redirect_is_one_answer_that_keeps_the_connection() {
    let upstreams = [named("a"), named("b"), named("c")];
    let (mut proxy, _scratch) = start(&upstreams, ROUTES);
    let cases = [
        (
            "GET /old/x?y=%0d%0aSet-Cookie:z HTTP/1.1\r\nHost: h:80\r\n\r\n",
            308,
            "https://h/new/x?y=%0d%0aSet-Cookie:z",
        ),
        ("POST /old HTTP/1.1\r\nHost: H\r\nContent-Length: 3\r\n\r\nabc", 308, "https://H/new"),
        ("GET /old?q HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 308, "https://[::1]/new?q"),
        ("GET /login?a&b HTTP/1.1\r\nHost: h\r\n\r\n", 302, "/login?back=%2Flogin%3Fa%26b"),
    ];
    let mut client = proxy.client();
    for (request, status, location) in cases {
        client.send(request);
        let moved = client.read_response("GET").expect(status);
        assert_eq!(moved.get("location"), Some(location));
        assert_eq!(moved.get("proxy-status"), Some("corelane; details=\"redirect\""));
        assert!(moved.text().starts_with(&status.to_string()));
    }
    client.send("HEAD /login HTTP/1.0\r\n\r\n");
    let moved = client.read_response("HEAD").expect(302);
    assert_eq!(moved.get("location"), Some("/login?back=%2Flogin"));
    client.expect_close();
    let mut client = proxy.client();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    assert!(client.read_response("GET").get("proxy-status").unwrap().contains("host-missing"));
    proxy.drain();
}
