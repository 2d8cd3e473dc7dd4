//! Fields that `/v1/messages` knows but does not support: Anthropic's, and chat fields that clients
//! might expect here and that would change what is generated.

use crate::api::http::refused_fields::{RefusedField, field};

/// The fields with their neutral values.
pub(crate) const REFUSED: &[RefusedField] = &[
    // Anthropic's.
    field("container", &[], ""),
    field("context_management", &[], ""),
    field("diagnostics", &[], ""),
    field("fallbacks", &["[]"], ""),
    field("inference_geo", &[], ""),
    field("mcp_servers", &["[]"], ""),
    field("output_format", &[], "Use 'output_config.format'."),
    field("speed", &[r#""standard""#], ""),
    field("user_profile_id", &[], ""),
    field("workspace_id", &[], ""),
    // Chat fields.
    field("frequency_penalty", &["0"], "Use /v1/chat/completions."),
    field("logit_bias", &["{}"], "Use /v1/chat/completions."),
    field("logprobs", &["false"], "Use /v1/chat/completions."),
    field("max_completion_tokens", &[], "Use 'max_tokens'."),
    field("max_tokens_to_sample", &[], "Use 'max_tokens'."),
    field("min_p", &["0"], "Use /v1/chat/completions."),
    field("min_tokens", &["0"], "Use /v1/chat/completions."),
    field("n", &["1"], "Use /v1/chat/completions."),
    field("presence_penalty", &["0"], "Use /v1/chat/completions."),
    field("prompt", &[], "Use 'messages'."),
    field("reasoning_effort", &[], "Use 'thinking'."),
    field("repetition_penalty", &["1"], "Use /v1/chat/completions."),
    field(
        "response_format",
        &[r#"{"type":"text"}"#],
        "Use 'output_config.format'.",
    ),
    field("seed", &[], "Use /v1/chat/completions."),
    field("stop", &["[]"], "Use 'stop_sequences'."),
    field("stop_token_ids", &["[]"], "Use /v1/chat/completions."),
    field("stream_options", &[], "Usage always comes with the stream."),
    field("structured_outputs", &[], "Use 'output_config.format'."),
];
