//! The demo's paths: which there are, what each takes, and what it does.
//!
//! Decides the answer to one request; `backend` has the connections. Nothing a
//! client sends may panic here or make the backend hold a body in memory.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::answer::{self, Answer};
use super::number::{BadNumber, Number};
use super::work;

const X_BACKEND: HeaderName = HeaderName::from_static("x-backend");

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
    "/work?ms=N",
    "/sleep?ms=N",
    "/bytes/N",
    "/echo",
    "/stream?chunks=N&interval_ms=M",
    "/upload",
];

const READ: &str = "GET, HEAD";
const CHANGE: &str = "POST";
const TAKE_BODY: &str = "POST, PUT";

/// A backend's state and what it answers.
#[derive(Debug)]
pub(super) struct Service {
    name: String,
    /// The name again, as the value of `X-Backend`.
    name_header: HeaderValue,
    /// Requests since the start, those for `/health` and below left out: with
    /// the probes in it the number would say nothing about the balancing.
    served: AtomicU64,
    failing: AtomicBool,
}

enum Route<'path> {
    Describe,
    Health,
    SetHealth { failing: bool },
    Work,
    Sleep,
    Bytes { count: &'path str },
    Echo,
    Stream,
    Upload,
}

impl Service {
    pub(super) fn new(name: String, name_header: HeaderValue) -> Self {
        Self { name, name_header, served: AtomicU64::new(0), failing: AtomicBool::new(false) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The answer to one request from `remote`; what goes wrong is an answer too.
    pub(super) async fn answer(
        &self,
        remote: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Answer, Infallible> {
        let answered = self.dispatch(remote, request).await;
        let mut answer = answered.unwrap_or_else(|bad| answer::bad_request(&bad));
        answer.headers_mut().insert(X_BACKEND, self.name_header.clone());
        Ok(answer)
    }

    async fn dispatch(
        &self,
        remote: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Answer, BadNumber> {
        let uri = request.uri().clone();
        let Some(route) = route_of(uri.path()) else {
            self.count_request();
            return Ok(answer::not_found(PATHS));
        };
        if !matches!(route, Route::Health | Route::SetHealth { .. }) {
            self.count_request();
        }
        let allow = methods_of(&route);
        if !allow.split(", ").any(|method| method == request.method().as_str()) {
            return Ok(answer::method_not_allowed(allow));
        }
        let answer = match route {
            Route::Describe => self.describe(remote, &request),
            Route::Health if self.failing.load(Ordering::Relaxed) => answer::failing(),
            Route::Health => answer::healthy(),
            Route::SetHealth { failing } => self.set_health(failing),
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
}

fn route_of(path: &str) -> Option<Route<'_>> {
    let route = match path {
        "/" => Route::Describe,
        "/health" => Route::Health,
        "/health/fail" => Route::SetHealth { failing: true },
        "/health/recover" => Route::SetHealth { failing: false },
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
        | Route::Work
        | Route::Sleep
        | Route::Bytes { .. }
        | Route::Stream => READ,
        Route::SetHealth { .. } | Route::Upload => CHANGE,
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
