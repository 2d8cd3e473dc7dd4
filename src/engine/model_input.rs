//! The device's input for a planned batch. It borrows nothing from the scheduler, which plans the
//! next step while the device works.

use std::sync::Arc;

use super::encoder_cache::EmbeddingKey;
use crate::backend::{SampleRow, SampledInput, ScoreRow, SeenTokens, StepInput, StepSequence};
use crate::core::{CacheSalt, PixelValues, SamplingParams, SeqId, TokenId, TokenMask};
use crate::scheduler::{Batch, Chunk, Scheduler, Sequence};

/// The inputs of one step.
#[derive(Clone, Debug, Default)]
pub struct ModelInput {
    /// The packed rows.
    pub input: StepInput,
    /// Images that have tokens among the rows.
    pub images: Vec<ImageAt>,
    /// One per `input.logit_rows`, in their order. Empty if the samples are submitted separately,
    /// once the tokens before them are known.
    pub samples: Vec<SampleInput>,
    /// Prompt rows whose next token, known from the prompt, is to be scored.
    pub scores: Vec<ScoreOrder>,
}

/// An image and the first packed row of its tokens.
#[derive(Clone, Debug)]
pub struct ImageAt {
    /// Row of the image's first token.
    pub row: usize,
    /// The image.
    pub pixels: PixelValues,
    /// Cache salt; embeddings are shared only among requests of the same salt.
    pub salt: Option<CacheSalt>,
}

impl ImageAt {
    /// Key of the image in the encoder cache.
    pub(super) fn key(&self) -> EmbeddingKey {
        EmbeddingKey {
            pixels: self.pixels.hash,
            salt: self.salt,
        }
    }
}

/// Parameters for sampling one row's next token.
#[derive(Clone, Debug)]
pub struct SampleInput {
    /// Sampling parameters of the request.
    pub params: Arc<SamplingParams>,
    /// Position of the token to be sampled.
    pub position: usize,
    /// Number of generated tokens before it.
    pub num_generated: usize,
    /// Mask of allowed tokens; `None` if all are allowed.
    pub mask: Option<TokenMask>,
    /// Counts of the tokens before it; `None` without penalties.
    pub seen: Option<Arc<SeenTokens>>,
}

impl SampleInput {
    /// Converts to the sampler's form.
    pub(super) fn row(&self) -> SampleRow<'_> {
        SampleRow {
            mask: self.mask.as_ref(),
            seen: self.seen.as_deref(),
            ..SampleRow::new(&self.params, self.position, self.num_generated)
        }
    }
}

/// Consecutive rows of one sequence's prompt to be scored.
#[derive(Clone, Debug)]
pub struct ScoreOrder {
    /// Sequence to which the rows belong.
    pub seq: SeqId,
    /// Position of the first scored token, which is one past the first row's position.
    pub position: usize,
    /// First packed row.
    pub row: usize,
    /// One entry per row.
    pub rows: Vec<ScoreRow>,
}

impl ModelInput {
    /// Builds the inputs of `batch`.
    ///
    /// # Panics
    /// Panics when the batch names a sequence that the scheduler does not have.
    pub fn new(scheduler: &Scheduler, batch: &Batch) -> Self {
        let mut order = Self::default();
        for chunk in &batch.chunks {
            let sequence = scheduler
                .sequence(chunk.seq)
                .expect("a batch is written out before its sequences can go");
            order.add(chunk, sequence);
        }
        order
    }

