//! Fields that chat completions know but do not support, besides those that no endpoint supports.

use crate::api::http::refused_fields::{RefusedField, field};

/// The fields with their neutral values.
pub(crate) const REFUSED: &[RefusedField] = &[
    field("prompt", &[], "Use /v1/completions."),
    field("functions", &["[]"], "Use 'tools'."),
    field("function_call", &[r#""none""#], "Use 'tool_choice'."),
    field("reasoning", &[], "Use 'reasoning_effort'."),
    field("thinking", &[], "Use 'reasoning_effort'."),
    field(
        "enable_thinking",
        &[],
        "Put it into 'chat_template_kwargs'.",
    ),
    field("verbosity", &[r#""medium""#], ""),
    field("modalities", &[r#"["text"]"#], ""),
    field("audio", &[], ""),
    field("prediction", &[], ""),
    field("web_search_options", &[], ""),
    field("add_special_tokens", &["false"], ""),
    field("documents", &["[]"], ""),
    field(
        "chat_template",
        &[],
        "A template is chosen when the server starts.",
    ),
    // Ollama's.
    field(
        "images",
        &["[]"],
        "Send each image as an image_url part of a message's 'content'.",
    ),
    field("format", &[], "Use 'response_format'."),
    field(
        "options",
        &["{}"],
        "Send its settings as fields of the request, such as 'temperature'.",
    ),
    field("system", &[], "Send a message with the role system."),
    field("media_io_kwargs", &["{}"], ""),
];
