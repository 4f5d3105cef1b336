//! Routes: which requests go to which pool, and which are redirected.
//!
//! Valid by construction: `upstream::route` can match them without a further check. Read by
//! `cli::file`; flags alone make one that takes everything.

use std::fmt;
use std::net::Ipv6Addr;

use crate::config::DEFAULT_POOL;

/// One route: it takes a request that fits all its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The listener that the request came in on, by its index in `Config::listeners`.
    pub listener: Option<usize>,
    /// The host that it is for.
    pub host: HostMatch,
    /// Its path.
    pub path: PathMatch,
    /// Its method, a token.
    pub method: Option<String>,
    /// What begins the path in place of the route's prefix: a path without a slash at its end,
    /// so empty for the root.
    pub rewrite: Option<String>,
    /// What becomes of it.
    pub action: Action,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes to the pool of this name.
    Pool(String),
    /// It is answered with a redirect.
    Redirect(Redirect),
}

/// A redirect (RFC 9110 §15.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// What `Location` is put together from.
    pub target: Vec<Piece>,
}

/// A piece of a redirect's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Text(String),
    /// A part of the request; escaped where it stands in the target's query.
    Part(Part, Escape),
}

/// What of a request a redirect's target can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The host, without its port.
    Host,
    /// The path, with its prefix rewritten.
    Path,
    /// The question mark and the query, or nothing.
    Query,
}

/// Whether a part of a request is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// It stands as it came.
    None,
    /// All but the unreserved characters are (RFC 3986 §2.3).
    All,
    /// As it came, but with one slash at its front: two would begin a host.
    Slashes,
}

/// The hosts that a route takes, from the vaguest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostMatch {
    /// All.
    Any,
    /// Those below a domain: `.example.org`, in lower case.
    Below(String),
    /// This address.
    Address(Ipv6Addr),
    /// This one, in lower case.
    Exact(String),
}

/// The paths that a route takes, from the vaguest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathMatch {
    /// All, and requests without one.
    Any,
    /// This one and those below it; without a slash at its end.
    Prefix(String),
    /// This one.
    Exact(String),
}

impl RouteConfig {
    /// The route that takes everything to the pool of flags.
    #[must_use]
    pub fn catch_all() -> RouteConfig {
        RouteConfig {
            listener: None,
            host: HostMatch::Any,
            path: PathMatch::Any,
            method: None,
            rewrite: None,
            action: Action::Pool(DEFAULT_POOL.to_owned()),
        }
    }

    /// Whether it takes the same requests as another one.
    #[must_use]
    pub fn takes_the_same(&self, other: &RouteConfig) -> bool {
        self.listener == other.listener && self.differs_in_listener(other)
    }

    /// Whether it takes the same requests as another one, but for the listener.
    #[must_use]
    pub fn differs_in_listener(&self, other: &RouteConfig) -> bool {
        (&self.host, &self.path, &self.method) == (&other.host, &other.path, &other.method)
    }
}

impl HostMatch {
    /// Reads `example.org`, `*.example.org` or `[::1]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<HostMatch, String> {
        if text.len() > HOST_BYTES_MAX {
            return Err(format!("has more than {HOST_BYTES_MAX} bytes"));
        }
        if let Some(literal) = text.strip_prefix('[') {
            let address = literal.strip_suffix(']').and_then(|it| it.parse().ok());
            return address
                .map(HostMatch::Address)
                .ok_or_else(|| "is no [IPv6 address]".to_owned());
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it))
        };
        if !name.split('.').all(is_label) {
            return Err(
                "is no host name: example.org, *.example.org or [::1], without a port".to_owned()
            );
        }
        let name = name.to_ascii_lowercase();
        Ok(if text.starts_with('*') {
            HostMatch::Below(format!(".{name}"))
        } else {
            HostMatch::Exact(name)
        })
    }
}

impl fmt::Display for HostMatch {
    /// As it is read; nothing for all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostMatch::Any => Ok(()),
            HostMatch::Below(name) => write!(f, "*{name}"),
            HostMatch::Address(address) => write!(f, "[{address}]"),
            HostMatch::Exact(name) => f.write_str(name),
        }
    }
}

impl PathMatch {
    /// Reads a prefix; a slash at its end counts for nothing, and `/` takes all.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn prefix(text: &str) -> Result<PathMatch, String> {
        let prefix = plain_prefix(text)?;
        Ok(if prefix.is_empty() { PathMatch::Any } else { PathMatch::Prefix(prefix) })
    }

    /// Reads a whole path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn exact(text: &str) -> Result<PathMatch, String> {
        plain_path(text)?;
        Ok(PathMatch::Exact(text.to_owned()))
    }
}

/// Reads a path that others begin with, without the slash at its end: empty for the root.
///
/// # Errors
/// What is wrong with it.
pub fn plain_prefix(text: &str) -> Result<String, String> {
    plain_path(text)?;
    Ok(text.strip_suffix('/').unwrap_or(text).to_owned())
}

/// Refuses a path that could be read in two ways.
fn plain_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err("does not begin with /".to_owned());
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("has more than {PATH_BYTES_MAX} bytes"));
    }
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"/-._~!$&'()*+,=:@".contains(&it);
    if let Some(odd) = text.bytes().find(|it| !is_plain(*it)) {
        let odd = char::from(odd).escape_default();
        return Err(format!("holds a {odd}; letters, digits and -._~!$&'()*+,=:@ may stand there"));
    }
    if text.contains("//") || text.split('/').any(|it| it == "." || it == "..") {
        return Err("has an empty segment, or one of dots".to_owned());
    }
    Ok(())
}

