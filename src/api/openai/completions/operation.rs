//! `POST /v1/completions` in the description of the API.

use schemars::JsonSchema;

use super::refused::REFUSED;
use super::request::CompletionRequest;
use super::response::Completion;
use crate::api::docs::openapi::{
    Access, Answer, Body, Example, GENERATION_ERRORS, Method, Operation, StreamEnd, written,
};
use crate::api::generate::refused::GENERATION;
use crate::api::generate::types::label_fields::LabelFields;
use crate::api::generate::types::media_fields::MediaFields;
use crate::api::generate::types::sampling_fields::{SamplingFields, StreamFields};
use crate::api::generate::types::scheduling_fields::SchedulingFields;

/// The operation.
pub(crate) const OPERATION: Operation = Operation {
    method: Method::Post,
    paths: &["/v1/completions", "/completions"],
    id: "createCompletion",
    summary: "Continue a text.",
    body: Some(Body {
        name: "CompletionRequest",
        parts: &[
            CompletionRequest::json_schema,
            SamplingFields::json_schema,
            StreamFields::json_schema,
            SchedulingFields::json_schema,
            LabelFields::json_schema,
            MediaFields::json_schema,
        ],
        refused: &[REFUSED, GENERATION],
        examples: EXAMPLES,
    }),
    answer: Answer::JsonOrEvents {
        whole: written::<Completion<'static>>,
        event: written::<Completion<'static>>,
        end: StreamEnd::Done,
    },
    errors: GENERATION_ERRORS,
    access: Access::Key,
};

/// Example bodies.
const EXAMPLES: &[Example] = &[Example {
    name: "text",
    summary: "A text",
    body: r#"{"model": "demo", "prompt": "The heart is", "max_tokens": 32, "temperature": 0}"#,
}];
