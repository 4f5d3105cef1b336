//! Which backend a request would get, and why: the same pure steps that a worker takes, on the snapshot
//! in force, without a worker.
//!
//! Exact for a session's cookie and for maglev, unless a limit comes between; for the other policies,
//! which depend on what each worker did before, the candidates with what they are compared by.

use std::fmt::Write;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Api;
use super::fields::Query;
use super::problem::{Kind, Problem};
use super::snapshots::takes;
use crate::config::{HEADERS_LIMIT, HeadLimits, Policy};
use crate::error::Cause;
use crate::http1::key;
use crate::http1::request::{self, RequestHead};
use crate::metrics::Lanes;
use crate::upstream::balance::{Ask, Cursor};
use crate::upstream::endpoint::{Endpoint, Standing, Tier, WEIGHT_UNIT};
use crate::upstream::hash;
use crate::upstream::route::{PoolId, Way};
use crate::upstream::snapshot::{Pool, Snapshot};

/// The answer.
#[derive(Debug, Serialize)]
struct Explanation {
    epoch: u64,
    /// The pool, if it goes to one,
    pool: Option<String>,
    policy: Option<&'static str>,
    /// the backend, where that is certain,
    backend: Option<String>,
    /// and why, in words.
    why: String,
    /// The backends that may get it, with what they are compared by.
    candidates: Vec<Candidate>,
}

#[derive(Debug, Serialize)]
struct Candidate {
    id: String,
    backup: bool,
    takes: &'static str,
    has_room: bool,
    weight: f64,
    in_flight: u32,
    /// What `least-connections` and `p2c` compare: requests in flight with one more, for its weight.
    load: f64,
    /// The share of requests that its weight gives it.
    share: f64,
}

/// `GET /api/v1/explain?…`.
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    query: Query,
) -> Result<Response, Problem> {
    let asked = Asked::of(query, api.config.listeners.len())?;
    let explanation = asked.explain(&api.published.load(), &api.lanes)?;
    Ok(Json(explanation).into_response())
}

/// A request to explain.
struct Asked {
    pool: Option<String>,
    listener: usize,
    client: IpAddr,
    /// Its head, as a client would send it.
    head: String,
}

impl Asked {
    fn of(mut query: Query, listeners: usize) -> Result<Asked, Problem> {
        let pool = query.take("pool");
        let method = query.take("method").unwrap_or_else(|| "GET".to_owned());
        let path = query.take("path").unwrap_or_else(|| "/".to_owned());
        let host = query.take("host").unwrap_or_else(|| "localhost".to_owned());
        let listener = match query.take("listener") {
            Some(text) => {
                text.parse().ok().filter(|number| *number < listeners).ok_or_else(|| {
                    let most = listeners.saturating_sub(1);
                    Problem::field("listener", format!("give its number, 0 to {most}"))
                })?
            }
            None => 0,
        };
        let client = match query.take("client") {
            Some(text) => text
                .parse()
                .map_err(|_no| Problem::field("client", "it is no IP address; give one"))?,
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let (headers, cookies) = (query.take_all("header."), query.take_all("cookie."));
        query.finish(PARAMETERS)?;
        let parts = [("method", &method), ("path", &path), ("host", &host)];
        let named = headers.iter().chain(&cookies);
        let all = parts.into_iter().chain(named.map(|(name, value)| (name.as_str(), value)));
        for (name, value) in all {
            if (name.to_owned() + value).bytes().any(|byte| byte < b' ' || byte == 0x7f) {
                let detail = "it holds a control character, which no request may";
                return Err(Problem::field(name, detail));
            }
        }
        if let Some((name, _)) = parts.into_iter().take(2).find(|(_, value)| value.contains(' ')) {
            return Err(Problem::field(name, "it holds a space; encode it as %20 (%2520 here)"));
        }
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let cookies = cookies.iter().map(|(name, value)| format!("Cookie: {name}={value}\r\n"));
        // Writing to a string never fails.
        lines.chain(cookies).for_each(|line| head.write_str(&line).unwrap_or_default());
        head += "\r\n";
        Ok(Asked { pool, listener, client, head })
    }

    fn explain(&self, snapshot: &Snapshot, lanes: &Lanes) -> Result<Explanation, Problem> {
        let mut space = [MaybeUninit::uninit(); HEADERS_LIMIT];
        let head = match request::parse(self.head.as_bytes(), &mut space, &LIMITS, true) {
            Ok(Some(head)) => head,
            Ok(None) => return Err(Problem::new(Kind::Invalid, "the head is incomplete")),
            Err(cause) => return Ok(refused(snapshot, cause)),
        };
        let (id, route) = match self.pool_of(snapshot, &head)? {
            Place::Pool(id, route) => (id, route),
            Place::Elsewhere(explanation) => return Ok(explanation),
        };
        let pool = snapshot.pool(id);
        let candidates = candidates_of(pool, lanes);
        let (backend, why) = self.pick(pool, &head, lanes);
        Ok(Explanation {
            epoch: snapshot.epoch,
            pool: Some(pool.config.name.clone()),
            policy: Some(super::status::name_of(pool.config.balance.policy)),
            backend: backend.map(|endpoint| endpoint.id.clone()),
            why: format!("{route}; {why}"),
            candidates,
        })
    }

    /// The pool that was named, or the one that the routes lead to.
    fn pool_of(&self, snapshot: &Snapshot, head: &RequestHead<'_, '_>) -> Result<Place, Problem> {
        if let Some(name) = &self.pool {
            let at = snapshot.pools.iter().position(|pool| pool.config.name == *name);
            let at = at.ok_or_else(|| {
                Problem::new(Kind::Unknown, format!("there is no pool {name:?}; see /api/v1/pools"))
            })?;
            return Ok(Place::Pool(PoolId(at), "the pool was named".to_owned()));
        }
        Ok(match snapshot.routes.select(self.listener, head, &mut Vec::new()) {
            Ok(Way::Pool(id, rewrite)) => {
                let rewritten = rewrite.map_or("", |_| ", with another path");
                Place::Pool(id, format!("its route leads to this pool{rewritten}"))
            }
            Ok(Way::Redirect(redirect, _)) => Place::Elsewhere(Explanation {
                why: format!("its route redirects it with status {}", redirect.status),
                ..nowhere(snapshot)
            }),
            Err(cause) => Place::Elsewhere(refused(snapshot, cause)),
        })
    }

    /// The backend, where it is certain, and what decides.
    fn pick<'p>(
        &self,
        pool: &'p Pool,
        head: &RequestHead<'_, '_>,
        lanes: &Lanes,
    ) -> (Option<&'p Endpoint>, String) {
        let sticky = pool.sticky.as_ref();
        let cookie = sticky.and_then(|sticky| key::cookie(head.headers, sticky.name()));
        let session = cookie.and_then(|value| pool.endpoints.get(sticky?.endpoint_of(value)?));
        if let Some(endpoint) = session.filter(|endpoint| endpoint.keeps_sessions()) {
            let why = if has_room(endpoint) { "" } else { ", where it waits for a place" };
            return (Some(endpoint), format!("its cookie names this backend{why}"));
        }
        let balance = &pool.config.balance;
        let eligible = || pool.endpoints.iter().filter(|endpoint| endpoint.is_eligible());
        let mut free = eligible().filter(|endpoint| has_room(endpoint));
        match (free.next(), free.next()) {
            (None, _) if eligible().next().is_none() => {
                return (None, "no backend takes requests: it gets 503".to_owned());
            }
            (None, _) => {
                return (
                    None,
                    "all backends are at their limits: it waits, or gets 503".to_owned(),
                );
            }
            (Some(only), None) => return (Some(only), "it is the only one with room".to_owned()),
            _ => {}
        }
        if balance.policy != Policy::Maglev {
            let why = "any of the candidates with room, by the policy; each worker decides alone";
            return (None, why.to_owned());
        }
        let hash = hash::of_request(&balance.hash_key, head, || self.client, balance.hash_seed);
        let Some(hash) = hash else {
            let why = "it has nothing to hash, so any of the candidates with room, at random";
            return (None, why.to_owned());
        };
        let ask = Ask { hash, lanes, now: Instant::now() };
        let is_free = |index: usize| pool.endpoints.get(index).is_some_and(has_room);
        let cursor = &mut Cursor::seeded(0, 0);
        let primary = pool.primary.pick(&pool.endpoints, cursor, &ask, is_free);
        let picked = primary.or_else(|| pool.backup.pick(&pool.endpoints, cursor, &ask, is_free));
        let endpoint = picked.and_then(|index| pool.endpoints.get(index));
        (endpoint, format!("the hash of its key is {hash:016x}"))
    }
}

