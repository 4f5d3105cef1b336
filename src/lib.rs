//! corelane: a thread-per-core HTTP load balancer for Linux.

pub mod config;
pub mod control;
pub mod demo;
pub mod error;
pub mod health;
pub mod http1;
pub mod metrics;
pub mod upstream;
