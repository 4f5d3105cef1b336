//! The last snapshots, and how two of them differ.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::Api;
use super::fields::Query;
use super::problem::Problem;
use super::read::ChangeDocument;
use crate::control::{Difference, Shown};
use crate::upstream::endpoint::{Standing, Tier, WEIGHT_UNIT};

/// `GET /api/v1/snapshots`.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let changes = api.handle.snapshots().await?;
    let snapshots: Vec<_> = changes.iter().map(ChangeDocument::of).collect();
    Ok(Json(json!({ "snapshots": snapshots })).into_response())
}

/// `GET /api/v1/snapshots/diff?from=&to=`.
pub(super) async fn diff(
    State(api): State<Arc<Api>>,
    mut query: Query,
) -> Result<Response, Problem> {
    let (from, to) = (query.number("from")?, query.number("to")?);
    query.finish("from, to")?;
    let differences = api.handle.diff(from, to).await?;
    let backends: Vec<_> = differences.iter().map(DifferenceDocument::of).collect();
    Ok(Json(json!({ "from": from, "to": to, "backends": backends })).into_response())
}

#[derive(Serialize)]
struct DifferenceDocument<'a> {
    id: &'a str,
    before: Option<ShownDocument>,
    after: Option<ShownDocument>,
}

/// What a snapshot shows of a backend.
#[derive(Serialize)]
struct ShownDocument {
    resolved: Option<std::net::SocketAddr>,
    effective_weight: f64,
    backup: bool,
    takes: &'static str,
    max_conns: Option<u32>,
}

impl DifferenceDocument<'_> {
    fn of(difference: &Difference) -> DifferenceDocument<'_> {
        DifferenceDocument {
            id: &difference.id,
            before: difference.before.as_ref().map(ShownDocument::of),
            after: difference.after.as_ref().map(ShownDocument::of),
        }
    }
}

impl ShownDocument {
    fn of(shown: &Shown) -> ShownDocument {
        ShownDocument {
            resolved: shown.address,
            effective_weight: f64::from(shown.weight) / f64::from(WEIGHT_UNIT),
            backup: shown.tier == Tier::Backup,
            takes: takes(shown.standing),
            max_conns: shown.conns_max,
        }
    }
}

/// What requests an endpoint of this standing takes, in a word.
pub(super) fn takes(standing: Standing) -> &'static str {
    match standing {
        Standing::Open => "all",
        Standing::Trial => "trials",
        Standing::Draining => "sessions",
        Standing::Out => "none",
    }
}