/// Where a request goes.
enum Place {
    Pool(PoolId, String),
    Elsewhere(Explanation),
}

fn nowhere(snapshot: &Snapshot) -> Explanation {
    Explanation {
        epoch: snapshot.epoch,
        pool: None,
        policy: None,
        backend: None,
        why: String::new(),
        candidates: Vec::new(),
    }
}

fn refused(snapshot: &Snapshot, cause: Cause) -> Explanation {
    let verdict = cause.verdict();
    let status = verdict.status.map_or("no answer".to_owned(), |status| status.to_string());
    Explanation {
        why: format!("it gets {status} ({}): {}", verdict.name, verdict.message),
        ..nowhere(snapshot)
    }
}

/// What takes any request at all, primary ones first.
fn candidates_of(pool: &Pool, lanes: &Lanes) -> Vec<Candidate> {
    let in_tier = |tier| {
        let of_tier = move |it: &&Endpoint| it.tier == tier && it.standing != Standing::Out;
        pool.endpoints.iter().filter(of_tier)
    };
    let candidates = |tier| {
        let weights: u64 =
            in_tier(tier).filter(|it| it.is_eligible()).map(|it| u64::from(it.weight)).sum();
        in_tier(tier).map(move |endpoint| {
            let weight = f64::from(endpoint.weight) / f64::from(WEIGHT_UNIT);
            let in_flight = lanes.in_flight(endpoint.slot.number);
            let share = f64::from(endpoint.weight) / weights.max(1) as f64;
            Candidate {
                id: endpoint.id.clone(),
                backup: endpoint.tier == Tier::Backup,
                takes: takes(endpoint.standing),
                has_room: has_room(endpoint),
                weight,
                in_flight,
                load: f64::from(in_flight.saturating_add(1)) / weight,
                share: if endpoint.is_eligible() { share } else { 0.0 },
            }
        })
    };
    candidates(Tier::Primary).chain(candidates(Tier::Backup)).collect()
}

/// Whether it could take one more just now.
fn has_room(endpoint: &Endpoint) -> bool {
    let limits = &endpoint.limits;
    let all = [&limits.conns, &limits.requests, &limits.pending];
    let is_free = all.into_iter().flatten().all(|limit| limit.has_room());
    endpoint.keeps_sessions() && is_free
}

const PARAMETERS: &str = "pool, path, host, method, listener, client, header.NAME, cookie.NAME";
/// Of the request to explain; the query that describes it is shorter.
const LIMITS: HeadLimits =
    HeadLimits { bytes_max: 64 * 1024, headers_max: HEADERS_LIMIT, target_bytes_max: 32 * 1024 };
