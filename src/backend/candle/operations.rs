//! The operations as plain candle expressions, on any device: the specification for all faster
//! code.
//!
//! Written to be compared with transformers' `modeling_gemma3.py` and `modeling_siglip.py`.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;

use crate::backend::attention::{BLOCK_SIZE, LayerSpec, PoolLayout, QkNorm, Rope};
use crate::backend::step_input::{StepInput, StepSequence};
use crate::core::BlockTable;

/// A step's metadata on the device.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) input: StepInput,
    /// `(tokens)`, u32
    token_ids: Tensor,
    /// One entry per rope.
    cos_sin: Vec<CosSin>,
}

/// Cosines and sines of some layers, each `(tokens, 1, head_dim / 2)`.
#[derive(Debug)]
struct CosSin {
    cos: Tensor,
    sin: Tensor,
}

impl CosSin {
    fn new(rope: &Rope, positions: &[u32], device: &Device) -> Result<Self> {
        let num_positions = positions.len();
        let positions = Tensor::new(positions, device)?
            .to_dtype(candle_core::DType::F32)?
            .reshape((num_positions, 1))?;
        let inv_freq = Tensor::new(rope.inv_freq.as_slice(), device)?.unsqueeze(0)?;
        let cos_sin = positions.broadcast_mul(&inv_freq)?.unsqueeze(1)?; // (tokens, 1, head_dim / 2)
        Ok(Self {
            cos: cos_sin.cos()?,
            sin: cos_sin.sin()?,
        })
    }
}

impl Step {
    pub(super) fn new(input: &StepInput, ropes: &[Rope], device: &Device) -> Result<Self> {
        let ids: Vec<u32> = input.token_ids.iter().map(|id| id.0).collect();
        let cos_sin = ropes
            .iter()
            .map(|rope| CosSin::new(rope, &input.positions, device));
        Ok(Self {
            token_ids: Tensor::new(ids, device)?,
            cos_sin: cos_sin.collect::<Result<_>>()?,
            input: input.clone(),
        })
    }
}

/// One layer's keys and values, each `(blocks · BLOCK_SIZE, kv_heads, head_dim)`.
#[derive(Debug)]
pub(super) struct KvPool {
    keys: Tensor,
    values: Tensor,
}

impl KvPool {
    pub(super) fn new(layout: PoolLayout, num_blocks: usize, device: &Device) -> Result<Self> {
        let PoolLayout {
            num_kv_heads,
            head_dim,
            ..
        } = layout;
        let shape = (num_blocks * BLOCK_SIZE, num_kv_heads, head_dim);
        let pool = || Tensor::zeros(shape, candle_core::DType::F32, device);
        Ok(Self {
            keys: pool()?,
            values: pool()?,
        })
    }
}

pub(super) fn embed(step: &Step, table: &Tensor, scale: f32) -> Result<Tensor> {
    table.index_select(&step.token_ids, 0)? * f64::from(scale)
}

pub(super) fn put_rows(hidden: &Tensor, rows: &Tensor, first: usize) -> Result<Tensor> {
    let num_rows = rows.dim(0)?;
    let end = first + num_rows;
    let before = hidden.narrow(0, 0, first)?;
    let after = hidden.narrow(0, end, hidden.dim(0)? - end)?;
    Tensor::cat(&[&before, rows, &after], 0)
}

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean_square + eps)?.sqrt()?)?
        .broadcast_mul(weight)
}

pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.matmul(&weight.t()?)
}

/// Applies RoPE to `x (tokens, heads, head_dim)`: the first half of each head with the second.
fn rope(x: &Tensor, cos_sin: &CosSin) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let first = x.narrow(D::Minus1, 0, half)?;
    let second = x.narrow(D::Minus1, half, half)?;
    let (cos, sin) = (&cos_sin.cos, &cos_sin.sin);
    let turned_first = (first.broadcast_mul(cos)? - second.broadcast_mul(sin)?)?;
    let turned_second = (second.broadcast_mul(cos)? + first.broadcast_mul(sin)?)?;
    Tensor::cat(&[turned_first, turned_second], D::Minus1)
}

pub(super) fn rope_and_cache(
    step: &Step,
    qkv: &Tensor,
    norm: &QkNorm<Tensor>,
    layer: &LayerSpec,
    pool: &KvPool,
) -> Result<Tensor> {
    let num_tokens = qkv.dim(0)?;
    let shape = &layer.shape;
    let (heads, kv_heads, head_dim) = (shape.num_heads, shape.num_kv_heads, shape.head_dim);
    let part = |first_head: usize, num_heads: usize| {
        qkv.narrow(1, first_head * head_dim, num_heads * head_dim)?
            .reshape((num_tokens, num_heads, head_dim))
    };
    let cos_sin = &step.cos_sin[layer.rope];
    let q = rope(
        &rms_norm(&part(0, heads)?, &norm.query, shape.eps)?,
        cos_sin,
    )?;
    let k = rope(
        &rms_norm(&part(heads, kv_heads)?, &norm.key, shape.eps)?,
        cos_sin,
    )?;
    let v = part(heads + kv_heads, kv_heads)?.contiguous()?;

    for sequence in &step.input.sequences {
        let table = &sequence.tables[layer.group];
        for idx in 0..sequence.len {
            let slot = slot(table, sequence.start + idx);
            let row = sequence.row + idx;
            pool.keys
                .slice_set(&k.narrow(0, row, 1)?.contiguous()?, 0, slot)?;
            pool.values.slice_set(&v.narrow(0, row, 1)?, 0, slot)?;
        }
    }
    q.reshape((num_tokens, heads * head_dim))
}

