//! What a reader may make of a path: routes must not depend on who reads.
//!
//! A backend may decode what is percent-encoded or not, once or again; take a backslash for a
//! slash; drop empty segments; cut `;parameters` off. `resolve` does all of it. As the paths of
//! routes hold nothing of that kind, each route that takes any reader's path takes the resolved
//! one, so who is routed alike as it came and resolved is routed alike for all readers.

/// A path, as some reader reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'p> {
    pub(super) path: &'p [u8],
    /// From so many bytes on, some reader may see its end.
    may_end_at: usize,
}

impl<'p> Reading<'p> {
    /// What came, byte for byte.
    pub(super) fn as_it_came(path: &'p [u8]) -> Reading<'p> {
        Reading { path, may_end_at: usize::MAX }
    }

    /// Whether a reader may take it for this path.
    pub(super) fn may_be(&self, exact: &[u8]) -> bool {
        self.path == exact || (exact.len() >= self.may_end_at && is_below(self.path, exact))
    }
}

/// Whether a path is this one, or lies below it.
pub(super) fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || prefix.ends_with(b"/"))
}

/// Whether a path can be read in one way only, as far as a quick look tells.
pub(super) fn is_plain(path: &[u8]) -> bool {
    memchr::memchr3(b'%', b'\\', b';', path).is_none()
        && !path.windows(2).any(|pair| pair == b"//" || pair == b"/.")
}

/// The path with all resolved that any reader may resolve, in `space`. `None` for segments of dots
/// and bytes that end a path or hide one, which readers disagree on too much.
pub(super) fn resolve<'s>(path: &[u8], space: &'s mut Vec<u8>) -> Option<Reading<'s>> {
    let first_end = decode(path, space)?;
    let bytes = &mut space[..];
    let (mut read, mut written, mut may_end_at) = (0, 0, usize::MAX);
    while read < bytes.len() {
        // At a slash: the segment behind it.
        let begin = read + 1;
        let is_end = |it: &u8| matches!(it, b'/' | b'\\');
        let len = bytes[begin..].iter().position(is_end).unwrap_or(bytes.len() - begin);
        let segment = &bytes[begin..begin + len];
        let kept = segment.iter().position(|it| matches!(it, b';' | b'?' | b'#')).unwrap_or(len);
        if matches!(&segment[..kept], b"." | b"..") {
            return None;
        }
        read = begin + len;
        let is_last = read == bytes.len();
        if kept > 0 || is_last {
            bytes[written] = b'/';
            bytes.copy_within(begin..begin + kept, written + 1);
            written += 1 + kept;
        }
        if first_end.is_some_and(|end| end <= read) {
            may_end_at = may_end_at.min(written);
        }
    }
    Some(Reading { path: &space[..written], may_end_at })
}

/// Decodes a path into `space` until there is nothing left to decode; says where the first byte
/// lies that some reader may end a segment or the path at, and others may not.
fn decode(path: &[u8], space: &mut Vec<u8>) -> Option<Option<usize>> {
    let mut first_end = None;
    space.clear();
    space.reserve(path.len());
    for byte in path {
        space.push(*byte);
        let mut is_decoded = false;
        while let [.., b'%', high, low] = space[..]
            && let Some(decoded) = octet(high, low)
        {
            space.truncate(space.len() - 3);
            space.push(decoded);
            is_decoded = true;
        }
        // Overlong forms in UTF-8, of three and of four bytes.
        if let [.., 0xE0, 0x80..=0x9F] | [.., 0xF0, 0x80..=0x8F] = space[..] {
            return None;
        }
        match space.last() {
            // The end of a text in C, and the front of an overlong form in UTF-8.
            Some(0 | 0xC0 | 0xC1) => return None,
            Some(b'/') if !is_decoded => {}
            Some(b'/' | b'\\' | b';' | b'?' | b'#') => {
                first_end = first_end.or(Some(space.len() - 1));
            }
            _ => {}
        }
    }
    Some(first_end)
}

fn octet(high: u8, low: u8) -> Option<u8> {
    let digit = |it: u8| char::from(it).to_digit(16).and_then(|it| u8::try_from(it).ok());
    Some(digit(high)? << 4 | digit(low)?)
}
