//! The demo's paths: which there are, what each takes, and what it does.
//!
//! Decides the answer to one request; `backend` has the connections. Nothing a
//! client sends may panic here or make the backend hold a body in memory.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::backend::{AGENT_LINE_BYTES_MAX, BackendConfig};
use super::behaviour::Behaviour;
use super::counts::{Counts, ID_BYTES_MAX, IDS_MAX};
use super::number::{BadNumber, Number};
use super::query::{text_of, value_of};
use super::work;

const X_BACKEND: HeaderName = HeaderName::from_static("x-backend");
const X_LOAD: HeaderName = HeaderName::from_static("x-load");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

const WORK_MS: Number = Number { name: "ms", max: 10_000 };
const SLEEP_MS: Number = Number { name: "ms", max: 60_000 };
const BYTES: Number = Number { name: "N", max: 10 * 1024 * 1024 * 1024 };
const CHUNKS: Number = Number { name: "chunks", max: 100_000 };
const INTERVAL_MS: Number = Number { name: "interval_ms", max: 60_000 };

/// What a request for another path is told; `route_of` has the same paths.
const PATHS: &[&str] = &[
    "/",
    "/health",
    "/health/fail",
    "/health/recover",
    "/health/load?value=F",
    "/agent?line=TEXT",
    "/behave?latency_ms=N&error_percent=N&silent=N&idle_ms=N",
    "/count?id=ID",
    "/counts",
    "/work?ms=N",
    "/sleep?ms=N",
    "/bytes/N",
    "/echo",
    "/stream?chunks=N&interval_ms=M",
    "/upload",
];

/// The load of a backend that is full.
const LOAD_MAX: f64 = 1.0;

const READ: &str = "GET, HEAD";
const CHANGE: &str = "POST";
const TAKE_BODY: &str = "POST, PUT";

/// A backend's state and what it answers.
#[derive(Debug)]
pub(super) struct Service {
    name: String,
    /// The name again, as the value of `X-Backend`.
    name_header: HeaderValue,
    /// Requests since the start, those of probes and of who runs the backend left out: with
    /// them the number would say nothing about the balancing.
    served: AtomicU64,
    failing: AtomicBool,
    behaviour: watch::Sender<Behaviour>,
    /// What the agent says. A lock that is held for a copy, by this backend's one thread.
    agent_line: Mutex<String>,
    counts: Mutex<Counts>,
}

enum Route<'path> {
    Describe,
    Health,
    SetHealth { failing: bool },
    SetLoad,
    SetAgent,
    Behave,
    Count,
    Counts,
    Work,
    Sleep,
    Bytes { count: &'path str },
    Echo,
    Stream,
    Upload,
}