/// Returns the pool's slot of a position's key.
fn slot(table: &BlockTable, position: usize) -> usize {
    let slot = table.slot(position);
    let (block, offset) = slot.expect("a key that is seen has a slot");
    block.0 as usize * BLOCK_SIZE + offset
}

pub(super) fn paged_attention(
    step: &Step,
    q: &Tensor,
    layer: &LayerSpec,
    pool: &KvPool,
) -> Result<Tensor> {
    let outputs = step
        .input
        .sequences
        .iter()
        .map(|sequence| sequence_attention(sequence, q, layer, pool))
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&outputs, 0)
}

/// Computes attention for one sequence's rows: `(len, heads · head_dim)`.
fn sequence_attention(
    sequence: &StepSequence,
    q: &Tensor,
    layer: &LayerSpec,
    pool: &KvPool,
) -> Result<Tensor> {
    let device = q.device();
    let len = sequence.len;
    let shape = &layer.shape;
    let (kv_heads, head_dim) = (shape.num_kv_heads, shape.head_dim);
    let group = shape.num_heads / kv_heads;
    let ranges: Vec<_> = (sequence.start..sequence.start + len)
        .map(|position| sequence.key_range(position, shape.window))
        .collect();
    let first_key = ranges.iter().map(|range| range.start).min().unwrap_or(0);
    let end_key = ranges.iter().map(|range| range.end).max().unwrap_or(0);
    let num_keys = end_key - first_key;

    let slots: Vec<u32> = (first_key..end_key)
        .map(|position| slot(&sequence.tables[layer.group], position) as u32)
        .collect();
    let slots = Tensor::new(slots, device)?;
    // (kv_heads, keys, head_dim)
    let gather = |pool: &Tensor| pool.index_select(&slots, 0)?.transpose(0, 1)?.contiguous();
    let (keys, values) = (gather(&pool.keys)?, gather(&pool.values)?);

    // A group's query heads are rows of one matmul, so no key is copied per head.
    let q = q
        .narrow(0, sequence.row, len)?
        .reshape((len, kv_heads, group, head_dim))?
        .permute((1, 2, 0, 3))?
        .reshape((kv_heads, group * len, head_dim))?;
    let scores = (q.matmul(&keys.t()?)? * f64::from(shape.scale))?;

    let mut mask = vec![f32::NEG_INFINITY; len * num_keys];
    for (row, range) in ranges.iter().enumerate() {
        let keys = range.start - first_key..range.end - first_key;
        mask[row * num_keys..][keys].fill(0.0);
    }
    let mask = Tensor::from_vec(mask, (1, 1, len, num_keys), device)?;
    let scores = scores
        .reshape((kv_heads, group, len, num_keys))?
        .broadcast_add(&mask)?;
    let weights = softmax_last_dim(&scores)?.reshape((kv_heads, group * len, num_keys))?;
    weights
        .matmul(&values)?
        .reshape((kv_heads, group, len, head_dim))?
        .permute((2, 0, 1, 3))?
        .reshape((len, kv_heads * group * head_dim))
}

pub(super) fn geglu(gate_up: &Tensor) -> Result<Tensor> {
    let width = gate_up.dim(1)? / 2;
    let gate = gate_up.narrow(1, 0, width)?.gelu()?;
    gate * gate_up.narrow(1, width, width)?
}

pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred
        .broadcast_div(&(variance + eps)?.sqrt()?)?
        .broadcast_mul(weight)?
        .broadcast_add(bias)
}

pub(super) fn full_attention(qkv: &Tensor, num_images: usize, num_heads: usize) -> Result<Tensor> {
    let (num_rows, width) = qkv.dims2()?; // (images · patches, 3 · hidden)
    let num_patches = num_rows / num_images;
    let hidden = width / 3;
    let head_dim = hidden / num_heads;
    let scale = 1.0 / (head_dim as f64).sqrt();
    let mut outputs = Vec::with_capacity(num_images);
    for image in 0..num_images {
        let rows = qkv.narrow(0, image * num_patches, num_patches)?;
        // One head at a time: the scores of one head are `(patches, patches)` already.
        let heads = (0..num_heads)
            .map(|head| {
                let part = |idx: usize| {
                    rows.narrow(1, idx * hidden + head * head_dim, head_dim)?
                        .contiguous()
                };
                let (q, k, v) = (part(0)?, part(1)?, part(2)?);
                softmax_last_dim(&(q.matmul(&k.t()?)? * scale)?)?.matmul(&v)
            })
            .collect::<Result<Vec<_>>>()?;
        outputs.push(Tensor::cat(&heads, 1)?);
    }
    Tensor::cat(&outputs, 0)
}

pub(super) fn average_pool(x: &Tensor, grid: usize, kernel: usize) -> Result<Tensor> {
    let (num_rows, hidden) = x.dims2()?;
    let num_images = num_rows / (grid * grid);
    let pooled = grid / kernel;
    x.reshape((num_images * pooled, kernel, pooled, kernel, hidden))?
        .mean(3)?
        .mean(1)?
        .reshape((num_images * pooled * pooled, hidden))
}
