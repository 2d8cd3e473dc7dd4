//! A planned batch, written out for the device: it borrows nothing from the scheduler, which goes
//! on planning while the device works.

use std::sync::Arc;

use super::encoder_cache::FeatureKey;
use crate::backend::{
    BlockTable, FedRow, SampleRow, ScoreRow, SeenTokens, StepInput, StepSequence,
};
use crate::core::{CacheSalt, PixelValues, SamplingParams, SeqId, TokenId, TokenMask};
use crate::scheduler::{self, Batch, Chunk, Scheduler, Sequence};

/// One step's inputs.
#[derive(Clone, Debug, Default)]
pub struct ModelInput {
    /// The packed rows.
    pub input: StepInput,
    /// Images whose tokens are among the rows.
    pub images: Vec<ImageAt>,
    /// One per `input.logit_rows`, in their order. None where they are ordered apart, once the
    /// tokens before them are known.
    pub samples: Vec<SampleInput>,
    /// Rows whose next token the prompt has, and which are to say how probable it was.
    pub scores: Vec<ScoreOrder>,
}

/// An image and the first packed row of its tokens.
#[derive(Clone, Debug)]
pub struct ImageAt {
    /// Row of its first token.
    pub row: usize,
    /// The image.
    pub pixels: PixelValues,
    /// Its features are shared only with requests of the same salt.
    pub salt: Option<CacheSalt>,
}

impl ImageAt {
    /// What its features are kept under.
    pub(super) fn key(&self) -> FeatureKey {
        FeatureKey {
            pixels: self.pixels.hash,
            salt: self.salt,
        }
    }
}

/// How one row's next token is sampled.
#[derive(Clone, Debug)]
pub struct SampleInput {
    /// The request's wishes.
    pub params: Arc<SamplingParams>,
    /// Position of the token to be sampled.
    pub position: usize,
    /// New tokens before it.
    pub num_generated: usize,
    /// What may be sampled; `None` where everything may.
    pub mask: Option<TokenMask>,
    /// The tokens before it, where there are penalties for them.
    pub seen: Option<Arc<SeenTokens>>,
}

impl SampleInput {
    /// As the sampler takes it.
    pub(super) fn row(&self) -> SampleRow<'_> {
        SampleRow {
            mask: self.mask.as_ref(),
            seen: self.seen.as_deref(),
            ..SampleRow::new(&self.params, self.position, self.num_generated)
        }
    }
}

/// Consecutive rows of one sequence's prompt that are scored.
#[derive(Clone, Debug)]
pub struct ScoreOrder {
    /// Whose.
    pub seq: SeqId,
    /// Position of the first token that is scored: the one behind the first row's.
    pub position: usize,
    /// First packed row.
    pub row: usize,
    /// One each.
    pub rows: Vec<ScoreRow>,
}

impl ModelInput {
    /// Writes out `batch`.
    ///
    /// # Panics
    /// When it names a sequence that the scheduler does not have.
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

    /// Packs the chunk's tokens behind those that are there.
    fn add(&mut self, chunk: &Chunk, sequence: &Sequence) {
        let input = &mut self.input;
        let row = input.token_ids.len();
        let positions = chunk.start..chunk.end();
        match chunk.fed {
            Some(sample) => {
                input.fed.push(FedRow {
                    row: narrow(row),
                    sample: narrow(sample),
                });
                // Only the device knows it.
                input.token_ids.push(TokenId::default());
            }
            None => {
                let tokens = &sequence.tokens()[positions.clone()];
                input.token_ids.extend_from_slice(tokens);
            }
        }
        input.positions.extend(positions.clone().map(narrow));
        let images = sequence.images_in(positions);
        input.sequences.push(StepSequence {
            row,
            start: chunk.start,
            len: chunk.len,
            global: table(sequence.global_table()),
            sliding: table(sequence.sliding_table()),
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
        if chunk.samples {
            input.logit_rows.push(narrow(input.token_ids.len() - 1));
            self.samples.push(SampleInput {
                params: Arc::clone(sequence.sampling()),
                position: chunk.end(),
                num_generated: chunk.end() - sequence.num_prompt_tokens(),
                mask: None,
                seen: None,
            });
        }
        if let Some(num_top) = sequence.wanted_prompt_logprobs() {
            self.add_scores(chunk, sequence, row, num_top);
        }
    }

    /// Of the chunk's rows, those that the prompt goes on behind.
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

fn table(table: &scheduler::BlockTable) -> BlockTable {
    BlockTable {
        num_released: table.num_released(),
        blocks: table.blocks().to_vec(),
    }
}
