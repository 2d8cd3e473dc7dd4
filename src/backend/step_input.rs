//! A step's packed rows, as the engine hands them to a backend.

use std::ops::Range;

use super::sampling::Sampled;
use crate::core::{BlockTable, TokenId};

/// One sequence's part of a step: `len` tokens from position `start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSequence {
    /// First packed row.
    pub row: usize,
    /// Position of that row's token in the sequence.
    pub start: usize,
    /// Number of rows.
    pub len: usize,
    /// Blocks up to position `start + len`, by KV group.
    pub tables: Vec<BlockTable>,
    /// Positions of images within `start..start + len`; tokens of one image see each other.
    pub image_spans: Vec<Range<usize>>,
}

impl StepSequence {
    /// Returns the keys that the query at `position` sees; always a contiguous range.
    ///
    /// Follows `create_causal_mask` / `create_sliding_window_causal_mask` with the `token_type_ids`
    /// overlay of transformers' `modeling_gemma3.py`: backwards, the window limits also what an
    /// image's own tokens see; forwards, a token of an image sees up to the image's end.
    pub fn key_range(&self, position: usize, window: Option<usize>) -> Range<usize> {
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let end = self
            .image_spans
            .iter()
            .find(|span| span.contains(&position))
            .map_or(position + 1, |span| span.end);
        first..end
    }
}

/// The packed tokens of one step and their places. No padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepInput {
    /// `(tokens)`
    pub token_ids: Vec<TokenId>,
    /// `(tokens)`: each token's position in its sequence.
    pub positions: Vec<u32>,
    /// In order of `row`; together they cover every row once.
    pub sequences: Vec<StepSequence>,
    /// Rows whose token is not known yet: the device takes it from the samples of the previous
    /// step. Their values in `token_ids` are placeholders.
    pub sampled_inputs: Vec<SampledInput>,
    /// Rows whose logits are needed, ascending.
    pub logit_rows: Vec<u32>,
}

/// A row whose token is the sample of the previous step that is still on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampledInput {
    /// Packed row of this step.
    pub row: u32,
    /// Index into the samples of the previous step.
    pub sample: u32,
}

impl StepInput {
    /// Returns every row's token, including samples of the previous step, for a backend that has
    /// them on the host.
    pub(super) fn resolved_token_ids(&self, previous: Option<&Vec<Sampled>>) -> Vec<TokenId> {
        let mut ids = self.token_ids.clone();
        for input in &self.sampled_inputs {
            let sampled_tokens =
                previous.expect("only a step that follows another takes its samples");
            ids[input.row as usize] = sampled_tokens[input.sample as usize].token;
        }
        ids
    }
}
