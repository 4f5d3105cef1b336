//! What may differ between pools, as it is now, for `/api/v1/config`.

use serde_json::{Value, json};

use super::seconds;
use crate::config::{
    BackendLimits, BalanceConfig, BreakerConfig, EjectConfig, HealthConfig, InitialHealth,
    PoolConfig, RetryConfig, SameSite, StickyConfig,
};
use crate::control::admin::status::name_of;

/// A pool's settings.
pub(super) fn of_pool(pool: &PoolConfig) -> Value {
    let BalanceConfig { policy, hash_key, hash_seed, hash_balance_percent, .. } = &pool.balance;
    let BackendLimits { connect_timeout, response_timeout, body_timeout, idle } = &pool.limits;
    json!({
        "name": pool.name,
        "policy": name_of(*policy),
        "hash_key": hash_key.to_string(),
        "hash_seed": hash_seed,
        "hash_balance_percent": hash_balance_percent,
        "sticky": pool.balance.sticky.as_ref().map(of_sticky),
        "slow_start_seconds": seconds(pool.balance.slow_start),
        "panic_percent": pool.balance.panic_percent,
        "queue_timeout_seconds": seconds(pool.queue_timeout),
        "retry": of_retry(&pool.retry),
        "health": of_health(&pool.health),
        "eject": of_eject(&pool.eject),
        "breaker": of_breaker(&pool.breaker),
        "connect_timeout_seconds": seconds(*connect_timeout),
        "response_timeout_seconds": seconds(*response_timeout),
        "body_timeout_seconds": seconds(*body_timeout),
        "idle_timeout_seconds": seconds(idle.timeout),
        "idle_max": idle.per_endpoint_max,
    })
}

fn of_sticky(sticky: &StickyConfig) -> Value {
    json!({
        "cookie": sticky.name,
        "path": sticky.path,
        "domain": sticky.domain,
        "max_age_seconds": sticky.max_age,
        "secure": sticky.secure,
        "http_only": sticky.http_only,
        "same_site": sticky.same_site.map(|it| match it {
            SameSite::Strict => "strict",
            SameSite::Lax => "lax",
            SameSite::None => "none",
        }),
    })
}

fn of_retry(retry: &RetryConfig) -> Value {
    json!({
        "retries_max": retry.retries_max,
        "on": retry.on.to_string(),
        "body_bytes_max": retry.body_bytes_max,
        "budget_percent": retry.budget_percent,
        "budget_per_second": retry.budget_per_second,
    })
}

fn of_health(health: &HealthConfig) -> Value {
    let headers: Vec<&str> = health.headers.iter().map(|it| it.name.as_str()).collect();
    json!({
        "path": health.path,
        "method": health.method,
        "host": health.host,
        "header_names": headers,
        "statuses": health.statuses.to_string(),
        "body": health.body,
        "interval_seconds": seconds(health.interval),
        "interval_changing_seconds": seconds(health.interval_changing),
        "interval_down_seconds": seconds(health.interval_down),
        "timeout_seconds": seconds(health.timeout),
        "rise": health.rise,
        "fall": health.fall,
        "initial": match health.initial {
            InitialHealth::Probe => "probe",
            InitialHealth::Up => "up",
        },
        "agent_port": health.agent_port,
    })
}

fn of_eject(eject: &EjectConfig) -> Value {
    json!({
        "consecutive_max": eject.consecutive_max,
        "success_gap_percent": eject.success_gap_percent,
        "interval_seconds": seconds(eject.interval),
        "requests_min": eject.requests_min,
        "time_seconds": seconds(eject.time),
        "time_max_seconds": seconds(eject.time_max),
        "percent_max": eject.percent_max,
    })
}

fn of_breaker(breaker: &BreakerConfig) -> Value {
    json!({
        "requests_max": breaker.requests_max,
        "pending_max": breaker.pending_max,
        "error_percent": breaker.error_percent,
        "window_seconds": seconds(breaker.window),
        "requests_min": breaker.requests_min,
        "open_time_seconds": seconds(breaker.open_time),
        "trials": breaker.trials,
    })
}
