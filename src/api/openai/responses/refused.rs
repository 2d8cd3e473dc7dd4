//! Fields that `/v1/responses` knows but does not support, besides those that no endpoint supports:
//! OpenAI's, and chat fields that have another name here.

use crate::api::http::refused_fields::{RefusedField, field};

/// The fields with their neutral values.
pub(crate) const REFUSED: &[RefusedField] = &[
    // OpenAI's.
    field("access_programs", &["{}"], ""),
    field("background", &["false"], "Send the request and wait."),
    field("background_options", &["{}"], ""),
    field("context_management", &["[]"], ""),
    field(
        "conversation",
        &[],
        "Nothing is stored by this server: send all items as 'input'.",
    ),
    field("image", &["{}"], ""),
    field("max_tool_calls", &[], "The server calls no tools itself."),
    field(
        "previous_response_id",
        &[],
        "Nothing is stored by this server: send all items as 'input'.",
    ),
    field(
        "prompt",
        &[],
        "Send the prompt as 'instructions' and 'input'.",
    ),
    field(
        "truncation",
        &[r#""disabled""#],
        "Shorten the input before sending it.",
    ),
    // Chat fields.
    field("add_generation_prompt", &["true"], ""),
    field("audio", &[], ""),
    field(
        "chat_template",
        &[],
        "A template is chosen when the server starts.",
    ),
    field("chat_template_kwargs", &["{}"], "Use 'reasoning'."),
    field("continue_final_message", &["false"], ""),
    field("documents", &["[]"], ""),
    field("enable_thinking", &[], "Use 'reasoning'."),
    field("function_call", &[r#""none""#], "Use 'tool_choice'."),
    field("functions", &["[]"], "Use 'tools'."),
    field("include_reasoning", &["true"], ""),
    field(
        "logprobs",
        &["false"],
        r#"Use 'include': ["message.output_text.logprobs"]."#,
    ),
    field("max_completion_tokens", &[], "Use 'max_output_tokens'."),
    field("max_tokens", &[], "Use 'max_output_tokens'."),
    field("media_io_kwargs", &["{}"], ""),
    field("messages", &[], "Use 'input'."),
    field("modalities", &[r#"["text"]"#], ""),
    field("n", &["1"], "Use /v1/chat/completions."),
    field("prediction", &[], ""),
    field("reasoning_effort", &[], "Use 'reasoning.effort'."),
    field(
        "response_format",
        &[r#"{"type":"text"}"#],
        "Use 'text.format'.",
    ),
    field("return_token_ids", &["false"], "Use /v1/chat/completions."),
    field("structured_outputs", &[], "Use 'text.format'."),
    field("guided_json", &[], "Use 'text.format'."),
    field("guided_regex", &[], "Use 'text.format'."),
    field("guided_choice", &[], "Use 'text.format'."),
    field("guided_grammar", &[], "Use 'text.format'."),
    field("guided_decoding_backend", &[], "Use 'text.format'."),
    field("thinking", &[], "Use 'reasoning'."),
    field("thinking_token_budget", &["-1"], "Use 'reasoning'."),
    field("verbosity", &[r#""medium""#], ""),
    field("web_search_options", &[], ""),
    field(
        "truncate_prompt_tokens",
        &[],
        "Shorten the input before sending it.",
    ),
    field(
        "truncation_side",
        &[],
        "Shorten the input before sending it.",
    ),
    // Text completion fields.
    field("best_of", &["1"], ""),
    field("echo", &["false"], ""),
    field("prompt_logprobs", &[], ""),
    field("suffix", &[r#""""#], ""),
];
