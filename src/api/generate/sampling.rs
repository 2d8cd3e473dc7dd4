//! Converts sampling fields to sampling parameters.
//!
//! A sampling parameter also has a place in each of these:
//!
//! ```text
//! api/generate/types/sampling_fields   the request field
//! core::SamplingParams                 the value that the engine gets
//! backend/adjust or backend/sampler    the reference implementation
//! sample_params, sampler.cu            the GPU backend's copy and kernel
//! registry/generation_config           a checkpoint's default
//! api/anthropic/refused                whether that API has it
//! api/docs/fields.md                   the published table
//! selftest/operations                  the comparison of devices
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::options::num_alternatives;
use super::prompt::check_ids;
use super::types::sampling_fields::{SamplingFields, Stop};
use crate::api::http::error::ApiError;
use crate::api::http::random::random_u64;
use crate::core::{SamplingParams, TokenId, TokenMask};
use crate::registry::ServedModel;
use crate::text::{AddSpecialTokens, SpecialTokens, StopRule, StopText, TextRule, TokenLimits};

/// Temperatures below this are treated as greedy, as in vLLM, because the division would overflow.
const LEAST_TEMPERATURE: f64 = 1e-5;

/// Smaller repetition penalties are raised to this value. A logit divided by it, and then by the
/// smallest temperature, is still finite in f32.
const LEAST_REPETITION_PENALTY: f32 = 1e-20;

/// Limited because the latest tokens are compared with each before every sample.
const MAX_BAD_WORDS: usize = 1024;
const MAX_BAD_WORD_BYTES: usize = 1024;

/// The same limit as in vLLM.
const MAX_LOGPROB_IDS: usize = 128;

const MAX_STOPS: usize = 32;
const MAX_STOP_CHARS: usize = 256;
/// The same limit as in vLLM.
const MAX_BIASED: usize = 1024;
/// Limited because each sampled token is compared with all of them.
const MAX_STOP_IDS: usize = 1024;

/// How each of the answers to a prompt is generated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SamplingPlan {
    /// Number of answers to each prompt.
    pub(crate) num_choices: usize,
    /// Strings that end an answer.
    pub(crate) stop: Vec<String>,
    /// Stop tokens that the client chose. The response reports which one ended an answer.
    pub(crate) client_stop_ids: Vec<TokenId>,
    /// Number of alternatives for each prompt token; `None` requests no log-probabilities of the
    /// prompt.
    pub(crate) prompt_logprobs: Option<usize>,
    /// The same for the log-probabilities of an echoed prompt, which are returned before those of
    /// the answer.
    pub(crate) echoed_logprobs: Option<usize>,
    /// Which tokens are part of an answer's text.
    pub(crate) text: TextRule,
    /// Tokens that may be sampled.
    pub(crate) limits: TokenLimits,
    /// Maximum number of new tokens; `None` means all that fit.
    max_tokens: Option<usize>,
    /// Parameters of the first answer, without the final `max_tokens`.
    params: SamplingParams,
}

