//! The configuration in force: that of the process as it was started, pools and routes as they are
//! now. No secret is in it, and no text of a probe's headers. Times are in seconds.

mod pool;
mod route;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use crate::config::{
    AdminWrites, Config, DiscoveryConfig, DriverChoice, EtcdMember, ForwardedHeaders, LogTarget,
    Steer, TraceParents,
};
use pool::of_pool;
use route::of_route;

/// `GET /api/v1/config`.
pub(super) async fn show(State(api): State<Arc<Api>>) -> Json<Value> {
    let snapshot = api.published.load();
    let pools: Vec<Value> = snapshot.pools.iter().map(|pool| of_pool(&pool.config)).collect();
    let mut document = of_process(&api.config);
    document["pools"] = pools.into();
    let routes: Vec<Value> =
        snapshot.routes.configs().map(|route| of_route(route, &api.config.listeners)).collect();
    document["routes"] = routes.into();
    Json(document)
}

/// What a restart alone changes.
fn of_process(config: &Config) -> Value {
    let listeners = config.listeners.iter().map(|listener| listener.addr.to_string());
    let (client, head) = (&config.client, &config.head);
    json!({
        "listeners": listeners.collect::<Vec<_>>(),
        "workers": {
            "cores": config.workers.cores,
            "driver": match config.workers.driver {
                DriverChoice::Auto => "auto",
                DriverChoice::Uring => "uring",
                DriverChoice::Epoll => "epoll",
            },
            "steer": match config.workers.steer {
                Steer::Off => "off",
                Steer::Least => "least",
            },
            "ring_entries": config.workers.ring_entries,
        },
        "queue_max": config.queue_max,
        "client": {
            "header_timeout_seconds": seconds(client.header_timeout),
            "idle_timeout_seconds": seconds(client.idle_timeout),
            "body_timeout_seconds": seconds(client.body_timeout),
            "tunnel_timeout_seconds": seconds(client.tunnel_timeout),
            "conns_max": client.conns_max,
            "conns_per_address_max": client.conns_per_address_max,
            "rate_max": client.rate_max,
            "body_rate_min": client.body_rate_min,
            "body_bytes_max": client.body_bytes_max,
            "abort_on_half_close": client.abort_on_half_close,
        },
        "head": {
            "bytes_max": head.bytes_max,
            "headers_max": head.headers_max,
            "target_bytes_max": head.target_bytes_max,
        },
        "forward": of_forward(config),
        "discovery": of_discovery(&config.discovery),
        "backends_file": config.registry.backends_file,
        "state_file": config.registry.state_file,
        "access_log": config.access_log.as_ref().map(|log| json!({
            "target": match &log.target {
                LogTarget::Stdout => "stdout".to_owned(),
                LogTarget::File(path) => path.display().to_string(),
            },
            "sample": log.sample,
            "bytes_max": log.bytes_max,
        })),
        "admin": config.admin.as_ref().map(|admin| json!({
            "listen": admin.listen.to_string(),
            "has_token": admin.token.is_some(),
            "hosts": admin.hosts,
            "writes": match admin.writes {
                AdminWrites::Local => "local",
                AdminWrites::Etcd => "etcd",
            },
        })),
        "drain_timeout_seconds": seconds(config.drain_timeout),
        "ready_file": config.ready_file,
    })
}

fn of_forward(config: &Config) -> Value {
    let forward = &config.forward;
    let networks = forward.trusted_proxies.iter().map(ToString::to_string);
    json!({
        "upgrades": forward.upgrades,
        "connect": forward.connect,
        "forwarded_headers": match forward.forwarded_headers {
            ForwardedHeaders::Append => "append",
            ForwardedHeaders::Replace => "replace",
            ForwardedHeaders::Off => "off",
        },
        "forwarded": forward.forwarded,
        "request_id": forward.request_id,
        "traceparent": match forward.traceparent {
            TraceParents::AsTheyAre => "off",
            TraceParents::Make { is_sampled: true } => "sampled",
            TraceParents::Make { is_sampled: false } => "unsampled",
        },
        "trusted_proxies": networks.collect::<Vec<_>>(),
    })
}

/// Where backends are found; of etcd's user the name alone.
fn of_discovery(discovery: &DiscoveryConfig) -> Value {
    let DiscoveryConfig { dns, resolver, etcd } = discovery;
    let names: Vec<String> = dns.iter().map(|name| name.origin()).collect();
    let servers: Vec<String> = resolver.servers.iter().map(ToString::to_string).collect();
    json!({
        "dns": names,
        "dns_servers": servers,
        "dns_ttl_min_seconds": seconds(resolver.ttl_min),
        "dns_ttl_max_seconds": seconds(resolver.ttl_max),
        "etcd": etcd.as_ref().map(|etcd| json!({
            "members": etcd.members.iter().map(EtcdMember::url).collect::<Vec<_>>(),
            "prefix": etcd.prefix,
            "user": etcd.login.as_ref().map(|login| &login.user),
            "has_authorities": etcd.tls.authorities.is_some(),
            "has_certificate": etcd.tls.identity.is_some(),
        })),
    })
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
