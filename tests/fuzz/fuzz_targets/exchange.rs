//! Whole exchanges: heads and bodies in, forwarded bytes out, read again by the strict reader. The
//! first byte says who speaks to whom, the second how the rest is cut.
#![no_main]

#[path = "../../it/support/pure.rs"]
mod pure;
#[path = "../../it/support/strict.rs"]
mod strict;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [mode, cut, bytes @ ..] = data else { return };
    let cuts = [usize::from(cut >> 4), usize::from(cut & 15)];
    pure::check_exchange(*mode, pure::Cuts(&cuts), bytes);
});
