//! What a request says of the trace that it is a part of: `traceparent` as W3C Trace Context, level 1,
//! has it. A valid one passes as it came; corelane makes one where there is none, if it is to.

use httparse::Header;

use crate::http1::{Known, is_named};

/// A whole value of `traceparent`.
pub type TraceParent = [u8; TRACEPARENT_BYTES];

/// The request's own, if there is exactly one, it is valid, and it is forwarded: not named by a
/// `Connection`, which would take it out (§3.2 of Trace Context).
#[must_use]
pub fn of<'b>(headers: &[Header<'b>], names_headers: bool) -> Option<&'b [u8]> {
    let is_it = |header: &&Header<'_>| Known::of(header.name) == Some(Known::TraceParent);
    let mut found = headers.iter().filter(is_it);
    let (header, None) = (found.next()?, found.next()) else { return None };
    let is_taken_out = names_headers && is_named(headers, header.name);
    (is_valid(header.value) && !is_taken_out).then_some(header.value)
}

/// The trace's id, 32 hexadecimal digits, of a valid `traceparent`.
#[must_use]
pub fn id_of(traceparent: &[u8]) -> &[u8] {
    traceparent.get(TRACE_ID).unwrap_or_default()
}

/// A `traceparent` of these ids, neither of which is 0.
#[must_use]
pub fn made(trace: u128, span: u64, is_sampled: bool) -> TraceParent {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(trace, &mut value[TRACE_ID]);
    write_hex(u128::from(span), &mut value[SPAN_ID]);
    if is_sampled {
        value[TRACEPARENT_BYTES - 1] = b'1';
    }
    value
}

/// The 32 hexadecimal digits of an id.
#[must_use]
pub fn hex_of(id: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    write_hex(id, &mut digits);
    digits
}

/// Whether the value has the form of its version; versions to come may have more behind a dash.
fn is_valid(value: &[u8]) -> bool {
    let Some((known, more)) = value.split_at_checked(TRACEPARENT_BYTES) else { return false };
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let [version, trace, span, flags] = [0..2, TRACE_ID, SPAN_ID, 53..55].map(|at| &known[at]);
    let is_zero = |id: &[u8]| id.iter().all(|digit| *digit == b'0');
    let is_of_version = match version {
        b"00" => more.is_empty(),
        b"ff" => false,
        _ => more.first().is_none_or(|byte| *byte == b'-'),
    };
    is_of_version
        && [version, trace, span, flags].into_iter().flatten().all(is_hex)
        && [2, 35, 52].into_iter().all(|at| known[at] == b'-')
        && !is_zero(trace)
        && !is_zero(span)
}

/// As many of the number's last hexadecimal digits as there is room for.
fn write_hex(mut number: u128, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

/// Version, trace, span and flags, with the dashes between them.
const TRACEPARENT_BYTES: usize = 55;
const TRACE_ID: std::ops::Range<usize> = 3..35;
const SPAN_ID: std::ops::Range<usize> = 36..52;

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[track_caller]
    fn check(values: &[&str], expected: bool) {
        let header = |value: &&'static str| Header { name: "Traceparent", value: value.as_bytes() };
        let values: Vec<&'static str> = values.iter().map(|it| &*it.to_string().leak()).collect();
        let headers: Vec<_> = values.iter().map(header).collect();
        assert_eq!(of(&headers, false).is_some(), expected, "{values:?}");
    }

    #[test]
    fn only_what_has_the_form_of_its_version_is_valid() {
        check(&[VALID], true);
        check(&[], false);
        check(&[VALID, VALID], false);
        check(&[&VALID.replace("00-", "01-")], true);
        check(&[&format!("{}-more", VALID.replace("00-", "cc-"))], true);
        check(&[&format!("{}more", VALID.replace("00-", "cc-"))], false);
        check(&[&format!("{VALID}-more")], false);
        check(&[&VALID.replace("00-0", "ff-0")], false);
        check(&[&VALID.to_uppercase()], false);
        check(&[&VALID[1..]], false);
        check(&[&VALID.replace('-', "_")], false);
        check(&["00-00000000000000000000000000000000-b7ad6b7169203331-01"], false);
        check(&["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"], false);
        check(&["00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01"], false);
    }

    #[test]
    fn what_is_made_is_valid_and_has_its_ids() {
        let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
        assert_eq!(made(trace, 0xb7ad_6b71_6920_3331, true), VALID.as_bytes());
        let least = made(1, 1, false);
        assert!(is_valid(&least) && least.ends_with(b"-0000000000000001-00"));
        assert_eq!(id_of(&least), b"00000000000000000000000000000001");
    }

    #[test]
    fn one_that_connection_takes_out_is_none() {
        let headers = [
            Header { name: "traceparent", value: VALID.as_bytes() },
            Header { name: "Connection", value: b"Traceparent" },
        ];
        assert!(of(&headers, true).is_none());
    }
}
