//! Shortens a prompt to the number of tokens that the request asks for.

use std::ops::Range;

use super::prompt_limit::MAX_TOKENIZED;
use crate::api::http::error::ApiError;
use crate::core::TokenId;
use crate::text::EncodedPrompt;

const FIELD: &str = "truncate_prompt_tokens";

/// How a longer prompt is shortened, with vLLM's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truncation {
    /// Maximum number of tokens that are kept.
    most: usize,
    kept: KeptEnd,
}

/// Which end of a prompt is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeptEnd {
    First,
    Last,
}

impl Truncation {
    /// Converts `truncate_prompt_tokens` and `truncation_side`. By default the last tokens are kept.
    ///
    /// # Errors
    /// 400 outside of 1 to `max_model_len`, for which −1 stands as far as an answer fits behind it,
    /// and for an unknown side.
    pub(crate) fn from_fields(
        tokens: Option<i64>,
        side: Option<&str>,
        max_model_len: usize,
    ) -> Result<Option<Self>, ApiError> {
        let kept = match side {
            None | Some("left") => KeptEnd::Last,
            Some("right") => KeptEnd::First,
            Some(_) => {
                return Err(ApiError::invalid_value(
                    "truncation_side",
                    "'truncation_side' must be left, which keeps the last tokens, or right.",
                ));
            }
        };
        let most = match tokens {
            None => return Ok(None),
            Some(-1) => max_model_len - 1,
            Some(tokens) => match usize::try_from(tokens) {
                Ok(tokens) if (1..=max_model_len).contains(&tokens) => tokens,
                _ => {
                    let message = format!(
                        "'{FIELD}' must be 1–{max_model_len}, or -1 for as many as the model takes, \
                         got {tokens}."
                    );
                    return Err(ApiError::invalid_value(FIELD, message));
                }
            },
        };
        Ok(Some(Self { most, kept }))
    }

    /// Returns the maximum number of tokens of a text before it is shortened.
    pub(crate) fn max_tokenized(truncation: Option<Self>, max_model_len: usize) -> usize {
        match truncation {
            None => max_model_len,
            Some(_) => max_model_len.max(MAX_TOKENIZED),
        }
    }

    /// Shortens the ids of a text. Returns whether anything was cut off.
    pub(crate) fn shorten_ids(self, ids: &mut Vec<TokenId>) -> bool {
        let kept = self.range(ids.len());
        let is_cut = kept.len() < ids.len();
        ids.truncate(kept.end);
        ids.drain(..kept.start);
        is_cut
    }

    /// Shortens a prompt with images, each of which takes `tokens_per_image`.
    ///
    /// # Errors
    /// 400 if an image would be cut off.
    pub(crate) fn shorten(
        self,
        prompt: &mut EncodedPrompt,
        tokens_per_image: usize,
    ) -> Result<(), ApiError> {
        let kept = self.range(prompt.ids.len());
        let is_kept = |start: &usize| kept.contains(start) && start + tokens_per_image <= kept.end;
        if !prompt.image_starts.iter().all(is_kept) {
            let message = format!(
                "'{FIELD}' would cut off an image of this prompt, which has {} tokens. Send a larger \
                 number, fewer images or less text.",
                prompt.ids.len()
            );
            return Err(ApiError::invalid_value(FIELD, message));
        }
        for start in &mut prompt.image_starts {
            *start -= kept.start;
        }
        self.shorten_ids(&mut prompt.ids);
        Ok(())
    }

    fn range(self, len: usize) -> Range<usize> {
        match self.kept {
            KeptEnd::First => 0..len.min(self.most),
            KeptEnd::Last => len.saturating_sub(self.most)..len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: Range<u32>) -> Vec<TokenId> {
        ids.map(TokenId).collect()
    }

    fn truncation(tokens: i64, side: Option<&str>) -> Truncation {
        let truncation = Truncation::from_fields(Some(tokens), side, 10);
        truncation.expect("valid").expect("asked for")
    }

    #[test]
    fn one_end_of_a_longer_prompt_is_kept() {
        for (tokens, side, kept) in [
            (4, None, 16..20),
            (4, Some("left"), 16..20),
            (4, Some("right"), 0..4),
            (-1, None, 11..20),
            (10, None, 10..20),
        ] {
            let mut prompt = ids(0..20);
            assert!(truncation(tokens, side).shorten_ids(&mut prompt));
            assert_eq!(prompt, ids(kept), "{tokens} {side:?}");
        }
        let mut short = ids(0..4);
        assert!(!truncation(4, None).shorten_ids(&mut short));
        assert_eq!(short, ids(0..4));
        assert_eq!(
            Truncation::from_fields(None, Some("right"), 10).ok(),
            Some(None)
        );
        for (tokens, side) in [(0, None), (-2, None), (11, None), (4, Some("middle"))] {
            assert!(Truncation::from_fields(Some(tokens), side, 10).is_err());
        }
    }

    #[test]
    fn images_are_kept_as_a_whole_or_refused() {
        let prompt = || EncodedPrompt {
            ids: ids(0..20),
            image_starts: vec![12, 15],
        };
        let mut shortened = prompt();
        let truncated = truncation(8, None).shorten(&mut shortened, 3);
        truncated.expect("the images are behind the cut");
        assert_eq!(shortened.ids, ids(12..20));
        assert_eq!(shortened.image_starts, [0, 3]);
        assert!(truncation(7, None).shorten(&mut prompt(), 3).is_err());
        assert!(
            truncation(10, Some("right"))
                .shorten(&mut prompt(), 3)
                .is_err()
        );
    }
}
