//! Inputs of the sampler kernels besides logits: packed on the host, copied to the device at once.
//!
//! ```text
//! params (rows, 64 bytes) │ biases (…, 2) │ seen (…, 2) │ masks (…, ⌈vocab / 32⌉)
//! ```
//!
//! All parts but the first are present only for rows that need them. Knows nothing of devices.

use super::backend::count;
use super::kernels::sampler::{IN_PROMPT, MAX_TOP, Penalties, ROW_BYTES, RowParams};
use crate::backend::sampling::{SampleRow, ScoreRow};
use crate::core::{SamplingParams, TokenMask};
use crate::error::{Error, Result};

/// The sampling inputs of a step, packed for the copy.
#[derive(Debug, Default)]
pub(super) struct SampleParams {
    /// All bytes.
    pub(super) bytes: Vec<u8>,
    /// Offset of the biases in bytes.
    pub(super) biases: usize,
    /// Offset of the seen tokens in bytes.
    pub(super) seen: usize,
    /// Offset of the masks in bytes.
    pub(super) masks: usize,
    /// Whether any row adjusts its logits.
    pub(super) adjusts: bool,
}

/// The parts while they are collected.
#[derive(Default)]
struct Lists {
    biases: Vec<[u32; 2]>,
    seen: Vec<[u32; 2]>,
    masks: Vec<u32>,
    num_masks: u32,
}

