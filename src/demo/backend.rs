//! One demo backend: its listener, its connections, and how it stops.
//!
//! Decides when a connection is accepted and how long it may outlive the stop.
//! Knows nothing of the paths: each request goes to `Service`. No error on one
//! connection, nor on accepting one, ends the backend.

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use super::behaviour::Behaviour;
use super::idle::{Activity, idle};
use super::service::Service;

/// How long requests in flight may go on once a backend is told to stop.
pub const DRAIN: Duration = Duration::from_secs(2);

/// What an agent says unless it is told otherwise: all of the weight.
pub const AGENT_LINE: &str = "100%";

/// The longest line of an agent.
pub const AGENT_LINE_BYTES_MAX: usize = 100;

/// Connections that the kernel holds for a backend until it accepts them.
const BACKLOG: i32 = 1024;

/// Accepting mostly fails for want of file descriptors: some may be free again
/// after this pause, and a loop without it would take the processor.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

const ACCEPT_ERROR_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// What a demo backend is started with.
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// The address to listen on; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// The name in `X-Backend` and in the answer of `GET /`, in visible ASCII.
    pub name: String,
    /// How it behaves at first.
    pub behaviour: Behaviour,
    /// The port of the same address on which its agent talks, if it has one; 0 lets the kernel
    /// choose.
    pub agent_port: Option<u16>,
    /// What its agent says at first, without the newline.
    pub agent_line: String,
    /// Where the ids of `POST /count` are appended, one a line, if anywhere.
    pub count_file: Option<Arc<File>>,
}

impl BackendConfig {
    /// One that behaves, without an agent or a file.
    #[must_use]
    pub fn good(listen: SocketAddr, name: &str) -> Self {
        Self {
            listen,
            name: name.to_owned(),
            behaviour: Behaviour::GOOD,
            agent_port: None,
            agent_line: AGENT_LINE.to_owned(),
            count_file: None,
        }
    }
}

/// A demo backend bound to its address but not yet serving.
#[derive(Debug)]
pub struct Backend {
    listener: StdListener,
    local_addr: SocketAddr,
    agent: Option<StdListener>,
    service: Arc<Service>,
}

impl Backend {
    /// Binds and listens, with no need of a runtime. Clients can connect from
    /// here on; they are answered once the backend serves.
    ///
    /// # Errors
    /// The name does not fit in a header, or the address cannot be listened on.
    pub fn bind(config: &BackendConfig) -> io::Result<Self> {
        let name_header = HeaderValue::from_str(&config.name).map_err(|_| {
            let name = &config.name;
            let message =
                format!("demo backend name {name:?} does not fit in a header: use visible ASCII");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        let listener = listen(config.listen).map_err(|error| {
            let BackendConfig { listen, name, .. } = config;
            let message = format!(
                "demo backend {name} cannot listen on {listen}: {error}; \
                 give an address of this host and a free port"
            );
            io::Error::new(error.kind(), message)
        })?;
        let local_addr = listener.local_addr()?;
        let agent_addr = config.agent_port.map(|port| SocketAddr::new(local_addr.ip(), port));
        let agent = agent_addr.map(|addr| {
            // Not the kind: this address is not the one that the caller knows.
            listen(addr).map_err(|error| io::Error::other(format!("its agent's {addr}: {error}")))
        });
        let agent = agent.transpose()?;
        let service = Arc::new(Service::new(config, name_header));
        Ok(Self { listener, local_addr, agent, service })
    }

    /// The agent's bound address, if there is an agent.
    #[must_use]
    pub fn agent_addr(&self) -> Option<SocketAddr> {
        self.agent.as_ref().and_then(|agent| agent.local_addr().ok())
    }

    /// The bound address, with the port the kernel chose if 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `stop` resolves. Then it closes the listener and the idle
    /// connections, and lets requests in flight finish for at most [`DRAIN`].
    /// Needs a tokio runtime with its I/O and time drivers on.
    ///
    /// # Errors
    /// The runtime cannot take over the listener.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let agent = self.agent.map(TcpListener::from_std).transpose()?;
        // Nothing is sent here: the connections see the sender's drop.
        let serving = watch::Sender::new(());
        let mut connections = JoinSet::new();
        let mut errors = AcceptErrors::default();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, remote)) => {
                        let (service, serving) = (Arc::clone(&self.service), serving.subscribe());
                        connections.spawn(serve_connection(stream, remote, service, serving));
                    }
                    Err(error) => {
                        errors.record(self.service.name(), &error);
                        tokio::time::sleep(ACCEPT_BACK_OFF).await;
                    }
                },
                accepted = accept_of(agent.as_ref()) => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(tell(stream, self.service.agent_line()));
                    }
                    Err(error) => {
                        errors.record(self.service.name(), &error);
                        tokio::time::sleep(ACCEPT_BACK_OFF).await;
                    }
                },
            }
        }
        drop(listener);
        drop(serving);
        drain(self.service.name(), connections).await;
        Ok(())
    }
}

