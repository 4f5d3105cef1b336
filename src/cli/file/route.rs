//! Routes as a configuration file writes them.

use std::net::SocketAddr;

use toml::de::{DeTable, DeValue};

use crate::cli::file::keys::unknown;
use crate::cli::file::{Reader, value};
use crate::config::{
    Action, HostMatch, PathMatch, REDIRECT_STATUSES, Redirect, RouteConfig, plain_prefix,
};

/// A route of the file.
#[derive(Clone, Debug)]
pub(in crate::cli) struct RouteEntry {
    /// The line it begins on.
    pub(in crate::cli) line: usize,
    /// The listener it names.
    pub(in crate::cli) listener: Option<SocketAddr>,
    /// Its keys and their values as text.
    pub(in crate::cli) texts: Vec<(String, String)>,
    /// All else; its pool may be one that there is not.
    pub(in crate::cli) route: RouteConfig,
}

/// A route's table while it is read.
#[derive(Default)]
struct Draft {
    listener: Option<SocketAddr>,
    host: Option<HostMatch>,
    prefix: Option<PathMatch>,
    path: Option<PathMatch>,
    method: Option<String>,
    pool: Option<String>,
    rewrite: Option<String>,
    redirect: Option<String>,
    status: Option<u16>,
}

impl<'t> Reader<'t> {
    pub(super) fn route(&mut self, line: usize, table: &DeTable<'t>) -> Option<RouteEntry> {
        let (mut draft, mut texts) = (Draft::default(), Vec::new());
        let before = self.problems.len();
        for (key, value) in table {
            let line = self.line_at(key.span().start);
            let read = draft.read(key.get_ref(), value.get_ref());
            self.took(line, read);
            let text = value::scalar(key.get_ref(), value.get_ref()).unwrap_or_default();
            texts.push((key.get_ref().clone().into_owned(), text));
        }
        if self.problems.len() > before {
            return None;
        }
        self.took(line, draft.into_entry(line, texts))
    }
}

impl Draft {
    fn read(&mut self, key: &str, value: &DeValue<'_>) -> Result<(), String> {
        let about = |reason: String| format!("{key} {reason}");
        match key {
            "listener" => {
                let text = value::text(key, value)?;
                let addr = text.parse().map_err(|_no| format!("{key} is no IP:PORT of a listen"));
                self.listener = Some(addr?);
            }
            "host" => {
                self.host = Some(HostMatch::parse(value::text(key, value)?).map_err(about)?);
            }
            "path-prefix" => {
                self.prefix = Some(PathMatch::prefix(value::text(key, value)?).map_err(about)?);
            }
            "path" => self.path = Some(PathMatch::exact(value::text(key, value)?).map_err(about)?),
            "method" => {
                let text = value::text(key, value)?;
                let is_token = !text.is_empty() && text.bytes().all(crate::http1::is_token_byte);
                if !is_token {
                    return Err(format!("{key} is no method, as GET is"));
                }
                self.method = Some(text.to_owned());
            }
            "pool" => self.pool = Some(value::text(key, value)?.to_owned()),
            "rewrite-prefix" => {
                self.rewrite = Some(plain_prefix(value::text(key, value)?).map_err(about)?);
            }
            "redirect" => self.redirect = Some(value::text(key, value)?.to_owned()),
            "status" => {
                let status = value::scalar(key, value)?.parse().ok();
                let status = status.filter(|it| REDIRECT_STATUSES.contains(it));
                let known = REDIRECT_STATUSES.map(|it| it.to_string()).join(", ");
                self.status = Some(status.ok_or_else(|| format!("{key} is none of {known}"))?);
            }
            _ => return Err(unknown(key, "key of a route", KEYS.into_iter())),
        }
        Ok(())
    }

    fn into_entry(self, line: usize, texts: Vec<(String, String)>) -> Result<RouteEntry, String> {
        let path = match (self.prefix, self.path) {
            (Some(_), Some(_)) => return Err("path and path-prefix exclude each other".to_owned()),
            (prefix, path) => path.or(prefix).unwrap_or(PathMatch::Any),
        };
        let action = match (self.pool, self.redirect) {
            (Some(_), Some(_)) => return Err("pool and redirect exclude each other".to_owned()),
            (None, None) => return Err("a route needs a pool or a redirect".to_owned()),
            (Some(_), None) if self.status.is_some() => {
                return Err("status needs a redirect".to_owned());
            }
            (Some(pool), None) => Action::Pool(pool),
            (None, Some(target)) => {
                let status = self.status.unwrap_or(STATUS_BY_DEFAULT);
                let redirect = Redirect::parse(status, &target);
                Action::Redirect(redirect.map_err(|reason| format!("redirect {reason}"))?)
            }
        };
        let host = self.host.unwrap_or(HostMatch::Any);
        let (method, rewrite) = (self.method, self.rewrite);
        let route = RouteConfig { listener: None, host, path, method, rewrite, action };
        Ok(RouteEntry { line, listener: self.listener, texts, route })
    }
}

/// The keys of a route.
const KEYS: [&str; 9] = [
    "listener",
    "host",
    "path-prefix",
    "path",
    "method",
    "pool",
    "rewrite-prefix",
    "redirect",
    "status",
];
/// The status of a redirect that names none.
const STATUS_BY_DEFAULT: u16 = 302;