impl SamplingPlan {
    /// Checks the fields and fills in the model's defaults.
    ///
    /// # Errors
    /// 400 that names the field and its range.
    pub(crate) fn new(
        fields: SamplingFields,
        top_logprobs: Option<usize>,
        model: &ServedModel,
    ) -> Result<Self, ApiError> {
        let max_tokens = count("max_tokens", fields.max_tokens, 1)?;
        let max_completion_tokens =
            count("max_completion_tokens", fields.max_completion_tokens, 1)?;
        let max_tokens = max_completion_tokens.or(max_tokens);
        let min_tokens = count("min_tokens", fields.min_tokens, 0)?.unwrap_or(0);
        if let Some(max_tokens) = max_tokens
            && min_tokens > max_tokens
        {
            return Err(ApiError::contradiction(
                "min_tokens",
                format!(
                    "'min_tokens' is {min_tokens}, but the answer may have at most \
                         {max_tokens} tokens."
                ),
            ));
        }

        let defaults = &model.sampling_defaults;
        let temperature = match within("temperature", fields.temperature, 0.0..=2.0)? {
            Some(temperature) if temperature < LEAST_TEMPERATURE => 0.0,
            Some(temperature) => temperature as f32,
            None => defaults.temperature,
        };
        // A value above 0 must not become 0 in f32.
        let top_p = above_zero("top_p", fields.top_p, 1.0)?.map_or(defaults.top_p, |top_p| {
            (top_p as f32).max(f32::MIN_POSITIVE)
        });
        let top_k = match fields.top_k {
            None => defaults.top_k,
            Some(-1 | 0) => None,
            Some(top_k) => match u32::try_from(top_k) {
                Ok(top_k) => NonZeroU32::new(top_k),
                // A value larger than any vocabulary.
                Err(_) if top_k > 0 => None,
                Err(_) => {
                    return Err(ApiError::invalid_value(
                        "top_k",
                        format!("'top_k' must be at least 1, or 0 or -1 for off, got {top_k}."),
                    ));
                }
            },
        };
        let min_p =
            within("min_p", fields.min_p, 0.0..=1.0)?.map_or(defaults.min_p, |min_p| min_p as f32);

        let penalty = |name, value| within(name, value, -2.0..=2.0);
        let presence_penalty = penalty("presence_penalty", fields.presence_penalty)?;
        let frequency_penalty = penalty("frequency_penalty", fields.frequency_penalty)?;
        let repetition_penalty = above_zero("repetition_penalty", fields.repetition_penalty, 10.0)?
            .map_or(defaults.repetition_penalty, |penalty| {
                (penalty as f32).max(LEAST_REPETITION_PENALTY)
            });

        let client_stop_ids = stop_ids(fields.stop_token_ids, model.vocab_size)?;
        let mut stop_token_ids = client_stop_ids.clone();
        if !fields.ignore_eos.unwrap_or(false) {
            let more = model.eos_token_ids.iter();
            stop_token_ids.extend(more.filter(|id| !client_stop_ids.contains(id)));
        }

        Ok(Self {
            num_choices: num_choices(fields.n)?,
            stop: stop_strings(fields.stop)?,
            client_stop_ids,
            prompt_logprobs: (fields.prompt_logprobs)
                .map(|top| num_alternatives("prompt_logprobs", top))
                .transpose()?,
            echoed_logprobs: None,
            text: TextRule {
                special: match fields.skip_special_tokens {
                    Some(false) => SpecialTokens::Keep,
                    Some(true) | None => SpecialTokens::Skip,
                },
                stop: match fields.include_stop_str_in_output {
                    Some(true) => StopText::Kept,
                    Some(false) | None => StopText::Removed,
                },
            },
            limits: TokenLimits {
                allowed: allowed(fields.allowed_token_ids, model.vocab_size)?,
                forbidden: forbidden(fields.bad_words, model)?,
            },
            max_tokens,
            params: SamplingParams {
                temperature,
                top_p,
                top_k,
                min_p,
                logit_bias: logit_bias(fields.logit_bias, model.vocab_size)?,
                presence_penalty: presence_penalty.unwrap_or(0.0) as f32,
                frequency_penalty: frequency_penalty.unwrap_or(0.0) as f32,
                repetition_penalty,
                seed: match fields.seed {
                    Some(seed) => seed.0,
                    None => model.seeds.draw().unwrap_or_else(random_u64),
                },
                min_tokens,
                stop_token_ids,
                top_logprobs,
                logprob_token_ids: logprob_ids(
                    fields.logprob_token_ids,
                    top_logprobs,
                    model.vocab_size,
                )?,
                // Set later for each prompt.
                max_tokens: 1,
            },
        })
    }

    /// Sets the default maximum of new tokens, for requests without one.
    pub(crate) fn or_max_tokens(self, default: usize) -> Self {
        let default = default.max(self.params.min_tokens);
        Self {
            max_tokens: self.max_tokens.or(Some(default)),
            ..self
        }
    }

    /// Returns the client's stop strings and the number of tokens before which they do not count.
    pub(crate) fn stop_rule(&self) -> StopRule {
        StopRule {
            strings: self.stop.clone(),
            min_tokens: self.params.min_tokens,
        }
    }

    /// Whether the request names the tokens whose log-probabilities it wants.
    pub(crate) fn names_tokens(&self) -> bool {
        !self.params.logprob_token_ids.is_empty()
    }

    /// Returns the maximum number of tokens of an answer, if the request sets it.
    pub(crate) fn asked_max_tokens(&self) -> Option<usize> {
        self.max_tokens
    }

