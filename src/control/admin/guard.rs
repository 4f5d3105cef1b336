//! Who may ask the admin API what: the token, and what keeps web pages away from it.
//!
//! A page that the operator's browser shows can send requests to loopback. So a name in `Host` must
//! be expected (a page whose name was made to resolve to this address has another one), nothing is
//! changed for a foreign `Origin`, and what changes something says that it is JSON, which a form
//! cannot. Pure but for its count of refusals; called by `serve` for each request.

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Version};
use subtle::ConstantTimeEq;

use super::problem::{Kind, Problem};
use crate::config::{AdminAddr, AdminConfig, Token};

/// The rules for one socket.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Token>,
    hosts: Vec<String>,
    /// Whether browsers can reach it.
    is_tcp: bool,
}

impl Guard {
    pub(super) fn new(config: &AdminConfig) -> Guard {
        Guard {
            token: config.token.clone(),
            hosts: config.hosts.clone(),
            is_tcp: matches!(config.listen, AdminAddr::Tcp(_)),
        }
    }

    /// Whether the request may be answered.
    pub(super) fn check(&self, request: &Parts) -> Result<(), Problem> {
        self.check_host(request)?;
        if !request.method.is_safe() {
            self.check_origin(&request.headers)?;
        }
        self.check_token(request)?;
        check_content_type(request)
    }

    fn check_host(&self, request: &Parts) -> Result<(), Problem> {
        let mut hosts = request.headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            // Only a browser can be led astray, and each sends one.
            (None, _) if request.version == Version::HTTP_10 => return Ok(()),
            (None, _) => return Err(Problem::new(Kind::Malformed, "Host is missing; send one")),
            (Some(_), Some(_)) => {
                return Err(Problem::new(Kind::Malformed, "there are two Hosts; send one"));
            }
            (Some(host), None) => host.to_str().ok().and_then(|host| host.parse().ok()),
        };
        let asked = request.uri.authority().or(host.as_ref());
        let both = [host.as_ref(), asked];
        if !self.is_tcp || both.iter().all(|host| host.is_some_and(|host| self.is_expected(host))) {
            return Ok(());
        }
        Err(Problem::new(
            Kind::HostForeign,
            "ask by an IP address or localhost, or start corelane with --admin-host and this name",
        ))
    }

    /// An address cannot be made to mean another machine, as a name can.
    fn is_expected(&self, host: &Authority) -> bool {
        // A user before the host, or no number behind it, is nothing that anybody sends.
        let port = host.as_str().strip_prefix(host.host());
        if !port.is_some_and(|port| port.is_empty() || host.port_u16().is_some()) {
            return false;
        }
        let name = host.host().to_ascii_lowercase();
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        literal.unwrap_or(&name).parse::<std::net::IpAddr>().is_ok()
            || name == "localhost"
            || self.hosts.contains(&name)
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let is_ours = |origin: &str| {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            let named = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            named.is_some() && named == host
        };
        let origins = headers.get_all(ORIGIN).iter();
        let mut foreign = origins.filter(|origin| !origin.to_str().is_ok_and(is_ours));
        let is_cross_site =
            headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"cross-site");
        if foreign.next().is_none() && !is_cross_site {
            return Ok(());
        }
        Err(Problem::new(
            Kind::OriginForeign,
            "ask from the dashboard of this address, or without Origin, as curl does",
        ))
    }

    fn check_token(&self, request: &Parts) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        if is_public(request) {
            return Ok(());
        }
        let Some(given) = request.headers.get(AUTHORIZATION) else {
            let detail = "send the content of --admin-token-file: Authorization: Bearer TOKEN";
            return Err(Problem::new(Kind::TokenMissing, detail));
        };
        let given = given.as_bytes();
        let (scheme, rest) = given.split_at(SCHEME.len().min(given.len()));
        let is_right = scheme.eq_ignore_ascii_case(SCHEME)
            && bool::from(rest.trim_ascii().ct_eq(token.as_bytes()));
        if is_right {
            return Ok(());
        }
        let detail = "send the content of --admin-token-file as it was when corelane started: \
                      Authorization: Bearer TOKEN";
        Err(Problem::new(Kind::TokenWrong, detail))
    }
}

/// Whether anybody may ask for it.
pub(super) fn is_public(request: &Parts) -> bool {
    request.method.is_safe() && PUBLIC.contains(&request.uri.path())
}

/// Demands JSON of what has a body and changes something.
fn check_content_type(request: &Parts) -> Result<(), Problem> {
    if !matches!(request.method, Method::POST | Method::PUT | Method::PATCH) {
        return Ok(());
    }
    let given = request.headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok());
    let essence = given.and_then(|given| given.split(';').next()).map(str::trim);
    let is_json = |essence: &str| {
        essence.eq_ignore_ascii_case("application/json")
            || essence.eq_ignore_ascii_case("application/merge-patch+json")
    };
    if essence.is_some_and(is_json) {
        return Ok(());
    }
    Err(Problem::new(Kind::NoJson, "send Content-Type: application/json, even without a body"))
}

