//! Makes pools and routes of flags and file, and refuses what they cannot mean together.

use std::net::SocketAddr;

use crate::cli::build::{at_most_backends, usage};
use crate::cli::file::{Content, FileError, PoolEntry};
use crate::cli::flags::{
    BackendLimitArgs, BalanceArgs, BreakerArgs, EjectArgs, HealthArgs, ProxyArgs, RetryArgs,
};
use crate::config::{
    Action, BackendConfig, DEFAULT_POOL, ListenerConfig, POOLS_MAX, PoolConfig, ROUTES_MAX,
    RouteConfig,
};
use crate::error::StartError;

/// What is wrong with a file, each with its line.
pub(super) type Problems = Vec<(usize, String)>;

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
pub(super) fn pools_of(
    own: PoolArgs,
    backends: Vec<BackendConfig>,
    is_filled_by_others: bool,
    content: &mut Content,
    problems: &mut Problems,
) -> Result<Vec<PoolConfig>, StartError> {
    let entries = std::mem::take(&mut content.pools);
    problems.extend(problems_of(&entries, &backends));
    let mut pools = Vec::with_capacity(entries.len() + 1);
    let is_named = entries.iter().any(|entry| entry.name == DEFAULT_POOL);
    let is_filled = !backends.is_empty() || is_filled_by_others;
    if !is_named && (is_filled || entries.is_empty()) {
        if !is_filled && !content.path.as_os_str().is_empty() {
            let reason = "names no backend: write backend = \"http://HOST:PORT\", or [[pools]]";
            problems.push((0, reason.to_owned()));
        }
        pools.push(own.into_pool(DEFAULT_POOL.to_owned(), backends)?);
    }
    for PoolEntry { line, name, backends, args, .. } in entries {
        let backends = backends.into_iter().flatten().map(|(_, backend)| backend).collect();
        let made = args.into_pool_args().into_pool(name.clone(), backends);
        match made {
            Ok(pool) => pools.push(pool),
            Err(StartError::Usage(reason)) => {
                problems.push((line, format!("pool {name}: {reason}")))
            }
            Err(error) => return Err(error),
        }
    }
    let sum = pools.iter().flat_map(|pool| &pool.backends).count();
    if let Err(reason) = at_most_backends(sum) {
        problems.push((0, reason));
    }
    Ok(pools)
}

fn problems_of(entries: &[PoolEntry], backends: &[BackendConfig]) -> Problems {
    let mut problems = Vec::new();
    if entries.len() > POOLS_MAX {
        problems.push((0, format!("has more than {POOLS_MAX} pools")));
    }
    for (index, entry) in entries.iter().enumerate() {
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
            problems.push((*line, reason));
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

/// The routes of the file; without any everything goes to the pool of the flags, or the only one.
pub(super) fn routes_of(
    content: &Content,
    pools: &[PoolConfig],
    listeners: &[ListenerConfig],
    mut problems: Problems,
) -> Result<Vec<RouteConfig>, StartError> {
    if content.routes.is_empty() {
        refuse(content, problems.clone())?;
    }
    if content.routes.is_empty() {
        let has_default = pools.iter().any(|pool| pool.name == DEFAULT_POOL);
        return match pools {
            [only] => Ok(vec![RouteConfig {
                action: Action::Pool(only.name.clone()),
                ..RouteConfig::catch_all()
            }]),
            _ if has_default => Ok(vec![RouteConfig::catch_all()]),
            _ => {
                let reason = "has several pools and no [[routes]] to them";
                Err(refused(content, vec![(0, reason.to_owned())]))
            }
        };
    }
    // What a broken pool is missed for was said.
    let are_all_there = problems.is_empty();
    if content.routes.len() > ROUTES_MAX {
        problems.push((0, format!("has more than {ROUTES_MAX} routes")));
    }
    let mut routes: Vec<(usize, RouteConfig)> = Vec::new();
    for entry in &content.routes {
        let mut route = entry.route.clone();
        if let Action::Pool(name) = &route.action
            && are_all_there
            && !pools.iter().any(|pool| pool.name == *name)
        {
            let known: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
            let reason = format!("there is no pool {name}; there are {}", known.join(", "));
            problems.push((entry.line, reason));
        }
        if let Some(addr) = entry.listener {
            match listener_of(addr, listeners) {
                Ok(index) => route.listener = Some(index),
                Err(reason) => problems.push((entry.line, reason)),
            }
        }
        if let Some((line, _)) = routes.iter().find(|(_, other)| other.takes_the_same(&route)) {
            let reason = format!("never taken: the route on line {line} takes the same requests");
            problems.push((entry.line, reason));
        }
        routes.push((entry.line, route));
    }
    for (line, route) in routes.iter().filter(|(_, route)| route.listener.is_none()) {
        let is_taken = |listener: usize| {
            let takes =
                |it: &RouteConfig| it.listener == Some(listener) && it.differs_in_listener(route);
            routes.iter().any(|(_, other)| takes(other))
        };
        if (0..listeners.len()).all(is_taken) {
            let reason = "never taken: each listener has a route of its own for the same requests";
            problems.push((*line, reason.to_owned()));
        }
    }
    refuse(content, problems)?;
    Ok(routes.into_iter().map(|(_, route)| route).collect())
}

fn listener_of(addr: SocketAddr, listeners: &[ListenerConfig]) -> Result<usize, String> {
    let found = listeners.iter().position(|listener| listener.addr == addr);
    found.ok_or_else(|| {
        let known: Vec<_> = listeners.iter().map(|it| it.addr.to_string()).collect();
        format!("there is no listener {addr}; there are {}", known.join(", "))
    })
}

fn refuse(content: &Content, problems: Problems) -> Result<(), StartError> {
    if problems.is_empty() { Ok(()) } else { Err(refused(content, problems)) }
}

fn refused(content: &Content, problems: Problems) -> StartError {
    if content.path.as_os_str().is_empty() {
        let reasons: Vec<_> = problems.into_iter().map(|(_, reason)| reason).collect();
        return usage(reasons.join("; "));
    }
    StartError::ConfigFile(FileError::new(&content.path, problems).to_string())
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
