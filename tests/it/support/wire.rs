//! One side of an HTTP/1.1 connection as bytes: heads, bodies by their framing, and how it ended.
//! Written for the tests alone, so that the proxy's parser is not judged by itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

/// Why no more bytes came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    CleanClose,
    Reset,
    Timeout,
    /// What came breaks the grammar: a chunk without its line end, say.
    Garbled,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// A start line and its headers, in the order in which they came.
#[derive(Clone, Default)]
pub struct Head {
    pub raw: Vec<u8>,
    pub start: String,
    pub headers: Vec<(String, String)>,
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.raw.escape_ascii())
    }
}

impl Head {
    pub fn parse(raw: &[u8]) -> Head {
        let text = String::from_utf8_lossy(raw);
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let start = lines.next().unwrap_or_default().to_string();
        let headers = lines
            .map(|line| line.split_once(':').unwrap_or((line, "")))
            .map(|(name, value)| (name.to_string(), value.trim().to_string()))
            .collect();
        Head { raw: raw.to_vec(), start, headers }
    }

    /// The values of all headers of this name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    pub fn request_framing(&self) -> Framing {
        self.declared_framing().unwrap_or(Framing::None)
    }

    pub fn response_framing(&self, method: &str) -> Framing {
        match self.status() {
            _ if method == "HEAD" => Framing::None,
            100..=199 | 204 | 304 => Framing::None,
            _ => self.declared_framing().unwrap_or(Framing::UntilClose),
        }
    }

    fn declared_framing(&self) -> Option<Framing> {
        if self.get("transfer-encoding").is_some() {
            return Some(Framing::Chunked);
        }
        let length = self.get("content-length")?;
        Some(Framing::Length(length.parse().unwrap_or_else(|_| panic!("Content-Length: {length}"))))
    }
}

/// A socket, the bytes read ahead of what was asked for, and optionally a record of all that came.
pub struct Wire {
    stream: Arc<TcpStream>,
    buf: Vec<u8>,
    start: usize,
    record: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Wire {
    /// Reads give up after ten seconds unless `patience` says otherwise.
    pub fn new(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).unwrap();
        let wire = Wire { stream: Arc::new(stream), buf: Vec::new(), start: 0, record: None };
        wire.patience(super::SOON);
        wire
    }

    pub fn recorded(stream: TcpStream, record: Arc<Mutex<Vec<u8>>>) -> Wire {
        Wire { record: Some(record), ..Wire::new(stream) }
    }

    pub fn patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        self.stream.set_write_timeout(Some(patience.max(super::SOON))).unwrap();
    }

    pub fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        (&*self.stream).write_all(bytes).map_err(|error| end_of(error.kind()))
    }

    /// Waits for at least one more byte.
    pub fn fill(&mut self) -> Result<(), End> {
        if self.start > 0 {
            self.buf.drain(..self.start);
            self.start = 0;
        }
        let mut piece = [0; 65536];
        match (&*self.stream).read(&mut piece) {
            Ok(0) => Err(End::CleanClose),
            Ok(count) => {
                self.buf.extend_from_slice(&piece[..count]);
                if let Some(record) = &self.record {
                    record.lock().unwrap().extend_from_slice(&piece[..count]);
                }
                Ok(())
            }
            Err(error) => Err(end_of(error.kind())),
        }
    }

    /// What was read and not yet consumed.
    pub fn ahead(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// The same, consumed.
    pub fn take_ahead(&mut self) -> Vec<u8> {
        let count = self.ahead().len();
        self.take(count).to_vec()
    }

    /// At most so many of these bytes, consumed.
    pub fn take_ahead_of(&mut self, count_max: usize) -> &[u8] {
        let count = self.ahead().len().min(count_max);
        self.take(count)
    }

    fn take(&mut self, count: usize) -> &[u8] {
        self.start += count;
        &self.buf[self.start - count..self.start]
    }

    fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = self.ahead().windows(mark.len()).position(|window| window == mark) {
                return Ok(self.take(at + mark.len()).to_vec());
            }
            self.fill()?;
        }
    }

    pub fn head(&mut self) -> Result<Head, End> {
        self.until(b"\r\n\r\n").map(|raw| Head::parse(&raw))
    }

    /// Hands the body to `sink` piece by piece; returns the trailers of a chunked one.
    pub fn body(&mut self, framing: Framing, sink: &mut dyn FnMut(&[u8])) -> Result<Head, End> {
        match framing {
            Framing::None => {}
            Framing::Length(length) => self.exactly(length, sink)?,
            Framing::Chunked => return self.chunks(sink),
            Framing::UntilClose => loop {
                let count = self.ahead().len();
                sink(self.take(count));
                match self.fill() {
                    Ok(()) => {}
                    Err(End::CleanClose) => break,
                    Err(end) => return Err(end),
                }
            },
        }
        Ok(Head::default())
    }

    fn exactly(&mut self, length: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), End> {
        let mut left = length;
        while left > 0 {
            if self.ahead().is_empty() {
                self.fill()?;
            }
            let count = self.ahead().len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(self.take(count));
            left -= count as u64;
        }
        Ok(())
    }

    fn chunks(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<Head, End> {
        loop {
            let line = self.until(b"\r\n")?;
            let digits = String::from_utf8_lossy(&line);
            let digits = digits.trim_end().split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).map_err(|_| End::Garbled)?;
            if size == 0 {
                return self.trailers();
            }
            self.exactly(size, sink)?;
            if self.until(b"\r\n")?.len() != 2 {
                return Err(End::Garbled);
            }
        }
    }

    fn trailers(&mut self) -> Result<Head, End> {
        let mut raw = b"trailers\r\n".to_vec();
        loop {
            let line = self.until(b"\r\n")?;
            if line == b"\r\n" {
                return Ok(Head::parse(&raw));
            }
            raw.extend_from_slice(&line);
        }
    }

    /// Lets the close that follows be a reset: what a crashed or rude peer looks like.
    pub fn reset_on_close(&self) {
        SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

fn end_of(kind: ErrorKind) -> End {
    match kind {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => End::Timeout,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            End::Reset
        }
        kind => panic!("a socket failed with {kind:?}"),
    }
}
