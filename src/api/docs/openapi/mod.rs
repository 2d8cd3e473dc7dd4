//! `GET /openapi.json`: the API description, in OpenAPI 3.1.
//!
//! Contains the form in which an endpoint describes its operation (`operation`), the conversion of
//! all operations and of the API types to one document (`document`, `schemas`), and the HTML page
//! that is made from it (`reference`). It knows no endpoint: the router hands it their operations,
//! with the fields that each refuses.

mod document;
mod examples;
mod operation;
mod reference;
mod schemas;

use axum::response::Response;

pub(crate) use self::examples::Example;
pub(crate) use self::operation::{
    Access, Answer, BODY_ERRORS, GENERATION_ERRORS, Method, Operation, StreamEnd, written,
};
pub(crate) use self::schemas::Body;

#[cfg(test)]
use serde_json::Value;

use crate::api::http::json_response::{json_response, to_json};
#[cfg(test)]
use crate::api::http::refused_fields::RefusedField;

/// `GET /openapi.json` in the description of the API.
pub(crate) const OPERATION: Operation = Operation {
    method: Method::Get,
    paths: &["/openapi.json"],
    id: "openapi",
    summary: "This document.",
    body: None,
    answer: Answer::JsonObject("An OpenAPI 3.1 document."),
    errors: &[],
    access: Access::Key,
};

/// Returns the document. It is built for each request, because requests for it are rare.
pub(crate) async fn openapi(operations: &[Operation]) -> Response {
    json_response(to_json(&document::document(operations)))
}

/// Returns the document as an HTML page.
pub(crate) fn reference(operations: &[Operation]) -> String {
    reference::render(&document::document(operations))
}

/// Returns the document, and each path with a body, with the body's name and its refused fields.
#[cfg(test)]
pub(crate) fn described(operations: &[Operation]) -> (Value, Vec<DescribedBody>) {
    let bodies = operations.iter().filter_map(|operation| {
        let body = operation.body?;
        Some(DescribedBody {
            path: operation.paths.first().expect("an operation has a path"),
            name: body.name,
            refused: body.refused.concat(),
        })
    });
    (document::document(operations), bodies.collect())
}

/// A request body, for the test of the fields page.
#[cfg(test)]
pub(crate) struct DescribedBody {
    pub(crate) path: &'static str,
    pub(crate) name: &'static str,
    pub(crate) refused: Vec<RefusedField>,
}
