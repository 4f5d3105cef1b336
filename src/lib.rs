//! corelane: a thread-per-core HTTP load balancer for Linux.

pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod error;
pub mod health;
pub mod http1;
pub mod metrics;
pub mod server;
pub mod sys;
pub mod upstream;
pub mod worker;
