//! Which pool a request goes to, or where it is redirected. Pure: called once a request, after its
//! head was parsed.
//!
//! Of the routes that take a request the most specific one counts: by host, then path, then
//! method, then listener. A path that another reader may take for another one (RFC 3986 §6) is
//! refused where it would make a difference.

mod reading;

use std::cmp::Reverse;
use std::net::Ipv6Addr;

use crate::config::{Action, Escape, HostMatch, Part, PathMatch, Piece, Redirect, RouteConfig};
use crate::error::Cause;
use crate::http1::request::{RequestHead, Target};
use reading::{Reading, is_below, is_plain};

/// The index of a pool in the snapshot it was read from, and in later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolId(pub usize);

/// All routes, the most specific first.
#[derive(Debug)]
pub struct Routes {
    rules: Vec<Rule>,
    /// Where everything goes, if that is all there is.
    only: Option<PoolId>,
    /// Whether paths matter,
    by_path: bool,
    /// and hosts.
    by_host: bool,
}

#[derive(Debug)]
struct Rule {
    config: RouteConfig,
    /// Where it leads, if not elsewhere.
    pool: Option<PoolId>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum Way<'r> {
    /// To a pool; the target is rewritten, if it says so.
    Pool(PoolId, Option<Rewrite<'r>>),
    /// To wherever the client is sent.
    Redirect(&'r Redirect, Option<Rewrite<'r>>),
}

/// How the front of a path is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite<'r> {
    /// Bytes that are taken away.
    pub strip: usize,
    /// What stands there instead: a path without a slash at its end.
    pub by: &'r str,
}

impl Routes {
    /// The routes of a configuration; `pool_of` finds the pool of a name.
    ///
    /// A route to a pool that there is not is left out.
    #[must_use]
    pub fn new(routes: &[RouteConfig], pool_of: impl Fn(&str) -> Option<PoolId>) -> Routes {
        let mut rules: Vec<Rule> = routes
            .iter()
            .filter_map(|config| match &config.action {
                Action::Pool(name) => {
                    let pool = Some(pool_of(name)?);
                    Some(Rule { config: config.clone(), pool })
                }
                Action::Redirect(_) => Some(Rule { config: config.clone(), pool: None }),
            })
            .collect();
        rules.sort_by_key(|rule| Reverse(rule.rank()));
        let only = match &rules[..] {
            [Rule { config, pool }] if config.rewrite.is_none() && config.takes_all() => *pool,
            _ => None,
        };
        Routes {
            only,
            // A rewrite too: a path with dot segments would leave the prefix that it gets.
            by_path: rules
                .iter()
                .any(|rule| rule.config.path != PathMatch::Any || rule.config.rewrite.is_some()),
            by_host: rules.iter().any(|rule| rule.config.host != HostMatch::Any),
            rules,
        }
    }

    /// The routes in the order in which they are tried.
    pub fn configs(&self) -> impl Iterator<Item = &RouteConfig> {
        self.rules.iter().map(|rule| &rule.config)
    }

    /// Everything goes to the first pool.
    #[must_use]
    pub fn to_first() -> Routes {
        Routes::new(&[RouteConfig::catch_all()], |_| Some(PoolId(0)))
    }

    /// Where a request goes that came in on this listener (its index in `Config::listeners`).
    /// `space` is overwritten where it is needed.
    ///
    /// # Errors
    /// `NoRoute`, or `RequestPathAmbiguous` or `HostInvalid` for what could be read in two ways.
    pub fn select(
        &self,
        listener: usize,
        head: &RequestHead<'_, '_>,
        space: &mut Vec<u8>,
    ) -> Result<Way<'_>, Cause> {
        match self.only {
            Some(pool) => Ok(Way::Pool(pool, None)),
            None => self.search(listener, head, space),
        }
    }

    fn search(
        &self,
        listener: usize,
        head: &RequestHead<'_, '_>,
        space: &mut Vec<u8>,
    ) -> Result<Way<'_>, Cause> {
        let host = Host::of(head.host.unwrap_or_default());
        if self.by_host && host.name.contains(&b'%') {
            return Err(Cause::HostInvalid);
        }
        let path = path_of(head).map(str::as_bytes);
        let find = |reading: Option<Reading<'_>>| {
            self.rules.iter().position(|rule| rule.takes(listener, &host, reading, head.method))
        };
        let found = find(path.map(Reading::as_it_came));
        if let Some(path) = path
            && self.by_path
            && !is_plain(path)
        {
            // What a reader makes of it who resolves all that can be resolved; all others see
            // something between the two.
            let resolved = reading::resolve(path, space).ok_or(Cause::RequestPathAmbiguous)?;
            if find(Some(resolved)) != found {
                return Err(Cause::RequestPathAmbiguous);
            }
        }
        let rule = found.and_then(|index| self.rules.get(index)).ok_or(Cause::NoRoute)?;
        let strip = match (&rule.config.path, path) {
            (_, None) => None,
            (PathMatch::Any, Some(_)) => Some(0),
            (PathMatch::Prefix(text) | PathMatch::Exact(text), Some(_)) => Some(text.len()),
        };
        let rewrite = strip.zip(rule.config.rewrite.as_deref());
        let rewrite = rewrite.map(|(strip, by)| Rewrite { strip, by });
        match (&rule.config.action, rule.pool) {
            (Action::Redirect(redirect), _) => Ok(Way::Redirect(redirect, rewrite)),
            (Action::Pool(_), Some(pool)) => Ok(Way::Pool(pool, rewrite)),
            (Action::Pool(_), None) => Err(Cause::NoRoute),
        }
    }
}

impl RouteConfig {
    fn takes_all(&self) -> bool {
        self.takes_the_same(&RouteConfig::catch_all())
    }
}

