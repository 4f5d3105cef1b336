//! Writes bytes of clients so that they can forge nothing: no line, no field, no JSON, no command
//! to a terminal. What is written is printable ASCII.

/// For lines of text: `"` and `\` get a backslash, all but printable ASCII is `\xHH`.
pub(super) fn text(bytes: &[u8], out: &mut Vec<u8>) {
    escaped(bytes, out, |byte, out| match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        _ => out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte)]),
    });
}

/// For strings of JSON (RFC 8259 §7): all but printable ASCII is `\u00HH`, one for each byte.
pub(super) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    escaped(bytes, out, |byte, out| match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte)]),
    });
}

/// Copies what is plain in runs, and lets `write` write the rest.
fn escaped(bytes: &[u8], out: &mut Vec<u8>, write: impl Fn(u8, &mut Vec<u8>)) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| !is_plain(*byte)) {
        out.extend_from_slice(&rest[..at]);
        write(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// The lower four bits as a hexadecimal digit.
fn hex(bits: u8) -> u8 {
    b"0123456789abcdef"[usize::from(bits & 0xf)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], as_text: &str, as_json: &str) {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        text(bytes, &mut one);
        json(bytes, &mut other);
        assert_eq!(String::from_utf8(one).unwrap(), as_text);
        assert_eq!(String::from_utf8(other.clone()).unwrap(), as_json);
        let quoted = [b"\"", &other[..], b"\""].concat();
        let parsed: String = serde_json::from_slice(&quoted).unwrap();
        let as_latin1: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        assert_eq!(parsed, as_latin1);
    }

    #[test]
    fn bytes_that_could_forge_something_are_escaped() {
        check(b"", "", "");
        check(b"/plain?a=b&c='~ ", "/plain?a=b&c='~ ", "/plain?a=b&c='~ ");
        check(b"a\r\nb", "a\\x0d\\x0ab", "a\\u000d\\u000ab");
        check(b"\" 200 \"", "\\\" 200 \\\"", "\\\" 200 \\\"");
        check(b"\\", "\\\\", "\\\\");
        check(b"\x1b[2J\x00\x7f\t", "\\x1b[2J\\x00\\x7f\\x09", "\\u001b[2J\\u0000\\u007f\\u0009");
        check("ä\u{9b}".as_bytes(), "\\xc3\\xa4\\xc2\\x9b", "\\u00c3\\u00a4\\u00c2\\u009b");
        check(b"\xff\xfe", "\\xff\\xfe", "\\u00ff\\u00fe");
    }

    #[test]
    fn every_byte_becomes_printable_ascii_and_json_keeps_it() {
        for byte in 0..=u8::MAX {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            text(&[byte], &mut one);
            json(&[byte], &mut other);
            let is_printable = |it: &u8| (b' '..=b'~').contains(it);
            assert!(one.iter().all(is_printable) && other.iter().all(is_printable), "{byte}");
        }
    }
}
