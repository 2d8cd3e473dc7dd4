//! `POST /tokenize` and `POST /detokenize` in the description of the API.

use schemars::JsonSchema;

use super::refused::REFUSED;
use super::types::{DetokenizeRequest, Detokenized, TokenizeRequest, Tokenized};
use crate::api::docs::openapi::{
    Access, Answer, BODY_ERRORS, Body, Example, Method, Operation, written,
};

/// `POST /tokenize`.
pub(crate) const TOKENIZE: Operation = Operation {
    method: Method::Post,
    paths: &["/tokenize"],
    id: "tokenize",
    summary: "The tokens of a text or of a chat.",
    body: Some(Body {
        name: "TokenizationRequest",
        parts: &[TokenizeRequest::json_schema],
        refused: &[REFUSED],
        examples: TEXT_EXAMPLES,
    }),
    answer: Answer::Json(written::<Tokenized>),
    errors: BODY_ERRORS,
    access: Access::Key,
};

/// `POST /detokenize`.
pub(crate) const DETOKENIZE: Operation = Operation {
    method: Method::Post,
    paths: &["/detokenize"],
    id: "detokenize",
    summary: "The text of tokens.",
    body: Some(Body {
        name: "DetokenizationRequest",
        parts: &[DetokenizeRequest::json_schema],
        refused: &[],
        examples: TOKEN_EXAMPLES,
    }),
    answer: Answer::Json(written::<Detokenized>),
    errors: BODY_ERRORS,
    access: Access::Key,
};

/// Example bodies of texts and chats.
const TEXT_EXAMPLES: &[Example] = &[Example {
    name: "chat",
    summary: "A chat",
    body: r#"{"model": "demo", "messages": [{"role": "user", "content": "Is it normal?"}]}"#,
}];

/// Example bodies of token ids.
const TOKEN_EXAMPLES: &[Example] = &[Example {
    name: "tokens",
    summary: "Tokens",
    body: r#"{"model": "demo", "tokens": [2, 5, 9]}"#,
}];
