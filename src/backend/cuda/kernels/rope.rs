//! Norm and RoPE of q and k, and writing of k and v into the cache.

use super::kv_args::{HeadShape, KV_BLOCK, PagedRows, Pools};
use super::{Shape, launch, require};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::error::Result;

/// `rope.cu`
pub static SOURCE: Source = Source {
    name: "rope.cu",
    text: include_str!("rope.cu"),
};

/// Number of warps per block; each processes one head.
const NUM_WARPS: u32 = 4;

fn kernel_of<'a>(function: &'static str, defines: &'a [(&'static str, u32)]) -> KernelId<'a> {
    KernelId {
        source: &SOURCE,
        function,
        defines,
    }
}

fn defines_of(heads: &HeadShape) -> [(&'static str, u32); 4] {
    [
        ("HEAD_DIM", heads.head_dim),
        ("NUM_HEADS", heads.num_heads),
        ("NUM_KV_HEADS", heads.num_kv_heads),
        KV_BLOCK,
    ]
}

/// Computes cosines and sines of a step's rows: `inv_freq (head_dim / 2)` f32 → `out (rows, 2,
/// head_dim / 2)` f32. Once per step and kind of layer.
///
/// # Errors
/// Returns the device's errors.
pub fn cos_sin<D: Device>(
    device: &D,
    rows: &PagedRows,
    heads: &HeadShape,
    inv_freq: DevicePtr,
    out: DevicePtr,
) -> Result<()> {
    let args = [Arg::Ptr(rows.positions), Arg::Ptr(inv_freq), Arg::Ptr(out)];
    let shape = Shape {
        grid: [rows.num_rows, 1, 1],
        threads: 128,
    };
    launch(
        device,
        kernel_of("cos_sin", &defines_of(heads)),
        shape,
        0,
        &args,
    )
}

/// Inputs for norm and RoPE of one layer's q, k and v.
#[derive(Clone, Copy, Debug)]
pub struct RopeArgs {
    /// `(rows, (heads + 2·kv_heads)·head_dim)` f32
    pub qkv: DevicePtr,
    /// Output of [`cos_sin`].
    pub cos_sin: DevicePtr,
    /// `(head_dim)` f32, 1 + w
    pub query_norm: DevicePtr,
    /// `(head_dim)` f32, 1 + w
    pub key_norm: DevicePtr,
    /// Added to the mean squares.
    pub eps: f32,
}

/// Arguments of `rope_and_cache`.
#[derive(Clone, Copy, Debug)]
pub struct RopeKernel {
    /// Inputs.
    pub rope: RopeArgs,
    /// `(rows, heads·head_dim)` bf16
    pub q: DevicePtr,
}

/// Writes q, and k and v into `pools`.
///
/// # Errors
/// Fails for an odd head_dim; returns the device's errors.
pub fn rope_and_cache<D: Device>(
    device: &D,
    rows: &PagedRows,
    heads: &HeadShape,
    pools: &Pools,
    op: &RopeKernel,
) -> Result<()> {
    require(heads.head_dim.is_multiple_of(2), || {
        format!("rope: head_dim {} is odd", heads.head_dim)
    })?;
    let rope = &op.rope;
    let args = [
        Arg::Ptr(rope.qkv),
        Arg::Ptr(rope.cos_sin),
        Arg::Ptr(rope.query_norm),
        Arg::Ptr(rope.key_norm),
        Arg::F32(rope.eps),
        Arg::Ptr(rows.positions),
        Arg::Ptr(rows.sequence_of_row),
        Arg::Ptr(rows.tables),
        Arg::U32(rows.table_stride),
        Arg::Ptr(rows.num_released),
        Arg::Ptr(op.q),
        Arg::Ptr(pools.keys),
        Arg::Ptr(pools.values),
    ];
    let all_heads = heads.num_heads + 2 * heads.num_kv_heads;
    let shape = Shape {
        grid: [rows.num_rows, all_heads.div_ceil(NUM_WARPS), 1],
        threads: NUM_WARPS * 32,
    };
    launch(
        device,
        kernel_of("rope_and_cache", &defines_of(heads)),
        shape,
        0,
        &args,
    )
}
