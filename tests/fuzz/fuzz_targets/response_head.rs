//! Heads of responses: what is taken is written in one way only, and reads the same with anything behind it.
#![no_main]

#[path = "../../it/support/pure.rs"]
mod pure;
#[path = "../../it/support/strict.rs"]
mod strict;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pure::check_response_head(data));
