//! The backends of a pool: listed, added, changed and removed.
//!
//! A handler reads what the client sends, hands one command to the registry and shows what came of
//! it. `If-Match` names the revision that a writer has seen, so two writers lose no update.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{ETAG, IF_MATCH, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Api;
use super::fields::{Fields, NoFields};
use super::problem::{Kind, Problem};
use super::status::{Backend, Pool};
use crate::config::{BackendConfig, Mode, WEIGHT_MAX, parse_backend_url};
use crate::control::{BackendView, Done, Patch, Refusal, Revision};

/// The pool that a path names.
pub(super) struct PoolName(String);

/// The backend that a path names.
pub(super) struct BackendName {
    pool: String,
    authority: String,
}

impl<S: Sync + Send> FromRequestParts<S> for PoolName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PoolName, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(pool)| PoolName(pool)).map_err(|error| unreadable(&error))
    }
}

impl<S: Sync + Send> FromRequestParts<S> for BackendName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<BackendName, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let named = |Path((pool, authority))| BackendName { pool, authority };
        path.map(named).map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &PathRejection) -> Problem {
    Problem::new(Kind::Malformed, format!("the path cannot be read: {error}"))
}

/// `GET /api/v1/pools`.
pub(super) async fn pools(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let views = api.handle.pools().await?;
    let history = api.history();
    let pools: Vec<Pool> = views.iter().map(|view| Pool::of(&history, view)).collect();
    Ok(Json(serde_json::json!({ "pools": pools })).into_response())
}

/// `GET /api/v1/pools/{pool}/backends`.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    PoolName(pool): PoolName,
) -> Result<Response, Problem> {
    let view = api.handle.pool(&pool).await?;
    Ok(Json(Pool::of(&api.history(), &view)).into_response())
}

/// `GET /api/v1/pools/{pool}/backends/{id}`.
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    name: BackendName,
) -> Result<Response, Problem> {
    let view = api.handle.backend(&name.pool, &name.authority).await?;
    Ok(shown(&api, StatusCode::OK, &view))
}

/// `POST /api/v1/pools/{pool}/backends`.
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    PoolName(pool): PoolName,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let address = fields.take("address", address_of)?;
    let (host, port) =
        address.ok_or_else(|| Problem::field("address", "it is missing; give HOST:PORT"))?;
    let patch = Settings::take(&mut fields)?;
    fields.finish(&format!("address, {SETTINGS}"))?;
    let backend = BackendConfig {
        host,
        port,
        weight: patch.weight.unwrap_or(NonZeroU16::MIN),
        conns_max: patch.conns_max.flatten(),
        is_backup: patch.is_backup.unwrap_or(false),
        mode: patch.mode.unwrap_or(Mode::Ready),
    };
    let id = backend.authority();
    let done = api.handle.add(&pool, backend).await?;
    let mut response = answer(&api, StatusCode::CREATED, &done);
    if let Ok(location) = HeaderValue::try_from(format!("/api/v1/pools/{pool}/backends/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// `PATCH /api/v1/pools/{pool}/backends/{id}`.
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    name: BackendName,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let settings = Settings::take(&mut fields)?;
    fields.finish(SETTINGS)?;
    let patch = Patch {
        weight: settings.weight.map(NonZeroU16::get),
        mode: settings.mode,
        conns_max: settings.conns_max.map(|max| max.map(NonZeroU32::get)),
        is_backup: settings.is_backup,
    };
    let expected = expected(&api, &name, &headers).await?;
    let done = api.handle.patch(&name.pool, &name.authority, patch, expected).await?;
    Ok(answer(&api, StatusCode::OK, &done))
}

/// `DELETE /api/v1/pools/{pool}/backends/{id}`.
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    name: BackendName,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let expected = expected(&api, &name, &headers).await?;
    let done = api.handle.remove(&name.pool, &name.authority, expected).await?;
    // What another source names in its place is not what was removed.
    Ok(answer(&api, StatusCode::NO_CONTENT, &Done { after: None, ..done }))
}

/// `POST /api/v1/pools/{pool}/backends/{id}/reset`.
pub(super) async fn reset(
    State(api): State<Arc<Api>>,
    name: BackendName,
    headers: HeaderMap,
    _: NoFields,
) -> Result<Response, Problem> {
    let expected = expected(&api, &name, &headers).await?;
    let done = api.handle.reset(&name.pool, &name.authority, expected).await?;
    Ok(answer(&api, StatusCode::OK, &done))
}

