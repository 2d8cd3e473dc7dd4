//! `GET /openapi.json`: the API description, in OpenAPI 3.1.
//!
//! Contains the table of operations (`operations`), the conversion of it and of the API types to
//! one document (`document`, `schemas`), and the HTML page that is made from it (`reference`). It
//! only describes the code: `convert` defines ranges, `error` defines status codes, and
//! `refused_fields` lists refused fields.

mod document;
mod examples;
mod operation;
mod operations;
mod reference;
mod schemas;

use axum::response::Response;

#[cfg(test)]
use serde_json::Value;

use super::answer::{json_response, to_json};
#[cfg(test)]
use super::refused_fields::RefusedField;

/// Returns the document. It is built for each request, because requests for it are rare.
pub(super) async fn openapi() -> Response {
    json_response(to_json(&document::document()))
}

/// Returns the document as an HTML page.
pub(super) fn reference() -> String {
    reference::render(&document::document())
}

/// Returns the document, and each path with a body, with the body's name and its refused fields.
#[cfg(test)]
pub(super) fn described() -> (Value, Vec<DescribedBody>) {
    let bodies = operations::OPERATIONS.iter().filter_map(|operation| {
        let body = operation.body?;
        Some(DescribedBody {
            path: operation.paths.first().expect("an operation has a path"),
            name: body.name,
            refused: body.refused.concat(),
        })
    });
    (document::document(), bodies.collect())
}

/// A request body, for the test of the fields page.
#[cfg(test)]
pub(super) struct DescribedBody {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    pub(super) refused: Vec<RefusedField>,
}