impl Rule {
    /// How specific it is.
    fn rank(&self) -> impl Ord + use<> {
        let config = &self.config;
        let host = match &config.host {
            HostMatch::Any => (0, 0),
            HostMatch::Below(suffix) => (1, suffix.len()),
            HostMatch::Address(_) | HostMatch::Exact(_) => (2, 0),
        };
        let path = match &config.path {
            PathMatch::Any => (0, 0),
            PathMatch::Prefix(prefix) => (1, prefix.len()),
            PathMatch::Exact(_) => (2, 0),
        };
        (host, path, config.method.is_some(), config.listener.is_some())
    }

    fn takes(
        &self,
        listener: usize,
        host: &Host<'_>,
        path: Option<Reading<'_>>,
        method: &str,
    ) -> bool {
        let config = &self.config;
        let is_path = match (&config.path, path) {
            (PathMatch::Any, _) => true,
            (_, None) => false,
            (PathMatch::Prefix(prefix), Some(path)) => is_below(path.path, prefix.as_bytes()),
            (PathMatch::Exact(exact), Some(path)) => path.may_be(exact.as_bytes()),
        };
        is_path
            && config.listener.is_none_or(|it| it == listener)
            && config.method.as_ref().is_none_or(|it| it == method)
            && host.is_in(&config.host)
    }
}

/// The host of a request.
struct Host<'b> {
    /// Without port, and without the dot that may end a name (RFC 3986 §3.2.2).
    name: &'b [u8],
    /// What it is, if that is an IPv6 address.
    address: Option<Ipv6Addr>,
}

impl<'b> Host<'b> {
    fn of(authority: &'b [u8]) -> Host<'b> {
        let name = host_of(authority);
        let literal = name.strip_prefix(b"[").and_then(|it| it.strip_suffix(b"]"));
        let address = literal.and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
        Host { name: name.strip_suffix(b".").unwrap_or(name), address }
    }

    fn is_in(&self, hosts: &HostMatch) -> bool {
        match hosts {
            HostMatch::Any => true,
            HostMatch::Exact(name) => self.name.eq_ignore_ascii_case(name.as_bytes()),
            HostMatch::Address(address) => self.address.as_ref() == Some(address),
            HostMatch::Below(suffix) => {
                let front = self.name.len().checked_sub(suffix.len());
                let end = front.filter(|front| *front > 0).and_then(|front| self.name.get(front..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
            }
        }
    }
}

/// An authority without its port.
fn host_of(authority: &[u8]) -> &[u8] {
    let from =
        if authority.starts_with(b"[") { memchr::memchr(b']', authority).unwrap_or(0) } else { 0 };
    let colon = authority.get(from..).and_then(|it| memchr::memchr(b':', it));
    colon.and_then(|colon| authority.get(..from + colon)).unwrap_or(authority)
}

/// The path of a request as it is forwarded; `None` for one that has none (`*`, CONNECT).
fn path_of<'b>(head: &RequestHead<'_, 'b>) -> Option<&'b str> {
    let Target { prefix, rest } = head.target;
    match (prefix, rest) {
        ("", path) if path.starts_with('/') => Some(path.split('?').next().unwrap_or(path)),
        ("/", _) => Some("/"),
        _ => None,
    }
}

impl<'r> Rewrite<'r> {
    /// The target with the front of its path replaced.
    #[must_use]
    pub fn of<'b>(self, target: Target<'b>) -> Target<'b>
    where
        'r: 'b,
    {
        // What stands for the path of an absolute target without one is not in `rest`.
        let strip = if target.prefix.is_empty() { self.strip } else { 0 };
        let rest = target.rest.get(strip..).unwrap_or_default();
        let is_rooted = !self.by.is_empty() || rest.starts_with('/');
        Target { prefix: if is_rooted { self.by } else { "/" }, rest }
    }
}

/// Writes where a redirect sends the client, which holds no byte that could end a header.
///
/// # Errors
/// `HostMissing` where the target names the host of a request that has none.
pub fn write_location(
    redirect: &Redirect,
    rewrite: Option<Rewrite<'_>>,
    head: &RequestHead<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Cause> {
    let has_path = path_of(head).is_some();
    let target = match rewrite {
        _ if !has_path => Target { prefix: "/", rest: "" },
        Some(rewrite) => rewrite.of(head.target),
        None => head.target,
    };
    let (path, query) = target.rest.split_at(target.rest.find('?').unwrap_or(target.rest.len()));
    for piece in &redirect.target {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Part(Part::Host, escape) => {
                let host = host_of(head.host.unwrap_or_default());
                if host.is_empty() {
                    return Err(Cause::HostMissing);
                }
                write_part(&[host], *escape, out);
            }
            Piece::Part(Part::Path, escape) => {
                write_part(&[target.prefix.as_bytes(), path.as_bytes()], *escape, out);
            }
            Piece::Part(Part::Query, escape) => write_part(&[query.as_bytes()], *escape, out),
        }
    }
    Ok(())
}

fn write_part(parts: &[&[u8]], escape: Escape, out: &mut Vec<u8>) {
    let mut bytes = parts.iter().copied().flatten().copied();
    match escape {
        Escape::None => out.extend(bytes),
        Escape::Slashes => {
            out.push(b'/');
            // A browser takes a backslash for a slash.
            let mut rest = bytes.skip_while(|it| matches!(it, b'/' | b'\\')).peekable();
            out.extend(rest.by_ref());
        }
        Escape::All => bytes.by_ref().for_each(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            _ => {
                let digit = |nibble: u8| HEX_DIGITS[usize::from(nibble)];
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }),
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";

#[cfg(test)]
mod tests;
