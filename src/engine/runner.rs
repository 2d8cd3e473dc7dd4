//! From a planned batch to the model's inputs, and from logits to tokens.
//!
//! Owns the model and its KV cache. Knows nothing of channels or queues.

use crate::backend::{Backend, BlockTable, SampleRow, StepInput, StepSequence};
use crate::core::{ImageSpan, SeqId};
use crate::error::Result;
use crate::model::{ImageRows, Model, StepOf};
use crate::scheduler::{self, Batch, Chunk, Scheduler, Sequence};

use crate::backend::Sampled;

/// Executes batches on one device.
pub struct Runner<B: Backend> {
    model: Model<B>,
    cache: B::KvCache,
}

impl<B: Backend> Runner<B> {
    /// A runner whose cache has this many blocks in each group.
    pub fn new(
        model: Model<B>,
        num_global_blocks: usize,
        num_sliding_blocks: usize,
    ) -> Result<Self> {
        let cache = model.kv_cache(num_global_blocks, num_sliding_blocks)?;
        Ok(Self { model, cache })
    }

    /// Computes the batch's chunks and draws a token for each that samples, in the batch's order.
    ///
    /// # Panics
    /// When the batch names a sequence that the scheduler does not have.
    pub fn execute(
        &mut self,
        scheduler: &Scheduler,
        batch: &Batch,
    ) -> Result<Vec<(SeqId, Sampled)>> {
        let sequences: Vec<(&Chunk, &Sequence)> = batch
            .chunks
            .iter()
            .map(|chunk| {
                let sequence = scheduler
                    .sequence(chunk.seq)
                    .expect("a batch is executed before its sequences can go");
                (chunk, sequence)
            })
            .collect();
        let Self { model, cache } = self;
        model.backend().enter(|| compute(model, cache, &sequences))
    }
}

/// Runs the packed step and draws where a chunk samples.
fn compute<B: Backend>(
    model: &Model<B>,
    cache: &mut B::KvCache,
    sequences: &[(&Chunk, &Sequence)],
) -> Result<Vec<(SeqId, Sampled)>> {
    let input = step_input(sequences);
    let images = encode_images(model, sequences, &input)?;
    let Some(logits) = model.forward(
        StepOf {
            input: &input,
            previous: None,
            images: &images,
        },
        cache,
    )?
    else {
        return Ok(Vec::new());
    };

    let sampling: Vec<_> = sequences
        .iter()
        .filter(|(chunk, _)| chunk.samples)
        .collect();
    let rows: Vec<_> = sampling
        .iter()
        .map(|(chunk, sequence)| SampleRow {
            params: sequence.sampling(),
            position: chunk.end(),
            num_generated: sequence.num_generated_tokens(),
        })
        .collect();
    let draws = model.backend().sample(&logits, &rows)?;
    let sampled = model.backend().sampled(&draws)?;
    Ok(sampling
        .iter()
        .map(|(chunk, _)| chunk.seq)
        .zip(sampled)
        .collect())
}

/// Features of the pictures that the chunks cover. A chunk covers a picture whole or not at
/// all, so nothing has to be kept from one step to the next.
fn encode_images<B: Backend>(
    model: &Model<B>,
    sequences: &[(&Chunk, &Sequence)],
    input: &StepInput,
) -> Result<Vec<ImageRows<B::Tensor>>> {
    let mut spans: Vec<(usize, &ImageSpan)> = Vec::new();
    for ((chunk, sequence), rows) in sequences.iter().zip(&input.sequences) {
        for span in sequence.images_in(chunk.start..chunk.end()) {
            spans.push((rows.row + span.start - chunk.start, span));
        }
    }
    if spans.is_empty() {
        return Ok(Vec::new());
    }
    let pixels: Vec<_> = spans.iter().map(|(_, span)| span.pixels.clone()).collect();
    let features = model.encode_images(&pixels)?;
    Ok(spans
        .iter()
        .zip(features)
        .map(|(&(row, _), features)| ImageRows { row, features })
        .collect())
}

/// Packs the chunks' tokens one after another.
fn step_input(sequences: &[(&Chunk, &Sequence)]) -> StepInput {
    let mut input = StepInput::default();
    for (chunk, sequence) in sequences {
        let row = input.token_ids.len();
        let positions = chunk.start..chunk.end();
        input
            .token_ids
            .extend_from_slice(&sequence.tokens()[positions.clone()]);
        input.positions.extend(
            positions.clone().map(|position| {
                u32::try_from(position).expect("contexts are far below 4 G tokens")
            }),
        );
        input.sequences.push(StepSequence {
            row,
            start: chunk.start,
            len: chunk.len,
            global: table(sequence.global_table()),
            sliding: table(sequence.sliding_table()),
            image_spans: sequence
                .images_in(positions)
                .iter()
                .map(|span| span.start..span.start + span.len)
                .collect(),
        });
        if chunk.samples {
            let last = input.token_ids.len() - 1;
            input
                .logit_rows
                .push(u32::try_from(last).expect("a step has far fewer than 4 G tokens"));
        }
    }
    input
}

fn table(table: &scheduler::BlockTable) -> BlockTable {
    BlockTable {
        num_released: table.num_released(),
        blocks: table.blocks().to_vec(),
    }
}
