//! Writes the messages of tests/data as the corpora that the fuzz targets start from.

#[path = "../it/support/corpus.rs"]
mod corpus;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let write = |target: &str, name: &str, prefix: &[u8], bytes: &[u8]| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(name), [prefix, bytes].concat())
    };
    for (number, case) in (0..=u8::MAX).cycle().zip(corpus::cases("requests")) {
        write("request_head", &case.name, &[], &case.message)?;
        write("exchange", &case.name, &[0, number], &case.message)?;
        if let Some(body) = body_of(&case.message) {
            write("chunked", &case.name, &[number], body)?;
        }
    }
    for (number, case) in (0..=u8::MAX).cycle().zip(corpus::cases("responses")) {
        write("response_head", &case.name, &[], &case.message)?;
        write(
            "exchange",
            &format!("answer-{}", case.name),
            &[1 | number << 1, number],
            &case.message,
        )?;
    }
    Ok(())
}

/// What stands behind the head.
fn body_of(message: &[u8]) -> Option<&[u8]> {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(&message[end + 4..]).filter(|body| !body.is_empty())
}
