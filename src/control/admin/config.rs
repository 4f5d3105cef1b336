//! The configuration in force, as far as it helps whoever looks into a running process; no secret is
//! in it. Times are in seconds.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use super::status::name_of;
use crate::config::{AdminWrites, Config, DriverChoice, PoolConfig, Steer};

/// `GET /api/v1/config`.
pub(super) async fn show(State(api): State<Arc<Api>>) -> Json<Value> {
    let snapshot = api.published.load();
    let pools: Vec<Value> = snapshot.pools.iter().map(|pool| of_pool(&pool.config)).collect();
    let mut document = of_process(&api.config);
    document["pools"] = pools.into();
    Json(document)
}

/// What a restart alone changes.
fn of_process(config: &Config) -> Value {
    let listeners = config.listeners.iter().map(|listener| listener.addr.to_string());
    let (client, head, forward) = (&config.client, &config.head, &config.forward);
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
        "forward": {
            "upgrades": forward.upgrades,
            "connect": forward.connect,
            "forwarded": forward.forwarded,
            "request_id": forward.request_id,
            "trusted_proxies": networks(config),
        },
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
    })
}

fn networks(config: &Config) -> Vec<String> {
    config.forward.trusted_proxies.iter().map(ToString::to_string).collect()
}

/// What may differ between pools, as it is now.
fn of_pool(pool: &PoolConfig) -> Value {
    let (balance, health, limits) = (&pool.balance, &pool.health, &pool.limits);
    json!({
        "name": pool.name,
        "policy": name_of(balance.policy),
        "hash_seed": balance.hash_seed,
        "hash_balance_percent": balance.hash_balance_percent,
        "sticky_cookie": balance.sticky.as_ref().map(|sticky| &sticky.name),
        "slow_start_seconds": seconds(balance.slow_start),
        "panic_percent": balance.panic_percent,
        "queue_timeout_seconds": seconds(pool.queue_timeout),
        "retries_max": pool.retry.retries_max,
        "health": {
            "path": health.path,
            "interval_seconds": seconds(health.interval),
            "timeout_seconds": seconds(health.timeout),
        },
        "connect_timeout_seconds": seconds(limits.connect_timeout),
        "response_timeout_seconds": seconds(limits.response_timeout),
        "body_timeout_seconds": seconds(limits.body_timeout),
    })
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
