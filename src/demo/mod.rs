//! The demo backends: a small REST service to try the balancer on.
//!
//! Each backend is one listener and one thread; its answers carry its name in
//! `X-Backend`, so that one can see where a request went. Used by the `demo`
//! command and by the end-to-end tests; no part of the proxy depends on it.
//!
//! `backend` accepts and drains, `service` routes a request to its handler,
//! `answer` and `body` form what goes back.

mod answer;
mod backend;
mod body;
mod number;
mod service;
#[cfg(test)]
mod tests;
mod work;

pub use backend::{Backend, BackendConfig, DRAIN, run};
