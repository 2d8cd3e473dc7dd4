//! Attention of many rows: over the paged cache, and within images.

use super::kv_args::{HeadShape, KV_BLOCK, PagedRows, Pools};
use super::{Shape, launch, require, require_aligned};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::error::Result;

/// `attention.cu`
pub static SOURCE: Source = Source {
    name: "attention.cu",
    text: include_str!("attention.cu"),
};

/// Maximum number of rows in a tile.
pub const TILE_ROWS: u32 = 64;
const TILE_KEYS: u32 = 32;
const THREADS: u32 = 128;

/// Splits packed sequences, given as (first row, rows), into tiles: no tile spans two sequences.
pub fn tiles_of(sequences: impl IntoIterator<Item = (u32, u32)>) -> Vec<[u32; 2]> {
    let mut tiles = Vec::new();
    for (first, len) in sequences {
        for offset in (0..len).step_by(TILE_ROWS as usize) {
            tiles.push([first + offset, TILE_ROWS.min(len - offset)]);
        }
    }
    tiles
}

fn shared_bytes(head_dim: u32) -> u32 {
    let row = head_dim.next_multiple_of(16) + 8;
    (TILE_ROWS + 2 * TILE_KEYS) * row * 2
}

fn check(head_dim: u32, addresses: &[DevicePtr]) -> Result<()> {
    require(head_dim > 0 && head_dim.is_multiple_of(8), || {
        format!("attention: head_dim {head_dim} is not a multiple of 8")
    })?;
    require_aligned("attention", addresses)
}

/// Arguments of one layer's attention over the cache.
#[derive(Clone, Copy, Debug)]
pub struct PagedAttention {
    /// `(rows, heads·head_dim)` bf16
    pub q: DevicePtr,
    /// `(tiles, 2)` u32, from [`tiles_of`]
    pub tiles: DevicePtr,
    /// Number of tiles.
    pub num_tiles: u32,
    /// Factor of the scores.
    pub scale: f32,
    /// `(rows, heads·head_dim)` bf16
    pub out: DevicePtr,
}

/// # Errors
/// Fails for shapes or addresses that the kernel does not support; returns the device's errors.
pub fn paged_attention<D: Device>(
    device: &D,
    rows: &PagedRows,
    heads: &HeadShape,
    pools: &Pools,
    op: &PagedAttention,
) -> Result<()> {
    check(
        heads.head_dim,
        &[op.q, pools.keys, pools.values, op.tiles, rows.key_ranges],
    )?;
    let defines = [
        ("HEAD_DIM", heads.head_dim),
        ("GROUP", heads.group()),
        ("NUM_KV_HEADS", heads.num_kv_heads),
        ("PAGED", 1),
        KV_BLOCK,
    ];
    let kernel = KernelId {
        source: &SOURCE,
        function: "attention",
        defines: &defines,
    };
    let args = [
        Arg::Ptr(op.q),
        Arg::Ptr(pools.keys),
        Arg::Ptr(pools.values),
        Arg::Ptr(op.tiles),
        Arg::Ptr(rows.sequence_of_row),
        Arg::Ptr(rows.key_ranges),
        Arg::Ptr(rows.tables),
        Arg::U32(rows.table_stride),
        Arg::Ptr(rows.num_released),
        Arg::U32(0),
        Arg::F32(op.scale),
        Arg::Ptr(op.out),
    ];
    let shape = Shape {
        grid: [op.num_tiles, heads.num_heads, 1],
        threads: THREADS,
    };
    launch(device, kernel, shape, shared_bytes(heads.head_dim), &args)
}

/// Attention without mask within each image.
#[derive(Clone, Copy, Debug)]
pub struct ImageAttention {
    /// `(images·patches, 3, heads·head_dim)` bf16
    pub qkv: DevicePtr,
    /// Number of images.
    pub num_images: u32,
    /// Number of rows per image.
    pub num_patches: u32,
    /// Number of heads of q, k and v.
    pub num_heads: u32,
    /// Number of values per head, a multiple of 8.
    pub head_dim: u32,
    /// `(images·patches, heads·head_dim)` bf16
    pub out: DevicePtr,
}

/// # Errors
/// Fails for shapes or addresses that the kernel does not support; returns the device's errors.
pub fn image_attention<D: Device>(device: &D, op: &ImageAttention) -> Result<()> {
    check(op.head_dim, &[op.qkv])?;
    let defines = [
        ("HEAD_DIM", op.head_dim),
        ("GROUP", 1),
        ("NUM_KV_HEADS", op.num_heads),
        ("PAGED", 0),
    ];
    let kernel = KernelId {
        source: &SOURCE,
        function: "attention",
        defines: &defines,
    };
    let hidden_bytes = op.num_heads as usize * op.head_dim as usize * 2;
    // Tiles and tables belong to the paged variant and are never read.
    let none = Arg::Ptr(op.qkv);
    let args = [
        Arg::Ptr(op.qkv),
        Arg::Ptr(op.qkv.at(hidden_bytes)),
        Arg::Ptr(op.qkv.at(2 * hidden_bytes)),
        none,
        none,
        none,
        none,
        Arg::U32(0),
        none,
        Arg::U32(op.num_patches),
        Arg::F32((op.head_dim as f32).powf(-0.5)),
        Arg::Ptr(op.out),
    ];
    let shape = Shape {
        grid: [
            op.num_patches.div_ceil(TILE_ROWS),
            op.num_heads,
            op.num_images,
        ],
        threads: THREADS,
    };
    launch(device, kernel, shape, shared_bytes(op.head_dim), &args)
}
