//! What the access log writes, where to and how much of it.

use std::num::NonZeroU32;
use std::path::PathBuf;

/// The access log of a process.
#[derive(Clone, Debug)]
pub struct AccessLogConfig {
    /// Where lines go.
    pub target: LogTarget,
    /// What a line is made of.
    pub format: LineFormat,
    /// One request of so many is logged; those that failed are always.
    pub sample: NonZeroU32,
    /// The most bytes of lines that wait to be written, over all workers.
    pub bytes_max: usize,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// To standard output.
    Stdout,
    /// To the end of a file, or a pipe that has a name.
    File(PathBuf),
}

/// What a line is made of, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFormat {
    /// The parts.
    pub parts: Vec<LinePart>,
    /// The request's headers that items name by their index; `LINE_HEADERS_MAX` at most.
    pub headers: Vec<String>,
    /// Whether each item is a JSON value, with its quotes where it is a string.
    pub is_json: bool,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinePart {
    /// This text.
    Text(String),
    /// What is known of the request.
    Item(Item),
}

/// What can be told of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Nothing: what other servers know, and corelane does not.
    Nothing,
    /// The client's address, by what trusted proxies say.
    ClientAddr,
    /// The address that the connection came from.
    PeerAddr,
    /// The port that the connection came from.
    PeerPort,
    /// The address that the client reached.
    LocalAddr,
    /// The port that the client reached.
    LocalPort,
    /// When its first byte came, as `[23/Nov/2026:03:10:00 +0000]`.
    TimeClf,
    /// The same as `2026-11-23T03:10:00.123456Z` (RFC 3339).
    TimeIso,
    /// The same in seconds since 1970,
    EpochSeconds,
    /// in milliseconds,
    EpochMillis,
    /// and in microseconds.
    EpochMicros,
    /// Method, target and version as they came; of what is no request, the first line.
    RequestLine,
    /// The method.
    Method,
    /// The target, as it is forwarded.
    Target,
    /// The target without its query.
    Path,
    /// The query with its question mark.
    Query,
    /// `HTTP/1.1` or `HTTP/1.0`.
    Protocol,
    /// The authority that the request is for.
    Host,
    /// A header of the request, by its index in `LineFormat::headers`.
    Header(usize),
    /// The status of the final answer.
    Status,
    /// Bytes of the answer behind its heads, or nothing for none.
    BodyBytes,
    /// Bytes of the answer behind its heads.
    BodyBytesCount,
    /// Bytes from the client: head and body, as they came.
    Received,
    /// Bytes to the client: heads and body, as the kernel took them.
    Sent,
    /// How long it took, in microseconds,
    TotalMicros,
    /// in milliseconds,
    TotalMillis,
    /// and in seconds, cut.
    TotalSeconds,
    /// A part of its time, in seconds with six decimals.
    Time(Span),
    /// The requests of its connection before it.
    RequestsBefore,
    /// The name of its pool.
    Pool,
    /// The id of the endpoint of its last attempt.
    Backend,
    /// Whose answer the client got: `backend` or `corelane`.
    AnsweredBy,
    /// The name of what ended it, or was answered for.
    Cause,
    /// The attempts after the first.
    Retries,
    /// The epoch of the snapshot that placed it.
    Epoch,
    /// The number of its worker.
    Worker,
    /// Whether its last attempt's connection was used before.
    Reused,
    /// Its id.
    RequestId,
    /// The id of its trace.
    TraceId,
}

/// A part of a request's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// From its first byte to the end of its head.
    Head,
    /// In the queue for a place on an endpoint.
    Queue,
    /// The last attempt's connect.
    Connect,
    /// From the last attempt's begin to the head of its answer.
    FirstByte,
    /// From its first byte to the end of its answer.
    Total,
}

/// The most headers of a request that a line may name.
pub const LINE_HEADERS_MAX: usize = 16;
