//! What a line will need of a request's head, kept until its answer has ended.
//!
//! The head's bytes are gone by then: their buffer takes the answer. Kept in one piece of memory,
//! which the next request uses again.

use crate::config::LINE_HEADERS_MAX;

/// A piece of a request that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The method.
    Method,
    /// The target, as it is forwarded.
    Target,
    /// The authority that the request is for.
    Host,
    /// The request's id.
    RequestId,
    /// The trace's id.
    TraceId,
    /// The first line of what is no request.
    FirstLine,
    /// A header, by its index in `LineFormat::headers`.
    Header(usize),
}

impl Field {
    /// A field's place; the headers stand behind the others.
    fn index(self) -> usize {
        match self {
            Field::Method => 0,
            Field::Target => 1,
            Field::Host => 2,
            Field::RequestId => 3,
            Field::TraceId => 4,
            Field::FirstLine => 5,
            Field::Header(index) => FIELDS + index,
        }
    }
}

/// The pieces of one request.
#[derive(Debug, Default)]
pub struct Captured {
    bytes: Vec<u8>,
    /// Where each piece begins and ends; both 0 for what is not there.
    spans: [(u16, u16); FIELDS + LINE_HEADERS_MAX],
}

impl Captured {
    /// Keeps what `pieces` are together, cut to `FIELD_BYTES_MAX`, and to what is left of
    /// `BYTES_MAX`, or of `ID_BYTES` beyond it for ids.
    pub fn keep(&mut self, field: Field, pieces: &[&[u8]]) {
        if self.bytes.is_empty() {
            // So that no piece begins at 0.
            self.bytes.push(0);
        }
        let Some(span) = self.spans.get_mut(field.index()) else { return };
        let begin = self.bytes.len();
        // What a client sends leaves room for the ids, so that its line can be found.
        let is_id = matches!(field, Field::RequestId | Field::TraceId);
        let bytes_max = if is_id { BYTES_MAX + ID_BYTES } else { BYTES_MAX };
        let end_max = (begin + FIELD_BYTES_MAX).min(bytes_max);
        for piece in pieces {
            let count = piece.len().min(end_max - self.bytes.len());
            self.bytes.extend_from_slice(&piece[..count]);
        }
        let at = |position: usize| u16::try_from(position).unwrap_or(u16::MAX);
        *span = (at(begin), at(self.bytes.len()));
    }

    /// The piece, if there is one.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<&[u8]> {
        let (begin, end) = *self.spans.get(field.index())?;
        (begin > 0).then(|| self.bytes.get(usize::from(begin)..usize::from(end)))?
    }

    /// Forgets all pieces, and gives back memory that few requests need.
    pub fn clear(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        self.bytes.clear();
        self.spans = Default::default();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }
}

/// The fields that are no headers.
const FIELDS: usize = 6;
/// The most bytes of one piece; the rest is cut.
pub(super) const FIELD_BYTES_MAX: usize = 4 * 1024;
/// The most bytes of all pieces of a request. Escaped they are six times as many at most.
const BYTES_MAX: usize = 8 * 1024;
/// What ids have of their own beyond that.
const ID_BYTES: usize = 256;
/// The most memory that stays for the next request.
const KEPT_BYTES_MAX: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_and_are_forgotten() {
        let mut captured = Captured::default();
        captured.keep(Field::Method, &[b"GET"]);
        captured.keep(Field::Target, &[b"/", b"a?b"]);
        captured.keep(Field::Header(15), &[b""]);
        captured.keep(Field::Header(16), &[b"one too many"]);
        assert_eq!(captured.get(Field::Method), Some(&b"GET"[..]));
        assert_eq!(captured.get(Field::Target), Some(&b"/a?b"[..]));
        assert_eq!(captured.get(Field::Header(15)), Some(&b""[..]));
        assert_eq!((captured.get(Field::Header(16)), captured.get(Field::Host)), (None, None));
        captured.clear();
        assert_eq!(captured.get(Field::Method), None);
    }

    #[test]
    fn long_pieces_are_cut_and_all_of_them_too() {
        let mut captured = Captured::default();
        let long = [b'x'; 10_000];
        captured.keep(Field::Target, &[b"/", &long]);
        assert_eq!(captured.get(Field::Target).map(<[u8]>::len), Some(FIELD_BYTES_MAX));
        for header in 0..3 {
            captured.keep(Field::Header(header), &[&long]);
        }
        assert_eq!(captured.bytes.len(), BYTES_MAX);
        assert_eq!(captured.get(Field::Header(2)), Some(&b""[..]));
        captured.clear();
        assert_eq!(captured.bytes.capacity(), 0);
    }
}
