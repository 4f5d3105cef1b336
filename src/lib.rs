//! corelane: a thread-per-core HTTP load balancer for Linux.
pub mod demo;
