//! Reads what a request's query carries. Called by `number` and `service`.

/// The value of this name as it stands; of several, the first.
pub(super) fn value_of<'query>(query: Option<&'query str>, name: &str) -> Option<&'query str> {
    let pairs = query.unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// The value of this name, decoded: 1 to `bytes_max` bytes of visible ASCII and spaces.
pub(super) fn text_of(query: Option<&str>, name: &str, bytes_max: usize) -> Result<String, String> {
    let refused = || format!("{name}: give 1 to {bytes_max} bytes of visible ASCII, as in a URI");
    let value = value_of(query, name).ok_or_else(refused)?;
    let text = decoded(value).filter(|text| (1..=bytes_max).contains(&text.len()));
    let text = text.filter(|text| text.iter().all(|byte| (b' '..=b'~').contains(byte)));
    text.and_then(|text| String::from_utf8(text).ok()).ok_or_else(refused)
}

/// `%41` is `A` (RFC 3986 section 2.1).
fn decoded(value: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        // Two hexadecimal digits are at most 255.
        decoded.push(if byte == b'%' { (digit()? * 16 + digit()?) as u8 } else { byte });
    }
    Some(decoded)
}
