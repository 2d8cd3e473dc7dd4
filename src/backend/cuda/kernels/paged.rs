//! Where a step's rows and their keys lie: what the kernels that touch the cache have in common.

use crate::backend::BLOCK_SIZE;
use crate::backend::cuda::device::DevicePtr;

/// Attention's shape, fixed when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub num_heads: u32,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: u32,
    /// Numbers per head.
    pub head_dim: u32,
}

impl HeadShape {
    /// Query heads per key head.
    pub fn group(&self) -> u32 {
        self.num_heads / self.num_kv_heads
    }
}

/// A step's rows in one group of the cache; all on the device.
#[derive(Clone, Copy, Debug)]
pub struct PagedRows {
    /// Packed rows.
    pub num_rows: u32,
    /// `(rows)` u32: each row's position in its sequence.
    pub positions: DevicePtr,
    /// `(rows)` u32: which row of `tables` a row belongs to.
    pub sequence_of_row: DevicePtr,
    /// `(rows, 2)` u32: first position that a row sees and the one after its last.
    pub key_ranges: DevicePtr,
    /// `(sequences, table_stride)` u32: the blocks that are not released, in order of position.
    pub tables: DevicePtr,
    /// Entries per sequence in `tables`.
    pub table_stride: u32,
    /// `(sequences)` u32: leading blocks that were given back.
    pub num_released: DevicePtr,
}

/// One layer's keys and values, each `(blocks, kv_heads, BLOCK_SIZE, head_dim)` bf16.
#[derive(Clone, Copy, Debug)]
pub struct Pools {
    /// Keys, normed and rotated.
    pub keys: DevicePtr,
    /// Values.
    pub values: DevicePtr,
}

/// Positions per block, as the kernels' define wants it.
pub(super) const KV_BLOCK: (&str, u32) = ("KV_BLOCK", BLOCK_SIZE as u32);
