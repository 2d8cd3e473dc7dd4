//! Example request bodies for the documentation.

use serde_json::{Map, Value, json};

/// An example body. A test checks that the server answers each of them.
#[derive(Clone, Copy)]
pub(super) struct Example {
    name: &'static str,
    summary: &'static str,
    /// The body as JSON.
    body: &'static str,
}

/// Returns an OpenAPI map of Example Objects.
///
/// # Panics
/// If one of them is not valid JSON.
pub(super) fn described(examples: &[Example]) -> Map<String, Value> {
    let described = |example: &Example| {
        let value: Value = serde_json::from_str(example.body).expect("examples are JSON");
        let object = json!({ "summary": example.summary, "value": value });
        (example.name.to_owned(), object)
    };
    examples.iter().map(described).collect()
}

/// Examples for `/v1/chat/completions`.
pub(super) const CHATS: &[Example] = &[
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

/// Examples for `/v1/completions`.
pub(super) const COMPLETIONS: &[Example] = &[Example {
    name: "text",
    summary: "A text",
    body: r#"{"model": "demo", "prompt": "The heart is", "max_tokens": 32, "temperature": 0}"#,
}];

/// Examples for `/v1/responses`.
pub(super) const RESPONSES: &[Example] = &[Example {
    name: "question",
    summary: "A question",
    body: r#"{"model": "demo", "input": "What is a pleural effusion?", "max_output_tokens": 128}"#,
}];

/// Examples for `/v1/messages`.
pub(super) const MESSAGES: &[Example] = &[Example {
    name: "question",
    summary: "A question",
    body: r#"{
        "model": "demo",
        "max_tokens": 128,
        "messages": [{"role": "user", "content": "What is a pleural effusion?"}]
    }"#,
}];

/// Examples for `/v1/messages/count_tokens`.
pub(super) const COUNTED_MESSAGES: &[Example] = &[Example {
    name: "question",
    summary: "A question",
    body: r#"{"model": "demo", "messages": [{"role": "user", "content": "What is a pleural effusion?"}]}"#,
}];

/// Examples for `/tokenize`.
pub(super) const TEXTS: &[Example] = &[Example {
    name: "chat",
    summary: "A chat",
    body: r#"{"model": "demo", "messages": [{"role": "user", "content": "Is it normal?"}]}"#,
}];

/// Examples for `/detokenize`.
pub(super) const TOKENS_OF_TEXTS: &[Example] = &[Example {
    name: "tokens",
    summary: "Tokens",
    body: r#"{"model": "demo", "tokens": [2, 5, 9]}"#,
}];
