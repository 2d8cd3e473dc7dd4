//! A planned batch, written out for the device: it borrows nothing from the scheduler, which goes
//! on planning while the device works.

use crate::backend::{BlockTable, FedRow, StepInput, StepSequence};
use crate::core::{PixelValues, SamplingParams, TokenId};
use crate::scheduler::{self, Batch, Chunk, Scheduler, Sequence};

/// One step's inputs.
#[derive(Clone, Debug, Default)]
pub struct WorkOrder {
    /// The packed rows.
    pub input: StepInput,
    /// Pictures whose tokens are among the rows.
    pub images: Vec<ImageAt>,
    /// One per `input.logit_rows`, in their order.
    pub samples: Vec<SampleOrder>,
}

/// A picture and the first packed row of its tokens.
#[derive(Clone, Debug)]
pub struct ImageAt {
    /// Row of its first token.
    pub row: usize,
    /// The picture.
    pub pixels: PixelValues,
}

/// How one row's next token is drawn.
#[derive(Clone, Debug)]
pub struct SampleOrder {
    /// The request's wishes.
    pub params: SamplingParams,
    /// Position of the token to be drawn.
    pub position: usize,
    /// New tokens before it.
    pub num_generated: usize,
}

impl WorkOrder {
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
            Some(draw) => {
                input.fed.push(FedRow {
                    row: narrow(row),
                    draw: narrow(draw),
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
        }));
        if chunk.samples {
            input.logit_rows.push(narrow(input.token_ids.len() - 1));
            self.samples.push(SampleOrder {
                params: sequence.sampling().clone(),
                position: chunk.end(),
                num_generated: chunk.end() - sequence.num_prompt_tokens(),
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