impl Service {
    pub(super) fn new(config: &BackendConfig, name_header: HeaderValue) -> Self {
        Self {
            name: config.name.clone(),
            name_header,
            served: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            behaviour: watch::Sender::new(config.behaviour),
            agent_line: Mutex::new(config.agent_line.clone()),
            counts: Mutex::new(Counts::new(config.count_file.clone())),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How the backend behaves, and every change of it.
    pub(super) fn behaviour(&self) -> watch::Receiver<Behaviour> {
        self.behaviour.subscribe()
    }

    /// What the agent says to whoever connects.
    pub(super) fn agent_line(&self) -> String {
        format!("{}\n", self.agent_line.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The answer to one request from `remote`, late, failed or never if the backend is to behave
    /// so; what goes wrong is an answer too.
    pub(super) async fn answer(
        &self,
        remote: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Answer, Infallible> {
        let is_control = route_of(request.uri().path()).is_some_and(|route| route.is_control());
        let answered = self.dispatch(remote, request).await;
        let mut answer = answered.unwrap_or_else(|bad| answer::bad_request(&bad.0));
        let behaviour = *self.behaviour.borrow();
        if !is_control {
            if behaviour.is_silent {
                return std::future::pending().await;
            }
            if !behaviour.latency.is_zero() {
                tokio::time::sleep(behaviour.latency).await;
            }
            if behaviour.fails(&mut fastrand::Rng::new()) {
                answer = answer::failed();
            }
        }
        answer.headers_mut().insert(X_BACKEND, self.name_header.clone());
        let announced = behaviour.idle_timeout.filter(|_| behaviour.announces_idle_timeout);
        if let Some(timeout) = announced {
            let value = HeaderValue::try_from(format!("timeout={}", timeout.as_secs()));
            answer.headers_mut().extend(value.ok().map(|value| (KEEP_ALIVE, value)));
        }
        Ok(answer)
    }

    async fn dispatch(
        &self,
        remote: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let uri = request.uri().clone();
        let Some(route) = route_of(uri.path()) else {
            self.count_request();
            return Ok(answer::not_found(PATHS));
        };
        if !route.is_control() {
            self.count_request();
        }
        let allow = methods_of(&route);
        if !allow.split(", ").any(|method| method == request.method().as_str()) {
            return Ok(answer::method_not_allowed(allow));
        }
        let answer = match route {
            Route::Describe => self.describe(remote, &request),
            Route::Health => self.health(),
            Route::SetHealth { failing } => self.set_health(failing),
            Route::SetLoad => self.set_load(uri.query())?,
            Route::SetAgent => self.set_agent(uri.query())?,
            Route::Behave => self.behave(uri.query())?,
            Route::Count => self.count(uri.query())?,
            Route::Counts => answer::ok(&self.counts().summary()),
            Route::Work => compute(WORK_MS.in_query(uri.query())?).await,
            Route::Sleep => sleep(SLEEP_MS.in_query(uri.query())?).await,
            Route::Bytes { count } => answer::pattern(BYTES.parse(count)?),
            Route::Echo => {
                let (head, body) = request.into_parts();
                answer::echo(&head.headers, body)
            }
            Route::Stream => {
                let count = CHUNKS.in_query(uri.query())?;
                let interval_ms = INTERVAL_MS.in_query(uri.query())?;
                answer::lines(count, Duration::from_millis(interval_ms))
            }
            Route::Upload => upload(request.into_body()).await,
        };
        Ok(answer)
    }

    fn count_request(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// The request as it arrived here. hyper gives the header names in lower
    /// case, in the order of first arrival, those of the same name together.
    fn describe(&self, remote: SocketAddr, request: &Request<Incoming>) -> Answer {
        let headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        answer::ok(&json!({
            "backend": self.name,
            "method": request.method().as_str(),
            "path": path,
            "version": format!("{:?}", request.version()),
            "headers": headers,
            "remote": remote.to_string(),
            "served": self.served.load(Ordering::Relaxed),
        }))
    }

    fn set_health(&self, failing: bool) -> Answer {
        self.failing.store(failing, Ordering::Relaxed);
        let health = if failing { "failing" } else { "ok" };
        answer::ok(&json!({ "backend": self.name, "health": health }))
    }

    fn health(&self) -> Answer {
        let is_failing = self.failing.load(Ordering::Relaxed);
        let mut answer = if is_failing { answer::failing() } else { answer::healthy() };
        let load = self.behaviour.borrow().load.map(|load| HeaderValue::try_from(load.to_string()));
        answer.headers_mut().extend(load.and_then(Result::ok).map(|load| (X_LOAD, load)));
        answer
    }

    fn set_load(&self, query: Option<&str>) -> Result<Answer, Refusal> {
        let load = value_of(query, "value").and_then(load_of).ok_or_else(|| {
            Refusal(format!("value is not a number: give 0 to {LOAD_MAX}, as in value=0.5"))
        })?;
        self.behaviour.send_modify(|behaviour| behaviour.load = Some(load));
        Ok(answer::ok(&json!({ "backend": self.name, "load": load })))
    }

    fn set_agent(&self, query: Option<&str>) -> Result<Answer, Refusal> {
        let line = text_of(query, "line", AGENT_LINE_BYTES_MAX).map_err(Refusal)?;
        let answer = answer::ok(&json!({ "backend": self.name, "agent": line }));
        *self.agent_line.lock().unwrap_or_else(PoisonError::into_inner) = line;
        Ok(answer)
    }

    fn behave(&self, query: Option<&str>) -> Result<Answer, Refusal> {
        let mut behaviour = *self.behaviour.borrow();
        behaviour.change(query)?;
        self.behaviour.send_replace(behaviour);
        Ok(answer::ok(&json!({
            "backend": self.name,
            "latency_ms": behaviour.latency.as_millis(),
            "error_percent": behaviour.error_percent,
            "silent": behaviour.is_silent,
            "idle_ms": behaviour.idle_timeout.map_or(0, |timeout| timeout.as_millis()),
        })))
    }

    fn count(&self, query: Option<&str>) -> Result<Answer, Refusal> {
        let id = text_of(query, "id", ID_BYTES_MAX).map_err(Refusal)?;
        Ok(match self.counts().add(id.clone()) {
            Ok(Some(count)) => answer::ok(&json!({ "id": id, "count": count })),
            Ok(None) => answer::no_room(&format!("{IDS_MAX} ids are counted already")),
            Err(error) => answer::no_room(&format!("the count file cannot be written: {error}")),
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A panic that poisoned it left whole numbers behind.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Route<'_> {
    /// Whether it is for probes and for who runs the backend, not for clients.
    fn is_control(&self) -> bool {
        matches!(
            self,
            Route::Health
                | Route::SetHealth { .. }
                | Route::SetLoad
                | Route::SetAgent
                | Route::Behave
                | Route::Counts
        )
    }
}

/// Why a request was refused.
struct Refusal(String);

impl From<BadNumber> for Refusal {
    fn from(bad: BadNumber) -> Self {
        Self(bad.to_string())
    }
}

/// Reads a load, 0 to `LOAD_MAX`.
pub(crate) fn load_of(text: &str) -> Option<f64> {
    text.parse().ok().filter(|load| (0.0..=LOAD_MAX).contains(load))
}

fn route_of(path: &str) -> Option<Route<'_>> {
    let route = match path {
        "/" => Route::Describe,
        "/health" => Route::Health,
        "/health/fail" => Route::SetHealth { failing: true },
        "/health/recover" => Route::SetHealth { failing: false },
        "/health/load" => Route::SetLoad,
        "/agent" => Route::SetAgent,
        "/behave" => Route::Behave,
        "/count" => Route::Count,
        "/counts" => Route::Counts,
        "/work" => Route::Work,
        "/sleep" => Route::Sleep,
        "/echo" => Route::Echo,
        "/stream" => Route::Stream,
        "/upload" => Route::Upload,
        _ => Route::Bytes { count: path.strip_prefix("/bytes/")? },
    };
    Some(route)
}

/// The methods a route takes, as the `Allow` header lists them.
fn methods_of(route: &Route<'_>) -> &'static str {
    match route {
        Route::Describe
        | Route::Health
        | Route::Counts
        | Route::Work
        | Route::Sleep
        | Route::Bytes { .. }
        | Route::Stream => READ,
        Route::SetHealth { .. }
        | Route::SetLoad
        | Route::SetAgent
        | Route::Behave
        | Route::Count
        | Route::Upload => CHANGE,
        Route::Echo => TAKE_BODY,
    }
}

async fn compute(ms: u64) -> Answer {
    let work = work::compute(Duration::from_millis(ms)).await;
    answer::ok(&json!({
        "ms": ms,
        "rounds": work.rounds,
        "checksum": format!("{:016x}", work.checksum),
    }))
}

async fn sleep(ms: u64) -> Answer {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    answer::ok(&json!({ "ms": ms }))
}

/// Counts the body's bytes and drops them as they come.
async fn upload(mut body: Incoming) -> Answer {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Err(error) => return answer::bad_request(&format!("the body broke off: {error}")),
        }
    }
    answer::ok(&json!({ "bytes": bytes }))
}
