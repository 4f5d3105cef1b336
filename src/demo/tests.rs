//! The demo's tests: a backend per test, on a port that the kernel chooses.
//!
//! Nothing sleeps: a test waits for bytes, under the client's deadline.

mod behaviour;
mod client;
mod connections;
mod paths;
