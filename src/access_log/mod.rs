//! The access log: a line for each request, formatted by its worker and written by one thread.
//!
//! `line` writes the lines, `pen` is a worker's side, `writer` the thread's. What the thread cannot
//! keep up with is dropped and counted; no request ever waits for it. The server opens and ends it.

mod captured;
mod escape;
mod line;
mod number;
mod pen;
mod stamp;
mod writer;

pub use captured::{Captured, Field};
pub use line::{Entry, write_line};
pub use pen::Pen;
pub use stamp::Stamp;
pub use writer::{AccessLog, Inlet, Reopener};
