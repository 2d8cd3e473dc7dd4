//! `GET /openapi.json`: the API description, in OpenAPI 3.1.
//!
//! Contains the table of operations (`operations`), the conversion of it and of the API types to
//! one document (`document`, `schemas`), and the HTML page that is made from it (`reference`). It
//! only describes the code: the endpoints define ranges, `error` defines status codes, and
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

use crate::api::http::json_response::{json_response, to_json};
#[cfg(test)]
use crate::api::http::refused_fields::RefusedField;

/// Returns the document. It is built for each request, because requests for it are rare.
pub(crate) async fn openapi() -> Response {
    json_response(to_json(&document::document()))
}

/// Returns the document as an HTML page.
pub(crate) fn reference() -> String {
    reference::render(&document::document())
}

/// Returns the document, and each path with a body, with the body's name and its refused fields.
#[cfg(test)]
pub(crate) fn described() -> (Value, Vec<DescribedBody>) {
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
pub(crate) struct DescribedBody {
    pub(crate) path: &'static str,
    pub(crate) name: &'static str,
    pub(crate) refused: Vec<RefusedField>,
}
