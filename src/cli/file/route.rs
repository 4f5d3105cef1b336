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
    /// The pool that it names, which there may not be.
    pub(in crate::cli) pool: Option<String>,
    /// All else, where it is sound.
    pub(in crate::cli) route: Option<RouteConfig>,
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
    redirect: Option<Redirect>,
    status: Option<u16>,
}

impl<'t> Reader<'t> {
    pub(super) fn route(&mut self, line: usize, table: &DeTable<'t>) -> RouteEntry {
        let (mut draft, mut texts) = (Draft::default(), Vec::new());
        let before = self.problems.len();
        for (key, value) in table {
            let line = self.line_at(key.span().start);
            let read = draft.read(key.get_ref(), value.get_ref());
            self.took(line, read);
            let text = value::scalar(key.get_ref(), value.get_ref()).unwrap_or_default();
            texts.push((key.get_ref().clone().into_owned(), text));
        }
        let conflicts = draft.conflicts(self.problems.len() == before);
        self.problems.extend(conflicts.map(|reason| (line, reason.to_owned())));
        let (listener, pool) = (draft.listener, draft.pool.clone());
        let route = if self.problems.len() == before { draft.into_route() } else { None };
        RouteEntry { line, listener, texts, pool, route }
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
            "redirect" => {
                let target = value::text(key, value)?;
                self.redirect = Some(Redirect::parse(STATUS_BY_DEFAULT, target).map_err(about)?);
            }
            "status" => {
                let status = value::scalar(key, value)?.parse().ok();
                let status = status.filter(|it| REDIRECT_STATUSES.contains(it));
                let known = REDIRECT_STATUSES.map(|it| it.to_string()).join(", ");
                self.status = Some(status.ok_or_else(|| format!("{key} is none of {known}"))?);
            }
            _ => return Err(unknown(key, "key of a route", KEYS.into_iter(), &KEYS.join(", "))),
        }
        Ok(())
    }

    /// What its keys cannot mean together; what is missing counts where all were read.
    fn conflicts(&self, is_whole: bool) -> impl Iterator<Item = &'static str> {
        let (has_pool, has_redirect) = (self.pool.is_some(), self.redirect.is_some());
        let has_two_paths = self.prefix.is_some() && self.path.is_some();
        let is_status_lost = is_whole && self.status.is_some() && has_pool && !has_redirect;
        let found = [
            (has_two_paths, "path and path-prefix exclude each other"),
            (has_pool && has_redirect, "pool and redirect exclude each other"),
            (is_whole && !has_pool && !has_redirect, "a route needs a pool or a redirect"),
            (is_status_lost, "status needs a redirect"),
        ];
        found.into_iter().filter_map(|(is_so, reason)| is_so.then_some(reason))
    }

    /// The route, where there is nothing wrong with it.
    fn into_route(self) -> Option<RouteConfig> {
        let action = match (self.pool, self.redirect) {
            (Some(pool), _) => Action::Pool(pool),
            (None, redirect) => {
                let status = self.status.unwrap_or(STATUS_BY_DEFAULT);
                Action::Redirect(Redirect { status, ..redirect? })
            }
        };
        let path = self.path.or(self.prefix).unwrap_or(PathMatch::Any);
        let host = self.host.unwrap_or(HostMatch::Any);
        let (method, rewrite) = (self.method, self.rewrite);
        Some(RouteConfig { listener: None, host, path, method, rewrite, action })
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
