//! Asks an admin API over HTTP/1.1: one connection a question, every answer of limited size and time.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Target;
use super::model::Problem;

/// Whom to ask.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody answers there.
    Unreachable(Target, io::Error),
    /// The connection broke.
    Lost(hyper::Error),
    /// Too much time has passed.
    Silent,
    /// The answer is no success.
    Refused(StatusCode, Problem),
    /// The answer cannot be read.
    Unreadable(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unreachable(target, error) => write!(
                f,
                "no admin API on {target}: {error}; start corelane with --admin, or name its \
                 address here by --admin"
            ),
            Trouble::Lost(error) => write!(f, "the connection was lost: {error}"),
            Trouble::Silent => write!(f, "no answer for {} s", SILENCE_MAX.as_secs()),
            Trouble::Refused(StatusCode::UNAUTHORIZED, problem) => {
                write!(f, "{}; give the token by --admin-token-file", problem.title)
            }
            Trouble::Refused(status, problem) => {
                write!(f, "the admin API answers {status}: {}. {}", problem.title, problem.detail)
            }
            Trouble::Unreadable(what) => {
                write!(f, "the answer is none of corelane's: {what}; is the address right?")
            }
        }
    }
}

impl std::error::Error for Trouble {}

impl Client {
    pub(super) fn new(target: Target, token: Option<String>) -> Client {
        Client { target, token }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The JSON at `path`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        let answer = self.ask(path, "application/json").await?;
        let body = body_of(answer).await?;
        serde_json::from_slice(&body).map_err(|error| Trouble::Unreadable(error.to_string()))
    }

    /// The events at `path`, from now on.
    pub(super) async fn listen(&self, path: &str) -> Result<Events, Trouble> {
        let answer = self.ask(path, "text/event-stream").await?;
        Ok(Events { body: answer.into_body(), held: Vec::new() })
    }

    async fn ask(&self, path: &str, accept: &str) -> Result<Response<Incoming>, Trouble> {
        let asked = timeout(SILENCE_MAX, async {
            match &self.target {
                Target::Tcp(authority) => {
                    let stream = TcpStream::connect(authority.as_str()).await;
                    self.send(stream, authority, path, accept).await
                }
                Target::Unix(socket) => {
                    let stream = UnixStream::connect(socket).await;
                    self.send(stream, "localhost", path, accept).await
                }
            }
        });
        let answer = asked.await.map_err(|_elapsed| Trouble::Silent)??;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem = serde_json::from_slice(&body_of(answer).await?).unwrap_or_default();
        Err(Trouble::Refused(status, problem))
    }

    async fn send(
        &self,
        stream: io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
        host: &str,
        path: &str,
        accept: &str,
    ) -> Result<Response<Incoming>, Trouble> {
        let stream = stream.map_err(|error| Trouble::Unreachable(self.target.clone(), error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Trouble::Lost)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the admin API has broken");
            }
        });
        let mut request = Request::get(path).header(HOST, host).header(ACCEPT, accept);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| Trouble::Unreadable(error.to_string()))?;
        sender.send_request(request).await.map_err(Trouble::Lost)
    }
}

async fn body_of(answer: Response<Incoming>) -> Result<Bytes, Trouble> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
    let body = timeout(SILENCE_MAX, body).await.map_err(|_elapsed| Trouble::Silent)?;
    let body = body.map_err(|error| Trouble::Unreadable(error.to_string()))?;
    Ok(body.to_bytes())
}

/// Server-sent events as they come.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    held: Vec<u8>,
}

impl Events {
    /// The next event's name and data; `None` when there will be none.
    pub(super) async fn next(&mut self) -> Result<Option<(String, String)>, Trouble> {
        loop {
            if let Some(event) = split_event(&mut self.held) {
                return Ok(Some(event));
            }
            if self.held.len() > ANSWER_BYTES_MAX {
                return Err(Trouble::Unreadable("an event is too long".to_owned()));
            }
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            match timeout(SILENCE_MAX, frame).await.map_err(|_elapsed| Trouble::Silent)? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(bytes) = frame.map_err(Trouble::Lost)?.into_data() {
                        self.held.extend_from_slice(&bytes);
                    }
                }
            }
        }
    }
}

/// Takes the first whole event that has data off the bytes (HTML Living Standard §9.2, with line
/// feeds, as corelane sends them).
pub(super) fn split_event(held: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        let end = held.windows(2).position(|pair| pair == b"\n\n")?;
        let event: Vec<u8> = held.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&event);
        let field = |name: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            lines.map(str::trim_start).collect::<Vec<_>>().join("\n")
        };
        let data = field("data");
        if !data.is_empty() {
            return Some((field("event"), data));
        }
    }
}

/// The longest answer, and the longest event: the status of 1,024 backends is half a megabyte.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long anything may take; events come each second.
const SILENCE_MAX: Duration = Duration::from_secs(10);
