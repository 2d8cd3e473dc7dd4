//! Known request fields that are not supported: OpenAI's, vLLM's, and those of other servers that
//! change what is generated.
//!
//! A client that sends one relies on it, so the request is rejected with an error that names the
//! field, unless the value has no effect: null, or a neutral value below. Unknown fields are
//! ignored.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::ApiError;

/// Maximum length of a neutral value. A longer value is not even parsed.
const MAX_NEUTRAL: usize = 64;

/// A field that is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefusedField {
    /// Name of the field in the body.
    pub(crate) name: &'static str,
    /// Neutral values, as JSON. Null is always neutral.
    pub(crate) neutral: &'static [&'static str],
    /// What to use instead; empty if there is nothing.
    pub(crate) instead: &'static str,
}

pub(crate) const fn field(
    name: &'static str,
    neutral: &'static [&'static str],
    instead: &'static str,
) -> RefusedField {
    RefusedField {
        name,
        neutral,
        instead,
    }
}

/// Fields that are refused by both chat and text completions.
pub(crate) const GENERATION: &[RefusedField] = &[
    // OpenAI's.
    field("prompt_cache_options", &["{}"], ""),
    field("moderation", &[], ""),
    // vLLM's: sampling.
    field("use_beam_search", &["false"], ""),
    field("length_penalty", &["1"], ""),
    field("early_stopping", &["false"], ""),
    field("best_of", &["1"], "Use 'n' and choose."),
    field("include_stop_str_in_output", &["false"], ""),
    field("skip_special_tokens", &["true"], ""),
    field("spaces_between_special_tokens", &["true"], ""),
    field(
        "truncate_prompt_tokens",
        &[],
        "Shorten the prompt before sending it.",
    ),
    field(
        "truncation_side",
        &[],
        "Shorten the prompt before sending it.",
    ),
    field("allowed_token_ids", &[], ""),
    field("bad_words", &["[]"], ""),
    field("logprob_token_ids", &[], ""),
    field("logits_processors", &["[]"], ""),
    field("repetition_detection", &[], ""),
    field("watermarking", &["false"], ""),
    // vLLM's: constraints on the output, current and removed.
    field("guided_json", &[], "Use 'structured_outputs'."),
    field("guided_regex", &[], "Use 'structured_outputs'."),
    field("guided_choice", &[], "Use 'structured_outputs'."),
    field("guided_grammar", &[], "Use 'structured_outputs'."),
    field("guided_decoding_backend", &[], "Use 'structured_outputs'."),
    field(
        "guided_whitespace_pattern",
        &[],
        "Use 'structured_outputs'.",
    ),
    field("structural_tag", &[], ""),
    // vLLM's: the rest.
    field("request_id", &[], "Use the header X-Request-Id."),
    field("session_id", &[], ""),
    field(
        "return_tokens_as_token_ids",
        &["false"],
        "Use 'return_token_ids'.",
    ),
    field("return_token_offsets", &["false"], ""),
    field("return_prompt_text", &["false"], ""),
    field("return_mm_kwargs", &["true"], ""),
    field("routed_experts_prompt_start", &["0"], ""),
    field("stream_interval", &["1"], ""),
    field("prompt_embeds", &[], ""),
    field("kv_transfer_params", &["{}"], ""),
    field("ec_transfer_params", &["{}"], ""),
    field("vllm_xargs", &["{}"], ""),
    // SGLang's and llama.cpp's that change what is generated.
    field("min_new_tokens", &["0"], "Use 'min_tokens'."),
    field("max_new_tokens", &[], "Use 'max_completion_tokens'."),
    field("n_predict", &["-1"], "Use 'max_completion_tokens'."),
    field("regex", &[], ""),
    field("ebnf", &[], ""),
    field("grammar", &[r#""""#], ""),
    field("json_schema", &[], ""),
    field("stop_regex", &[], ""),
    field("no_stop_trim", &["false"], ""),
    field("custom_logit_processor", &[], ""),
    field("custom_params", &["{}"], ""),
    field("lora_path", &[], ""),
    field("separate_reasoning", &["true"], ""),
    field("return_hidden_states", &["false"], ""),
    field("repeat_penalty", &["1"], ""),
    field("typical_p", &["1"], ""),
    field("top_n_sigma", &["-1"], ""),
    field("xtc_probability", &["0"], ""),
    field("dynatemp_range", &["0"], ""),
    field("mirostat", &["0"], ""),
    field("dry_multiplier", &["0"], ""),
    field("samplers", &[], ""),
    field("n_probs", &["0"], "Use 'logprobs'."),
    field("lora", &["[]"], ""),
];

/// Fields that only chat completions refuse.
pub(crate) const CHAT: &[RefusedField] = &[
    field("echo", &["false"], ""),
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
    field("mm_processor_kwargs", &["{}"], ""),
    field("media_io_kwargs", &["{}"], ""),
];

const CHATS_ONLY: &str = "It is for chats: use /v1/chat/completions.";

/// Fields that only text completions refuse.
pub(crate) const COMPLETION: &[RefusedField] = &[
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

/// Fields that `/tokenize` refuses.
pub(crate) const TOKENIZE: &[RefusedField] = &[
    field(
        "chat_template",
        &[],
        "A template is chosen when the server starts.",
    ),
    field("mm_processor_kwargs", &["{}"], ""),
    field("media_io_kwargs", &["{}"], ""),
];

/// Rejects a body that sets any field of `tables` to a value that is not neutral.
///
/// # Errors
/// 400 that names the first such field; 400 if the body is not an object.
pub(crate) fn refuse(body: &str, tables: &[&'static [RefusedField]]) -> Result<(), ApiError> {
    let mut deserializer = serde_json::Deserializer::from_str(body);
    let found = deserializer.deserialize_map(FirstRefused { tables });
    match found {
        Ok(None) => Ok(()),
        Ok(Some(field)) => Err(field.error()),
        Err(error) => Err(ApiError::invalid_json(
            None,
            format!("The body is not valid JSON: {error}."),
        )),
    }
}

impl RefusedField {
    fn error(self) -> ApiError {
        let mut message = format!(
            "The parameter '{}' is not supported by this server. Leave it out",
            self.name
        );
        if let [first, ..] = self.neutral {
            message.push_str(&format!(" or send its neutral value, {first}"));
        }
        message.push('.');
        if !self.instead.is_empty() {
            message.push(' ');
            message.push_str(self.instead);
        }
        ApiError::unsupported(self.name, message)
    }

    fn is_neutral(self, raw: &RawValue) -> bool {
        let raw = raw.get();
        if raw == "null" {
            return true;
        }
        if raw.len() > MAX_NEUTRAL {
            return false;
        }
        let Ok(value) = serde_json::from_str::<Value>(raw) else {
            return false;
        };
        self.neutral.iter().any(|neutral| {
            let neutral = serde_json::from_str(neutral).expect("the table holds JSON");
            same(&value, &neutral)
        })
    }
}

/// Compares two values, where 0, 0.0 and −0.0 are equal.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// Finds the first field of an object that is in `tables` and not neutral.
struct FirstRefused<'t> {
    tables: &'t [&'static [RefusedField]],
}

impl<'de> Visitor<'de> for FirstRefused<'_> {
    type Value = Option<RefusedField>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut first = None;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            let all = self.tables.iter().copied().flatten();
            let refused = all.copied().find(|field| field.name == name);
            match refused {
                Some(field) if first.is_none() => {
                    let value: &RawValue = map.next_value()?;
                    first = (!field.is_neutral(value)).then_some(field);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields that chat and text completions support.
    const SERVED: &[&str] = &[
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "stop_token_ids",
        "min_tokens",
        "ignore_eos",
        "n",
        "logprobs",
        "stream",
        "stream_options",
        "return_token_ids",
        "user",
        "priority",
        "cache_salt",
        "timeout",
        "response_format",
        "structured_outputs",
        "prompt_logprobs",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "service_tier",
        "metadata",
        "store",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
    ];

    #[test]
    fn a_field_is_refused_once_or_served() {
        for tables in [[CHAT, GENERATION], [COMPLETION, GENERATION]] {
            let names: Vec<_> = tables.concat().iter().map(|field| field.name).collect();
            for (at, name) in names.iter().enumerate() {
                assert!(!names[..at].contains(name), "{name} stands twice");
                assert!(!SERVED.contains(name), "{name} is served");
            }
        }
    }

    #[test]
    fn each_field_is_refused_and_its_neutral_values_are_not() {
        for field in [CHAT, COMPLETION, TOKENIZE, GENERATION].concat() {
            let tables: &[&'static [RefusedField]] = &[CHAT, COMPLETION, TOKENIZE, GENERATION];
            let body = |value: &str| format!("{{\"{}\": {value}}}", field.name);
            let error = refuse(&body("{\"some\": [\"value\"]}"), tables);
            let message = error.expect_err(field.name).to_json();
            assert!(
                message.contains(&format!("\"param\":\"{}\"", field.name)),
                "{message}"
            );
            let own = RefusedField { ..field };
            for value in own.neutral.iter().chain(&["null"]) {
                let raw = RawValue::from_string((*value).to_owned()).expect("JSON");
                assert!(own.is_neutral(&raw), "{}: {value}", own.name);
            }
        }
    }

    #[test]
    fn long_values_are_refused_unread() {
        let spaces = " ".repeat(100);
        let tables: &[&'static [RefusedField]] = &[CHAT];
        assert!(refuse(&format!("{{\"documents\": [{spaces}]}}"), tables).is_err());
        assert!(refuse("{\"documents\": [ ]}", tables).is_ok());
    }
}
