//! Table tests of the chunked scanner, each input whole, byte by byte and split at every point.

use super::*;

/// Feeds `input` in pieces cut at `cuts`; returns what was kept, how much was used, and whether
/// the body is complete.
fn feed(input: &[u8], cuts: &[usize], output: Output) -> Result<(Vec<u8>, usize, bool), Fault> {
    let mut chunked = Chunked::new(output, u64::MAX);
    let (mut kept, mut used, mut from) = (Vec::new(), 0, 0);
    for &cut in cuts.iter().chain([&input.len()]) {
        let mut piece = input[from..cut].to_vec();
        from = cut;
        let taken = chunked.take(&mut piece)?;
        kept.extend_from_slice(&piece[..taken.kept]);
        used += taken.used;
    }
    Ok((kept, used, chunked.is_complete()))
}

fn check(input: &str, output: Output, expected: Result<(&str, usize, bool), Fault>) {
    let input = input.as_bytes();
    let expected =
        expected.map(|(kept, used, complete)| (kept.as_bytes().to_vec(), used, complete));
    let every_byte: Vec<usize> = (0..input.len()).collect();
    assert_eq!(feed(input, &[], output), expected, "whole");
    assert_eq!(feed(input, &every_byte, output), expected, "byte by byte");
    for cut in 0..=input.len() {
        assert_eq!(feed(input, &[cut], output), expected, "split at {cut}");
    }
}

#[test]
fn chunks_pass_and_extensions_are_dropped() {
    for (input, kept) in [
        ("0\r\n\r\n", "0\r\n\r\n"),
        ("3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ("00A\r\n0123456789\r\n000\r\n\r\n", "00A\r\n0123456789\r\n000\r\n\r\n"),
        ("1;a=b\r\nx\r\n0;c\r\n\r\n", "1\r\nx\r\n0\r\n\r\n"),
        ("1;a=\"q;\\\"\r\";b\r\nx\r\n0\r\n\r\n", ""),
        ("1;a=\"q; \\\"\";b\r\nx\r\n0\r\n\r\n", "1\r\nx\r\n0\r\n\r\n"),
        ("0\r\nX-Sum: 1\r\nY:\r\n\r\n", "0\r\nX-Sum: 1\r\nY:\r\n\r\n"),
    ] {
        let expected =
            if kept.is_empty() { Err(Fault::Chunk) } else { Ok((kept, input.len(), true)) };
        check(input, Output::Chunks, expected);
    }
}

#[test]
fn data_alone_is_kept_for_a_receiver_without_chunks() {
    let input = "3;e\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n";
    check(input, Output::Data, Ok(("abcde", input.len(), true)));
}

#[test]
fn trailers_are_dropped_where_a_header_may_have_named_them() {
    let input = "1;e\r\nx\r\n0\r\nT: v\r\nU: w\r\n\r\n";
    let kept = "1\r\nx\r\n0\r\n\r\n";
    check(input, Output::ChunksWithoutTrailers, Ok((kept, input.len(), true)));
}

#[test]
fn bytes_after_the_end_are_left_alone() {
    check("1\r\nx\r\n0\r\n\r\nGET /", Output::Chunks, Ok(("1\r\nx\r\n0\r\n\r\n", 11, true)));
}

#[test]
fn a_body_cut_short_is_not_complete() {
    check("5\r\nabc", Output::Chunks, Ok(("5\r\nabc", 6, false)));
    check("1\r\nx\r\n0\r\n", Output::Chunks, Ok(("1\r\nx\r\n0\r\n", 9, false)));
}

#[test]
fn what_breaks_the_grammar_of_chunks_is_refused() {
    for input in [
        "\r\n",
        ";a\r\n",
        "x\r\n",
        "0x1\r\n",
        "+1\r\n",
        "-1\r\n",
        " 1\r\n",
        "1 \r\n",
        "1\t\r\n",
        "1\n",
        "1\rx",
        "1;\r\n",
        "1; a\r\n",
        "1;a\n",
        "1;a\0\r\n",
        "1;a=\r\n",
        "1;a=\"b\r\n",
        "1;a=\"b\"c\r\n",
        "1;a\x7f\r\n",
        "11111111111111111\r\n",
        "1\r\nxy",
        "1\r\nx\n",
        "1\r\nx\r\r",
    ] {
        check(input, Output::Chunks, Err(Fault::Chunk));
    }
}

#[test]
fn what_breaks_the_grammar_of_trailers_is_refused() {
    for trailers in [
        "\n",
        "\rx",
        ": v\r\n",
        "a b: v\r\n",
        "a : v\r\n",
        " a: v\r\n",
        "a\r\n",
        "a: v\n",
        "a: \0\r\n",
        "a: v\r\n b\r\n",
        "Content-Length: 1\r\n",
        "transfer-encoding: chunked\r\n",
        "HOST: a\r\n",
    ] {
        check(&format!("0\r\n{trailers}"), Output::Chunks, Err(Fault::Trailer));
    }
}

#[test]
fn limits_hold_at_the_byte() {
    let extension = |bytes: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(bytes));
    let feed_whole = |input: &str| feed(input.as_bytes(), &[], Output::Chunks);
    // The semicolon and the CR count too.
    assert!(feed_whole(&extension(EXTENSION_BYTES_MAX - 2)).is_ok());
    assert_eq!(feed_whole(&extension(EXTENSION_BYTES_MAX - 1)), Err(Fault::Chunk));
    let trailer = |bytes: usize| format!("0\r\na:{}\r\n\r\n", "v".repeat(bytes));
    assert!(feed_whole(&trailer(TRAILER_BYTES_MAX - 4)).is_ok());
    assert_eq!(feed_whole(&trailer(TRAILER_BYTES_MAX - 3)), Err(Fault::Trailer));
    assert!(feed_whole("ffffffffffffffff\r\nx").is_ok());
}

#[test]
fn data_over_its_limit_is_refused_when_it_is_announced() {
    let take = |input: &str| {
        let mut chunked = Chunked::new(Output::Chunks, 5);
        chunked.take(&mut input.as_bytes().to_vec()).map(|taken| taken.used)
    };
    assert_eq!(take("2\r\nab\r\n3\r\nabc\r\n0\r\n\r\n"), Ok(20));
    assert_eq!(take("2\r\nab\r\n4\r\n"), Err(Fault::TooLong));
}
