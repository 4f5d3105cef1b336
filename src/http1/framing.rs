//! How a message's body is delimited, and how much of the bytes at hand belongs to it.
//!
//! RFC 9112 §6. Nothing here guesses: what could be read two ways is an error of the caller's
//! choosing, and a body that is cut short is told from a complete one.

use crate::http1::chunked::{Chunked, Fault, Output, Taken};

/// How a message's body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks up to the last one, and trailers.
    Chunked,
    /// Up to the end of the connection; responses only.
    UntilClose,
}

/// A body that is being read: how much of it is still to come.
#[derive(Debug)]
pub enum Body {
    /// So many bytes are still to come.
    Length(u64),
    /// The scanner knows where the body ends.
    Chunked(Chunked),
    /// All bytes belong to it until the connection ends.
    UntilClose,
}

impl Body {
    /// The reader of a body so delimited; `output` says whether a chunked body leaves as chunks,
    /// and `bytes_max` how much data it may hold.
    #[must_use]
    pub fn new(framing: Framing, output: Output, bytes_max: u64) -> Body {
        match framing {
            Framing::Empty => Body::Length(0),
            Framing::Length(bytes) => Body::Length(bytes),
            Framing::Chunked => Body::Chunked(Chunked::new(output, bytes_max)),
            Framing::UntilClose => Body::UntilClose,
        }
    }

    /// Takes what belongs to the body from the front of `bytes`; what is to be forwarded is moved
    /// to the front, in place.
    ///
    /// # Errors
    /// When chunks or trailers break the grammar; nothing more may be read then.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, Fault> {
        match self {
            Body::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= used as u64;
                Ok(Taken { kept: used, used })
            }
            Body::Chunked(chunked) => chunked.take(bytes),
            Body::UntilClose => Ok(Taken { kept: bytes.len(), used: bytes.len() }),
        }
    }

    /// How many bytes may pass without being looked at: all that is to come, or none of chunks.
    #[must_use]
    pub fn bytes_untouched(&self) -> u64 {
        match self {
            Body::Length(left) => *left,
            Body::Chunked(_) => 0,
            Body::UntilClose => u64::MAX,
        }
    }

    /// Counts bytes that have passed so; no more than `bytes_untouched` said.
    pub fn pass(&mut self, count: usize) {
        if let Body::Length(left) = self {
            debug_assert!(count as u64 <= *left, "more has passed than belongs to the body");
            *left = left.saturating_sub(count as u64);
        }
    }

    /// Whether the body was read to its end; never for one that the connection's end delimits.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.is_complete(),
            Body::UntilClose => false,
        }
    }

    /// Whether the connection may end here without cutting the body short.
    #[must_use]
    pub fn may_end(&self) -> bool {
        matches!(self, Body::UntilClose) || self.is_complete()
    }

    /// At least how many bytes are still to come, as far as that is known.
    #[must_use]
    pub fn bytes_left(&self) -> u64 {
        match self {
            Body::Length(left) => *left,
            Body::Chunked(chunked) => chunked.bytes_left(),
            Body::UntilClose => u64::MAX,
        }
    }
}

/// The number that a Content-Length value says; `None` unless it is 1*DIGIT and fits
/// (RFC 9110 §8.6).
#[must_use]
pub fn length_of(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// What a Transfer-Encoding value says (RFC 9112 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Exactly `chunked`.
    Chunked,
    /// Well-formed, ends in chunked, and names a coding that corelane does not know.
    Unknown,
    /// Anything else: chunked twice, not last, missing, or a list that is not well-formed.
    Invalid,
}

/// What a Transfer-Encoding value says.
#[must_use]
pub fn coding_of(value: &[u8]) -> Coding {
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).rev();
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if !codings.next().is_some_and(is_chunked) {
        return Coding::Invalid;
    }
    let mut result = Coding::Chunked;
    for coding in codings {
        let is_token = !coding.is_empty() && coding.iter().all(|byte| super::is_token_byte(*byte));
        if !is_token || is_chunked(coding) {
            return Coding::Invalid;
        }
        result = Coding::Unknown;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_plain_digits_that_fit() {
        for (value, length) in [
            ("0", Some(0)),
            ("42", Some(42)),
            ("0042", Some(42)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            ("1,1", None),
            ("0x1", None),
            ("1_0", None),
        ] {
            assert_eq!(length_of(value.as_bytes()), length, "{value:?}");
        }
    }

    #[test]
    fn only_exactly_chunked_is_chunked() {
        for (value, coding) in [
            ("chunked", Coding::Chunked),
            ("Chunked", Coding::Chunked),
            ("gzip, chunked", Coding::Unknown),
            ("chunked,", Coding::Invalid),
            (",chunked", Coding::Invalid),
            ("chunked, chunked", Coding::Invalid),
            ("chunked, gzip", Coding::Invalid),
            ("identity", Coding::Invalid),
            ("xchunked", Coding::Invalid),
            ("chunked;q=1", Coding::Invalid),
            ("\x0bchunked", Coding::Invalid),
            ("", Coding::Invalid),
            ("\"chunked\"", Coding::Invalid),
            ("gzip;q=1, chunked", Coding::Invalid),
        ] {
            assert_eq!(coding_of(value.as_bytes()), coding, "{value:?}");
        }
    }

    #[test]
    fn a_body_of_known_length_leaves_the_next_message_alone() {
        let mut body = Body::new(Framing::Length(3), Output::Chunks, u64::MAX);
        assert_eq!(body.take(&mut b"ab".to_vec()), Ok(Taken { kept: 2, used: 2 }));
        assert!(!body.is_complete() && !body.may_end());
        assert_eq!(body.take(&mut b"cGET".to_vec()), Ok(Taken { kept: 1, used: 1 }));
        assert!(body.is_complete());
    }
}
