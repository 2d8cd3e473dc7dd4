//! How the response is delivered: streamed or not, and with which data besides the text.

use super::metadata::ServiceTier;
use super::types::presence::Presence;
use super::types::sampling_fields::StreamFields;
use super::types::usage::Usage;
use crate::api::http::error::ApiError;

/// How the response is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As one JSON document.
    Whole,
    /// As events while tokens are generated.
    Stream(StreamUsage),
}

/// Whether a stream reports token usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamUsage {
    /// In every chunk and at the end (`stream_options.continuous_usage_stats`).
    Continuous,
    /// Only at the end (`stream_options.include_usage`).
    Include,
    /// Not at all, which is the default.
    Omit,
}

/// Whether the response includes token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenIds {
    /// Included (`return_token_ids`).
    Return,
    /// Left out, which is the default.
    Omit,
}

/// How log-probabilities name tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenNames {
    /// By their text, which is the default.
    Texts,
    /// By their ids, as `token_id:123` (`return_tokens_as_token_ids`).
    Ids,
}

/// Whether the response says what became of the request's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReturnedInputs {
    /// It does (`return_inputs`).
    Return,
    /// It does not, which is the default.
    Omit,
}

/// Response options that do not affect the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerOptions {
    /// Whether and how the response is streamed.
    pub(crate) delivery: Delivery,
    /// The tier to report, if the request sets one.
    pub(crate) service_tier: Option<ServiceTier>,
    /// Whether token ids are included.
    pub(crate) token_ids: TokenIds,
    /// How log-probabilities name tokens.
    pub(crate) token_names: TokenNames,
    /// Whether `inputs` are included.
    pub(crate) inputs: ReturnedInputs,
}

impl StreamUsage {
    /// Returns the `usage` of a chunk before the last: absent, null or the usage so far.
    pub(crate) fn on_the_way(self, usage: Usage) -> Option<Option<Usage>> {
        match self {
            Self::Continuous => Some(Some(usage)),
            Self::Include => Some(None),
            Self::Omit => None,
        }
    }
}

impl Delivery {
    /// Returns how a stream reports usage.
    pub(crate) fn usage(self) -> StreamUsage {
        match self {
            Self::Whole => StreamUsage::Omit,
            Self::Stream(usage) => usage,
        }
    }
}

impl TokenIds {
    /// Converts `return_token_ids`.
    pub(crate) fn from_field(field: Option<bool>) -> Self {
        match field {
            Some(true) => Self::Return,
            Some(false) | None => Self::Omit,
        }
    }
}

impl ReturnedInputs {
    /// Converts `return_inputs`.
    pub(crate) fn from_field(field: Option<bool>) -> Self {
        match field {
            Some(true) => Self::Return,
            Some(false) | None => Self::Omit,
        }
    }
}

impl TokenNames {
    /// Converts `return_tokens_as_token_ids`.
    pub(crate) fn from_field(field: Option<bool>) -> Self {
        match field {
            Some(true) => Self::Ids,
            Some(false) | None => Self::Texts,
        }
    }
}

/// Converts the streaming fields.
///
/// # Errors
/// 400 for `stream_options` without `stream`, and for unsupported options.
pub(crate) fn delivery(fields: StreamFields) -> Result<Delivery, ApiError> {
    let options = fields.stream_options.map(|options| options.0);
    if !fields.stream.unwrap_or(false) {
        return match options {
            None => Ok(Delivery::Whole),
            Some(_) => Err(ApiError::contradiction(
                "stream_options",
                "'stream_options' needs 'stream': true.",
            )),
        };
    }
    let options = options.unwrap_or_default();
    if options.include_obfuscation == Presence::Set {
        let param = "stream_options.include_obfuscation";
        let message = format!("The parameter '{param}' is not supported by this server.");
        return Err(ApiError::unsupported(param, message));
    }
    let includes = options.include_usage.unwrap_or(false);
    Ok(Delivery::Stream(
        match (includes, options.continuous_usage_stats.unwrap_or(false)) {
            (true, true) => StreamUsage::Continuous,
            (true, false) => StreamUsage::Include,
            (false, false) => StreamUsage::Omit,
            (false, true) => {
                return Err(ApiError::contradiction(
                    "stream_options.continuous_usage_stats",
                    "'stream_options.continuous_usage_stats' needs \
                     'stream_options.include_usage': true.",
                ));
            }
        },
    ))
}

/// Returns the number of alternatives for each token of a chat; `None` requests no
/// log-probabilities.
///
/// # Errors
/// 400 outside 0–20, and for alternatives without `logprobs`.
pub(crate) fn chat_logprobs(
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
) -> Result<Option<usize>, ApiError> {
    let top = top_logprobs
        .map(|top| num_alternatives("top_logprobs", top))
        .transpose()?;
    match (logprobs.unwrap_or(false), top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::contradiction(
            "top_logprobs",
            "'top_logprobs' needs 'logprobs': true.",
        )),
    }
}

/// Returns the number of alternatives for each token of a text completion; `None` requests no
/// log-probabilities.
///
/// # Errors
/// 400 outside 0–20.
pub(crate) fn completion_logprobs(logprobs: Option<i64>) -> Result<Option<usize>, ApiError> {
    logprobs
        .map(|top| num_alternatives("logprobs", top))
        .transpose()
}

pub(super) fn num_alternatives(name: &str, number: i64) -> Result<usize, ApiError> {
    match usize::try_from(number) {
        Ok(number) if number <= 20 => Ok(number),
        // vLLM's name for the whole vocabulary, which it refuses as well unless it is told otherwise.
        _ if number == -1 => Err(ApiError::invalid_value(
            name,
            format!(
                "'{name}' must be 0–20, got -1. The whole vocabulary is not returned: it would be \
                 hundreds of thousands of entries for each token. Send 20; for certain tokens of the \
                 answer send 'logprob_token_ids'."
            ),
        )),
        _ => Err(ApiError::invalid_value(
            name,
            format!("'{name}' must be 0–20, got {number}."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http::extract::parse;

    fn delivered(body: &str) -> Result<Delivery, ApiError> {
        delivery(parse(body)?)
    }

    #[test]
    fn usage_comes_only_where_it_is_asked_for() {
        let deliver = |body| delivered(body).expect("valid");
        assert_eq!(deliver("{}"), Delivery::Whole);
        assert_eq!(deliver(r#"{"stream":null}"#), Delivery::Whole);
        let plain = Delivery::Stream(StreamUsage::Omit);
        assert_eq!(deliver(r#"{"stream":true}"#), plain);
        let body = r#"{"stream":true,"stream_options":{"include_usage":false}}"#;
        assert_eq!(deliver(body), plain);
        let body = r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":false}}"#;
        assert_eq!(deliver(body), Delivery::Stream(StreamUsage::Include));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(delivered(r#"{"stream_options":{}}"#).is_err());
        assert!(chat_logprobs(None, Some(1)).is_err());
        assert!(chat_logprobs(Some(false), Some(20)).is_err());
        assert_eq!(chat_logprobs(None, Some(0)).expect("asks nothing"), None);
        assert_eq!(chat_logprobs(Some(true), None).expect("valid"), Some(0));
        assert!(chat_logprobs(Some(true), Some(21)).is_err());
        assert!(completion_logprobs(Some(-1)).is_err());
    }
}
