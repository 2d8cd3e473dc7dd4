//! Arguments shared by the kernels that access the KV cache: places of a step's rows and their
//! keys.

use crate::backend::attention::BLOCK_SIZE;
use crate::backend::cuda::device::DevicePtr;

/// Dimensions of attention, fixed when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Number of query heads.
    pub num_heads: u32,
    /// Number of key and value heads; divides `num_heads`.
    pub num_kv_heads: u32,
    /// Number of values per head.
    pub head_dim: u32,
}

impl HeadShape {
    /// Number of query heads per key head.
    pub fn group(&self) -> u32 {
        self.num_heads / self.num_kv_heads
    }
}

/// A step's rows in one group of the cache; all arrays are on the device.
#[derive(Clone, Copy, Debug)]
pub struct PagedRows {
    /// Number of packed rows.
    pub num_rows: u32,
    /// `(rows)` u32: each row's position in its sequence.
    pub positions: DevicePtr,
    /// `(rows)` u32: the row of `tables` that a row belongs to.
    pub sequence_of_row: DevicePtr,
    /// `(rows, 2)` u32: first position that a row sees and one past its last.
    pub key_ranges: DevicePtr,
    /// `(sequences, table_stride)` u32: the blocks that are not released, in order of position.
    pub tables: DevicePtr,
    /// Number of entries per sequence in `tables`.
    pub table_stride: u32,
    /// `(sequences)` u32: number of leading blocks that were freed.
    pub num_released: DevicePtr,
}

/// One layer's keys and values, each `(blocks, kv_heads, BLOCK_SIZE, head_dim)` bf16.
#[derive(Clone, Copy, Debug)]
pub struct Pools {
    /// Keys, after norm and RoPE.
    pub keys: DevicePtr,
    /// Values.
    pub values: DevicePtr,
}

/// Number of positions per block, as a define of the kernels.
pub(super) const KV_BLOCK: (&str, u32) = ("KV_BLOCK", BLOCK_SIZE as u32);
