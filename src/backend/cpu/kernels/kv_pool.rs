//! One layer's keys and values in blocks.
//!
//! Owns the layout, so that the writer and the reader agree. A block of one head:
//!
//! ```text
//! keys    (2, head_dim, 16):       panels of 16 positions, each as the register tile reads it
//! values  (head_dim / 16, 32, 16): panels of 16 numbers
//! ```

use super::tile::PANEL;
use crate::backend::{AttentionShape, BLOCK_SIZE, BlockTable, LayerKind, StepSequence};

/// What one layer does in one step, beyond its numbers.
#[derive(Clone, Copy, Debug)]
pub struct LayerStep<'a> {
    /// In order of `row`; together they cover every row once.
    pub sequences: &'a [StepSequence],
    /// Which table and which mask.
    pub kind: LayerKind,
    /// The model's.
    pub shape: &'a AttentionShape,
}

/// Keys and values, each `(num_blocks, num_kv_heads)` blocks of `BLOCK_SIZE · head_dim`.
#[derive(Clone, Debug)]
pub struct KvPool {
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
}

impl KvPool {
    /// All zeros; memory is taken up when blocks are first written.
    ///
    /// # Panics
    /// If `head_dim` is no multiple of 16.
    pub fn new(num_blocks: usize, num_kv_heads: usize, head_dim: usize) -> Self {
        assert_eq!(head_dim % PANEL, 0, "heads of {head_dim} numbers");
        let size = num_blocks * num_kv_heads * BLOCK_SIZE * head_dim;
        Self {
            keys: vec![0.0; size],
            values: vec![0.0; size],
            num_kv_heads,
            head_dim,
        }
    }

    /// Numbers of one head in one block.
    pub(super) fn head_size(&self) -> usize {
        BLOCK_SIZE * self.head_dim
    }

    /// Numbers of all heads in one block.
    pub(super) fn block_size(&self) -> usize {
        self.num_kv_heads * self.head_size()
    }

    /// Keys and values of one head in one block.
    pub(super) fn head(&self, block: usize, head: usize) -> (&[f32], &[f32]) {
        let size = self.head_size();
        let first = (block * self.num_kv_heads + head) * size;
        (&self.keys[first..][..size], &self.values[first..][..size])
    }
}

/// Index in the pool of a sequence's block number `block` (position / `BLOCK_SIZE`).
///
/// # Panics
/// If the table does not hold it: the scheduler gave it back, or never took it.
pub(super) fn pool_block(table: &BlockTable, block: usize) -> usize {
    let idx = block
        .checked_sub(table.num_released)
        .expect("a released block is behind every key that is still seen");
    table.blocks[idx].0 as usize
}