/// What needs no token: whether the process is well, and the page that asks for the token.
const PUBLIC: [&str; 3] = ["/", "/healthz", "/readyz"];
const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::config::AdminWrites;

    const TOKEN: &str = "0123456789abcdef";

    fn guard(token: Option<&str>, hosts: &[&str], listen: &str) -> Guard {
        let listen = match listen.strip_prefix("unix:") {
            Some(path) => AdminAddr::Unix(path.into()),
            None => AdminAddr::Tcp(listen.parse().unwrap()),
        };
        Guard::new(&AdminConfig {
            listen,
            token: token.map(|token| Token::new(token).unwrap()),
            hosts: hosts.iter().map(ToString::to_string).collect(),
            writes: AdminWrites::Local,
        })
    }

    #[track_caller]
    fn check(guard: &Guard, line: &str, headers: &[(&str, &str)], expected: Option<Kind>) {
        let (method, target) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let kind = guard.check(&parts).err().map(|problem| problem.kind);
        assert_eq!(kind, expected, "{line} {headers:?}");
    }

    #[test]
    fn a_name_that_is_not_expected_is_refused() {
        let guard = guard(None, &["lb.example"], "127.0.0.1:9900");
        let foreign = Some(Kind::HostForeign);
        for (host, expected) in [
            ("127.0.0.1:9900", None),
            ("localhost:9900", None),
            ("LOCALHOST", None),
            ("[::1]:9900", None),
            ("10.1.2.3:9900", None),
            ("lb.example", None),
            ("LB.example:80", None),
            ("evil.example", foreign),
            ("evil.example:9900", foreign),
            ("127.0.0.1.evil.example", foreign),
            ("localhost.evil.example", foreign),
            ("evil@127.0.0.1", foreign),
            ("127.0.0.1:", foreign),
            ("127.0.0.1:port", foreign),
            ("", foreign),
        ] {
            check(&guard, "GET /api/v1/status", &[("Host", host)], expected);
        }
        check(&guard, "GET /api/v1/status", &[], Some(Kind::Malformed));
        let twice = [("Host", "127.0.0.1"), ("Host", "127.0.0.1")];
        check(&guard, "GET /healthz", &twice, Some(Kind::Malformed));
        check(&guard, "GET http://evil.example/", &[("Host", "127.0.0.1")], foreign);
    }

    #[test]
    fn no_browser_reaches_a_unix_socket_so_any_name_will_do() {
        let guard = guard(None, &[], "unix:/run/corelane.sock");
        check(&guard, "GET /api/v1/status", &[("Host", "corelane")], None);
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let guard = guard(None, &[], "127.0.0.1:9900");
        let host = ("Host", "127.0.0.1:9900");
        let json = ("Content-Type", "application/json");
        let foreign = Some(Kind::OriginForeign);
        for (origin, expected) in [
            ("http://127.0.0.1:9900", None),
            ("https://127.0.0.1:9900", None),
            ("http://127.0.0.1:9901", foreign),
            ("http://127.0.0.1", foreign),
            ("http://evil.example", foreign),
            ("null", foreign),
            ("", foreign),
        ] {
            check(&guard, "POST /api/v1/drain", &[host, json, ("Origin", origin)], expected);
            check(&guard, "DELETE /x", &[host, ("Origin", origin)], expected);
            check(&guard, "GET /api/v1/status", &[host, ("Origin", origin)], None);
        }
        check(&guard, "POST /x", &[host, json, ("Sec-Fetch-Site", "cross-site")], foreign);
        check(&guard, "POST /x", &[host, json, ("Sec-Fetch-Site", "same-origin")], None);
    }

    #[test]
    fn a_token_is_demanded_where_there_is_one() {
        let guard = guard(Some(TOKEN), &[], "0.0.0.0:9900");
        let host = ("Host", "127.0.0.1:9900");
        let status = "GET /api/v1/status";
        check(&guard, status, &[host], Some(Kind::TokenMissing));
        for (given, expected) in [
            ("Bearer 0123456789abcdef", None),
            ("bearer 0123456789abcdef", None),
            ("Bearer 0123456789abcdeF", Some(Kind::TokenWrong)),
            ("Bearer 0123456789abcde", Some(Kind::TokenWrong)),
            ("Bearer 0123456789abcdef0", Some(Kind::TokenWrong)),
            ("Basic 0123456789abcdef", Some(Kind::TokenWrong)),
            ("0123456789abcdef", Some(Kind::TokenWrong)),
            ("Bearer", Some(Kind::TokenWrong)),
            ("", Some(Kind::TokenWrong)),
        ] {
            check(&guard, status, &[host, ("Authorization", given)], expected);
        }
        for path in PUBLIC {
            check(&guard, &format!("GET {path}"), &[host], None);
            check(&guard, &format!("POST {path}"), &[host], Some(Kind::TokenMissing));
        }
    }

    #[test]
    fn what_changes_something_says_that_it_is_json() {
        let guard = guard(None, &[], "127.0.0.1:9900");
        let host = ("Host", "127.0.0.1:9900");
        for (given, expected) in [
            ("application/json", None),
            ("application/json; charset=utf-8", None),
            ("Application/JSON", None),
            ("application/merge-patch+json", None),
            ("text/plain", Some(Kind::NoJson)),
            ("application/x-www-form-urlencoded", Some(Kind::NoJson)),
            ("", Some(Kind::NoJson)),
        ] {
            check(&guard, "PATCH /x", &[host, ("Content-Type", given)], expected);
        }
        check(&guard, "POST /x", &[host], Some(Kind::NoJson));
        check(&guard, "DELETE /x", &[host], None);
    }
}
