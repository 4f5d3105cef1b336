//! Makes pools and routes of flags and file, and refuses what they cannot mean together.

use std::net::SocketAddr;

use crate::cli::build::at_most_backends;
use crate::cli::build::problems::Problems;
use crate::cli::file::{Content, PoolEntry, RouteEntry};
use crate::cli::flags::{
    BackendLimitArgs, BalanceArgs, BreakerArgs, EjectArgs, HealthArgs, ProxyArgs, RetryArgs,
};
use crate::config::{
    Action, BackendConfig, DEFAULT_POOL, ListenerConfig, POOLS_MAX, PoolConfig, ROUTES_MAX,
    RouteConfig,
};
use crate::error::StartError;

/// The flags of which each pool can have its own.
pub(super) struct PoolArgs {
    pub(super) balance: BalanceArgs,
    pub(super) queue_timeout: std::time::Duration,
    pub(super) retry: RetryArgs,
    pub(super) health: HealthArgs,
    pub(super) eject: EjectArgs,
    pub(super) breaker: BreakerArgs,
    pub(super) limits: BackendLimitArgs,
}

impl PoolArgs {
    fn into_pool(
        self,
        name: String,
        backends: Vec<BackendConfig>,
    ) -> Result<PoolConfig, StartError> {
        Ok(PoolConfig {
            name,
            backends,
            balance: self.balance.into_config()?,
            queue_timeout: self.queue_timeout,
            retry: self.retry.into_config()?,
            health: self.health.into_config()?,
            eject: self.eject.config()?,
            breaker: self.breaker.config()?,
            limits: self.limits.limits(),
        })
    }
}

/// The pools: that of the flags where it has backends or may get some, and those of the file.
///
/// # Errors
/// What is no fault of flags and file.
pub(super) fn pools_of(
    own: PoolArgs,
    backends: Vec<BackendConfig>,
    is_filled: bool,
    content: &mut Content,
    problems: &mut Problems,
) -> Result<Vec<PoolConfig>, StartError> {
    let entries = std::mem::take(&mut content.pools);
    for (line, reason) in problems_of(&entries, &backends) {
        problems.tell(line, reason);
    }
    let mut pools = Vec::with_capacity(entries.len() + 1);
    let is_named = entries.iter().any(|entry| entry.name == DEFAULT_POOL);
    let has_default = !is_named && (is_filled || entries.is_empty());
    let names = has_default.then_some(DEFAULT_POOL).into_iter();
    let names = names.chain(entries.iter().map(|it| it.name.as_str()));
    tell_unknown_pools(&content.routes, &names.collect::<Vec<_>>(), problems);
    if has_default {
        if !is_filled && problems.is_whole() {
            problems.tell(0, no_backend(content));
        }
        pools.extend(problems.took(own.into_pool(DEFAULT_POOL.to_owned(), backends))?);
    } else if let [first, second, ..] = &entries[..]
        && !is_named
        && !content.has_routes
        && first.name != second.name
        && !second.name.is_empty()
    {
        let reason = "a second pool, and no [[routes]] that say what goes to which";
        problems.tell(second.line, reason.to_owned());
    }
    for PoolEntry { line, name, backends, args, is_whole, .. } in entries {
        let backends = backends.into_iter().flatten().map(|(_, backend)| backend).collect();
        match args.into_pool_args().into_pool(name.clone(), backends) {
            Ok(pool) => pools.push(pool),
            Err(StartError::Usage(reason)) => {
                if is_whole && problems.is_whole() {
                    problems.tell(line, format!("pool {name}: {reason}"));
                }
            }
            Err(error) => return Err(error),
        }
    }
    let sum = pools.iter().flat_map(|pool| &pool.backends).count();
    if let Err(reason) = at_most_backends(sum) {
        problems.tell(0, reason);
    }
    Ok(pools)
}

/// What is said where nothing names a backend.
fn no_backend(content: &Content) -> String {
    match content.path.as_os_str().is_empty() {
        true => {
            "no backend: name one with --backend http://HOST:PORT, or say where they are found \
                 with --backends-file, --backend-dns, --etcd or --config"
                .to_owned()
        }
        false => "names no backend: write backend = \"http://HOST:PORT\", or [[pools]]".to_owned(),
    }
}

