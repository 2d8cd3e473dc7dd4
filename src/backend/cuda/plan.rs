//! The backend's configuration: sizes and shapes that must be known before memory is allocated.

use super::kernels::kv_args::HeadShape;
use crate::backend::attention::BLOCK_SIZE;
use crate::backend::device_memory::{CapturedRows, DeviceMemory, MemorySharing};
use crate::backend::sizes::{ModelShape, StepLimits};
use crate::backend::step_input::{StepInput, StepSequence};
use crate::core::{BlockId, BlockTable, KvGroups, TokenId};

/// Maximum number of rows of a step that is captured and replayed.
const MAX_RECORDED_ROWS: usize = 256;
/// Numbers of captured rows above [`FINE_ROWS`] are multiples of this number.
const COARSE_MULTIPLE: usize = 16;
/// Up to this number of rows, numbers of captured rows are closer together.
const FINE_ROWS: usize = 64;
/// Memory of a GPU that the driver needs for itself, its code and its queues.
const DRIVER_BYTES: u64 = 768 << 20;
/// Split buffers of matmuls and attention, on the largest GPU.
const SPLIT_BYTES: u64 = 16 << 20;

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
    /// KV groups of the layers.
    pub groups: KvGroups,
    /// Size of the buffer for activations.
    pub activation_bytes: usize,
    /// Size of the buffer for activations of captured steps.
    pub captured_bytes: usize,
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
    /// Every kernel is launched separately.
    Never,
    /// Decode steps with a given number of rows are captured the first time and replayed
    /// afterwards.
    Decode,
}

impl DeviceMemory {
    /// Returns a GPU's memory of which `available` bytes may be used: keys and values are bf16, and
    /// decode steps are captured.
    pub fn of_gpu(available: u64) -> Self {
        Self {
            available: Some(available),
            sharing: MemorySharing::Exclusive,
            kv_element_bytes: 2,
            driver_bytes: DRIVER_BYTES,
            split_bytes: SPLIT_BYTES,
            captured_rows: Some(CapturedRows {
                multiple: COARSE_MULTIPLE,
                max: MAX_RECORDED_ROWS,
            }),
        }
    }
}

impl CudaPlan {
    /// Creates the plan for a model of this shape, on a GPU with this number of multiprocessors.
    ///
    /// # Panics
    /// Panics if a head count is above 4 G, or a size is above the address space.
    pub fn new(shape: &ModelShape, limits: &StepLimits, num_multiprocessors: u32) -> Self {
        let narrow = |number: usize| u32::try_from(number).expect("head counts are small");
        let bytes = |bytes: u64| usize::try_from(bytes).expect("addresses have 64 bits");
        Self {
            max_rows: limits.max_rows,
            max_sequences: limits.max_sequences,
            max_model_len: limits.max_model_len,
            heads: HeadShape {
                num_heads: narrow(shape.num_heads),
                num_kv_heads: narrow(shape.num_kv_heads),
                head_dim: narrow(shape.head_dim),
            },
            groups: shape.groups,
            activation_bytes: bytes(limits.activation_bytes),
            captured_bytes: bytes(limits.captured_bytes),
            feature_bytes: bytes(limits.feature_bytes),
            replay: Replay::Decode,
            num_multiprocessors,
        }
    }

    /// Checks for sizes that the architecture allows but the kernels do not support.
    ///
    /// # Errors
    /// Returns a message that names the size and what it must be.
    pub fn check_shape(shape: &ModelShape) -> Result<(), String> {
        let ModelShape {
            hidden_size,
            intermediate_size,
            head_dim,
            ..
        } = *shape;
        if !(head_dim.is_power_of_two() && (16..=256).contains(&head_dim)) {
            return Err(format!(
                "head_dim is {head_dim}; on a GPU it must be 16, 32, 64, 128 or 256"
            ));
        }
        if !hidden_size.is_multiple_of(8) || !intermediate_size.is_multiple_of(8) {
            return Err(format!(
                "hidden_size is {hidden_size} and intermediate_size {intermediate_size}; on a GPU \
                 they must be multiples of 8"
            ));
        }
        Ok(())
    }

    /// Number of rows of the graph for a decode step of `num_rows` rows, including padding: 1 to 8
    /// as they are, then multiples of 8 up to 64 and of 16 beyond. `None` for steps that are not
    /// captured.
    pub(super) fn captured_rows(&self, num_rows: usize) -> Option<usize> {
        if self.replay == Replay::Never || num_rows == 0 {
            return None;
        }
        let bucket = match num_rows {
            1..=8 => num_rows,
            9..=FINE_ROWS => num_rows.next_multiple_of(8),
            _ => num_rows.next_multiple_of(COARSE_MULTIPLE),
        };
        (bucket <= MAX_RECORDED_ROWS && bucket <= self.max_rows).then_some(bucket)
    }

    /// Returns decode steps of every captured number of rows, and chunks of one sequence: with few
    /// rows, more, and the maximum.
    pub(super) fn warm_up_steps(&self, padding_blocks: &[BlockId]) -> Vec<StepInput> {
        // Numbers of rows that are not captured all behave alike.
        let alike = |num_rows: usize| match self.captured_rows(num_rows) {
            Some(captured) => captured,
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
fn warm_up_step(num_sequences: usize, len: usize, padding_blocks: &[BlockId]) -> StepInput {
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
                tables: padding_blocks.iter().map(|block| table(*block)).collect(),
                image_spans: Vec::new(),
            })
            .collect(),
        sampled_inputs: Vec::new(),
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
        groups: KvGroups::new(&[None, Some(1024)]),
        activation_bytes: 0,
        captured_bytes: 0,
        feature_bytes: 0,
        replay: Replay::Decode,
        num_multiprocessors: 132,
    };

    #[test]
    fn sizes_that_no_kernel_supports_are_named() {
        let good = ModelShape {
            hidden_size: 640,
            intermediate_size: 2048,
            num_heads: 4,
            num_kv_heads: 1,
            head_dim: 256,
            groups: KvGroups::default(),
        };
        assert_eq!(CudaPlan::check_shape(&good), Ok(()));
        for (head_dim, hidden_size, says) in [
            (8, 640, "head_dim is 8; on a GPU"),
            (48, 640, "head_dim is 48; on a GPU"),
            (512, 640, "head_dim is 512; on a GPU"),
            (64, 644, "hidden_size is 644 and intermediate_size 2048"),
        ] {
            let shape = ModelShape {
                head_dim,
                hidden_size,
                ..good
            };
            let message = CudaPlan::check_shape(&shape).unwrap_err();
            assert!(message.starts_with(says), "{message}");
        }
    }

    #[test]
    fn the_planned_memory_is_that_of_the_largest_captured_graph() {
        let rows = DeviceMemory::of_gpu(0).captured_rows.unwrap();
        for max_sequences in 1..400 {
            let captured = (1..=max_sequences).filter_map(|rows| PLAN.captured_rows(rows));
            let most = captured.max().unwrap();
            assert!(rows.at_most(max_sequences) >= most, "{max_sequences}");
        }
        assert_eq!(rows.at_most(65), 80);
        assert_eq!(rows.at_most(1000), 256);
    }

    #[test]
    fn few_recordings_serve_every_number_of_rows() {
        let rows = |num_rows| PLAN.captured_rows(num_rows);
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
        assert_eq!(narrow.captured_rows(9), None);
        let never = CudaPlan {
            replay: Replay::Never,
            ..PLAN
        };
        assert_eq!(never.captured_rows(1), None);
    }
}
