//! Markers of the model's reasoning.

use std::borrow::Cow;

use super::tokenizer::Tokenizer;
use crate::core::TokenId;
use crate::error::{Error, Result};

const OPEN: &str = "<unused94>";
const CLOSE: &str = "<unused95>";

/// The label at the start of the reasoning, after the opening marker. It is not part of the
/// reasoning text.
pub(super) const LABEL: &str = "thought\n";

/// The instruction that makes MedGemma reason. It belongs at the beginning of the system text, word
/// for word as in training.
pub const THINKING_INSTRUCTION: &str = "SYSTEM INSTRUCTION: think silently if needed. ";

/// The part of [`THINKING_INSTRUCTION`] by which a client's own instruction to reason is recognized.
pub const THINKING_PHRASE: &str = "think silently";

/// The tokens around the reasoning: `<unused94>thought\n…<unused95>`. Plain text with the same
/// characters is not a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasoningMarkers {
    /// `<unused94>`.
    pub open: TokenId,
    /// `<unused95>`.
    pub close: TokenId,
}

impl ReasoningMarkers {
    /// Returns MedGemma's markers.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer lacks one of them.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let id = |content: &str| {
            tokenizer.token_id(content).ok_or_else(|| {
                Error::Tokenizer(format!(
                    "reasoning model needs the token {content}, which this tokenizer lacks"
                ))
            })
        };
        Ok(Self {
            open: id(OPEN)?,
            close: id(CLOSE)?,
        })
    }
}

/// Returns an earlier answer without its reasoning. The reasoning is not part of a conversation,
/// and the model was not trained to see it there. Reasoning without a closing marker extends to the
/// end.
pub fn without_reasoning(text: &str) -> Cow<'_, str> {
    let Some((before, mut rest)) = text.split_once(OPEN) else {
        return Cow::Borrowed(text);
    };
    let mut kept = before.to_owned();
    while let Some((_, behind)) = rest.split_once(CLOSE) {
        match behind.split_once(OPEN) {
            Some((between, next)) => {
                kept.push_str(between);
                rest = next;
            }
            None => {
                kept.push_str(behind);
                break;
            }
        }
    }
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_leave_an_answers_text() {
        for (text, kept) in [
            ("plain", "plain"),
            ("<unused94>thought\nhm<unused95>yes", "yes"),
            ("a<unused94>b<unused95>c<unused94>d<unused95>e", "ace"),
            ("a<unused94>never closed", "a"),
            ("a<unused94>b<unused95>c<unused94>d", "ac"),
            ("<unused95>a", "<unused95>a"),
            ("<unused94><unused95>", ""),
        ] {
            assert_eq!(without_reasoning(text), kept, "{text}");
        }
    }
}
