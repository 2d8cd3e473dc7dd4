//! One request on its way through the steps.

use std::ops::Range;

use crate::core::{FinishReason, GenerateRequest, ImageSpan, SamplingParams, SeqId, TokenId};

use super::block_manager::KvTables;
use super::block_table::BlockTable;

/// Order of arrival; the smaller, the older. Who runs first, who waits and who is preempted all
/// follow from it, so priorities belong here, compared before the arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age(pub(super) u64);

/// Tokens, of which the first `num_computed_tokens` have their keys and values in the cache.
///
/// Computing is nothing but closing that gap: it is the whole prompt at first, one token while
/// decoding, and everything so far after a preemption.
#[derive(Debug)]
pub struct Sequence {
    pub(super) id: SeqId,
    pub(super) age: Age,
    /// Prompt, then what was generated; a preemption keeps both.
    tokens: Vec<TokenId>,
    num_prompt_tokens: usize,
    /// At this length the sequence ends.
    max_len: usize,
    images: Vec<ImageSpan>,
    /// What must be computed in one step. Ascending, not touching one another.
    atomic_runs: Vec<Range<usize>>,
    sampling: SamplingParams,
    /// Less than `tokens.len()`, and never inside of an atomic run.
    num_computed_tokens: usize,
    /// Length of the chunk that is being computed; 0 between steps.
    pub(super) num_scheduled_tokens: usize,
    /// Places for `num_computed_tokens + num_scheduled_tokens` positions.
    pub(super) kv: KvTables,
}

impl Sequence {
    pub(super) fn new(
        id: SeqId,
        age: Age,
        request: GenerateRequest,
        max_len: usize,
        block_size: usize,
    ) -> Self {
        Self {
            id,
            age,
            num_prompt_tokens: request.prompt.len(),
            tokens: request.prompt,
            max_len,
            atomic_runs: atomic_runs(&request.images),
            images: request.images,
            sampling: request.sampling,
            num_computed_tokens: 0,
            num_scheduled_tokens: 0,
            kv: KvTables::new(block_size),
        }
    }

    /// Prompt, then what was generated.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Length of the prompt, images included.
    pub fn num_prompt_tokens(&self) -> usize {
        self.num_prompt_tokens
    }

    /// Tokens drawn so far.
    pub fn num_generated_tokens(&self) -> usize {
        self.tokens.len() - self.num_prompt_tokens
    }

    /// Tokens whose keys and values are in the cache.
    pub fn num_computed_tokens(&self) -> usize {
        self.num_computed_tokens
    }

    /// The prompt's pictures, in order.
    pub fn images(&self) -> &[ImageSpan] {
        &self.images
    }

    /// The pictures of a chunk's positions; chunks never cut one.
    pub fn images_in(&self, positions: Range<usize>) -> &[ImageSpan] {
        let first = self.images.partition_point(|i| i.start < positions.start);
        let end = self.images.partition_point(|i| i.start < positions.end);
        &self.images[first..end]
    }

    /// How the next token is chosen.
    pub fn sampling(&self) -> &SamplingParams {
        &self.sampling
    }

    /// Blocks of the global layers.
    pub fn global_table(&self) -> &BlockTable {
        &self.kv.global
    }

    /// Blocks of the sliding layers.
    pub fn sliding_table(&self) -> &BlockTable {
        &self.kv.sliding
    }

    /// Tokens still to be computed; 1 while decoding, never 0 between steps.
    pub(super) fn num_missing_tokens(&self) -> usize {
        self.tokens.len() - self.num_computed_tokens
    }

    /// Most tokens that are ever computed: the last one is drawn and needs no place in the cache.
    pub(super) fn max_computed_tokens(&self) -> usize {
        self.max_len - 1
    }

    /// Where a chunk of at most `max_chunk` tokens ends. It stops before an atomic run rather
    /// than inside of it, so it is empty when the next run alone is longer than `max_chunk`.
    pub(super) fn chunk_end(&self, max_chunk: usize) -> usize {
        let end = self.num_computed_tokens + max_chunk.min(self.num_missing_tokens());
        match self.run_around(end) {
            Some(run) => run.start,
            None => end,
        }
    }

    /// Length of the atomic run that comes next, if one does.
    pub(super) fn next_run_len(&self) -> Option<usize> {
        let next = self.num_computed_tokens;
        let idx = self.atomic_runs.partition_point(|run| run.start < next);
        let run = self.atomic_runs.get(idx)?;
        (run.start == next).then_some(run.len())
    }

    /// The atomic run that a boundary at `position` would cut.
    pub(super) fn run_around(&self, position: usize) -> Option<&Range<usize>> {
        let idx = self.atomic_runs.partition_point(|run| run.end <= position);
        self.atomic_runs.get(idx).filter(|run| run.start < position)
    }

    /// The scheduled chunk is in the cache.
    pub(super) fn advance(&mut self) {
        self.num_computed_tokens += self.num_scheduled_tokens;
        self.num_scheduled_tokens = 0;
    }

    /// Appends a drawn token and says whether it was the last.
    pub(super) fn push(&mut self, token: TokenId) -> Option<FinishReason> {
        self.tokens.push(token);
        let may_stop = self.num_generated_tokens() >= self.sampling.min_tokens;
        if may_stop && self.sampling.stop_token_ids.contains(&token) {
            Some(FinishReason::Stop)
        } else if self.tokens.len() >= self.max_len {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// Forgets what was computed, not what was generated. The blocks must have been given back.
    pub(super) fn restart(&mut self) {
        self.num_computed_tokens = 0;
        self.num_scheduled_tokens = 0;
    }
}

/// The stretches of image tokens that attend to one another in both directions. The reference's
/// mask (`token_type_ids_mask_function` in transformers' `modeling_gemma3.py`) goes by contiguous
/// image tokens, so pictures without a token between them are one stretch.
pub(super) fn atomic_runs(images: &[ImageSpan]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::with_capacity(images.len());
    for image in images {
        let end = image.start + image.len;
        match runs.last_mut() {
            Some(last) if last.end == image.start => last.end = end,
            _ => runs.push(image.start..end),
        }
    }
    runs
}