    /// Returns the parameters of answer `choice` to a prompt that leaves `room` tokens (at least
    /// 1).
    pub(crate) fn params(&self, choice: usize, room: usize) -> SamplingParams {
        SamplingParams {
            seed: self.params.seed.wrapping_add(choice as u64),
            max_tokens: self.max_tokens.map_or(room, |asked| asked.min(room)),
            ..self.params.clone()
        }
    }
}

/// Checks a number of tokens, which must be at least `least`.
fn count(name: &str, value: Option<i64>, least: i64) -> Result<Option<usize>, ApiError> {
    match value {
        None => Ok(None),
        Some(value) if value >= least => Ok(Some(usize::try_from(value).unwrap_or(usize::MAX))),
        Some(value) => Err(ApiError::invalid_value(
            name,
            format!("'{name}' must be at least {least}, got {value}."),
        )),
    }
}

fn within(
    name: &str,
    value: Option<f64>,
    range: RangeInclusive<f64>,
) -> Result<Option<f64>, ApiError> {
    match value {
        Some(value) if !range.contains(&value) => Err(ApiError::invalid_value(
            name,
            format!(
                "'{name}' must be {}–{}, got {value}.",
                range.start(),
                range.end()
            ),
        )),
        value => Ok(value),
    }
}

/// Checks a number that must not be 0, which `within` would accept.
fn above_zero(name: &str, number: Option<f64>, largest: f64) -> Result<Option<f64>, ApiError> {
    match number {
        None => Ok(None),
        Some(number) if number > 0.0 && number <= largest => Ok(Some(number)),
        Some(number) => Err(ApiError::invalid_value(
            name,
            format!("'{name}' must be above 0 and at most {largest}, got {number}."),
        )),
    }
}

/// Returns the biases in ascending order of token ids, as the sampler expects.
fn logit_bias(
    bias: Option<BTreeMap<String, f64>>,
    vocab_size: usize,
) -> Result<Arc<[(TokenId, f32)]>, ApiError> {
    let bias = bias.unwrap_or_default();
    if bias.len() > MAX_BIASED {
        let message = format!(
            "'logit_bias' takes up to {MAX_BIASED} tokens, got {}.",
            bias.len()
        );
        return Err(ApiError::invalid_value("logit_bias", message));
    }
    let mut biases = Vec::with_capacity(bias.len());
    for (key, bias) in bias {
        let token = key.parse::<u32>().ok();
        let token = token.filter(|token| (*token as usize) < vocab_size);
        let Some(token) = token else {
            let message = format!(
                "A key of 'logit_bias' must be a token id of 0–{}, got '{}'.",
                vocab_size - 1,
                key.chars().take(32).collect::<String>()
            );
            return Err(ApiError::invalid_value("logit_bias", message));
        };
        if !(-100.0..=100.0).contains(&bias) {
            let message =
                format!("A bias must be -100–100, got {bias} for token {token} of 'logit_bias'.");
            return Err(ApiError::invalid_value("logit_bias", message));
        }
        biases.push((TokenId(token), bias as f32));
    }
    biases.sort_unstable_by_key(|(token, _)| *token);
    // "7" and "07" are two keys for one token.
    if let Some(twice) = biases.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let message = format!("'logit_bias' lists token {} twice.", twice[0].0.0);
        return Err(ApiError::invalid_value("logit_bias", message));
    }
    Ok(biases.into())
}

fn num_choices(n: Option<i64>) -> Result<usize, ApiError> {
    let n = n.unwrap_or(1);
    match usize::try_from(n) {
        Ok(n) if (1..=128).contains(&n) => Ok(n),
        _ => Err(ApiError::invalid_value(
            "n",
            format!("'n' must be 1–128, got {n}."),
        )),
    }
}

fn stop_strings(stop: Option<Stop>) -> Result<Vec<String>, ApiError> {
    let (strings, is_list) = match stop {
        None => return Ok(Vec::new()),
        Some(Stop::One(string)) => (vec![string], false),
        Some(Stop::Several(strings)) => (strings, true),
    };
    if strings.len() > MAX_STOPS {
        return Err(ApiError::invalid_value(
            "stop",
            format!(
                "'stop' takes up to {MAX_STOPS} strings, got {}.",
                strings.len()
            ),
        ));
    }
    for (string_idx, string) in strings.iter().enumerate() {
        let num_chars = string.chars().count();
        if !(1..=MAX_STOP_CHARS).contains(&num_chars) {
            let param = if is_list {
                format!("stop[{string_idx}]")
            } else {
                "stop".to_owned()
            };
            let message =
                format!("A stop string must have 1–{MAX_STOP_CHARS} characters, got {num_chars}.");
            return Err(ApiError::invalid_value(param, message));
        }
    }
    Ok(strings)
}

