//! The backends' side: what endpoints there are, which one a request goes to, and the connections
//! to them.
//!
//! `endpoint`, `limit`, `snapshot`, `route`, `hash`, `balance`, `sticky`, `outcome` and `pool`
//! decide and do no I/O; `connect` makes connections.

pub mod balance;
pub mod connect;
pub mod endpoint;
pub mod hash;
pub mod limit;
pub mod outcome;
pub mod patience;
pub mod pool;
pub mod route;
pub mod snapshot;
pub mod sticky;
