//! One layer's keys and values in blocks.
//!
//! Owns the layout, so that writer and reader agree. A block of one head:
//!
//! ```text
//! keys    (2, head_dim, 16):       panels of 16 positions, each as the register tile reads it
//! values  (head_dim / 16, 32, 16): panels of 16 numbers
//! ```

use super::tile::PANEL;
use crate::backend::attention::{AttentionShape, BLOCK_SIZE};
use crate::backend::step_input::StepSequence;
use crate::core::BlockTable;

/// Inputs of one layer's attention in one step, besides the numbers.
#[derive(Clone, Copy, Debug)]
pub struct LayerStep<'a> {
    /// In order of `row`; together they cover every row once.
    pub sequences: &'a [StepSequence],
    /// KV group of the layer, which selects the table.
    pub group: usize,
    /// Dimensions of the layer, the window of its mask among them.
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
    /// Creates a pool of zeros; physical memory is used when blocks are first written.
    ///
    /// # Panics
    /// Panics if `head_dim` is not a multiple of 16.
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

    /// Number of values of one head in one block.
    pub(super) fn head_size(&self) -> usize {
        BLOCK_SIZE * self.head_dim
    }

    /// Number of values of all heads in one block.
    pub(super) fn block_size(&self) -> usize {
        self.num_kv_heads * self.head_size()
    }

    /// Returns keys and values of one head in one block.
    pub(super) fn head(&self, block: usize, head: usize) -> (&[f32], &[f32]) {
        let size = self.head_size();
        let first = (block * self.num_kv_heads + head) * size;
        (&self.keys[first..][..size], &self.values[first..][..size])
    }
}

/// Returns the pool index of a sequence's block number `block` (position / `BLOCK_SIZE`).
///
/// # Panics
/// Panics if the table does not hold it: it was freed, or never allocated.
pub(super) fn pool_block(table: &BlockTable, block: usize) -> usize {
    let block = table.block(block);
    block
        .expect("a released block is behind every key that is still seen")
        .0 as usize
}
