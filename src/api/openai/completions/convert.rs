//! Converts the prompts of text completions, texts and token ids, to the form that the engine takes.

use super::request::Prompt;
use crate::api::generate::prompt::{
    EchoedPrompt, PreparedPrompt, check_ids, check_length, check_rows,
};
use crate::api::generate::prompt_limit::{check_size, least_tokens};
use crate::api::generate::truncation::Truncation;
use crate::api::http::error::ApiError;
use crate::core::TokenId;
use crate::registry::ServedModel;
use crate::text::{AddSpecialTokens, SpecialTokens};

/// Maximum number of prompts in one request. Each one is a separate sequence in the engine.
const MAX_PROMPTS: usize = 1024;

/// Whether answers begin with their prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// They do (`echo`).
    Yes,
    /// They do not, which is the default.
    No,
}

/// Converts the prompts of a text completion. Texts get `<bos>` unless they begin with it; ids are
/// taken unchanged. Then long prompts are shortened, if `truncation` says so.
///
/// # Errors
/// 400 for no prompt, an empty one, unknown ids, and prompts that are too long.
pub(crate) fn convert_prompts(
    prompt: Prompt,
    echo: Echo,
    truncation: Option<Truncation>,
    model: &ServedModel,
) -> Result<Vec<PreparedPrompt>, ApiError> {
    let is_list = matches!(prompt, Prompt::Texts(_) | Prompt::IdLists(_));
    let path = |prompt_idx: usize| match is_list {
        true => format!("prompt[{prompt_idx}]"),
        false => "prompt".to_owned(),
    };
    let prompts = match prompt {
        Prompt::Text(text) => vec![convert_text(text, truncation, model, &path(0))?],
        Prompt::Ids(ids) => vec![convert_ids(ids, truncation, model, &path(0))?],
        Prompt::Texts(texts) => {
            check_number(texts.len())?;
            let texts = texts.into_iter().enumerate();
            texts
                .map(|(prompt_idx, text)| convert_text(text, truncation, model, &path(prompt_idx)))
                .collect::<Result<_, _>>()?
        }
        Prompt::IdLists(lists) => {
            check_number(lists.len())?;
            let lists = lists.into_iter().enumerate();
            lists
                .map(|(prompt_idx, ids)| convert_ids(ids, truncation, model, &path(prompt_idx)))
                .collect::<Result<_, _>>()?
        }
        Prompt::Nothing => Vec::new(),
    };
    if prompts.is_empty() {
        return Err(ApiError::invalid_value(
            "prompt",
            "'prompt' must not be empty.",
        ));
    }
    let prepared = prompts.into_iter().enumerate().map(|(prompt_idx, prompt)| {
        let Converted { ids, echoed } = prompt;
        let path = path(prompt_idx);
        if ids.is_empty() {
            let message = format!("'{path}' must not be empty.");
            return Err(ApiError::invalid_value(path, message));
        }
        check_length(ids.len(), model.max_model_len).map_err(|error| error.at(path))?;
        Ok(PreparedPrompt {
            ids,
            images: Vec::new(),
            echo: (echo == Echo::Yes).then_some(echoed),
            inputs: Vec::new(),
            held: Vec::new(),
        })
    });
    prepared.collect()
}

fn check_number(num_prompts: usize) -> Result<(), ApiError> {
    if num_prompts <= MAX_PROMPTS {
        return Ok(());
    }
    Err(ApiError::invalid_value(
        "prompt",
        format!("'prompt' takes up to {MAX_PROMPTS} prompts, got {num_prompts}."),
    ))
}

/// A prompt's ids and text.
struct Converted {
    ids: Vec<TokenId>,
    echoed: EchoedPrompt,
}

fn convert_text(
    text: String,
    truncation: Option<Truncation>,
    model: &ServedModel,
    path: &str,
) -> Result<Converted, ApiError> {
    let most = Truncation::max_tokenized(truncation, model.max_model_len);
    let mut ids = encode_text(&text, most, model, path)?;
    if truncation.is_some_and(|truncation| truncation.shorten_ids(&mut ids)) {
        return Ok(with_own_text(ids, model));
    }
    let prefix = model.tokenizer.prefix();
    let written = model.tokenizer.decode(prefix, SpecialTokens::Keep);
    let num_silent = match text.starts_with(&written) {
        true => 0,
        false => prefix.len(),
    };
    Ok(Converted {
        ids,
        echoed: EchoedPrompt { text, num_silent },
    })
}

fn encode_text(
    text: &str,
    most: usize,
    model: &ServedModel,
    path: &str,
) -> Result<Vec<TokenId>, ApiError> {
    let least = least_tokens(text.len(), 0, 0);
    check_size(least, most).map_err(|error| error.at(path))?;
    let ids = model.tokenizer.encode_raw(text, AddSpecialTokens::Yes)?;
    check_rows(&ids, model.vocab_size).map_err(|error| error.at(path))?;
    Ok(ids)
}

fn convert_ids(
    ids: Vec<i32>,
    truncation: Option<Truncation>,
    model: &ServedModel,
    path: &str,
) -> Result<Converted, ApiError> {
    let most = Truncation::max_tokenized(truncation, model.max_model_len);
    check_length(ids.len(), most).map_err(|error| error.at(path))?;
    let mut ids = check_ids(ids, model.vocab_size, |idx| format!("{path}[{idx}]"))?;
    if let Some(truncation) = truncation {
        truncation.shorten_ids(&mut ids);
    }
    Ok(with_own_text(ids, model))
}

/// Returns a prompt whose text is that of its ids.
fn with_own_text(ids: Vec<TokenId>, model: &ServedModel) -> Converted {
    let prefix = model.tokenizer.prefix();
    let num_silent = match ids.starts_with(prefix) {
        true => prefix.len(),
        false => 0,
    };
    let text = model
        .tokenizer
        .decode(&ids[num_silent..], SpecialTokens::Keep);
    Converted {
        echoed: EchoedPrompt { text, num_silent },
        ids,
    }
}
