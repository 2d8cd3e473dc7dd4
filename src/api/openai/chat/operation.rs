//! `POST /v1/chat/completions` in the description of the API.

use schemars::JsonSchema;

use super::refused::REFUSED;
use super::request::ChatRequest;
use super::response::{ChatChunk, ChatCompletion};
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
    paths: &["/v1/chat/completions", "/chat/completions"],
    id: "createChatCompletion",
    summary: "Continue a conversation.",
    body: Some(BODY),
    answer: Answer::JsonOrEvents {
        whole: written::<ChatCompletion<'static>>,
        event: written::<ChatChunk<'static>>,
        end: StreamEnd::Done,
    },
    errors: GENERATION_ERRORS,
    access: Access::Key,
};

/// A chat's body.
pub(super) const BODY: Body = Body {
    name: "ChatCompletionRequest",
    parts: &[
        ChatRequest::json_schema,
        SamplingFields::json_schema,
        StreamFields::json_schema,
        SchedulingFields::json_schema,
        LabelFields::json_schema,
        MediaFields::json_schema,
    ],
    refused: &[REFUSED, GENERATION],
    examples: EXAMPLES,
};

/// Example bodies.
const EXAMPLES: &[Example] = &[
    Example {
        name: "question",
        summary: "A question",
        body: r#"{
            "model": "demo",
            "messages": [
                {"role": "system", "content": "You are an expert radiologist."},
                {"role": "user", "content": "What is a pleural effusion?"}
            ],
            "max_tokens": 128
        }"#,
    },
    Example {
        name: "image",
        summary: "A question about an image",
        body: r#"{
            "model": "demo",
            "messages": [{"role": "user", "content": [
                {"type": "text", "text": "Describe this X-ray."},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAKklEQVR42mNgEFAwcAhIKIDRDQxQegIDlF7AAKU3MEDpAwxQ+gIDlH4AAB51HAGfRI9tAAAAAElFTkSuQmCC"}}
            ]}],
            "max_tokens": 128
        }"#,
    },
    Example {
        name: "schema",
        summary: "An answer that keeps to a schema",
        body: r#"{
            "model": "demo",
            "messages": [{"role": "user", "content": "Is a heart of half the chest's width enlarged?"}],
            "response_format": {"type": "json_schema", "json_schema": {
                "name": "finding",
                "schema": {
                    "type": "object",
                    "properties": {"enlarged": {"type": "boolean"}},
                    "required": ["enlarged"],
                    "additionalProperties": false
                }
            }}
        }"#,
    },
    Example {
        name: "tool",
        summary: "A tool that may be called",
        body: r#"{
            "model": "demo",
            "messages": [{"role": "user", "content": "Compare with the last X-ray of the chest."}],
            "tools": [{"type": "function", "function": {
                "name": "find_prior_report",
                "description": "The report of the last examination of the same kind.",
                "parameters": {"type": "object", "properties": {"body_part": {"type": "string"}}}
            }}],
            "max_tokens": 128
        }"#,
    },
];
