//! The chunked transfer coding (RFC 9112 §7.1): finds where a body ends, in place.
//!
//! What is kept is a part of what came in, so it is moved to the front of the same bytes: chunk
//! extensions are dropped, trailers kept (`Output::Chunks`), or all framing dropped
//! (`Output::Data`). A byte that breaks the grammar ends the scan: what a lenient reader behind
//! corelane might take for something else is never kept.

use crate::error::Cause;
use crate::http1::is_token_byte;

/// What of a chunked body is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Chunks and trailers, without chunk extensions.
    Chunks,
    /// The data alone, for a receiver that knows no chunks.
    Data,
}

/// What of some bytes belongs to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many bytes at the front are to be forwarded.
    pub kept: usize,
    /// How many bytes were read; those behind belong to the next message.
    pub used: usize,
}

/// Which part of a chunked body breaks the grammar or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A chunk's size line or its end.
    Chunk,
    /// The trailer section.
    Trailer,
    /// The data is longer than its limit.
    TooLong,
}

impl Fault {
    /// The cause where a request's body has this fault.
    #[must_use]
    pub fn in_request(self) -> Cause {
        match self {
            Fault::Chunk => Cause::RequestChunkInvalid,
            Fault::Trailer => Cause::RequestTrailerInvalid,
            Fault::TooLong => Cause::RequestBodyTooLarge,
        }
    }
}

/// A scanner of one chunked body.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    output: Output,
    /// How many bytes of data may still be announced.
    room: u64,
    /// Bytes of the current chunk's extensions, or of all trailers.
    line_bytes: usize,
    /// The current trailer's name in lower case, as far as it may be a forbidden one.
    name: [u8; NAME_BYTES],
    name_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64, at: ExtensionAt },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    End,
    Complete,
}

/// Where in a chunk extension the scanner stands: `;name`, `;name=token` or `;name="quoted"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExtensionAt {
    NameStart,
    Name,
    ValueStart,
    Token,
    Quoted,
    QuotedPair,
    QuotedEnd,
}

impl Chunked {
    /// A scanner at the start of a body of at most `bytes_max` bytes of data.
    #[must_use]
    pub fn new(output: Output, bytes_max: u64) -> Chunked {
        Chunked {
            state: State::Size { size: 0, digits: 0 },
            output,
            room: bytes_max,
            line_bytes: 0,
            name: [0; NAME_BYTES],
            name_bytes: 0,
        }
    }

    /// Whether the last chunk and the trailers were read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Bytes of the current chunk that are still to come.
    #[must_use]
    pub fn bytes_left(&self) -> u64 {
        if let State::Data { left } = self.state { left } else { 0 }
    }

