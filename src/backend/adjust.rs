//! Adjusts a row's logits as its request asks, before temperature and filters.
//!
//! The order is vLLM's (`v1/sample/sampler.py`): what is forbidden (by a mask, or as a stop token
//! before `min_tokens`), biases, then the repetition, frequency and presence penalties. All this
//! also applies to greedy sampling, but not to log-probabilities.

use std::borrow::Cow;

use super::sampling::SampleRow;
use crate::core::{SamplingParams, TokenId, TokenMask};

/// Applies mask, bans, bias and penalties; borrows the input when none is set.
pub(super) fn adjusted<'a>(logits: &'a [f32], row: &SampleRow<'_>) -> Cow<'a, [f32]> {
    let params = row.params;
    let banned = row.banned();
    let seen = row.seen.map_or(&[][..], |seen| seen.as_slice());
    if row.mask.is_none() && banned.is_empty() && params.logit_bias.is_empty() && seen.is_empty() {
        return Cow::Borrowed(logits);
    }
    let mut logits = logits.to_vec();
    if let Some(mask) = row.mask {
        forbid_others(&mut logits, mask);
    }
    for token in banned {
        change(&mut logits, *token, |_| f32::NEG_INFINITY);
    }
    for (token, bias) in params.logit_bias.iter() {
        change(&mut logits, *token, |logit| logit + bias);
    }
    for seen in seen {
        change(&mut logits, seen.token, |logit| {
            penalised(logit, seen.num_sampled, params)
        });
    }
    Cow::Owned(logits)
}

/// Changes one logit; does nothing for a token outside the vocabulary.
fn change(logits: &mut [f32], token: TokenId, new: impl FnOnce(f32) -> f32) {
    if let Some(logit) = logits.get_mut(token.0 as usize) {
        *logit = new(*logit);
    }
}

fn forbid_others(logits: &mut [f32], mask: &TokenMask) {
    let words = mask.words().iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(32).zip(words) {
        if word == u32::MAX {
            continue;
        }
        for (bit, logit) in logits.iter_mut().enumerate() {
            if word >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// Applies the penalties to the logit of a token that was in the prompt or was sampled
/// `num_sampled` times.
fn penalised(mut logit: f32, num_sampled: u32, params: &SamplingParams) -> f32 {
    let repetition = params.repetition_penalty;
    logit = if logit > 0.0 {
        logit / repetition
    } else {
        logit * repetition
    };
    if num_sampled > 0 {
        logit -= params.frequency_penalty * num_sampled as f32;
        logit -= params.presence_penalty;
    }
    logit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::seen_tokens::SeenTokens;

    fn row(params: &SamplingParams) -> SampleRow<'_> {
        SampleRow::new(params, 7, 0)
    }

    #[test]
    fn who_wishes_nothing_gets_the_same_logits() {
        let params = SamplingParams::greedy(1);
        let seen = SeenTokens::default();
        let row = SampleRow {
            seen: Some(&seen),
            ..row(&params)
        };
        assert!(matches!(adjusted(&[1.0, 2.0], &row), Cow::Borrowed(_)));
    }

    #[test]
    fn a_mask_shorter_than_the_vocabulary_forbids_the_rest() {
        let params = SamplingParams::greedy(1);
        let mut mask = TokenMask::none(40);
        mask.allow(TokenId(0));
        mask.allow(TokenId(39));
        let row = SampleRow {
            mask: Some(&mask),
            ..row(&params)
        };
        let adjusted = adjusted(&[1.0; 70], &row);
        for (idx, logit) in adjusted.iter().enumerate() {
            let expected = if [0, 39].contains(&idx) {
                1.0
            } else {
                f32::NEG_INFINITY
            };
            assert_eq!(*logit, expected, "{idx}");
        }
    }

    #[test]
    fn biases_come_before_penalties() {
        let params = SamplingParams {
            logit_bias: [(TokenId(0), 3.0), (TokenId(9), 1.0)].into(),
            repetition_penalty: 2.0,
            frequency_penalty: 0.25,
            presence_penalty: 0.5,
            ..SamplingParams::greedy(1)
        };
        let mut seen = SeenTokens::of_prompt(&[0, 1].map(TokenId));
        seen.add(TokenId(2));
        seen.add(TokenId(2));
        let row = SampleRow {
            seen: Some(&seen),
            ..row(&params)
        };
        // −1 + 3 is positive, so it is divided; a token only in the prompt has no frequency or
        // presence penalty.
        let adjusted = adjusted(&[-1.0, -1.0, 4.0, 4.0], &row);
        assert_eq!(*adjusted, [1.0, -2.0, 1.0, 4.0]);
    }
}