/// The backend after a write, if there is one.
fn answer(api: &Api, status: StatusCode, done: &Done) -> Response {
    match &done.after {
        _ if !done.is_followed => unfollowed(),
        Some(view) => document(api, status, view, done.is_kept),
        None if done.is_kept => StatusCode::NO_CONTENT.into_response(),
        None => unkept(),
    }
}

/// There is no backend any more, and after a restart there would be one.
fn unkept() -> Response {
    Json(serde_json::json!({ "kept": false })).into_response()
}

/// It is in etcd, and this process does not show it yet.
fn unfollowed() -> Response {
    (StatusCode::ACCEPTED, Json(serde_json::json!({ "followed": false }))).into_response()
}

fn shown(api: &Api, status: StatusCode, view: &BackendView) -> Response {
    document(api, status, view, true)
}

fn document(api: &Api, status: StatusCode, view: &BackendView, is_kept: bool) -> Response {
    let last_second = api.history().last_second_of(view.slot);
    let mut backend = Backend::of(view, last_second);
    backend.kept = (!is_kept).then_some(false);
    let mut response = (status, Json(backend)).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", view.revision)) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// The revision that the writer has seen, by `If-Match` (RFC 9110 §13.1.1).
async fn expected(
    api: &Api,
    name: &BackendName,
    headers: &HeaderMap,
) -> Result<Option<Revision>, Problem> {
    let mut given = headers.get_all(IF_MATCH).iter();
    let Some(first) = given.next() else { return Ok(None) };
    let (Ok(text), None) = (first.to_str(), given.next()) else {
        return Err(Problem::new(Kind::Malformed, "If-Match cannot be read; send one, in ASCII"));
    };
    if text.trim() == "*" {
        api.handle.backend(&name.pool, &name.authority).await?;
        return Ok(None);
    }
    let tags: Vec<&str> = text.split(',').map(str::trim).collect();
    let revision_of = |tag: &str| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
    if let [tag] = tags[..]
        && let Some(revision) = revision_of(tag)
    {
        return Ok(Some(Revision(revision)));
    }
    let is_tag = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).starts_with('"');
    if !tags.iter().all(|tag| is_tag(tag) && tag.len() > 1 && tag.ends_with('"')) {
        let detail = "If-Match is no ETag; send the one of the backend as it stands, in quotes";
        return Err(Problem::new(Kind::Malformed, detail));
    }
    let revision = api.handle.backend(&name.pool, &name.authority).await?.revision;
    let is_named = tags.iter().any(|tag| revision_of(tag) == Some(revision.0));
    if is_named { Ok(Some(revision)) } else { Err(Refusal::Conflict(revision).into()) }
}

/// What can be set of a backend; `None` where it is not given.
struct Settings {
    weight: Option<NonZeroU16>,
    mode: Option<Mode>,
    conns_max: Option<Option<NonZeroU32>>,
    is_backup: Option<bool>,
}

impl Settings {
    fn take(fields: &mut Fields) -> Result<Settings, Problem> {
        Ok(Settings {
            weight: fields.take("weight", weight_of)?,
            mode: fields.take("mode", mode_of)?,
            conns_max: fields.take("max_conns", conns_max_of)?,
            is_backup: fields.take("backup", |value| {
                value.as_bool().ok_or_else(|| "give true or false".to_owned())
            })?,
        })
    }
}

fn address_of(value: &Value) -> Result<(String, u16), String> {
    let text = value.as_str().ok_or("give a string, as in \"127.0.0.1:3001\"")?;
    parse_backend_url(&format!("http://{text}"))
}

fn weight_of(value: &Value) -> Result<NonZeroU16, String> {
    let weight = value.as_u64().and_then(|weight| u16::try_from(weight).ok());
    let weight = weight.filter(|weight| *weight <= WEIGHT_MAX).and_then(NonZeroU16::new);
    weight.ok_or_else(|| format!("give 1 to {WEIGHT_MAX}"))
}

fn mode_of(value: &Value) -> Result<Mode, String> {
    match value.as_str() {
        Some("ready") => Ok(Mode::Ready),
        Some("drain") => Ok(Mode::Drain),
        Some("maintenance") => Ok(Mode::Maintenance),
        _ => Err("give \"ready\", \"drain\" or \"maintenance\"".to_owned()),
    }
}

fn conns_max_of(value: &Value) -> Result<Option<NonZeroU32>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let max = value.as_u64().and_then(|max| u32::try_from(max).ok()).and_then(NonZeroU32::new);
    max.map(Some).ok_or_else(|| format!("give 1 to {}, or null for no limit", u32::MAX))
}

const SETTINGS: &str = "weight, mode, max_conns, backup";
