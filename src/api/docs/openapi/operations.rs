//! The table of all operations.

use schemars::JsonSchema;

use super::examples;
use super::operation::{Access, Answer, Method, Operation, StreamEnd, written};
use super::schemas::Body;
use crate::api::anthropic;
use crate::api::anthropic::request::MessagesRequest;
use crate::api::anthropic::response::{MessageObject, MessagesEvent, TokenCount};
use crate::api::generate::types::label_fields::LabelFields;
use crate::api::generate::types::sampling_fields::{SamplingFields, StreamFields};
use crate::api::generate::types::scheduling_fields::SchedulingFields;
use crate::api::http::refused_fields::{CHAT, COMPLETION, GENERATION, TOKENIZE};
use crate::api::openai::chat::request::ChatRequest;
use crate::api::openai::chat::response::{ChatChunk, ChatCompletion};
use crate::api::openai::completions::request::CompletionRequest;
use crate::api::openai::completions::response::Completion;
use crate::api::openai::model_list::{ModelCard, ModelList};
use crate::api::openai::responses;
use crate::api::openai::responses::event::NumberedEvent;
use crate::api::openai::responses::request::ResponsesRequest;
use crate::api::openai::responses::response::ResponseObject;
use crate::api::openai::tokenize::types::{
    DetokenizeRequest, Detokenized, TokenizeRequest, Tokenized,
};
use crate::api::status::server_state::{Status, Version};

/// Error statuses of generating operations.
const GENERATION_ERRORS: &[u16] = &[400, 403, 404, 408, 413, 415, 429, 500, 503, 504];

/// Error statuses of operations that process a body without generating.
const BODY_ERRORS: &[u16] = &[400, 404, 408, 413, 415, 500, 503];

const CHAT_COMPLETION: Operation = Operation {
    method: Method::Post,
    paths: &["/v1/chat/completions", "/chat/completions"],
    id: "createChatCompletion",
    summary: "Continue a conversation.",
    body: Some(Body {
        name: "ChatCompletionRequest",
        parts: &[
            ChatRequest::json_schema,
            SamplingFields::json_schema,
            StreamFields::json_schema,
            SchedulingFields::json_schema,
            LabelFields::json_schema,
        ],
        refused: &[CHAT, GENERATION],
        examples: examples::CHATS,
    }),
    answer: Answer::JsonOrEvents {
        whole: written::<ChatCompletion<'static>>,
        event: written::<ChatChunk<'static>>,
        end: StreamEnd::Done,
    },
    errors: GENERATION_ERRORS,
    access: Access::Key,
};

const TEXT_COMPLETION: Operation = Operation {
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
        ],
        refused: &[COMPLETION, GENERATION],
        examples: examples::COMPLETIONS,
    }),
    answer: Answer::JsonOrEvents {
        whole: written::<Completion<'static>>,
        event: written::<Completion<'static>>,
        end: StreamEnd::Done,
    },
    errors: GENERATION_ERRORS,
    access: Access::Key,
};

const RESPONSE: Operation = Operation {
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
        ],
        refused: &[responses::REFUSED, GENERATION],
        examples: examples::RESPONSES,
    }),
    answer: Answer::JsonOrEvents {
        whole: written::<ResponseObject<'static>>,
        event: written::<NumberedEvent<'static>>,
        end: StreamEnd::Typed,
    },
    ..CHAT_COMPLETION
};

const MESSAGE: Operation = Operation {
    paths: &["/v1/messages", "/messages"],
    id: "createMessage",
    summary: "Continue a conversation, in Anthropic's words.",
    body: Some(Body {
        name: "MessageRequest",
        parts: &[
            MessagesRequest::json_schema,
            StreamFields::json_schema,
            SchedulingFields::json_schema,
        ],
        refused: &[anthropic::REFUSED],
        examples: examples::MESSAGES,
    }),
    answer: Answer::JsonOrEvents {
        whole: written::<MessageObject<'static>>,
        event: written::<MessagesEvent<'static>>,
        end: StreamEnd::Typed,
    },
    ..CHAT_COMPLETION
};

