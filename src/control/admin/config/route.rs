//! Routes as they are now, for `/api/v1/config`, with the keys that a configuration file has.

use serde_json::{Value, json};

use crate::config::{Action, HostMatch, ListenerConfig, PathMatch, RouteConfig};

/// A route; what it does not say is null.
pub(super) fn of_route(route: &RouteConfig, listeners: &[ListenerConfig]) -> Value {
    let listener = route.listener.and_then(|index| listeners.get(index));
    let (path, path_prefix) = match &route.path {
        PathMatch::Any => (None, None),
        PathMatch::Exact(path) => (Some(path), None),
        PathMatch::Prefix(prefix) => (None, Some(prefix)),
    };
    let (pool, redirect) = match &route.action {
        Action::Pool(name) => (Some(name), None),
        Action::Redirect(redirect) => (None, Some(redirect)),
    };
    // The root is kept as nothing, since other prefixes end without a slash.
    let rewrite = route.rewrite.as_ref().map(|it| if it.is_empty() { "/" } else { it });
    json!({
        "listener": listener.map(|it| it.addr.to_string()),
        "host": Some(&route.host).filter(|it| **it != HostMatch::Any).map(ToString::to_string),
        "path": path,
        "path_prefix": path_prefix,
        "method": route.method,
        "rewrite_prefix": rewrite,
        "pool": pool,
        "redirect": redirect.map(ToString::to_string),
        "status": redirect.map(|it| it.status),
    })
}
