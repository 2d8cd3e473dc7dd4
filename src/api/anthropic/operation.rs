//! `POST /v1/messages` and `POST /v1/messages/count_tokens` in the description of the API.

use schemars::JsonSchema;

use super::refused::REFUSED;
use super::request::MessagesRequest;
use super::response::{MessageObject, MessagesEvent, TokenCount};
use crate::api::docs::openapi::{
    Access, Answer, BODY_ERRORS, Body, Example, GENERATION_ERRORS, Method, Operation, StreamEnd,
    written,
};
use crate::api::generate::types::media_fields::MediaFields;
use crate::api::generate::types::sampling_fields::StreamFields;
use crate::api::generate::types::scheduling_fields::SchedulingFields;

/// `POST /v1/messages`.
pub(crate) const MESSAGES: Operation = Operation {
    method: Method::Post,
    paths: &["/v1/messages", "/messages"],
    id: "createMessage",
    summary: "Continue a conversation (Anthropic's API).",
    body: Some(Body {
        name: "MessageRequest",
        parts: &[
            MessagesRequest::json_schema,
            StreamFields::json_schema,
            SchedulingFields::json_schema,
            MediaFields::json_schema,
        ],
        refused: &[REFUSED],
        examples: MESSAGE_EXAMPLES,
    }),
    answer: Answer::JsonOrEvents {
        whole: written::<MessageObject<'static>>,
        event: written::<MessagesEvent<'static>>,
        end: StreamEnd::Typed,
    },
    errors: GENERATION_ERRORS,
    access: Access::Key,
};

/// `POST /v1/messages/count_tokens`.
pub(crate) const COUNT_TOKENS: Operation = Operation {
    method: Method::Post,
    paths: &["/v1/messages/count_tokens", "/messages/count_tokens"],
    id: "countMessageTokens",
    summary: "How many tokens a conversation has.",
    body: Some(Body {
        name: "MessageTokensRequest",
        parts: &[MessagesRequest::json_schema, MediaFields::json_schema],
        refused: &[REFUSED],
        examples: COUNT_EXAMPLES,
    }),
    answer: Answer::Json(written::<TokenCount>),
    errors: BODY_ERRORS,
    access: Access::Key,
};

/// Example bodies of messages.
const MESSAGE_EXAMPLES: &[Example] = &[Example {
    name: "question",
    summary: "A question",
    body: r#"{
        "model": "demo",
        "max_tokens": 128,
        "messages": [{"role": "user", "content": "What is a pleural effusion?"}]
    }"#,
}];

/// Example bodies of messages to count.
const COUNT_EXAMPLES: &[Example] = &[Example {
    name: "question",
    summary: "A question",
    body: r#"{"model": "demo", "messages": [{"role": "user", "content": "What is a pleural effusion?"}]}"#,
}];