    /// Appends the chunk's tokens to the packed rows.
    fn add(&mut self, chunk: &Chunk, sequence: &Sequence) {
        let input = &mut self.input;
        let row = input.token_ids.len();
        let positions = chunk.start..chunk.end();
        match chunk.sampled_input {
            Some(sample) => {
                input.sampled_inputs.push(SampledInput {
                    row: narrow(row),
                    sample: narrow(sample),
                });
                // Placeholder: only the device knows the token.
                input.token_ids.push(TokenId::default());
            }
            None => {
                let known = chunk.start..chunk.end() - chunk.num_drafts();
                input.token_ids.extend_from_slice(&sequence.tokens()[known]);
                let drafts = &sequence.drafts()[..chunk.num_drafts()];
                input.token_ids.extend_from_slice(drafts);
            }
        }
        input.positions.extend(positions.clone().map(narrow));
        let images = sequence.images_in(positions);
        input.sequences.push(StepSequence {
            row,
            start: chunk.start,
            len: chunk.len,
            tables: sequence.tables().to_vec(),
            image_spans: images
                .iter()
                .map(|span| span.start..span.start + span.len)
                .collect(),
        });
        self.images.extend(images.iter().map(|span| ImageAt {
            row: row + span.start - chunk.start,
            pixels: span.pixels.clone(),
            salt: sequence.scheduling().cache_salt,
        }));
        for position in chunk.end() + 1 - chunk.num_samples..=chunk.end() {
            input
                .logit_rows
                .push(narrow(row + position - chunk.start - 1));
            self.samples.push(SampleInput {
                params: Arc::clone(sequence.sampling()),
                position,
                num_generated: position - sequence.num_prompt_tokens(),
                mask: None,
                seen: None,
            });
        }
        if let Some(num_top) = sequence.wanted_prompt_logprobs() {
            self.add_scores(chunk, sequence, row, num_top);
        }
    }

    /// Adds the scores of the chunk's rows that are followed by another prompt token.
    fn add_scores(&mut self, chunk: &Chunk, sequence: &Sequence, row: usize, num_top: usize) {
        let first = chunk.start + 1;
        let end = sequence.num_prompt_tokens().min(chunk.end() + 1);
        if first < end {
            let tokens = sequence.tokens()[first..end].iter();
            self.scores.push(ScoreOrder {
                seq: chunk.seq,
                position: first,
                row,
                rows: tokens.map(|&token| ScoreRow { token, num_top }).collect(),
            });
        }
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("contexts and steps are far below 4 G tokens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{BlockCount, GenerateRequest, KvGroups, PrefixCaching, SchedulingParams};
    use crate::scheduler::SchedulerConfig;

    fn scheduler() -> Scheduler {
        let mut scheduler = Scheduler::new(SchedulerConfig {
            max_num_seqs: 4,
            max_num_batched_tokens: 16,
            max_model_len: 100,
            block_size: 4,
            groups: KvGroups::new(&[None]),
            num_blocks: BlockCount::new(&[50]),
            prefix_caching: PrefixCaching::Off,
        })
        .expect("the limits can work");
        for id in 1..=2 {
            let request = GenerateRequest {
                prompt: vec![TokenId(5); 3],
                images: Vec::new(),
                sampling: SamplingParams::greedy(20),
                constraint: None,
                prompt_logprobs: None,
                scheduling: SchedulingParams::default(),
            };
            scheduler.add(SeqId(id), request).expect("it fits");
        }
        scheduler
    }

    #[test]
    fn each_draft_is_a_row_and_a_token_is_sampled_behind_each() {
        let mut scheduler = scheduler();
        scheduler.propose(SeqId(1), &[TokenId(6), TokenId(7)]);
        let batch = scheduler.schedule();
        let order = ModelInput::new(&scheduler, &batch);
        let ids: Vec<_> = order.input.token_ids.iter().map(|id| id.0).collect();
        assert_eq!(ids, [5, 5, 5, 6, 7, 5, 5, 5]);
        assert_eq!(order.input.positions, [0, 1, 2, 3, 4, 0, 1, 2]);
        assert_eq!(order.input.logit_rows, [2, 3, 4, 7]);
        let samples: Vec<_> = order
            .samples
            .iter()
            .map(|sample| (sample.position, sample.num_generated))
            .collect();
        assert_eq!(samples, [(3, 0), (4, 1), (5, 2), (3, 0)]);
    }
}