impl Redirect {
    /// Reads a status and a target with `{host}`, `{path}` and `{query}`.
    ///
    /// # Errors
    /// What is wrong with the target.
    pub fn parse(status: u16, target: &str) -> Result<Redirect, String> {
        if target.len() > PATH_BYTES_MAX {
            return Err(format!("has more than {PATH_BYTES_MAX} bytes"));
        }
        if let Some(odd) =
            target.chars().find(|it| !it.is_ascii_graphic() || "\"<>\\^`|".contains(*it))
        {
            return Err(format!("holds a {}, which has no place in a URL", odd.escape_default()));
        }
        let (mut pieces, mut rest, mut is_in_query) = (Vec::new(), target, false);
        while let Some((text, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("has a { without its }")?;
            is_in_query |= text.contains('?');
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
            let part = match name {
                "host" => Part::Host,
                "path" => Part::Path,
                "query" => Part::Query,
                _ => return Err(format!("{{{name}}} is none of {{host}}, {{path}} and {{query}}")),
            };
            let escape = match part {
                _ if is_in_query => Escape::All,
                Part::Path if pieces.is_empty() => Escape::Slashes,
                _ => Escape::None,
            };
            pieces.push(Piece::Part(part, escape));
            rest = after;
        }
        if rest.contains('}') {
            return Err("has a } without its {".to_owned());
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let begins_well =
            ["http://", "https://", "/", "{path}"].iter().any(|it| target.starts_with(it));
        // What follows the scheme is a host, never what a request holds as its path.
        let has_host = target.split_once("://").is_none_or(|(_, host)| {
            host.starts_with("{host}")
                || host.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '[')
        });
        let is_rooted_twice = target.starts_with("//") || target.starts_with("/{path}");
        if !begins_well || !has_host || is_rooted_twice {
            return Err("begins with none of http://, https://, /PATH and {path}".to_owned());
        }
        Ok(Redirect { status, target: pieces })
    }
}

impl fmt::Display for Redirect {
    /// The target, as it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Part(Part::Host, _) => f.write_str("{host}"),
            Piece::Part(Part::Path, _) => f.write_str("{path}"),
            Piece::Part(Part::Query, _) => f.write_str("{query}"),
        })
    }
}

/// The most routes of a process: they are looked through one by one.
pub const ROUTES_MAX: usize = 256;
/// The most pools of a process.
pub const POOLS_MAX: usize = 64;
/// The statuses of redirects.
pub const REDIRECT_STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
/// The most bytes of a route's path, and of a redirect's target.
const PATH_BYTES_MAX: usize = 1024;
/// The most bytes of a host name (RFC 1035 §2.3.4), with what stands for those below it.
const HOST_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_wildcards_or_addresses() {
        for (text, expected) in [
            ("Example.ORG", Ok(HostMatch::Exact("example.org".to_owned()))),
            ("*.example.org", Ok(HostMatch::Below(".example.org".to_owned()))),
            ("10.0.0.1", Ok(HostMatch::Exact("10.0.0.1".to_owned()))),
            ("[0:0::1]", Ok(HostMatch::Address(Ipv6Addr::LOCALHOST))),
            ("example.org:80", Err("no host name")),
            ("*", Err("no host name")),
            ("*.*.org", Err("no host name")),
            ("a..b", Err("no host name")),
            ("", Err("no host name")),
            ("[::1", Err("IPv6")),
        ] {
            match (HostMatch::parse(text), expected) {
                (Err(error), Err(reason)) => assert!(error.contains(reason), "{text}: {error}"),
                (found, expected) => assert_eq!(found.map_err(|_| "refused"), expected, "{text}"),
            }
        }
    }

    #[test]
    fn paths_can_be_read_in_one_way_only() {
        assert_eq!(PathMatch::prefix("/"), Ok(PathMatch::Any));
        assert_eq!(PathMatch::prefix("/api/"), Ok(PathMatch::Prefix("/api".to_owned())));
        assert_eq!(PathMatch::exact("/api/"), Ok(PathMatch::Exact("/api/".to_owned())));
        for odd in
            ["", "api", "/a//b", "/a/../b", "/a/.", "/%61", "/a;b", "/a?b", "/a#b", "/ä", "/a b"]
        {
            assert!(PathMatch::prefix(odd).is_err(), "{odd}");
            assert!(PathMatch::exact(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn targets_of_redirects_name_their_host_or_stay_on_theirs() {
        for odd in [
            "",
            "example.org",
            "//example.org",
            "/{path}",
            "{host}/",
            "{query}",
            "ftp://a",
            "javascript:x",
            "https://a/{rest}",
            "https://a/{path",
            "https://a/}",
            "https://a/\r\nX: y",
            "https://a/ b",
        ] {
            assert!(Redirect::parse(301, odd).is_err(), "{odd}");
        }
        let target = Redirect::parse(308, "https://{host}{path}{query}").map(|it| it.target);
        let part = |part| Piece::Part(part, Escape::None);
        let expected = [
            Piece::Text("https://".to_owned()),
            part(Part::Host),
            part(Part::Path),
            part(Part::Query),
        ];
        assert_eq!(target, Ok(expected.to_vec()));
        let target = Redirect::parse(302, "/login?to={path}").map(|it| it.target);
        let expected = [Piece::Text("/login?to=".to_owned()), Piece::Part(Part::Path, Escape::All)];
        assert_eq!(target, Ok(expected.to_vec()));
    }
}