/// Returns the mask of `allowed_token_ids`.
fn allowed(ids: Option<Vec<i32>>, vocab_size: usize) -> Result<Option<TokenMask>, ApiError> {
    const FIELD: &str = "allowed_token_ids";
    let Some(ids) = ids else {
        return Ok(None);
    };
    if ids.is_empty() {
        let message = "'allowed_token_ids' must not be empty: nothing could be sampled.";
        return Err(ApiError::invalid_value(FIELD, message));
    }
    let mut mask = TokenMask::none(vocab_size);
    for id in check_ids(ids, vocab_size, |idx| format!("{FIELD}[{idx}]"))? {
        mask.allow(id);
    }
    Ok(Some(mask))
}

/// Returns the token sequences of `bad_words`: each word as it is, and behind a space if that is one
/// other token in the place of the first, as in vLLM's `SamplingParams.update_from_tokenizer`.
fn forbidden(
    words: Option<Vec<String>>,
    model: &ServedModel,
) -> Result<Vec<Vec<TokenId>>, ApiError> {
    const FIELD: &str = "bad_words";
    let words = words.unwrap_or_default();
    if words.len() > MAX_BAD_WORDS {
        let message = format!(
            "'bad_words' takes up to {MAX_BAD_WORDS} words, got {}.",
            words.len()
        );
        return Err(ApiError::invalid_value(FIELD, message));
    }
    let mut sequences = Vec::new();
    for (idx, word) in words.iter().enumerate() {
        let trimmed = word.trim_start();
        if trimmed.is_empty() || word.len() > MAX_BAD_WORD_BYTES {
            return Err(ApiError::invalid_value(
                format!("{FIELD}[{idx}]"),
                format!("A bad word must have 1–{MAX_BAD_WORD_BYTES} bytes besides white space."),
            ));
        }
        let encode = |text: &str| model.tokenizer.encode_raw(text, AddSpecialTokens::No);
        let plain = encode(trimmed)?;
        let spaced = encode(&format!(" {trimmed}"))?;
        if spaced.first() != plain.first() && spaced.len() == plain.len() {
            sequences.push(spaced);
        }
        sequences.push(plain);
    }
    Ok(sequences)
}

fn stop_ids(ids: Option<Vec<i32>>, vocab_size: usize) -> Result<Vec<TokenId>, ApiError> {
    let ids = ids.unwrap_or_default();
    if ids.len() > MAX_STOP_IDS {
        return Err(ApiError::invalid_value(
            "stop_token_ids",
            format!(
                "'stop_token_ids' takes up to {MAX_STOP_IDS} ids, got {}.",
                ids.len()
            ),
        ));
    }
    check_ids(ids, vocab_size, |idx| format!("stop_token_ids[{idx}]"))
}

/// Returns the tokens whose log-probabilities are reported.
///
/// # Errors
/// 400 for too many or unknown ids, and without `logprobs`.
fn logprob_ids(
    ids: Option<Vec<i32>>,
    top_logprobs: Option<usize>,
    vocab_size: usize,
) -> Result<Arc<[TokenId]>, ApiError> {
    const FIELD: &str = "logprob_token_ids";
    let ids = ids.unwrap_or_default();
    if ids.len() > MAX_LOGPROB_IDS {
        return Err(ApiError::invalid_value(
            FIELD,
            format!(
                "'{FIELD}' takes up to {MAX_LOGPROB_IDS} ids, got {}.",
                ids.len()
            ),
        ));
    }
    if !ids.is_empty() && top_logprobs.is_none() {
        let message = "'logprob_token_ids' needs 'logprobs'.";
        return Err(ApiError::contradiction(FIELD, message));
    }
    let ids = check_ids(ids, vocab_size, |idx| format!("{FIELD}[{idx}]"))?;
    Ok(ids.into())
}
