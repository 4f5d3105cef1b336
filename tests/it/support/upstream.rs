//! A scripted backend: a thread per connection runs the test's script, health probes are answered by
//! themselves, and every request and raw byte is recorded.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::wire::{End, Head, Wire};

/// The path that answers probes; the proxy's `--health-path` in all tests.
pub const HEALTH_PATH: &str = "/health";

/// What the next probes get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Up,
    Down,
    /// The probe is read and never answered.
    Hang,
    /// So many probes fail, then they pass again.
    FailNext(usize),
}

/// One request as the backend received it.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Head,
}

struct Shared {
    stopping: AtomicBool,
    health: Mutex<Health>,
    probes_passed: AtomicUsize,
    probes_failed: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<Recorded>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

struct Recorded {
    stream: Weak<TcpStream>,
    raw: Arc<Mutex<Vec<u8>>>,
}

impl Recorded {
    /// Whether neither side has ended it; unread bytes count as open.
    fn is_open(&self) -> bool {
        let Some(stream) = self.stream.upgrade() else { return false };
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        !matches!(recv(&*stream, &mut [0_u8], flags), Ok((0, _)) | Err(Errno::CONNRESET))
    }
}

type Script = Arc<dyn Fn(&mut Served) + Send + Sync>;

pub struct Upstream {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Runs `script` on every connection, whose socket is closed when the script returns.
    pub fn scripted(script: impl Fn(&mut Served) + Send + Sync + 'static) -> Upstream {
        Upstream::scripted_at(SocketAddr::from(([127, 0, 0, 1], 0)), script)
    }

    /// The same at a given address: a backend that is restarted.
    pub fn scripted_at(
        addr: SocketAddr,
        script: impl Fn(&mut Served) + Send + Sync + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind(addr).unwrap();
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            health: Mutex::new(Health::Up),
            probes_passed: AtomicUsize::new(0),
            probes_failed: AtomicUsize::new(0),
            requests: Mutex::new(Vec::new()),
            connections: Mutex::new(Vec::new()),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        });
        let addr = listener.local_addr().unwrap();
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared, &(Arc::new(script) as Script))
        });
        Upstream { addr, shared, acceptor: Some(acceptor) }
    }

    /// Answers every request with these bytes and keeps the connection.
    pub fn answering(response: impl AsRef<[u8]>) -> Upstream {
        let response = response.as_ref().to_vec();
        Upstream::scripted(move |served| {
            while served.request().is_some() {
                served.write(&response);
            }
        })
    }

    /// Answers every request with its own target as the body (none to a HEAD).
    pub fn naming_targets() -> Upstream {
        Upstream::scripted(|served| {
            while let Some(request) = served.request() {
                served.write(&ok(request.head.target(), request.head.method() == "HEAD"));
            }
        })
    }

    /// As `http://HOST:PORT`, the value of `--backend`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn set_health(&self, health: Health) {
        *self.shared.health.lock().unwrap() = health;
    }

    pub fn probes_passed(&self) -> usize {
        self.shared.probes_passed.load(SeqCst)
    }

    pub fn probes_failed(&self) -> usize {
        self.shared.probes_failed.load(SeqCst)
    }

    /// Every request but the probes, in the order of their arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn request_count(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    #[track_caller]
    pub fn last_request(&self) -> Request {
        self.requests().pop().expect("a request has come")
    }

    /// The raw bytes of each connection that carried more than probes.
    pub fn raw(&self) -> Vec<Vec<u8>> {
        let probe = format!("GET {HEALTH_PATH} ").into_bytes();
        let connections = self.shared.connections.lock().unwrap();
        let raw = connections.iter().map(|connection| connection.raw.lock().unwrap().clone());
        raw.filter(|raw| !raw.is_empty() && !raw.starts_with(&probe)).collect()
    }

    /// Connections that have carried more than probes and whose script still runs.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// The most connections that were open at the same time, those of later probes included: looked
    /// at when each was accepted, where one whose end has arrived is not open.
    pub fn most_open(&self) -> usize {
        self.shared.most_open.load(SeqCst)
    }

    /// Closes the listener and every connection, as a killed process would.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            drop(TcpStream::connect(self.addr));
            acceptor.join().unwrap();
        }
        for connection in self.shared.connections.lock().unwrap().iter() {
            if let Some(stream) = connection.stream.upgrade() {
                // Fails where the peer is gone already, which is what is wanted.
                stream.shutdown(Shutdown::Both).ok();
            }
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, script: &Script) {
    loop {
        let (stream, _) = listener.accept().unwrap();
        if shared.stopping.load(SeqCst) {
            return;
        }
        let raw = Arc::new(Mutex::new(Vec::new()));
        let wire = Wire::recorded(stream, raw.clone());
        let stream = Arc::downgrade(wire.stream());
        let mut connections = shared.connections.lock().unwrap();
        connections.push(Recorded { stream, raw });
        let open = connections.iter().filter(|connection| connection.is_open()).count();
        shared.most_open.fetch_max(open, SeqCst);
        drop(connections);
        let (shared, script) = (shared.clone(), script.clone());
        std::thread::spawn(move || {
            let mut served = Served { wire, shared, counted: false };
            script(&mut served);
        });
    }
}