const COUNT_TOKENS: Operation = Operation {
    paths: &["/v1/messages/count_tokens", "/messages/count_tokens"],
    id: "countMessageTokens",
    summary: "How many tokens a conversation has.",
    body: Some(Body {
        name: "MessageTokensRequest",
        parts: &[MessagesRequest::json_schema],
        refused: &[anthropic::REFUSED],
        examples: examples::COUNTED_MESSAGES,
    }),
    answer: Answer::Json(written::<TokenCount>),
    errors: BODY_ERRORS,
    ..CHAT_COMPLETION
};

const LIST_MODELS: Operation = Operation {
    method: Method::Get,
    paths: &["/v1/models", "/models"],
    id: "listModels",
    summary: "All names that requests may use.",
    body: None,
    answer: Answer::Json(written::<ModelList<'static>>),
    errors: &[503],
    access: Access::Key,
};

const RETRIEVE_MODEL: Operation = Operation {
    paths: &["/v1/models/{id}", "/models/{id}"],
    id: "retrieveModel",
    summary: "One name; it may contain slashes.",
    answer: Answer::Json(written::<ModelCard<'static>>),
    errors: &[400, 404, 503],
    ..LIST_MODELS
};

const TOKENS: Operation = Operation {
    method: Method::Post,
    paths: &["/tokenize"],
    id: "tokenize",
    summary: "The tokens of a text or of a chat.",
    body: Some(Body {
        name: "TokenizationRequest",
        parts: &[TokenizeRequest::json_schema],
        refused: &[TOKENIZE],
        examples: examples::TEXTS,
    }),
    answer: Answer::Json(written::<Tokenized>),
    errors: BODY_ERRORS,
    access: Access::Key,
};

const TEXT_OF_TOKENS: Operation = Operation {
    method: Method::Post,
    paths: &["/detokenize"],
    id: "detokenize",
    summary: "The text of tokens.",
    body: Some(Body {
        name: "DetokenizationRequest",
        parts: &[DetokenizeRequest::json_schema],
        refused: &[],
        examples: examples::TOKENS_OF_TEXTS,
    }),
    answer: Answer::Json(written::<Detokenized>),
    errors: BODY_ERRORS,
    access: Access::Key,
};

const HEALTH: Operation = Operation {
    method: Method::Get,
    paths: &["/health"],
    id: "health",
    summary: "Whether the model can answer.",
    body: None,
    answer: Answer::Json(written::<Status<'static>>),
    errors: &[503],
    access: Access::Open,
};

const LIVE: Operation = Operation {
    paths: &["/livez"],
    id: "live",
    summary: "Whether the process can work: also while it loads or drains.",
    ..HEALTH
};

const READY: Operation = Operation {
    paths: &["/ready", "/readyz"],
    id: "ready",
    summary: "Whether requests are welcome.",
    ..HEALTH
};

const VERSION: Operation = Operation {
    paths: &["/version"],
    id: "version",
    summary: "The server's version.",
    answer: Answer::Json(written::<Version>),
    errors: &[],
    access: Access::Key,
    ..HEALTH
};

const METRICS: Operation = Operation {
    paths: &["/metrics"],
    id: "metrics",
    summary: "Numbers for Prometheus and for routers. Where several keys open the server, it takes a \
              key of its own.",
    answer: Answer::Metrics,
    errors: &[503],
    access: Access::Key,
    ..HEALTH
};

const OPENAPI: Operation = Operation {
    paths: &["/openapi.json"],
    id: "openapi",
    summary: "This document.",
    answer: Answer::JsonObject("An OpenAPI 3.1 document."),
    errors: &[],
    access: Access::Key,
    ..HEALTH
};

/// Exactly the operations that the router serves; a test compares them.
pub(super) const OPERATIONS: &[Operation] = &[
    CHAT_COMPLETION,
    TEXT_COMPLETION,
    RESPONSE,
    MESSAGE,
    COUNT_TOKENS,
    LIST_MODELS,
    RETRIEVE_MODEL,
    TOKENS,
    TEXT_OF_TOKENS,
    HEALTH,
    LIVE,
    READY,
    VERSION,
    METRICS,
    OPENAPI,
];
