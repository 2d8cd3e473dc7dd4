//! Where a model's train of thought begins and ends.

use std::borrow::Cow;

use super::tokenizer::Tokenizer;
use crate::core::TokenId;
use crate::error::{Error, Result};

const OPEN: &str = "<unused94>";
const CLOSE: &str = "<unused95>";

/// What a thought begins with behind its marker; no part of it.
pub(super) const LABEL: &str = "thought\n";

/// What makes MedGemma think, at the beginning of the system text, word for word as it was trained.
pub const THINKING_INSTRUCTION: &str = "SYSTEM INSTRUCTION: think silently if needed. ";

/// The tokens around a thought: `<unused94>thought\n…<unused95>`. A text that merely reads like
/// one of them is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThoughtMarkers {
    /// `<unused94>`.
    pub open: TokenId,
    /// `<unused95>`.
    pub close: TokenId,
}

impl ThoughtMarkers {
    /// MedGemma's.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer lacks one of them.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let id = |content: &str| {
            tokenizer.token_id(content).ok_or_else(|| {
                Error::Tokenizer(format!(
                    "a model that thinks needs the token {content}, which this tokenizer lacks"
                ))
            })
        };
        Ok(Self {
            open: id(OPEN)?,
            close: id(CLOSE)?,
        })
    }
}

/// An earlier answer without its thoughts: they are no part of a conversation, and the model was
/// not trained to see them there. One that was never closed goes on to the end.
pub fn without_thoughts(text: &str) -> Cow<'_, str> {
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
    fn thoughts_leave_an_answers_text() {
        for (text, kept) in [
            ("plain", "plain"),
            ("<unused94>thought\nhm<unused95>yes", "yes"),
            ("a<unused94>b<unused95>c<unused94>d<unused95>e", "ace"),
            ("a<unused94>never closed", "a"),
            ("a<unused94>b<unused95>c<unused94>d", "ac"),
            ("<unused95>a", "<unused95>a"),
            ("<unused94><unused95>", ""),
        ] {
            assert_eq!(without_thoughts(text), kept, "{text}");
        }
    }
}
