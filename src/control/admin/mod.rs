//! The admin API: what operators, scrapers and the dashboard ask corelane over HTTP.
//!
//! Served on the control thread by axum, within the limits of `serve`: a handler reads what is
//! there, or sends a command to the registry and waits for its reply; none blocks, and none touches
//! a worker. `server` binds its socket and starts it.

mod backends;
mod config;
mod events;
mod explain;
mod fields;
mod guard;
mod history;
mod listener;
mod openapi;
mod presence;
mod problem;
mod read;
mod readiness;
mod serve;
mod snapshots;
mod stall;
mod status;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{AdminAddr, AdminConfig, Config};
use crate::control::{Change, Control, Handle, Vitals};
use crate::metrics::Lanes;
use crate::process::Process;
use crate::upstream::snapshot::Published;
use events::Hub;
use guard::Guard;
use history::History;
pub use listener::Listener;
use problem::{Kind, Problem};

/// What the handlers stand on.
#[derive(Debug)]
pub struct Api {
    admin: AdminConfig,
    config: Arc<Config>,
    process: Arc<Process>,
    lanes: Lanes,
    published: Published,
    vitals: Arc<Vitals>,
    handle: Handle,
    started: SystemTime,
    /// Only the control thread takes it, so nobody ever waits for it.
    history: Mutex<History>,
    hub: Hub,
}

impl Api {
    /// The API of this process.
    #[must_use]
    pub fn new(
        admin: &AdminConfig,
        config: &Arc<Config>,
        process: &Arc<Process>,
        lanes: &Lanes,
        control: &Control,
    ) -> Api {
        let published = control.published();
        let history = Mutex::new(History::new(lanes, &published.load()));
        Api {
            admin: admin.clone(),
            config: Arc::clone(config),
            process: Arc::clone(process),
            lanes: lanes.clone(),
            published,
            vitals: control.vitals(),
            handle: control.handle(),
            started: SystemTime::now(),
            history,
            hub: Hub::default(),
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the API until the control thread ends.
pub async fn serve(listener: Listener, api: Api) {
    let guard = Guard::new(&api.admin);
    let scheme = if matches!(listener.addr, AdminAddr::Tcp(_)) { "http://" } else { "" };
    let token = if api.admin.token.is_some() { "needed" } else { "none" };
    tracing::info!(token, "admin API on {scheme}{}", listener.addr);
    let api = Arc::new(api);
    let router = router(&api);
    tokio::join!(serve::run(listener.socket, guard, router), sample(&api), tell_changes(&api));
}

/// Every path.
fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/", get(read::page))
        .route("/metrics", get(read::metrics))
        .route("/healthz", get(read::healthz))
        .route("/readyz", get(read::readyz))
        .route("/api/v1/status", get(read::status))
        .route("/api/v1/history", get(read::history))
        .route("/api/v1/workers", get(read::workers))
        .route("/api/v1/events", get(read::events))
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/api/v1/config", get(config::show))
        .route("/api/v1/drain", post(read::drain))
        .route("/api/v1/reload", post(read::reload))
        .route("/api/v1/explain", get(explain::explain))
        .route("/api/v1/snapshots", get(snapshots::list))
        .route("/api/v1/snapshots/diff", get(snapshots::diff))
        .route("/api/v1/pools", get(backends::pools))
        .route("/api/v1/pools/{pool}/backends", get(backends::list).post(backends::add))
        .route(
            "/api/v1/pools/{pool}/backends/{id}",
            get(backends::get).patch(backends::change).delete(backends::remove),
        )
        .route("/api/v1/pools/{pool}/backends/{id}/reset", post(backends::reset))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(api))
}

async fn unknown_path() -> Problem {
    Problem::new(Kind::PathUnknown, "see /api/v1/openapi.json for the paths there are")
}

async fn wrong_method() -> Problem {
    Problem::new(Kind::Method, "use one of the methods in Allow")
}

/// Takes a sample each second, and tells those who listen.
async fn sample(api: &Api) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        api.history().sample(&api.lanes, &api.published.load(), SystemTime::now());
        if api.hub.has_listeners()
            && let Ok(status) = read::status_of(api).await
            && let Ok(text) = serde_json::to_string(&status)
        {
            api.hub.send("status", &text);
        }
    }
}

/// Tells those who listen of each snapshot.
async fn tell_changes(api: &Api) {
    let mut changes = api.handle.changes();
    loop {
        match changes.recv().await {
            Ok(change) => api.hub.send("change", &read::text_of(&change)),
            Err(RecvError::Lagged(lost)) => {
                let text = format!("{lost} changes came too fast to be told");
                let change = Change {
                    epoch: api.published.load().epoch,
                    at: SystemTime::now(),
                    cause: "lost".to_owned(),
                    text,
                };
                api.hub.send("change", &read::text_of(&change));
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// The most bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 * 1024;
