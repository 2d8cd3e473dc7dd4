//! Finds places where a text can be cut so that encoding the parts gives the same tokens as
//! encoding the whole.
//!
//! Byte pair encoding takes up to 150 bytes of memory for each byte of a text, and Gemma's
//! tokenizers treat a text as one word. But merges join only characters that are adjacent in some
//! token: two characters that are adjacent in no token are never joined.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::{ModelWrapper, Tokenizer};

use super::tokenizer_steps::{Replacement, steps};

/// The cuts that a tokenizer allows.
#[derive(Clone, Debug)]
pub(super) struct SafeCuts {
    /// Pairs of characters that are adjacent in some token.
    joined: HashSet<(char, char)>,
    /// Characters that the normalizer replaces, with their replacements.
    replaced: Vec<(char, char)>,
}

impl SafeCuts {
    /// Returns `None` for a tokenizer whose result may depend on more of a text than adjacent
    /// characters.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = tokenizer.get_model() else {
            return None;
        };
        let replaced = replaced(&json(tokenizer.get_normalizer())?)?;
        if !merges_alone(bpe) || !splits_at_characters(&json(tokenizer.get_pre_tokenizer())?)? {
            return None;
        }
        let vocabulary = tokenizer.get_vocab(false);
        let mut bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
        // A byte without a token would be unknown, and adjacent unknown tokens may be fused.
        if !bytes.all(|byte| vocabulary.contains_key(&byte)) {
            return None;
        }
        let pairs = vocabulary
            .keys()
            .flat_map(|token| token.chars().zip(token.chars().skip(1)));
        Some(Self {
            joined: pairs.collect(),
            replaced,
        })
    }

    /// Returns the length of the first part of `text`: up to the last cut within `most` bytes, else
    /// up to the first cut after them, or all of it if there is none.
    pub(super) fn first_part(&self, text: &str, most: usize) -> usize {
        let middle = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        let middle = middle.unwrap_or(0);
        let cuts = |range: &str| -> Option<usize> {
            let mut characters = range.char_indices().rev();
            let (mut at, mut next) = characters.next()?;
            for (before, character) in characters {
                if self.is_safe(character, next) {
                    return Some(at);
                }
                (at, next) = (before, character);
            }
            None
        };
        if let Some(cut) = cuts(&text[..middle]) {
            return cut;
        }
        let mut characters = text[..middle].chars();
        let mut before = characters.next_back();
        for (at, character) in text[middle..].char_indices() {
            if before.is_some_and(|before| self.is_safe(before, character)) {
                return middle + at;
            }
            before = Some(character);
        }
        text.len()
    }

    fn is_safe(&self, left: char, right: char) -> bool {
        let as_encoded = |character| {
            let put = |now, (from, to): &(char, char)| if now == *from { *to } else { now };
            self.replaced.iter().fold(character, put)
        };
        !self.joined.contains(&(as_encoded(left), as_encoded(right)))
    }
}

/// Whether only merges decide what becomes one token.
fn merges_alone(bpe: &BPE) -> bool {
    bpe.byte_fallback
        && !bpe.ignore_merges
        && bpe.dropout.is_none()
        && bpe.continuing_subword_prefix.is_none()
        && bpe.end_of_word_suffix.is_none()
}

/// Returns the characters that a normalizer replaces, in its order; `None` if it does anything
/// else.
fn replaced(normalizer: &Value) -> Option<Vec<(char, char)>> {
    let steps = steps(normalizer, "normalizers").ok()?;
    let characters = steps.into_iter().map(|step| {
        let step = (step["type"] == "Replace").then_some(step)?;
        let Replacement { pattern, content } = Replacement::from_json(step).ok()?;
        Some((the_only(&pattern)?, the_only(&content)?))
    });
    characters.collect()
}

/// Whether a pre-tokenizer splits only at single characters. A longer pattern could extend across a
/// cut.
fn splits_at_characters(pre_tokenizer: &Value) -> Option<bool> {
    let steps = steps(pre_tokenizer, "pretokenizers").ok()?;
    let is_short = |step: &Value| {
        step["pattern"]["String"]
            .as_str()
            .and_then(the_only)
            .is_some()
    };
    Some(steps.into_iter().all(is_short))
}

fn the_only(text: &str) -> Option<char> {
    let mut characters = text.chars();
    let only = characters.next()?;
    characters.next().is_none().then_some(only)
}

fn json(part: Option<&impl Serialize>) -> Option<Value> {
    serde_json::to_value(part).ok()
}
