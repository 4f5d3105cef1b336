//! A client of etcd v3: calls and streams through its JSON gateway.
//!
//! The crate `etcd-client` would need `protoc` to build corelane, and brings tonic; the gateway is
//! part of each etcd since 3.4 and needs no more than HTTP/1.1. Members are tried in turn, one for
//! each failure. Every answer, line and time has a limit. Runs on the control thread.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{EtcdConfig, EtcdMember};
use crate::discovery::etcd::error::Failure;
use crate::discovery::etcd::{TXN, tls, wire};

/// One user of etcd, with a connection of its own that it keeps.
pub(super) struct Client {
    config: Arc<EtcdConfig>,
    tls: Option<TlsConnector>,
    /// The member in use, counted on with each failure.
    member: usize,
    conn: Option<Conn>,
    token: Option<String>,
}

/// A connection, driven by a task that ends with it.
struct Conn {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub(super) fn new(config: Arc<EtcdConfig>) -> Result<Client, String> {
        let wants_tls = config.members.iter().any(|member| member.is_tls);
        let tls = wants_tls.then(|| tls::connector(&config.tls)).transpose()?;
        Ok(Client { config, tls, member: 0, conn: None, token: None })
    }

    /// Another client of the same member, with a connection of its own.
    pub(super) fn beside(&self) -> Client {
        let (config, tls) = (Arc::clone(&self.config), self.tls.clone());
        Client { config, tls, member: self.member, conn: None, token: self.token.clone() }
    }

