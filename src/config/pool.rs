//! What may differ from one pool to the next.

use std::time::Duration;

use crate::config::{
    BackendConfig, BalanceConfig, BreakerConfig, EjectConfig, HealthConfig, RetryConfig,
};

/// The configuration of one pool.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Its name in metrics, the API and ids.
    pub name: String,
    /// The backends named by flags or the configuration file.
    pub backends: Vec<BackendConfig>,
    /// How it picks an endpoint.
    pub balance: BalanceConfig,
    /// How long a request waits for an endpoint whose places are all taken.
    pub queue_timeout: Duration,
    /// When a failed request is tried again.
    pub retry: RetryConfig,
    /// The active health checks.
    pub health: HealthConfig,
    /// What requests' own outcomes do to an endpoint.
    pub eject: EjectConfig,
    /// When an endpoint gets no requests for a while, and how many at once.
    pub breaker: BreakerConfig,
    /// Times and sizes on the backends' side.
    pub limits: BackendLimits,
}

/// Times and sizes on the backends' side.
#[derive(Clone, Debug)]
pub struct BackendLimits {
    /// How long `connect()` may take.
    pub connect_timeout: Duration,
    /// From the end of the request to the end of the answer's head.
    pub response_timeout: Duration,
    /// How long a body may make no progress, from or to the backend.
    pub body_timeout: Duration,
    /// How unused connections are kept.
    pub idle: IdleLimits,
}

/// How unused connections to a backend are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleLimits {
    /// How long.
    pub timeout: Duration,
    /// How many per endpoint and worker.
    pub per_endpoint_max: usize,
}

/// The pool that flags make.
pub const DEFAULT_POOL: &str = "default";
