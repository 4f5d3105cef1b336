//! A client that sends exactly the bytes it is told to and says how each answer ended.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::SOON;
use super::wire::{End, Framing, Head, Wire};

/// How an answer ended, as the client can know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Complete,
    CleanClose,
    Reset,
    Timeout,
    Garbled,
}

impl From<End> for Ended {
    fn from(end: End) -> Ended {
        match end {
            End::CleanClose => Ended::CleanClose,
            End::Reset => Ended::Reset,
            End::Timeout => Ended::Timeout,
            End::Garbled => Ended::Garbled,
        }
    }
}

/// What became of the connection itself, after an answer or without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Open,
    CleanClose,
    Reset,
    /// Bytes came that nobody asked for.
    Bytes,
}

/// One answer, whole or as far as it came.
pub struct Response {
    /// The 1xx answers before the final one.
    pub interim: Vec<Head>,
    /// None if not even the head came whole.
    pub head: Option<Head>,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Head,
    pub ended: Ended,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = self.body[..self.body.len().min(200)].escape_ascii();
        write!(f, "{:?}, interim {:?}, head {:?}, body {body}", self.ended, self.interim, self.head)
    }
}

impl Response {
    #[track_caller]
    pub fn head(&self) -> &Head {
        self.head.as_ref().unwrap_or_else(|| panic!("no answer: {:?}", self.ended))
    }

    #[track_caller]
    pub fn status(&self) -> u16 {
        self.head().status()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.as_ref().and_then(|head| head.get(name))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Complete and with this status, or the test fails.
    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert_eq!((self.status(), self.ended), (status, Ended::Complete), "{self:?}");
        self
    }
}

pub struct Client {
    pub wire: Wire,
}

impl Client {
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Client {
        Client::try_connect(addr).unwrap_or_else(|error| panic!("connect to {addr}: {error}"))
    }

    pub fn try_connect(addr: SocketAddr) -> std::io::Result<Client> {
        Ok(Client { wire: Wire::new(TcpStream::connect_timeout(&addr, SOON)?) })
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.write(bytes.as_ref()).unwrap_or_else(|end| panic!("send: {end:?}"));
    }

    /// A GET with no more than it needs, and its answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.request(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// Sends one request (its method is the first word) and reads its answer.
    #[track_caller]
    pub fn request(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        let bytes = bytes.as_ref();
        self.send(bytes);
        let method = bytes.split(|&byte| byte == b' ').next().unwrap_or_default();
        self.read_response(&String::from_utf8_lossy(method))
    }

    /// Reads one answer by the framing that belongs to a request with this method.
    pub fn read_response(&mut self, method: &str) -> Response {
        let mut body = Vec::new();
        let mut response =
            self.read_response_into(method, &mut |piece| body.extend_from_slice(piece));
        response.body = body;
        response
    }

    /// The same for bodies too large to keep: they go to `sink`, and `body` stays empty.
    pub fn read_response_into(&mut self, method: &str, sink: &mut dyn FnMut(&[u8])) -> Response {
        let mut response = Response {
            interim: Vec::new(),
            head: None,
            framing: Framing::None,
            body: Vec::new(),
            trailers: Head::default(),
            ended: Ended::Complete,
        };
        loop {
            match self.wire.head() {
                Ok(head) if (100..200).contains(&head.status()) && head.status() != 101 => {
                    response.interim.push(head)
                }
                Ok(head) => {
                    response.framing = head.response_framing(method);
                    response.head = Some(head);
                    break;
                }
                Err(end) => {
                    response.ended = end.into();
                    return response;
                }
            }
        }
        match self.wire.body(response.framing, sink) {
            Ok(trailers) => response.trailers = trailers,
            Err(end) => response.ended = end.into(),
        }
        response
    }

    /// Waits up to `within` for the connection to end; `Open` if it does not.
    pub fn fate(&mut self, within: Duration) -> Fate {
        if !self.wire.ahead().is_empty() {
            return Fate::Bytes;
        }
        self.wire.patience(within);
        let fate = match self.wire.fill() {
            Ok(()) | Err(End::Garbled) => Fate::Bytes,
            Err(End::Timeout) => Fate::Open,
            Err(End::CleanClose) => Fate::CleanClose,
            Err(End::Reset) => Fate::Reset,
        };
        self.wire.patience(SOON);
        fate
    }

    /// The proxy must close this connection, cleanly and without another byte.
    #[track_caller]
    pub fn expect_close(&mut self) {
        assert_eq!(self.fate(SOON), Fate::CleanClose);
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.wire.reset_on_close();
    }
}
