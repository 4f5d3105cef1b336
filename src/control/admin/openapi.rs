//! The description of the API for programs: OpenAPI 3.1, written by hand as data.
//!
//! Tests hold the router and the document against each other, and real answers against its schemas.
//! Called for `/api/v1/openapi.json` alone.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// `GET /api/v1/openapi.json`.
pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

/// OpenAPI 3.1.
const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What `super::super::router` serves, in its order.
    fn routes() -> Vec<(String, Vec<String>)> {
        let source = include_str!("mod.rs");
        let routes = source.split(".route(").skip(1).filter_map(|rest| {
            let (path, handlers) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
            let handlers = handlers.split(".route(").next()?.split("\n        .layer").next()?;
            let methods = ["get", "post", "patch", "delete"];
            let is_there = |method: &&str| handlers.contains(&format!("{method}("));
            let found = methods.into_iter().filter(is_there).map(str::to_owned).collect();
            Some((path.to_owned(), found))
        });
        routes.collect()
    }

    #[test]
    fn each_route_is_described_and_each_description_is_served() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let paths = document["paths"].as_object().unwrap();
        let methods = ["get", "post", "patch", "delete"];
        let mut described: Vec<(String, Vec<String>)> = paths
            .iter()
            .map(|(path, item)| {
                let there = methods.iter().filter(|method| item.get(**method).is_some());
                (path.clone(), there.map(ToString::to_string).collect())
            })
            .collect();
        let mut served = routes();
        assert!(served.len() > 15, "{served:?}");
        described.sort();
        served.sort();
        assert_eq!(described, served);
    }

    #[test]
    fn each_reference_leads_somewhere() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        for reference in DOCUMENT.split("\"$ref\": \"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