/// One connection, in the hands of its script.
pub struct Served {
    pub wire: Wire,
    shared: Arc<Shared>,
    counted: bool,
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.counted {
            self.shared.open.fetch_sub(1, SeqCst);
        }
    }
}

impl Served {
    /// The next whole request; None when the peer is gone or the connection broke.
    pub fn request(&mut self) -> Option<Request> {
        let head = self.head()?;
        let mut body = Vec::new();
        let trailers = self
            .wire
            .body(head.request_framing(), &mut |piece| body.extend_from_slice(piece))
            .ok()?;
        let request = Request { head, body, trailers };
        self.shared.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// The next request's head alone, which is not counted as a request.
    pub fn head(&mut self) -> Option<Head> {
        // A pooled connection may rest as long as it likes.
        self.wire.patience(std::time::Duration::from_secs(60));
        loop {
            let head = self.wire.head().ok()?;
            if head.target() != HEALTH_PATH {
                if !std::mem::replace(&mut self.counted, true) {
                    self.shared.open.fetch_add(1, SeqCst);
                }
                return Some(head);
            }
            self.answer_probe();
        }
    }

    fn answer_probe(&mut self) {
        let health = {
            let mut health = self.shared.health.lock().unwrap();
            let now = *health;
            match now {
                Health::FailNext(0 | 1) => *health = Health::Up,
                Health::FailNext(count) => *health = Health::FailNext(count - 1),
                _ => {}
            }
            now
        };
        match health {
            Health::Up | Health::FailNext(0) => {
                self.shared.probes_passed.fetch_add(1, SeqCst);
                self.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
            Health::Down | Health::FailNext(_) => {
                self.shared.probes_failed.fetch_add(1, SeqCst);
                self.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
            }
            Health::Hang => {
                self.shared.probes_failed.fetch_add(1, SeqCst);
            }
        }
    }

    /// Says whether the peer still took it; most scripts need not care.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.wire.write(bytes).is_ok()
    }

    /// Waits until the peer closes or resets; None if it does neither in ten seconds.
    pub fn wait_for_end(&mut self) -> Option<End> {
        self.wire.patience(super::SOON);
        loop {
            match self.wire.fill() {
                Ok(()) => {}
                Err(End::Timeout) => return None,
                Err(end) => return Some(end),
            }
        }
    }

    /// The script ends this connection with a reset instead of a close when it returns.
    pub fn reset_on_return(&mut self) {
        self.wire.reset_on_close();
    }
}

/// `200 OK` with this body and its length; only the head of it for a HEAD.
pub fn ok(body: &str, head_only: bool) -> Vec<u8> {
    let body_sent = if head_only { "" } else { body };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body_sent}", body.len()).into_bytes()
}
