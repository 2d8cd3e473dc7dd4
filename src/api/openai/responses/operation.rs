//! `POST /v1/responses` in the description of the API.

use schemars::JsonSchema;

use super::event::NumberedEvent;
use super::refused::REFUSED;
use super::request::ResponsesRequest;
use super::response::ResponseObject;
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
    paths: &["/v1/responses", "/responses"],
    id: "createResponse",
    summary: "Continue a conversation. Nothing is stored.",
    body: Some(Body {
        name: "ResponseRequest",
        parts: &[
            ResponsesRequest::json_schema,
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
        whole: written::<ResponseObject<'static>>,
        event: written::<NumberedEvent<'static>>,
        end: StreamEnd::Typed,
    },
    errors: GENERATION_ERRORS,
    access: Access::Key,
};

/// Example bodies.
const EXAMPLES: &[Example] = &[Example {
    name: "question",
    summary: "A question",
    body: r#"{"model": "demo", "input": "What is a pleural effusion?", "max_output_tokens": 128}"#,
}];
