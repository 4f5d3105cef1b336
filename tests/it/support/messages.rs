//! Random messages for the property tests: legal ones with what they mean, and the same with a few
//! bytes changed.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A legal request and what a backend must read from it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Body,
}

/// A body as it is sent.
#[derive(Clone, Debug)]
pub enum Body {
    None,
    Length(Vec<u8>),
    Chunked { chunks: Vec<Vec<u8>>, extension: &'static str, trailers: Vec<(String, Vec<u8>)> },
}

impl Body {
    pub fn data(&self) -> Vec<u8> {
        match self {
            Body::None => Vec::new(),
            Body::Length(data) => data.clone(),
            Body::Chunked { chunks, .. } => chunks.concat(),
        }
    }

    pub fn trailers(&self) -> Vec<(String, Vec<u8>)> {
        match self {
            Body::Chunked { trailers, .. } => {
                trailers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect()
            }
            _ => Vec::new(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Body::None => out.extend_from_slice(b"\r\n"),
            Body::Length(data) => {
                out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", data.len()).as_bytes());
                out.extend_from_slice(data);
            }
            Body::Chunked { chunks, extension, trailers } => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    out.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(format!("0{extension}\r\n").as_bytes());
                write_fields(trailers, out);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

fn write_fields(fields: &[(String, Vec<u8>)], out: &mut Vec<u8>) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

impl Request {
    pub fn bytes(&self) -> Vec<u8> {
        let mut out =
            format!("{} {} HTTP/1.1\r\nHost: t\r\n", self.method, self.target).into_bytes();
        write_fields(&self.headers, &mut out);
        self.body.write(&mut out);
        out
    }
}

/// A legal final answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Body,
}

impl Response {
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} Any\r\n", self.status).into_bytes();
        write_fields(&self.headers, &mut out);
        self.body.write(&mut out);
        out
    }
}

/// Names that no one on the way acts on.
fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = "X-[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}";
    // No white space at either end, which is no part of the value.
    let byte = prop_oneof![b' '..=b'~', 0x80..=0xff_u8, Just(b'\t')];
    let value = vec(byte, 0..30).prop_map(|value| value.trim_ascii().to_vec());
    vec((name, value), 0..6)
}

fn body() -> impl Strategy<Value = Body> {
    let data = || vec(any::<u8>(), 0..60);
    let chunk = vec(any::<u8>(), 1..40);
    let extension = select(vec!["", ";a", ";a=b", ";a=\"b;\\\"c\";d"]);
    prop_oneof![
        Just(Body::None),
        data().prop_map(Body::Length),
        (vec(chunk, 0..4), extension, fields()).prop_map(|(chunks, extension, trailers)| {
            Body::Chunked { chunks, extension, trailers }
        }),
    ]
}

pub fn request() -> impl Strategy<Value = Request> {
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE", "M-SEARCH"];
    let target = "/[a-zA-Z0-9/._~!$&'()*+,;=:@%?-]{0,40}";
    (select(methods.to_vec()), target, fields(), body())
        .prop_map(|(method, target, headers, body)| Request { method, target, headers, body })
}

pub fn response() -> impl Strategy<Value = Response> {
    let statuses = vec![200, 201, 301, 404, 500, 599];
    (select(statuses), fields(), body()).prop_map(|(status, headers, body)| Response {
        status,
        headers,
        body,
    })
}

/// One to three requests in a row.
pub fn requests() -> impl Strategy<Value = Vec<Request>> {
    vec(request(), 1..4)
}

/// Piece lengths to cut bytes at.
pub fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(1..40_usize, 1..6)
}

/// One change to some bytes.
#[derive(Clone, Debug)]
pub enum Change {
    Insert(Index, &'static str),
    Replace(Index, u8),
    Remove(Index),
    /// The bytes between two places once more.
    Repeat(Index, Index),
    /// Everything behind a place is left out.
    End(Index),
}

/// What one reader takes for something that another does not.
const SUSPECTS: [&str; 24] = [
    "\r",
    "\n",
    "\0",
    " ",
    "\t",
    "\x0b",
    ":",
    ",",
    ";",
    "+",
    "-",
    "0",
    "0x",
    "\r\n",
    "\r\n\r\n",
    "\r\n ",
    "\"",
    "\x7f",
    "\u{a0}",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: t\r\n",
    "Connection: x-a, content-length\r\n",
    "0\r\n\r\n",
];

pub fn changes() -> impl Strategy<Value = Vec<Change>> {
    let index = any::<Index>;
    let change = prop_oneof![
        4 => (index(), select(SUSPECTS.to_vec())).prop_map(|(at, text)| Change::Insert(at, text)),
        3 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        3 => index().prop_map(Change::Remove),
        1 => (index(), index()).prop_map(|(from, to)| Change::Repeat(from, to)),
        1 => index().prop_map(Change::End),
    ];
    vec(change, 1..4)
}

/// The bytes with the changes made, one after the other.
pub fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let length = bytes.len().max(1);
        match change {
            Change::Insert(at, text) => {
                let at = at.index(length).min(bytes.len());
                bytes.splice(at..at, text.bytes());
            }
            Change::Replace(at, byte) => {
                if let Some(place) = bytes.get_mut(at.index(length)) {
                    *place = *byte;
                }
            }
            Change::Remove(at) if !bytes.is_empty() => drop(bytes.remove(at.index(length))),
            Change::Remove(_) => {}
            Change::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let piece = bytes.get(from.min(to)..from.max(to)).unwrap_or_default().to_vec();
                bytes.splice(from.max(to)..from.max(to), piece);
            }
            Change::End(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}