    /// Takes what belongs to the body from the front of `bytes`, and moves what is kept there.
    ///
    /// # Errors
    /// When a byte breaks the grammar or a limit; nothing more may be read then.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, Fault> {
        let (mut used, mut kept) = (0, 0);
        while used < bytes.len() && self.state != State::Complete {
            if let State::Data { left } = self.state {
                let run = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - used);
                if kept != used {
                    bytes.copy_within(used..used + run, kept);
                }
                used += run;
                kept += run;
                let left = left - run as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                continue;
            }
            let byte = bytes[used];
            used += 1;
            if self.step(byte)? && self.output == Output::Chunks {
                bytes[kept] = byte;
                kept += 1;
            }
        }
        Ok(Taken { kept, used })
    }

    /// Reads one byte of framing; says whether it is kept when chunks are.
    fn step(&mut self, byte: u8) -> Result<bool, Fault> {
        let keep = !matches!(self.state, State::Extension { .. }) || byte == b'\r';
        self.state = match (self.state, byte) {
            (State::Size { size, digits }, _) => return self.step_size(size, digits, byte),
            (State::Extension { size, at }, _) => self.step_extension(size, at, byte)?,
            (State::SizeEnd { size: 0 }, b'\n') => {
                self.line_bytes = 0;
                State::TrailerStart
            }
            (State::SizeEnd { size }, b'\n') => {
                self.room = self.room.checked_sub(size).ok_or(Fault::TooLong)?;
                State::Data { left: size }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::End,
            (State::End, b'\n') => State::Complete,
            (
                State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerEnd,
                _,
            ) => self.step_trailer(byte)?,
            (State::End, _) => return Err(Fault::Trailer),
            _ => return Err(Fault::Chunk),
        };
        Ok(keep)
    }

    fn step_size(&mut self, size: u64, digits: u8, byte: u8) -> Result<bool, Fault> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            if digits == SIZE_DIGITS_MAX {
                return Err(Fault::Chunk);
            }
            self.state = State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 };
            return Ok(true);
        }
        self.state = match byte {
            _ if digits == 0 => return Err(Fault::Chunk),
            b'\r' => State::SizeEnd { size },
            b';' => {
                self.line_bytes = 1;
                State::Extension { size, at: ExtensionAt::NameStart }
            }
            _ => return Err(Fault::Chunk),
        };
        Ok(byte == b'\r')
    }

    fn step_extension(&mut self, size: u64, at: ExtensionAt, byte: u8) -> Result<State, Fault> {
        use ExtensionAt as At;
        self.line_bytes += 1;
        if self.line_bytes > EXTENSION_BYTES_MAX {
            return Err(Fault::Chunk);
        }
        let at = match (at, byte) {
            (At::Name | At::Token | At::QuotedEnd, b'\r') => return Ok(State::SizeEnd { size }),
            (At::Name | At::Token | At::QuotedEnd, b';') => At::NameStart,
            (At::NameStart | At::Name, _) if is_token_byte(byte) => At::Name,
            (At::Name, b'=') => At::ValueStart,
            (At::ValueStart, b'"') => At::Quoted,
            (At::ValueStart | At::Token, _) if is_token_byte(byte) => At::Token,
            (At::Quoted, b'"') => At::QuotedEnd,
            (At::Quoted, b'\\') => At::QuotedPair,
            (At::Quoted | At::QuotedPair, _) if is_text_byte(byte) => At::Quoted,
            _ => return Err(Fault::Chunk),
        };
        Ok(State::Extension { size, at })
    }

    fn step_trailer(&mut self, byte: u8) -> Result<State, Fault> {
        self.line_bytes += 1;
        if self.line_bytes > TRAILER_BYTES_MAX {
            return Err(Fault::Trailer);
        }
        match (self.state, byte) {
            (State::TrailerStart, _) if is_token_byte(byte) => {
                self.name_bytes = 0;
                self.push_name(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') if !self.is_name_forbidden() => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token_byte(byte) => {
                self.push_name(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerEnd),
            (State::TrailerValue, _) if is_text_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerEnd, b'\n') => Ok(State::TrailerStart),
            _ => Err(Fault::Trailer),
        }
    }

    fn push_name(&mut self, byte: u8) {
        if let Some(place) = self.name.get_mut(self.name_bytes) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_bytes += 1;
    }

    fn is_name_forbidden(&self) -> bool {
        self.name.get(..self.name_bytes).is_some_and(|name| FORBIDDEN_TRAILERS.contains(&name))
    }
}

/// Whether a byte may stand in a field value or a quoted string (RFC 9110 §5.5, §5.6.4).
const fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// The most digits of a chunk's size: 16 hold every u64.
const SIZE_DIGITS_MAX: u8 = 16;
/// The most bytes of one chunk's extensions, which are read and dropped.
const EXTENSION_BYTES_MAX: usize = 1024;
/// The most bytes of a trailer section.
const TRAILER_BYTES_MAX: usize = 8192;
/// Trailers that a reader which merges them into the head would take for the message's framing,
/// routing or connection (RFC 9110 §6.5.1).
const FORBIDDEN_TRAILERS: [&[u8]; 12] = [
    b"connection",
    b"content-length",
    b"forwarded",
    b"host",
    b"keep-alive",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];
/// The length of the longest forbidden trailer's name.
const NAME_BYTES: usize = 17;

#[cfg(test)]
mod tests;