impl SampleParams {
    /// Packs the inputs for sampling, from a vocabulary of `vocab_size` tokens.
    ///
    /// # Errors
    /// Returns `Backend` when a row requests more log-probabilities than the kernels report.
    pub(super) fn of_sampled_tokens(rows: &[SampleRow<'_>], vocab_size: usize) -> Result<Self> {
        let mut lists = Lists::default();
        let rows = rows.iter().map(|row| lists.row(row, vocab_size));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(Self::new(&rows, &lists))
    }

    /// Packs the inputs for scoring known tokens.
    ///
    /// # Errors
    /// Returns the errors of [`Self::of_sampled_tokens`].
    pub(super) fn of_scores(rows: &[ScoreRow]) -> Result<Self> {
        let greedy = SamplingParams::greedy(1);
        let rows = rows.iter().map(|row| {
            let params = SamplingParams {
                top_logprobs: Some(row.num_top),
                ..greedy.clone()
            };
            Lists::default().row(&SampleRow::new(&params, 0, 0), 0)
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(Self::new(&rows, &Lists::default()))
    }

    fn new(rows: &[RowParams], lists: &Lists) -> Self {
        let mut bytes: Vec<u8> = rows.iter().flat_map(RowParams::to_bytes).collect();
        debug_assert_eq!(bytes.len(), rows.len() * ROW_BYTES);
        let mut put = |words: &[u32]| {
            let at = bytes.len();
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            at
        };
        let biases = put(lists.biases.as_flattened());
        let seen = put(lists.seen.as_flattened());
        let masks = put(&lists.masks);
        Self {
            adjusts: bytes.len() > biases,
            bytes,
            biases,
            seen,
            masks,
        }
    }
}

impl Lists {
    fn row(&mut self, row: &SampleRow<'_>, vocab_size: usize) -> Result<RowParams> {
        let params = row.params;
        let num_top = params.top_logprobs;
        if num_top.is_some_and(|num_top| num_top > MAX_TOP as usize) {
            return Err(Error::Backend(format!(
                "{num_top:?} log-probabilities of a token; {MAX_TOP} is the most"
            )));
        }
        let first_bias = count(self.biases.len());
        self.add_biases(row);
        let first_seen = count(self.seen.len());
        if let Some(seen) = row.seen {
            let seen = seen.as_slice().iter().map(|seen| {
                let in_prompt = if seen.in_prompt { IN_PROMPT } else { 0 };
                [seen.token.0, seen.num_sampled | in_prompt]
            });
            self.seen.extend(seen);
        }
        Ok(RowParams {
            temperature: params.temperature,
            top_p: params.top_p,
            min_p: params.min_p,
            top_k: params.top_k,
            seed: params.seed,
            position: row.position,
            penalties: Penalties {
                presence: params.presence_penalty,
                frequency: params.frequency_penalty,
                repetition: params.repetition_penalty,
            },
            seen: first_seen..count(self.seen.len()),
            mask_row: row.mask.map(|mask| self.add_mask(mask, vocab_size)),
            biases: first_bias..count(self.biases.len()),
            num_top: num_top.map(count),
        })
    }

    /// A ban is a bias of −∞ that replaces any other bias: each token is in the list once.
    fn add_biases(&mut self, row: &SampleRow<'_>) {
        let mut banned: Vec<u32> = row.banned().iter().map(|token| token.0).collect();
        banned.sort_unstable();
        banned.dedup();
        let biases = row.params.logit_bias.iter();
        let biases = biases.filter(|(token, _)| banned.binary_search(&token.0).is_err());
        let biases = biases.map(|(token, bias)| [token.0, bias.to_bits()]);
        self.biases.extend(biases);
        let banned = banned.iter();
        self.biases
            .extend(banned.map(|&token| [token, f32::NEG_INFINITY.to_bits()]));
    }

    fn add_mask(&mut self, mask: &TokenMask, vocab_size: usize) -> u32 {
        let words = mask.words().iter().copied().chain(std::iter::repeat(0));
        self.masks.extend(words.take(vocab_size.div_ceil(32)));
        self.num_masks += 1;
        self.num_masks - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::seen_tokens::SeenTokens;
    use crate::core::TokenId;

    fn words(bytes: &[u8]) -> Vec<u32> {
        let words = bytes.as_chunks::<4>().0.iter();
        words.map(|word| u32::from_le_bytes(*word)).collect()
    }

    /// Words of a row, from its mask's index to the number of its biases.
    fn places(packed: &SampleParams, row: usize) -> Vec<u32> {
        words(&packed.bytes[row * ROW_BYTES..][..ROW_BYTES])[9..14].to_vec()
    }

    #[test]
    fn rows_that_wish_nothing_are_their_params_alone() {
        let params = SamplingParams::greedy(1);
        let rows = [SampleRow::new(&params, 3, 0); 2];
        let packed = SampleParams::of_sampled_tokens(&rows, 100).expect("they fit");
        assert_eq!(packed.bytes.len(), 2 * ROW_BYTES);
        assert!(!packed.adjusts);
        assert_eq!(places(&packed, 1), [u32::MAX, 0, 0, 0, 0]);
    }

    #[test]
    fn each_row_finds_its_own_lists() {
        let bent = SamplingParams {
            logit_bias: [(TokenId(4), 1.5), (TokenId(7), -2.0)].into(),
            min_tokens: 2,
            stop_token_ids: [7, 1, 7].map(TokenId).to_vec(),
            frequency_penalty: 0.5,
            ..SamplingParams::greedy(9)
        };
        let plain = SamplingParams::greedy(1);
        let mut seen = SeenTokens::of_prompt(&[TokenId(6)]);
        seen.add(TokenId(5));
        seen.add(TokenId(5));
        let short = TokenMask::all(40);
        let long = TokenMask::all(70).resized(200);
        let rows = [
            SampleRow {
                mask: Some(&long),
                ..SampleRow::new(&plain, 3, 0)
            },
            SampleRow {
                seen: Some(&seen),
                ..SampleRow::new(&bent, 3, 1)
            },
            SampleRow {
                mask: Some(&short),
                seen: Some(&seen),
                ..SampleRow::new(&bent, 3, 2)
            },
        ];
        let packed = SampleParams::of_sampled_tokens(&rows, 70).expect("they fit");
        assert!(packed.adjusts);
        assert_eq!(places(&packed, 0), [0, 0, 0, 0, 0]);
        assert_eq!(places(&packed, 1), [u32::MAX, 0, 2, 0, 3]);
        // With two new tokens, nothing is banned any more.
        assert_eq!(places(&packed, 2), [1, 2, 2, 3, 2]);
        let infinite = f32::NEG_INFINITY.to_bits();
        assert_eq!(
            words(&packed.bytes[packed.biases..packed.seen]),
            [4, 1.5_f32.to_bits(), 1, infinite, 7, infinite]
                .into_iter()
                .chain([4, 1.5_f32.to_bits(), 7, (-2.0_f32).to_bits()])
                .collect::<Vec<_>>()
        );
        assert_eq!(
            words(&packed.bytes[packed.seen..packed.masks]),
            [5, 2, 6, IN_PROMPT, 5, 2, 6, IN_PROMPT]
        );
        assert_eq!(
            words(&packed.bytes[packed.masks..]),
            [u32::MAX, u32::MAX, 63, u32::MAX, 255, 0]
        );
    }

    #[test]
    fn more_alternatives_than_kernels_report_are_refused() {
        let rows = |num_top| {
            [ScoreRow {
                token: TokenId(1),
                num_top,
            }]
        };
        assert!(SampleParams::of_scores(&rows(MAX_TOP as usize)).is_ok());
        assert!(SampleParams::of_scores(&rows(MAX_TOP as usize + 1)).is_err());
    }
}
