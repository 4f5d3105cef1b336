//! The chunked scanner: the first byte says how the rest is cut.
#![no_main]

#[path = "../../it/support/pure.rs"]
mod pure;
#[path = "../../it/support/strict.rs"]
mod strict;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((cut, body)) = data.split_first() else { return };
    pure::check_chunked(body, pure::Cuts(&[usize::from(cut >> 4), usize::from(cut & 15)]));
});
