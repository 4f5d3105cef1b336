//! The demo backends: a small REST service to try the balancer on.
//!
//! Each backend is one listener and one thread; its answers carry its name in
//! `X-Backend`, so that one can see where a request went. Used by the `demo`
//! command and by the end-to-end tests; no part of the proxy depends on it.
//!
//! `backend` accepts and drains, `service` routes a request to its handler,
//! `answer` and `body` form what goes back, `behaviour` spoils it where asked.

mod answer;
mod backend;
mod behaviour;
mod body;
mod counts;
mod idle;
mod number;
mod query;
mod service;
#[cfg(test)]
mod tests;
mod work;

pub use backend::{AGENT_LINE, AGENT_LINE_BYTES_MAX, Backend, BackendConfig, DRAIN, run};
pub use behaviour::Behaviour;
pub(crate) use service::load_of;
