//! `POST /v1/chat/completions`: fields of chat requests only.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::message::ChatMessage;
use super::tool_types::{ToolChoice, ToolDefinition};
use crate::api::generate::types::json_text::JsonText;
use crate::api::generate::types::output_format::{ResponseFormat, StructuredOutputs};
use crate::api::http::object::JsonObject;

/// A chat request's own fields. The shared fields are in `SamplingFields` and `StreamFields`, read
/// from the same body.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ChatRequest {
    /// Name of the model. Default: the served model.
    pub(crate) model: Option<String>,
    /// The conversation so far.
    #[schemars(length(min = 1))]
    pub(crate) messages: Vec<JsonObject<ChatMessage>>,
    /// Whether to return the log-probability of each token.
    #[schemars(extend("default" = false))]
    pub(crate) logprobs: Option<bool>,
    /// Number of alternatives for each token, 0–20; only with `logprobs`.
    #[schemars(range(min = 0, max = 20))]
    pub(crate) top_logprobs: Option<i64>,
    /// Constrains the answer to JSON, or to JSON that is valid under a schema.
    pub(crate) response_format: Option<JsonObject<ResponseFormat>>,
    /// vLLM's: constraint on the answer's text.
    pub(crate) structured_outputs: Option<JsonObject<StructuredOutputs>>,
    /// vLLM's: older name of `structured_outputs.json`.
    pub(crate) guided_json: Option<JsonText>,
    /// vLLM's: older name of `structured_outputs.regex`.
    pub(crate) guided_regex: Option<String>,
    /// vLLM's: older name of `structured_outputs.choice`.
    pub(crate) guided_choice: Option<Vec<String>>,
    /// vLLM's: older name of `structured_outputs.grammar`.
    pub(crate) guided_grammar: Option<String>,
    /// vLLM's: without effect, since there is one backend.
    #[serde(rename = "guided_decoding_backend")]
    pub(crate) _guided_decoding_backend: Option<String>,
    /// Tools that may be called, at most 1024.
    #[schemars(length(max = 1024))]
    pub(crate) tools: Option<Vec<JsonObject<ToolDefinition>>>,
    /// Whether tools may or must be called; default: they may. Only with `tools`.
    pub(crate) tool_choice: Option<ToolChoice>,
    /// Whether an answer may contain several calls; default: it may.
    pub(crate) parallel_tool_calls: Option<bool>,
    /// How long to reason: `none`, `minimal`, `low`, `medium`, `high` or `xhigh`.
    #[schemars(extend("enum" = ["none", "minimal", "low", "medium", "high", "xhigh", null]))]
    pub(crate) reasoning_effort: Option<String>,
    /// vLLM's: maximum number of reasoning tokens; −1 means no limit.
    #[schemars(range(min = -1))]
    pub(crate) thinking_token_budget: Option<i64>,
    /// vLLM's: whether to return the reasoning; default: it is returned.
    #[schemars(extend("default" = true))]
    pub(crate) include_reasoning: Option<bool>,
    /// Whether the prompt ends with the start of the assistant's turn; default: it does.
    #[schemars(extend("default" = true))]
    pub(crate) add_generation_prompt: Option<bool>,
    /// Whether the answer continues the last message, which must be the assistant's, instead.
    #[schemars(extend("default" = false))]
    pub(crate) continue_final_message: Option<bool>,
    /// vLLM's: settings of the chat template.
    pub(crate) chat_template_kwargs: Option<JsonObject<ChatTemplateKwargs>>,
    /// vLLM's: whether the answer's content begins with the text of the last message, if that is the
    /// assistant's.
    #[schemars(extend("default" = false))]
    pub(crate) echo: Option<bool>,
    /// vLLM's: maximum number of the prompt's tokens; of a longer one, the last are kept. −1 stands
    /// for the most that the model takes.
    #[schemars(range(min = -1))]
    pub(crate) truncate_prompt_tokens: Option<i64>,
    /// vLLM's: `left` (default) or `right`, the end at which a longer prompt is cut off.
    #[schemars(extend("enum" = ["left", "right", null]))]
    pub(crate) truncation_side: Option<String>,
}

/// `chat_template_kwargs`.
#[derive(Clone, Debug, Default, JsonSchema)]
pub(crate) struct ChatTemplateKwargs {
    /// Whether to reason before answering.
    pub(crate) enable_thinking: Option<bool>,
    /// Name of the first other setting that is not null. All others are refused by name.
    #[schemars(flatten, with = "Map<String, Value>")]
    pub(crate) other: Option<String>,
}

struct KwargsVisitor;

impl<'de> Visitor<'de> for KwargsVisitor {
    type Value = ChatTemplateKwargs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kwargs = ChatTemplateKwargs::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "enable_thinking" {
                if kwargs.enable_thinking.is_some() {
                    return Err(A::Error::duplicate_field("enable_thinking"));
                }
                kwargs.enable_thinking = map.next_value()?;
            } else if map.next_value::<Option<IgnoredAny>>()?.is_some() {
                kwargs.other.get_or_insert(name);
            }
        }
        Ok(kwargs)
    }
}

impl<'de> Deserialize<'de> for ChatTemplateKwargs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KwargsVisitor)
    }
}