    /// One call and its answer.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        let bytes = self.bytes(path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::Invalid(error.to_string()))
    }

    /// One call to a stream, and the first line of its answer.
    pub(super) async fn call_line<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        let bytes = self.bytes(path, body).await?;
        read_line(bytes.split(|byte| *byte == b'\n').next().unwrap_or_default())
    }

    /// A stream of lines on a connection of its own.
    pub(super) async fn stream(&mut self, path: &str, body: &Value) -> Result<Lines, Failure> {
        // Its connection is not kept: it ends with the stream.
        self.conn = None;
        let member = self.member().clone();
        let answer = self.send_as_user(path, body).await;
        let answer = self.noting(answer)?;
        let Some(conn) = self.conn.take() else {
            return Err(Failure::Unreachable(member.url(), "the connection is gone".to_owned()));
        };
        Ok(Lines { body: answer.into_body(), member, conn, read: Vec::new(), scanned: 0 })
    }

    async fn bytes(&mut self, path: &str, body: &Value) -> Result<Bytes, Failure> {
        let asked = async {
            let answer = self.send_as_user(path, body).await?;
            let limited = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            match limited.collect().await {
                Ok(body) => Ok(body.to_bytes()),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    Err(Failure::TooLarge("bytes in an answer", ANSWER_BYTES_MAX))
                }
                Err(error) => Err(Failure::Unreachable(self.member().url(), error.to_string())),
            }
        };
        let answer = match timeout(CALL_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(self.too_late()),
        };
        self.noting(answer)
    }

    /// After a failure the connection is not used again, and the next member is tried.
    fn noting<T>(&mut self, answer: Result<T, Failure>) -> Result<T, Failure> {
        if answer.is_err() {
            self.conn = None;
            self.member = (self.member + 1) % self.config.members.len();
        }
        answer
    }

    fn member(&self) -> &EtcdMember {
        &self.config.members[self.member % self.config.members.len()]
    }

    fn too_late(&self) -> Failure {
        Failure::Unreachable(self.member().url(), format!("no answer within {CALL_TIMEOUT:?}"))
    }

    /// Sends as the user that is configured, who is logged in if need be; once more if the token
    /// is too old.
    async fn send_as_user(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<Response<Incoming>, Failure> {
        let had_token = self.token.is_some();
        self.log_in().await?;
        match self.send(path, body).await {
            Err(Failure::Refused(status, reason)) if had_token && is_of_token(status, &reason) => {
                self.token = None;
                self.log_in().await?;
                self.send(path, body).await
            }
            sent => sent,
        }
    }

    /// Gets a token, if a user is configured and has none.
    async fn log_in(&mut self) -> Result<(), Failure> {
        let config = Arc::clone(&self.config);
        let Some(login) = config.login.as_ref().filter(|_| self.token.is_none()) else {
            return Ok(());
        };
        let sent = self.send(AUTHENTICATE, &wire::login(&login.user, &login.password)).await;
        let answer = match sent {
            // Whoever sets up authentication gives the flags first.
            Err(Failure::Refused(_, reason)) if reason.contains("not enabled") => return Ok(()),
            sent => sent?,
        };
        let unreachable = |error: String| Failure::Unreachable(self.member().url(), error);
        let body = Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect();
        let body = timeout(CALL_TIMEOUT, body)
            .await
            .map_err(|_elapsed| unreachable("its login took too long".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let token: wire::Token = serde_json::from_slice(&body.to_bytes())
            .map_err(|error| Failure::Invalid(error.to_string()))?;
        self.token = Some(token.token);
        Ok(())
    }

    /// Sends one request, on a new connection if the one that is kept has ended.
    async fn send(&mut self, path: &str, body: &Value) -> Result<Response<Incoming>, Failure> {
        let url = self.member().url();
        let mut request = Request::post(path)
            .header(HOST, self.member().authority())
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| Failure::Invalid(error.to_string()))?;
        let kept = self.conn.take().filter(|conn| !conn.sender.is_closed());
        let was_kept = kept.is_some();
        let conn = match kept {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let conn = self.conn.insert(conn);
        let mut sent = exchange(&mut conn.sender, request.clone()).await;
        if was_kept && sent.is_err() && path != TXN {
            // It had ended, and nobody had told. A change may have been made all the same.
            *conn = Self::connect_to(&self.config.members[self.member], self.tls.as_ref()).await?;
            sent = exchange(&mut conn.sender, request).await;
        }
        let answer = sent.map_err(|reason| Failure::Unreachable(url, reason))?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await;
        let message =
            body.map_or_else(|error| error.to_string(), |it| wire::message_of(&it.to_bytes()));
        Err(Failure::Refused(status.as_u16(), message))
    }

    async fn connect(&self) -> Result<Conn, Failure> {
        Self::connect_to(self.member(), self.tls.as_ref()).await
    }

    async fn connect_to(member: &EtcdMember, tls: Option<&TlsConnector>) -> Result<Conn, Failure> {
        let connected = timeout(CONNECT_TIMEOUT, open(member, tls)).await;
        let reason = match connected {
            Ok(Ok(conn)) => return Ok(conn),
            Ok(Err(reason)) => reason,
            Err(_elapsed) => format!("no connection within {CONNECT_TIMEOUT:?}"),
        };
        Err(Failure::Unreachable(member.url(), reason))
    }
}

async fn open(member: &EtcdMember, tls: Option<&TlsConnector>) -> Result<Conn, String> {
    let stream = TcpStream::connect((member.host.as_str(), member.port)).await;
    let stream = stream.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(tls) = tls.filter(|_| member.is_tls) else { return handshake(stream).await };
    let name = ServerName::try_from(member.host.clone()).map_err(|error| error.to_string())?;
    let stream = tls.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
    handshake(stream).await
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Conn, String> {
    let (sender, conn) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(async move {
        if let Err(error) = conn.await {
            tracing::debug!(%error, "a connection to etcd ended");
        }
    });
    Ok(Conn { sender, driver })
}

/// Sends a request and waits for the head of its answer.
async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let asked = async {
        sender.ready().await?;
        sender.send_request(request).await
    };
    match timeout(CALL_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {CALL_TIMEOUT:?}")),
    }
}

/// Whether a new token may help: etcd forgets them after minutes, or when users change.
fn is_of_token(status: u16, reason: &str) -> bool {
    status == StatusCode::UNAUTHORIZED.as_u16() || reason.contains("auth")
}

/// The lines of a stream.
pub(super) struct Lines {
    body: Incoming,
    member: EtcdMember,
    /// Driven as long as its lines are read.
    #[expect(dead_code, reason = "its drop ends the connection")]
    conn: Conn,
    read: Vec<u8>,
    /// How many of these bytes are known to end no line.
    scanned: usize,
}

impl Lines {
    /// The next line; dropping the future loses nothing.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        loop {
            let new = &self.read[self.scanned..];
            if let Some(at) = new.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=self.scanned + at).collect();
                self.scanned = 0;
                return read_line(&line);
            }
            self.scanned = self.read.len();
            if self.read.len() > LINE_BYTES_MAX {
                return Err(Failure::TooLarge("bytes in a line", LINE_BYTES_MAX));
            }
            let unreachable = |reason| Failure::Unreachable(self.member.url(), reason);
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.read.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
                }
                Some(Err(error)) => return Err(unreachable(error.to_string())),
                None => return Err(unreachable("the stream ended".to_owned())),
            }
        }
    }
}

fn read_line<T: DeserializeOwned>(line: &[u8]) -> Result<T, Failure> {
    let read: wire::Line<T> =
        serde_json::from_slice(line).map_err(|error| Failure::Invalid(error.to_string()))?;
    let error = read.error.map(|error| wire::text_of(&error).unwrap_or_else(|| error.to_string()));
    match (read.result, error) {
        (Some(result), None) => Ok(result),
        (_, Some(reason)) => Err(Failure::Cancelled(reason)),
        (None, None) => Err(Failure::Invalid("a line without a result".to_owned())),
    }
}

/// The path of logging in.
const AUTHENTICATE: &str = "/v3/auth/authenticate";
/// How long a connection may take to be made, TLS included,
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// and an answer to come.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an answer, of an error, and of a line of a stream.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
const ERROR_BYTES_MAX: usize = 16 * 1024;
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
