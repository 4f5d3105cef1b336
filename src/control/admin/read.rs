//! What is asked of the whole process: health, status, history, workers, metrics, events, a drain.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::fields::NoFields;
use super::problem::{Kind, Problem};
use super::status::{Status, Time};
use super::{Api, readiness};
use crate::control::Change;
use crate::control::dashboard;
use crate::control::prometheus::{self, Format, Sources};

/// 200 while the process is alive, else 503.
pub(super) async fn healthz(State(api): State<Arc<Api>>) -> Response {
    health(&readiness::deaths(api.process.phase(), &api.process.workers()))
}

/// 200 while it should get traffic, else 503.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    health(&readiness::reasons(api.process.phase(), &api.published.load()))
}

fn health(reasons: &[String]) -> Response {
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if reasons.is_empty() { "ok" } else { "not ok" };
    (status, Json(json!({ "status": word, "reasons": reasons }))).into_response()
}

/// The status document.
pub(super) async fn status(State(api): State<Arc<Api>>) -> Result<Json<Status>, Problem> {
    Ok(Json(status_of(&api).await?))
}

pub(super) async fn status_of(api: &Api) -> Result<Status, Problem> {
    Ok(Status::of(api, &api.handle.pools().await?))
}

/// The dashboard.
pub(super) async fn page() -> Response {
    let page = dashboard::page();
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, page.policy.as_str()),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, page.html.as_str()).into_response()
}

/// The metrics, in the format that `Accept` asks for.
pub(super) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let format = Format::asked(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    let sources = Sources {
        lanes: api.lanes.clone(),
        published: Arc::clone(&api.published),
        vitals: Arc::clone(&api.vitals),
        started: api.started,
    };
    let text = prometheus::render(&sources, format);
    ([(CONTENT_TYPE, format.content_type())], text).into_response()
}

/// The seconds that are remembered.
pub(super) async fn history(State(api): State<Arc<Api>>) -> Response {
    let points = api.history().points();
    Json(json!({ "points": points })).into_response()
}

/// The workers alone.
pub(super) async fn workers(State(api): State<Arc<Api>>) -> Response {
    Json(json!({ "workers": super::status::workers(&api) })).into_response()
}

/// Drains the process and ends it; 202, since it goes on after the answer.
pub(super) async fn drain(State(api): State<Arc<Api>>, _: NoFields) -> Result<Response, Problem> {
    tracing::info!("the admin API asks for a drain");
    api.process.request_drain();
    let reasons = ["it completes what is in flight and ends, within --drain-timeout"];
    let document = json!({ "status": "draining", "reasons": reasons });
    Ok((StatusCode::ACCEPTED, Json(document)).into_response())
}

/// Reads the configuration file again, as SIGHUP does; what waits for a restart is named.
pub(super) async fn reload(State(api): State<Arc<Api>>, _: NoFields) -> Result<Response, Problem> {
    let needs_restart = api.handle.reload().await?;
    Ok(Json(json!({ "needs_restart": needs_restart })).into_response())
}

/// Server-sent events until the client leaves; the first `status` comes at once.
pub(super) async fn events(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let Some(stream) = api.hub.listen() else {
        let most = super::events::LISTENERS_MAX;
        let detail = format!("{most} clients listen to events, which is the most; end one of them");
        return Err(Problem::new(Kind::Busy, detail));
    };
    Ok(([(CONTENT_TYPE, super::events::MEDIA_TYPE)], Body::new(stream)).into_response())
}

/// A change as an event and the list of snapshots show it.
#[derive(Serialize)]
pub(super) struct ChangeDocument<'a> {
    at: Time,
    epoch: u64,
    cause: &'a str,
    text: &'a str,
}

impl ChangeDocument<'_> {
    pub(super) fn of(change: &Change) -> ChangeDocument<'_> {
        let Change { epoch, at, cause, text } = change;
        ChangeDocument { at: Time(*at), epoch: *epoch, cause, text }
    }
}

pub(super) fn text_of(change: &Change) -> String {
    // Strings, numbers and times can always be written.
    serde_json::to_string(&ChangeDocument::of(change)).unwrap_or_default()
}