fn problems_of(entries: &[PoolEntry], backends: &[BackendConfig]) -> Vec<(usize, String)> {
    let mut problems = Vec::new();
    if entries.len() > POOLS_MAX {
        problems.push((0, format!("has more than {POOLS_MAX} pools")));
    }
    // What has no name was told of.
    let named = entries.iter().enumerate().filter(|(_, entry)| !entry.name.is_empty());
    for (index, entry) in named {
        let PoolEntry { line, name, .. } = entry;
        if entries.iter().take(index).any(|other| other.name == *name) {
            problems.push((*line, format!("pool {name} is there twice")));
        }
        if name == DEFAULT_POOL && !backends.is_empty() {
            let reason = "pool default has its backends here, and as backend or --backend too";
            problems.push((*line, reason.to_owned()));
        }
        let Some(named) = &entry.backends else {
            let reason = format!("pool {name} names no backends; write backends = [] if others do");
            problems.extend(entry.is_whole.then_some((*line, reason)));
            continue;
        };
        let is_twice = |(index, (_, backend)): (usize, &(String, BackendConfig))| {
            let authority = backend.authority();
            let mut before = named.iter().take(index);
            before.any(|(_, it)| it.authority() == authority).then_some(authority)
        };
        if let Some(authority) = named.iter().enumerate().find_map(is_twice) {
            let reason = format!("pool {name} has http://{authority} twice; use weight=N");
            problems.push((*line, reason));
        }
    }
    problems
}

/// Tells of routes to pools that there are not.
fn tell_unknown_pools(routes: &[RouteEntry], names: &[&str], problems: &mut Problems) {
    if names.contains(&"") {
        // A pool without a name, which was told of, may be the one.
        return;
    }
    for RouteEntry { line, pool, .. } in routes {
        if let Some(name) = pool
            && !names.contains(&name.as_str())
        {
            let reason = format!("there is no pool {name}; there are {}", names.join(", "));
            problems.tell(*line, reason);
        }
    }
}

/// The routes of the file; without any everything goes to the pool of the flags, or the only one.
/// Without listeners, what is wrong with them was told.
pub(super) fn routes_of(
    content: &Content,
    pools: &[PoolConfig],
    listeners: Option<&[ListenerConfig]>,
    problems: &mut Problems,
) -> Vec<RouteConfig> {
    if content.routes.is_empty() {
        let only = match pools {
            [only] => only.name.clone(),
            _ => DEFAULT_POOL.to_owned(),
        };
        return vec![RouteConfig { action: Action::Pool(only), ..RouteConfig::catch_all() }];
    }
    if content.routes.len() > ROUTES_MAX {
        problems.tell(0, format!("has more than {ROUTES_MAX} routes"));
    }
    let mut routes: Vec<(usize, RouteConfig)> = Vec::new();
    for RouteEntry { line, listener, route, .. } in &content.routes {
        let listener = match (listener, listeners) {
            (Some(addr), Some(listeners)) => match listener_of(*addr, listeners) {
                Ok(index) => Some(index),
                Err(reason) => {
                    problems.tell(*line, reason);
                    continue;
                }
            },
            _ => None,
        };
        let Some(route) = route.clone() else { continue };
        let route = RouteConfig { listener, ..route };
        if let Some((first, _)) = routes.iter().find(|(_, other)| other.takes_the_same(&route)) {
            let reason = format!("never taken: the route on line {first} takes the same requests");
            problems.tell(*line, reason);
        }
        routes.push((*line, route));
    }
    for (line, route) in routes.iter().filter(|(_, route)| route.listener.is_none()) {
        let is_taken = |listener: usize| {
            let takes =
                |it: &RouteConfig| it.listener == Some(listener) && it.differs_in_listener(route);
            routes.iter().any(|(_, other)| takes(other))
        };
        if listeners.is_some_and(|it| (0..it.len()).all(is_taken)) {
            let reason = "never taken: each listener has a route of its own for the same requests";
            problems.tell(*line, reason.to_owned());
        }
    }
    routes.into_iter().map(|(_, route)| route).collect()
}

fn listener_of(addr: SocketAddr, listeners: &[ListenerConfig]) -> Result<usize, String> {
    let found = listeners.iter().position(|listener| listener.addr == addr);
    found.ok_or_else(|| {
        let known: Vec<_> = listeners.iter().map(|it| it.addr.to_string()).collect();
        format!("there is no listener {addr}; there are {}", known.join(", "))
    })
}

impl ProxyArgs {
    fn into_pool_args(self) -> PoolArgs {
        PoolArgs {
            balance: self.balance,
            queue_timeout: self.queue.queue_timeout,
            retry: self.retry,
            health: self.health,
            eject: self.eject,
            breaker: self.breaker,
            limits: self.backend,
        }
    }
}
