//! Attention: the kernels for single rows, for chunks, and for the vision encoder.

use super::backend::{CudaBackend, count};
use super::device::{Device, DevicePtr};
use super::kernels::attention::{self, ImageAttention, PagedAttention};
use super::kernels::decode_attention::{
    self, DecodeAttention, Queries, SplitSpace, partial_bytes, splits_for, stats_bytes,
};
use super::kernels::kv_args::{PagedRows, Pools};
use super::matmul;
use super::tensor::CudaTensor;
use crate::core::Dtype;
use crate::error::Result;

/// A step's rows for the layers of one KV group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) paged: PagedRows,
    /// Number of keys that a row sees; `None` if it sees all before it.
    pub(super) window: Option<usize>,
    /// Tiles of rows `(tiles, 2)`; none if every sequence has one row.
    pub(super) tiles: DevicePtr,
    pub(super) num_tiles: usize,
}

/// Computes attention over one layer's pools.
pub(super) fn paged<D: Device>(
    backend: &CudaBackend<D>,
    rows: &Rows,
    q: &CudaTensor,
    scale: f32,
    pools: &Pools,
) -> Result<CudaTensor> {
    let plan = &backend.plan;
    if rows.num_tiles > 0 {
        let out = backend.alloc_tensor(q.num_rows, q.width, Dtype::Bf16)?;
        let op = PagedAttention {
            q: q.typed(Dtype::Bf16, "the queries")?,
            tiles: rows.tiles,
            num_tiles: count(rows.num_tiles),
            scale,
            out: out.at,
        };
        attention::paged_attention(&backend.device, &rows.paged, &plan.heads, pools, &op)?;
        return Ok(out);
    }
    let queries = Queries::Given(q.typed(Dtype::Bf16, "the queries")?);
    decode(backend, rows, queries, scale, pools)
}

/// Computes attention over one layer's pools if every row is the last of its sequence.
pub(super) fn decode<D: Device>(
    backend: &CudaBackend<D>,
    rows: &Rows,
    queries: Queries,
    scale: f32,
    pools: &Pools,
) -> Result<CudaTensor> {
    let plan = &backend.plan;
    let num_rows = rows.paged.num_rows;
    // The number of keys that a row could see, not that it sees: a captured graph must not depend
    // on lengths.
    let max_keys = rows
        .window
        .map_or(plan.max_model_len, |window| plan.max_model_len.min(window));
    let num_splits = splits_for(
        num_rows,
        &plan.heads,
        count(max_keys),
        plan.num_multiprocessors,
    );
    let partial = backend.alloc(partial_bytes(num_rows, &plan.heads, num_splits))?;
    let stats = backend.alloc(stats_bytes(num_rows, &plan.heads, num_splits))?;
    let width = (plan.heads.num_heads * plan.heads.head_dim) as usize;
    let out = backend.alloc_tensor(num_rows as usize, width, Dtype::Bf16)?;
    let op = DecodeAttention {
        queries,
        scale,
        num_splits,
        space: SplitSpace {
            partial: partial.at(),
            stats: stats.at(),
            counters: backend
                .standing
                .counters((num_rows * plan.heads.num_kv_heads) as usize)?,
        },
        out: out.at,
    };
    decode_attention::decode_attention(&backend.device, &rows.paged, &plan.heads, pools, &op)?;
    Ok(out)
}

/// Computes attention within each image, of `qkv (images·patches, 3·hidden)`.
pub(super) fn full<D: Device>(
    backend: &CudaBackend<D>,
    qkv: &CudaTensor,
    num_images: usize,
    num_heads: usize,
) -> Result<CudaTensor> {
    let qkv = matmul::narrowed(backend, qkv)?;
    let hidden = qkv.width / 3;
    let out = backend.alloc_tensor(qkv.num_rows, hidden, Dtype::Bf16)?;
    let op = ImageAttention {
        qkv: qkv.at,
        num_images: count(num_images),
        num_patches: count(qkv.num_rows / num_images),
        num_heads: count(num_heads),
        head_dim: count(hidden / num_heads),
        out: out.at,
    };
    attention::image_attention(&backend.device, &op)?;
    Ok(out)
}
