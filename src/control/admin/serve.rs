//! The connections of the admin API: how many, how long, and what each request passes first.
//!
//! Runs on the control thread beside probes and publishing, so everything here is bounded: while
//! all places are taken, connections lose theirs in the order that `presence` says.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Request, Response};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::events;
use super::guard::{self, Guard};
use super::listener::{Bound, SocketFile};
use super::presence::{Asked, Held, Presence};
use super::problem::{Kind, Problem};
use super::stall::Stalling;

/// Serves a socket's clients until it is dropped.
pub(super) async fn run(socket: Bound, guard: Guard, router: Router) {
    let socket = match Acceptor::new(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "the admin API is not served; restart corelane");
            return;
        }
    };
    let mut connections = Connections::default();
    let app = Arc::new(App { guard, router });
    loop {
        tokio::select! {
            ended = connections.tasks.join_next_with_id(), if !connections.tasks.is_empty() => {
                connections.forget(ended);
            }
            accepted = socket.accept() => match accepted {
                Ok(stream) => {
                    connections.make_room().await;
                    connections.take_up(stream, Arc::clone(&app));
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin API cannot accept a connection now");
                    sleep(ACCEPT_BACK_OFF).await;
                }
            },
        }
    }
}

/// A socket in the runtime's hands.
enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener, #[expect(dead_code, reason = "it removes the file")] SocketFile),
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Acceptor {
    fn new(socket: Bound) -> io::Result<Acceptor> {
        Ok(match socket {
            Bound::Tcp(socket) => Acceptor::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Bound::Unix(socket, file) => {
                Acceptor::Unix(tokio::net::UnixListener::from_std(socket)?, file)
            }
        })
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Acceptor::Tcp(socket) => socket.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Acceptor::Unix(socket, _) => {
                socket.accept().await.map(|(stream, _)| Stream::Unix(stream))
            }
        }
    }
}

/// What a request passes: the rules, then the handlers.
struct App {
    guard: Guard,
    router: Router,
}

/// The connections that are open.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, (AbortHandle, Arc<Presence>)>,
    /// How many have lost their places to others,
    ousted: u64,
    /// and when the log said so last.
    told: Option<Instant>,
}

impl Connections {
    fn take_up(&mut self, stream: Stream, app: Arc<App>) {
        let presence = Arc::new(Presence::new(Instant::now()));
        let task = match stream {
            Stream::Tcp(stream) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY not set");
                }
                self.tasks.spawn(converse(stream, app, Arc::clone(&presence)))
            }
            Stream::Unix(stream) => self.tasks.spawn(converse(stream, app, Arc::clone(&presence))),
        };
        self.open.insert(task.id(), (task, presence));
    }

    /// Waits until there is a place for one more, and makes one as soon as that is right.
    async fn make_room(&mut self) {
        while self.open.len() >= CONNS_MAX {
            self.oust(Instant::now());
            if let Ok(ended) = timeout(ROOM_INTERVAL, self.tasks.join_next_with_id()).await {
                self.forget(ended);
            }
        }
    }

    /// Ends the connection whose place another may have soonest, if there is one.
    fn oust(&mut self, now: Instant) {
        let claims = self
            .open
            .values()
            .filter_map(|(task, presence)| presence.claim(now).map(|claim| (claim, task)));
        let Some((claim, task)) = claims.max_by_key(|(claim, _)| *claim) else { return };
        task.abort();
        self.ousted += 1;
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_INTERVAL) {
            self.told = Some(now);
            tracing::warn!(
                ousted = self.ousted,
                last = ?claim,
                "more than {CONNS_MAX} clients of the admin API: some lose their places to others"
            );
        }
    }

    fn forget(&mut self, ended: Option<Result<(Id, ()), JoinError>>) {
        let id = match ended {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                let id = error.id();
                if error.is_panic() {
                    tracing::error!(%error, "a request to the admin API panicked");
                }
                id
            }
            None => return,
        };
        self.open.remove(&id);
    }
}

/// Serves one connection to its end.
async fn converse<S>(stream: S, app: Arc<App>, presence: Arc<Presence>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(Stalling::new(stream, WRITE_TIMEOUT, Arc::clone(&presence)));
    let handler = service_fn(move |request| {
        let (app, held) = (Arc::clone(&app), Held::new(Arc::clone(&presence)));
        // Boxed, since only what can be moved gives the socket back at the end.
        Box::pin(async move {
            let response = answer(&app, request, &held).await;
            Ok::<_, Infallible>(response.map(|body| Body::new(held.with(body))))
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(stream, handler);
    let ended = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin API ended early");
        if error.is_timeout() && !parts.read_buf.is_empty() {
            refuse_slow_head(&mut stream).await;
        }
    }
    close(stream).await;
}

/// Applies the rules, then lets a handler answer in time.
async fn answer(app: &App, request: Request<Incoming>, held: &Held) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut response = match app.guard.check(&parts) {
        Ok(()) => {
            if !guard::is_public(&parts) {
                held.note(Asked::Private);
            }
            let request = Request::from_parts(parts, Body::new(body));
            let service = TowerToHyperService::new(app.router.clone());
            match timeout(REQUEST_TIMEOUT, service.call(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_elapsed) => {
                    let detail = "it could not be answered in time: its body came too slowly, or the \
                                  change waits for the disk of --state-file; see what is in force \
                                  before you try again";
                    Problem::new(Kind::TimedOut, detail).into_response()
                }
            }
        }
        Err(problem) => {
            tracing::debug!(path = parts.uri.path(), ?problem, "the admin API refused a request");
            problem.into_response()
        }
    };
    let headers = response.headers_mut();
    if headers.get(CONTENT_TYPE).is_some_and(|it| it == events::MEDIA_TYPE) {
        held.note(Asked::Events);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Answers a request whose head did not come in time, which hyper would close in silence.
async fn refuse_slow_head(stream: &mut (impl AsyncWrite + Unpin)) {
    let detail = "its head did not come in time; send it whole and at once";
    let text = Problem::new(Kind::TimedOut, detail).text();
    let head = format!(
        "HTTP/1.1 408 Request Timeout\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        super::problem::MEDIA_TYPE,
        text.len()
    );
    if let Err(error) = stream.write_all((head + &text).as_bytes()).await {
        tracing::debug!(%error, "a slow client of the admin API is not told");
    }
}

/// Closes so that the last answer arrives even where more was sent than was read: with unread bytes
/// the kernel would send a reset, which may overtake it.
async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = stream.take(LINGER_BYTES_MAX);
    let mut buffer = [0; 4096];
    let drain = async { while rest.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    if timeout(LINGER_TIME, drain).await.is_err() {
        tracing::debug!("a client of the admin API does not close");
    }
}

/// The most connections; one more waits for a place, others in the kernel.
pub(super) const CONNS_MAX: usize = 128;
/// How often one is looked for that may lose its place, while all are taken,
const ROOM_INTERVAL: Duration = Duration::from_millis(50);
/// and how often the log says so at most.
const TELL_INTERVAL: Duration = Duration::from_secs(10);
/// From a connection's start, or its last answer, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of a request's head to the beginning of its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What is read after the last answer, and for how long.
const LINGER_BYTES_MAX: u64 = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How long accepting waits after an error: descriptors may be short.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
