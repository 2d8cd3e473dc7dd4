//! What the backend needs to know before the first tensor: how much, how many, which shape.

use super::kernels::paged::HeadShape;
use super::step::PaddingBlocks;
use crate::backend::{BLOCK_SIZE, BlockTable, StepInput, StepSequence};
use crate::core::TokenId;

/// Most rows of a step that is recorded and replayed.
pub const MAX_RECORDED_ROWS: usize = 256;

/// Sizes that stay as they are for as long as the backend lives.
#[derive(Clone, Copy, Debug)]
pub struct CudaPlan {
    /// Most packed rows of a step.
    pub max_rows: usize,
    /// Most sequences of a step.
    pub max_sequences: usize,
    /// Longest sequence, in tokens.
    pub max_model_len: usize,
    /// Attention's heads.
    pub heads: HeadShape,
    /// Keys that a sliding layer sees.
    pub window: Option<usize>,
    /// Room for activations.
    pub activation_bytes: usize,
    /// Room for the activations of recorded steps.
    pub recorded_bytes: usize,
    /// Room for what became of images.
    pub feature_bytes: usize,
    /// Whether decode steps are recorded once and replayed.
    pub replay: Replay,
    /// Multiprocessors of the GPU, all of which should have work.
    pub num_multiprocessors: u32,
}

/// Whether steps are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Every kernel is launched anew.
    Never,
    /// Decode steps of a number of rows are recorded the first time and replayed from then on.
    Decode,
}

impl CudaPlan {
    /// Rows of the recording that serves a decode step of `num_rows`, some of which only fill up:
    /// 1 to 8 as they are, then steps of 8 to 64 and of 16 beyond. `None` for steps that are not
    /// recorded.
    pub(super) fn recorded_rows(&self, num_rows: usize) -> Option<usize> {
        if self.replay == Replay::Never || num_rows == 0 {
            return None;
        }
        let bucket = match num_rows {
            1..=8 => num_rows,
            9..=64 => num_rows.next_multiple_of(8),
            _ => num_rows.next_multiple_of(16),
        };
        (bucket <= MAX_RECORDED_ROWS && bucket <= self.max_rows).then_some(bucket)
    }

    /// Decode steps of every recorded number of rows, and chunks of one sequence: few rows, more,
    /// and as many as there may be.
    pub(super) fn warm_up_steps(&self, padding_blocks: PaddingBlocks) -> Vec<StepInput> {
        // Beyond what is recorded all numbers of rows are alike.
        let alike = |num_rows: usize| match self.recorded_rows(num_rows) {
            Some(recorded) => recorded,
            None if num_rows <= 8 => num_rows,
            None => usize::MAX,
        };
        let mut decodes: Vec<usize> = (1..=self.max_sequences).map(alike).collect();
        decodes.dedup();
        let most = self.max_sequences.min(self.max_rows);
        let decodes = decodes
            .into_iter()
            .map(|num_rows| warm_up_step(num_rows.min(most), 1, padding_blocks));
        let longest = self.max_rows.min(self.max_model_len);
        let chunks = [2, 16, 200, longest];
        let chunks = chunks.into_iter().filter(|len| *len <= longest);
        decodes
            .chain(chunks.map(|len| warm_up_step(1, len, padding_blocks)))
            .collect()
    }
}

/// `num_sequences` of `len` tokens each, from their first position on, all in the spare blocks.
fn warm_up_step(num_sequences: usize, len: usize, padding_blocks: PaddingBlocks) -> StepInput {
    let position = |idx: usize| u32::try_from(idx).expect("steps are far below 4 G tokens");
    let table = |block| BlockTable {
        num_released: 0,
        blocks: vec![block; len.div_ceil(BLOCK_SIZE)],
    };
    StepInput {
        token_ids: vec![TokenId(0); num_sequences * len],
        positions: (0..num_sequences)
            .flat_map(|_| (0..len).map(position))
            .collect(),
        sequences: (0..num_sequences)
            .map(|idx| StepSequence {
                row: idx * len,
                start: 0,
                len,
                global: table(padding_blocks.global),
                sliding: table(padding_blocks.sliding),
                image_spans: Vec::new(),
            })
            .collect(),
        fed: Vec::new(),
        logit_rows: (0..num_sequences)
            .map(|idx| position((idx + 1) * len - 1))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: CudaPlan = CudaPlan {
        max_rows: 2048,
        max_sequences: 256,
        max_model_len: 8192,
        heads: HeadShape {
            num_heads: 8,
            num_kv_heads: 4,
            head_dim: 256,
        },
        window: Some(1024),
        activation_bytes: 0,
        recorded_bytes: 0,
        feature_bytes: 0,
        replay: Replay::Decode,
        num_multiprocessors: 132,
    };

    #[test]
    fn few_recordings_serve_every_number_of_rows() {
        let rows = |num_rows| PLAN.recorded_rows(num_rows);
        for (num_rows, bucket) in [
            (1, 1),
            (7, 7),
            (8, 8),
            (9, 16),
            (64, 64),
            (65, 80),
            (256, 256),
        ] {
            assert_eq!(rows(num_rows), Some(bucket));
        }
        assert_eq!(rows(257), None);
        assert_eq!(rows(0), None);
        let mut buckets: Vec<_> = (1..=256).map(|num_rows| rows(num_rows).unwrap()).collect();
        buckets.dedup();
        assert_eq!(buckets.len(), 8 + 7 + 12);
        let narrow = CudaPlan {
            max_rows: 12,
            ..PLAN
        };
        assert_eq!(narrow.recorded_rows(9), None);
        let never = CudaPlan {
            replay: Replay::Never,
            ..PLAN
        };
        assert_eq!(never.recorded_rows(1), None);
    }
}
