//! The backends' side: what endpoints there are, which one a request goes to, and the connections
//! to them.
//!
//! `endpoint`, `snapshot`, `route` and `balance` decide and do no I/O; `pool` and `connect` hold
//! and make connections.

pub mod balance;

pub mod endpoint;

pub mod route;
pub mod snapshot;
