//! Attention of single rows over the paged cache.

use super::kv_args::{HeadShape, KV_BLOCK, PagedRows, Pools};
use super::rope::RopeArgs;
use super::{Shape, launch, require, require_aligned};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::error::Result;

/// `decode_attention.cu`
pub static SOURCE: Source = Source {
    name: "decode_attention.cu",
    text: include_str!("decode_attention.cu"),
};

const NUM_WARPS: u32 = 4;

/// Buffers through which splits pass their parts to the last one.
#[derive(Clone, Copy, Debug)]
pub struct SplitSpace {
    /// [`partial_bytes`]
    pub partial: DevicePtr,
    /// [`stats_bytes`]
    pub stats: DevicePtr,
    /// `(rows, kv_heads)` u32, zero before the first launch and again after each.
    pub counters: DevicePtr,
}

/// Number of bytes of [`SplitSpace::partial`].
pub fn partial_bytes(num_rows: u32, heads: &HeadShape, num_splits: u32) -> usize {
    num_rows as usize
        * heads.num_heads as usize
        * num_splits as usize
        * heads.head_dim as usize
        * size_of::<f32>()
}

/// Number of bytes of [`SplitSpace::stats`].
pub fn stats_bytes(num_rows: u32, heads: &HeadShape, num_splits: u32) -> usize {
    num_rows as usize * heads.num_heads as usize * num_splits as usize * 2 * size_of::<f32>()
}

/// Number of splits that give every multiprocessor four blocks, but no split fewer than 64 of the
/// `max_keys` that a row can see.
pub fn splits_for(
    num_rows: u32,
    heads: &HeadShape,
    max_keys: u32,
    num_multiprocessors: u32,
) -> u32 {
    let wanted = (4 * num_multiprocessors).div_ceil((num_rows * heads.num_kv_heads).max(1));
    wanted.min(max_keys.div_ceil(64)).max(1)
}

/// Source of the queries.
#[derive(Clone, Copy, Debug)]
pub enum Queries {
    /// `(rows, heads·head_dim)` bf16; keys and values are in the cache already.
    Given(DevicePtr),
    /// Computed by the kernel from qkv; it also writes the rows' keys and values into the cache.
    /// Every row must be the last of its sequence.
    Rotated(RopeArgs),
}

/// Arguments of one layer's attention.
#[derive(Clone, Copy, Debug)]
pub struct DecodeAttention {
    /// The rows' queries.
    pub queries: Queries,
    /// Factor of the scores.
    pub scale: f32,
    /// Number of blocks per row and key head.
    pub num_splits: u32,
    /// Split buffers; used when there is more than one split.
    pub space: SplitSpace,
    /// `(rows, heads·head_dim)` bf16
    pub out: DevicePtr,
}

/// Runs the attention. Correct for any rows; optimised for few rows per sequence.
///
/// # Errors
/// Fails if head_dim is not a power of two from 16 to 256; returns the device's errors.
pub fn decode_attention<D: Device>(
    device: &D,
    rows: &PagedRows,
    heads: &HeadShape,
    pools: &Pools,
    op: &DecodeAttention,
) -> Result<()> {
    require(
        heads.head_dim.is_power_of_two() && (16..=256).contains(&heads.head_dim),
        || format!("decode_attention: head_dim {}", heads.head_dim),
    )?;
    require(
        heads.num_heads.is_multiple_of(heads.num_kv_heads) && op.num_splits > 0,
        || {
            format!(
                "decode_attention: {} heads over {} key heads in {} splits",
                heads.num_heads, heads.num_kv_heads, op.num_splits
            )
        },
    )?;
    let space = &op.space;
    require_aligned(
        "decode_attention",
        &[
            pools.keys,
            pools.values,
            rows.key_ranges,
            space.partial,
            space.stats,
            op.out,
        ],
    )?;
    // Arguments that the kernel does not read get some other address.
    let (q, rope, fused) = match op.queries {
        Queries::Given(q) => {
            let unused = RopeArgs {
                qkv: q,
                cos_sin: q,
                query_norm: q,
                key_norm: q,
                eps: 0.0,
            };
            (q, unused, 0)
        }
        Queries::Rotated(rope) => (rope.qkv, rope, 1),
    };
    require_aligned("decode_attention", &[q])?;
    let group = heads.group();
    let defines = [
        ("HEAD_DIM", heads.head_dim),
        ("GROUP", group),
        ("NUM_KV_HEADS", heads.num_kv_heads),
        KV_BLOCK,
        ("FUSED", fused),
    ];
    let kernel = KernelId {
        source: &SOURCE,
        function: "decode_attention",
        defines: &defines,
    };
    let args = [
        Arg::Ptr(q),
        Arg::Ptr(rope.qkv),
        Arg::Ptr(rope.cos_sin),
        Arg::Ptr(rope.query_norm),
        Arg::Ptr(rope.key_norm),
        Arg::F32(rope.eps),
        Arg::Ptr(pools.keys),
        Arg::Ptr(pools.values),
        Arg::Ptr(rows.sequence_of_row),
        Arg::Ptr(rows.key_ranges),
        Arg::Ptr(rows.tables),
        Arg::U32(rows.table_stride),
        Arg::Ptr(rows.num_released),
        Arg::F32(op.scale),
        Arg::Ptr(space.partial),
        Arg::Ptr(space.stats),
        Arg::Ptr(space.counters),
        Arg::Ptr(op.out),
    ];
    let shape = Shape {
        grid: [op.num_splits, heads.num_kv_heads, rows.num_rows],
        threads: NUM_WARPS * 32,
    };
    let shared_bytes = NUM_WARPS * group * (heads.head_dim + 2) * 4 + 4;
    launch(device, kernel, shape, shared_bytes, &args)
}
