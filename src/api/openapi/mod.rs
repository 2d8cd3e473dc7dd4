//! `GET /openapi.json`: what is served, in OpenAPI 3.1.
//!
//! Owns the table of operations (`operations`) and how it and the wire's types become one document
//! (`document`, `schemas`), and the page for people that is made from it (`reference`). Says what the code does and decides nothing: ranges are `lower`'s,
//! status codes are `error`'s, refused fields stand in `refused_fields`.

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

/// The document. It is made anew for each client that asks, which is rare.
pub(super) async fn openapi() -> Response {
    json_response(to_json(&document::document()))
}

/// The document as a page.
pub(super) fn reference() -> String {
    reference::render(&document::document())
}

/// The document and each path that takes a body, with the body's name and the fields that are
/// refused in it.
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

/// A request's body, for the page of fields.
#[cfg(test)]
pub(super) struct DescribedBody {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    pub(super) refused: Vec<RefusedField>,
}
