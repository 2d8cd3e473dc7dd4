//! Fields that text completions know but do not support, besides those that no endpoint supports.

use crate::api::http::refused_fields::{RefusedField, field};

const CHATS_ONLY: &str = "It is for chats: use /v1/chat/completions.";

/// The fields with their neutral values.
pub(crate) const REFUSED: &[RefusedField] = &[
    field("messages", &[], "Use /v1/chat/completions."),
    field("thinking_token_budget", &["-1"], CHATS_ONLY),
    field("reasoning_effort", &[], CHATS_ONLY),
    field("include_reasoning", &["true"], CHATS_ONLY),
    field("tools", &["[]"], CHATS_ONLY),
    field("tool_choice", &[r#""none""#], CHATS_ONLY),
    field("parallel_tool_calls", &["true"], CHATS_ONLY),
    field("chat_template_kwargs", &["{}"], CHATS_ONLY),
    field("suffix", &[r#""""#], ""),
    field("top_logprobs", &["0"], "Use 'logprobs' with a number."),
    field("add_special_tokens", &["true"], "Send the prompt as ids."),
];