/// Runs one backend on the calling thread, in a runtime of its own, until
/// `stop` fires or its sender is dropped.
///
/// # Errors
/// The runtime cannot be built, or what [`Backend::serve`] returns.
pub fn run(backend: Backend, stop: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(backend.serve(async {
        if stop.await.is_err() {
            tracing::debug!("the owner of a demo backend is gone: stopping the backend");
        }
    }))
}

fn listen(addr: SocketAddr) -> io::Result<StdListener> {
    let socket =
        Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A demo started again would otherwise wait for its old connections to
    // leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn serve_connection(
    stream: TcpStream,
    remote: SocketAddr,
    service: Arc<Service>,
    mut serving: watch::Receiver<()>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(backend = service.name(), %remote, %error, "TCP_NODELAY not set");
    }
    let name = service.name();
    let activity = Activity::new();
    let handler = service_fn(|request| {
        let (service, busy) = (&service, activity.busy());
        async move {
            let answer = service.answer(remote, request).await;
            drop(busy);
            answer
        }
    });
    let mut conn = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), handler));
    let ended = tokio::select! {
        ended = conn.as_mut() => ended,
        // An error here is the sender's drop: the stop.
        _ = serving.changed() => {
            conn.as_mut().graceful_shutdown();
            conn.await
        }
        () = idle(&activity, service.behaviour()) => {
            // hyper closes it now, or behind an answer that is still on its way.
            conn.as_mut().graceful_shutdown();
            conn.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(backend = name, %remote, %error, "connection ended early");
    }
}

/// The next connection; never, without a listener.
async fn accept_of(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Sends a line, which a new connection's buffer has room for, and closes.
async fn tell(stream: TcpStream, line: String) {
    let told = async {
        stream.writable().await?;
        stream.try_write(line.as_bytes())
    };
    if let Err(error) = told.await {
        tracing::debug!(%error, "nobody heard the agent");
    }
}

async fn drain(name: &str, mut connections: JoinSet<()>) {
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if tokio::time::timeout(DRAIN, all_ended).await.is_err() {
        tracing::warn!(
            backend = name,
            connections = connections.len(),
            "drain time over: connections cut"
        );
        connections.shutdown().await;
    }
}

/// A panic while serving one connection is a fault of the demo's; it is logged
/// and the other connections go on.
fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "demo connection failed");
    }
}

/// Keeps the log to one line per `ACCEPT_ERROR_LOG_INTERVAL` however often
/// accepting fails.
#[derive(Default)]
struct AcceptErrors {
    logged_at: Option<Instant>,
    /// Errors since the last line that was logged.
    unlogged: u64,
}

impl AcceptErrors {
    fn record(&mut self, name: &str, error: &io::Error) {
        if self.logged_at.is_some_and(|at| at.elapsed() < ACCEPT_ERROR_LOG_INTERVAL) {
            self.unlogged += 1;
            return;
        }
        tracing::warn!(backend = name, %error, unlogged = self.unlogged, "accept failed");
        self.logged_at = Some(Instant::now());
        self.unlogged = 0;
    }
}
