//! The backend's configuration: sizes and shapes that must be known before memory is allocated.

use super::kernels::paged::HeadShape;
use super::step::PaddingBlocks;
use crate::backend::{BLOCK_SIZE, StepInput, StepSequence};
use crate::core::{BlockTable, TokenId};

/// Maximum number of rows of a step that is captured and replayed.
pub const MAX_RECORDED_ROWS: usize = 256;

/// Sizes that are fixed for the backend's lifetime.
#[derive(Clone, Copy, Debug)]
pub struct CudaPlan {
    /// Maximum number of packed rows of a step.
    pub max_rows: usize,
    /// Maximum number of sequences of a step.
    pub max_sequences: usize,
    /// Maximum length of a sequence, in tokens.
    pub max_model_len: usize,
    /// Heads of attention.
    pub heads: HeadShape,
    /// Number of keys that a sliding layer sees.
    pub window: Option<usize>,
    /// Size of the buffer for activations.
    pub activation_bytes: usize,
    /// Size of the buffer for activations of captured steps.
    pub recorded_bytes: usize,
    /// Size of the buffer for image embeddings.
    pub feature_bytes: usize,
    /// Whether decode steps are captured once and replayed.
    pub replay: Replay,
    /// Number of multiprocessors of the GPU, all of which should have work.
    pub num_multiprocessors: u32,
}

/// Whether steps are captured as CUDA graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Every kernel is launched anew.
    Never,
    /// Decode steps with a given number of rows are captured the first time and replayed
    /// afterwards.
    Decode,
}

impl CudaPlan {
    /// Number of rows of the graph for a decode step of `num_rows` rows, including padding: 1 to 8
    /// as they are, then multiples of 8 up to 64 and of 16 beyond. `None` for steps that are not
    /// captured.
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

    /// Returns decode steps of every captured number of rows, and chunks of one sequence: with few
    /// rows, more, and the maximum.
    pub(super) fn warm_up_steps(&self, padding_blocks: PaddingBlocks) -> Vec<StepInput> {
        // Numbers of rows that are not captured all behave alike.
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

/// Returns a step of `num_sequences` sequences with `len` tokens each, from their first position
/// on, all in the padding blocks.
fn warm_up_step(num_sequences: usize, len: usize, padding_blocks: PaddingBlocks) -> StepInput {
    let position = |idx: usize| u32::try_from(idx).expect("steps are far below 4 G tokens");
    let table = |block| BlockTable::new(BLOCK_SIZE, 0, vec![block; len.div_ceil(BLOCK_SIZE)]);
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
