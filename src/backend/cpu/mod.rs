//! The CPU backend: f32 arithmetic over weights as they are stored, f32 or bf16.
//!
//! Owns the tensors' memory and calls `kernels` for everything that takes time. Agrees with the
//! candle backend, which is its specification; unlike there, a row's result has the same bits
//! whatever else is in the step.

mod cos_sin;
pub mod kernels;
mod shapes;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::backend::attention::{KvLayout, LayerSpec, QkNorm, Rope};
use crate::backend::host_tensor::HostTensor;
use crate::backend::linear::{HostLinear, Linear, LinearSpec, Role, StoredLinear};
use crate::backend::operations::{
    BackendTypes, Loading, NormPair, SamplingOps, TextOps, VisionOps,
};
use crate::backend::sampler::{sample_row, score_row};
use crate::backend::sampling::{SampleRow, Sampled, ScoreRow};
use crate::backend::step_input::StepInput;
use crate::core::PixelValues;
use crate::error::{Error, Result};
use cos_sin::CosSin;
use kernels::{KvPool, LayerStep, PackedMatrix, RopeArgs};
use shapes::{check, check_matmul, check_range, check_step, check_vector, check_width};

/// The CPU backend; uses all of rayon's threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuBackend;

/// Rows of f32 in host memory; cloning shares them.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `(rows, width)`
    values: Arc<Vec<f32>>,
    width: usize,
}

impl Rows {
    fn new(values: Vec<f32>, width: usize) -> Self {
        debug_assert_eq!(values.len() % width, 0);
        Self {
            values: Arc::new(values),
            width,
        }
    }

    fn num_rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// Returns the values for writing; copies them only if they are shared.
    fn values_mut(&mut self) -> &mut Vec<f32> {
        Arc::make_mut(&mut self.values)
    }

    /// Allocates a result with the same number of rows.
    fn room(&self, width: usize) -> Vec<f32> {
        vec![0.0; self.num_rows() * width]
    }
}

/// A weight of a matmul, f32 or bf16.
#[derive(Clone, Debug)]
pub struct CpuLinear {
    packed: PackedMatrix,
    role: Role,
}

impl Linear for CpuLinear {
    fn spec(&self) -> LinearSpec {
        LinearSpec {
            num_out: self.packed.n(),
            num_in: self.packed.k(),
            role: self.role,
            format: self.packed.format(),
        }
    }
}

/// KV cache with one pool per layer.
#[derive(Debug)]
pub struct CpuKvCache {
    pools: Vec<KvPool>,
}

/// A step's metadata with the cosines and sines of its positions.
#[derive(Debug)]
pub struct CpuStep {
    input: StepInput,
    /// One entry per rope.
    cos_sin: Vec<CosSin>,
}

impl CpuStep {
    fn num_tokens(&self) -> usize {
        self.input.token_ids.len()
    }

    fn layer<'a>(&'a self, layer: &'a LayerSpec) -> LayerStep<'a> {
        LayerStep {
            sequences: &self.input.sequences,
            group: layer.group,
            shape: &layer.shape,
        }
    }
}

fn no_rope(layer: &LayerSpec) -> Error {
    Error::Backend(format!("the step has no rotary frequencies {}", layer.rope))
}

fn no_pool(layer: &LayerSpec) -> Error {
    Error::Backend(format!("the cache has no pool {}", layer.pool))
}

/// Computes `x · weightᵀ`.
fn matmul(x: &Rows, weight: &CpuLinear) -> Result<Rows> {
    check_matmul(x, weight)?;
    let mut out = x.room(weight.packed.n());
    kernels::linear(&x.values, &weight.packed, &mut out);
    Ok(Rows::new(out, weight.packed.n()))
}

/// Computes `x / rms(x) · weight`, per row.
fn normed(x: &Rows, weight: &Rows, eps: f64) -> Result<Rows> {
    check_vector("a norm's weight", weight, x.width)?;
    let mut out = x.room(x.width);
    kernels::rms_norm(&x.values, &weight.values, eps, &mut out);
    Ok(Rows::new(out, x.width))
}

impl BackendTypes for CpuBackend {
    type Tensor = Rows;
    type Linear = CpuLinear;
    type KvCache = CpuKvCache;
    type Step = CpuStep;
    type SampledTokens = Vec<Sampled>;

    // On one of rayon's own threads, parallel loops start without a handover between threads.
    fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        rayon::scope(|_| work())
    }

    fn read(&self, x: &Rows) -> Result<(Vec<usize>, Vec<f32>)> {
        Ok((vec![x.num_rows(), x.width], x.values.to_vec()))
    }
}

impl Loading for CpuBackend {
    fn parameter(&self, tensor: HostTensor<'_>) -> Result<Rows> {
        let Some(&width) = tensor.shape.last() else {
            return Err(Error::Backend("a parameter has no width".to_owned()));
        };
        tensor.check_bytes()?;
        Ok(Rows::new(tensor.to_f32(), width))
    }

    fn norm_weight(&self, tensor: HostTensor<'_>) -> Result<Rows> {
        let mut weight = self.parameter(tensor)?;
        weight.values_mut().iter_mut().for_each(|w| *w += 1.0);
        Ok(weight)
    }

    fn load_linear(&self, weight: HostLinear<'_>) -> Result<CpuLinear> {
        let role = weight.spec()?.role;
        let packed = match &weight.stored {
            StoredLinear::Stacked(parts) => PackedMatrix::stacked(parts),
            StoredLinear::Transposed(tensor) => PackedMatrix::transposed(tensor),
        };
        Ok(CpuLinear { packed, role })
    }

    fn kv_cache(&self, layout: &KvLayout) -> Result<CpuKvCache> {
        let mut pools = Vec::with_capacity(layout.pools.len());
        for (pool, num_blocks) in layout.sized_pools()? {
            if !pool.head_dim.is_multiple_of(16) {
                return Err(Error::Config(format!(
                    "head_dim is {}; the CPU backend computes heads of a multiple of 16 numbers",
                    pool.head_dim
                )));
            }
            pools.push(KvPool::new(num_blocks, pool.num_kv_heads, pool.head_dim));
        }
        Ok(CpuKvCache { pools })
    }
}

impl TextOps for CpuBackend {
    fn begin_step(
        &self,
        input: &StepInput,
        previous: Option<&Vec<Sampled>>,
        ropes: &[Rope],
    ) -> Result<CpuStep> {
        Ok(CpuStep {
            cos_sin: ropes
                .iter()
                .map(|rope| CosSin::new(rope, &input.positions))
                .collect(),
            input: StepInput {
                token_ids: input.resolved_token_ids(previous),
                ..input.clone()
            },
        })
    }

    fn embed(&self, step: &CpuStep, table: &CpuLinear, scale: f32) -> Result<Rows> {
        let table = &table.packed;
        let width = table.k();
        let ids = &step.input.token_ids;
        let mut out = vec![0.0; ids.len() * width];
        for (id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
            let row = id.0 as usize;
            if row >= table.n() {
                return Err(Error::Backend(format!(
                    "token {row} is not in a vocabulary of {}",
                    table.n()
                )));
            }
            table.gather_row(row, scale, out);
        }
        Ok(Rows::new(out, width))
    }

    fn put_image_features(
        &self,
        step: &CpuStep,
        mut hidden: Rows,
        features: &Rows,
        row: usize,
    ) -> Result<Rows> {
        check("the embeddings", &hidden, step.num_tokens(), hidden.width)?;
        check_width("an image's embeddings", features, hidden.width)?;
        check_range(&hidden, &(row..row + features.num_rows()))?;
        let first = row * hidden.width;
        hidden.values_mut()[first..first + features.values.len()].copy_from_slice(&features.values);
        Ok(hidden)
    }

    fn rms_norm(&self, step: &CpuStep, x: &Rows, weight: &Rows, eps: f64) -> Result<Rows> {
        check_step(step, x)?;
        normed(x, weight, eps)
    }

    fn add_norm_norm(
        &self,
        step: &CpuStep,
        residual: &Rows,
        branch: &Rows,
        norms: &NormPair<'_, Rows>,
    ) -> Result<(Rows, Rows)> {
        let width = residual.width;
        check_step(step, residual)?;
        check("the branch", branch, residual.num_rows(), width)?;
        check_vector("the branch's norm", norms.post, width)?;
        check_vector("the next norm", norms.next, width)?;
        let (mut sum, mut normed) = (residual.room(width), residual.room(width));
        kernels::add_norm_norm(
            [&residual.values, &branch.values],
            [&norms.post.values, &norms.next.values],
            norms.eps,
            [&mut sum, &mut normed],
        );
        Ok((Rows::new(sum, width), Rows::new(normed, width)))
    }

    fn linear(&self, step: &CpuStep, x: &Rows, weight: &CpuLinear) -> Result<Rows> {
        check_step(step, x)?;
        matmul(x, weight)
    }

    fn rope_and_cache(
        &self,
        step: &CpuStep,
        qkv: &Rows,
        norm: &QkNorm<Rows>,
        layer: &LayerSpec,
        cache: &mut CpuKvCache,
    ) -> Result<Rows> {
        let shape = &layer.shape;
        let width = shape.num_heads * shape.head_dim;
        let both = 2 * shape.num_kv_heads * shape.head_dim;
        check("q, k and v", qkv, step.num_tokens(), width + both)?;
        check_vector("the query's norm", &norm.query, shape.head_dim)?;
        check_vector("the key's norm", &norm.key, shape.head_dim)?;
        let pool = cache.pools.get_mut(layer.pool);
        let pool = pool.ok_or_else(|| no_pool(layer))?;
        let mut q = qkv.room(width);
        let cos_sin = step.cos_sin.get(layer.rope);
        let cos_sin = cos_sin.ok_or_else(|| no_rope(layer))?;
        let rope = RopeArgs {
            query_norm: &norm.query.values,
            key_norm: &norm.key.values,
            cos: &cos_sin.cos,
            sin: &cos_sin.sin,
        };
        kernels::rope_and_cache(step.layer(layer), &qkv.values, rope, pool, &mut q);
        Ok(Rows::new(q, width))
    }

    fn paged_attention(
        &self,
        step: &CpuStep,
        q: &Rows,
        layer: &LayerSpec,
        cache: &CpuKvCache,
    ) -> Result<Rows> {
        let shape = &layer.shape;
        let width = shape.num_heads * shape.head_dim;
        check("the queries", q, step.num_tokens(), width)?;
        let pool = cache.pools.get(layer.pool);
        let pool = pool.ok_or_else(|| no_pool(layer))?;
        let mut out = q.room(q.width);
        kernels::paged_attention(step.layer(layer), &q.values, pool, &mut out);
        Ok(Rows::new(out, q.width))
    }

    fn geglu(&self, step: &CpuStep, gate_up: &Rows) -> Result<Rows> {
        let width = gate_up.width / 2;
        check_step(step, gate_up)?;
        check_width("gate and up", gate_up, 2 * width)?;
        let mut out = gate_up.room(width);
        kernels::geglu(&gate_up.values, width, &mut out);
        Ok(Rows::new(out, width))
    }

    fn select_logit_rows(&self, step: &CpuStep, x: &Rows) -> Result<Rows> {
        let rows = &step.input.logit_rows;
        check("the hidden state", x, step.num_tokens(), x.width)?;
        for &row in rows {
            check_range(x, &(row as usize..row as usize + 1))?;
        }
        let out = rows
            .iter()
            .flat_map(|&row| &x.values[row as usize * x.width..][..x.width])
            .copied()
            .collect();
        Ok(Rows::new(out, x.width))
    }

    fn rows(&self, step: &CpuStep, x: &Rows, rows: Range<usize>) -> Result<Rows> {
        check_step(step, x)?;
        self.keep_rows(x, rows)
    }
}

impl VisionOps for CpuBackend {
    fn patch_embed(
        &self,
        images: &[PixelValues],
        patch_size: usize,
        weight: &CpuLinear,
        bias: &Rows,
        positions: &Rows,
    ) -> Result<Rows> {
        let width = 3 * patch_size * patch_size;
        let patches = Rows::new(crate::backend::patches::patches(images, patch_size), width);
        check_width("the positions", positions, weight.packed.n())?;
        let num_patches = images.len() * positions.num_rows();
        check("the patches", &patches, num_patches, width)?;
        let mut embedded = self.linear_bias(&patches, weight, bias)?;
        for image in embedded
            .values_mut()
            .chunks_exact_mut(positions.values.len())
        {
            kernels::add(image, &positions.values);
        }
        Ok(embedded)
    }

    fn layer_norm(&self, x: &Rows, weight: &Rows, bias: &Rows, eps: f64) -> Result<Rows> {
        check_vector("a layer norm's weight", weight, x.width)?;
        check_vector("a layer norm's bias", bias, x.width)?;
        let mut out = x.room(x.width);
        kernels::layer_norm(&x.values, &weight.values, &bias.values, eps, &mut out);
        Ok(Rows::new(out, x.width))
    }

    fn linear_bias(&self, x: &Rows, weight: &CpuLinear, bias: &Rows) -> Result<Rows> {
        check_matmul(x, weight)?;
        let packed = &weight.packed;
        check_vector("a matmul's bias", bias, packed.n())?;
        let mut out = x.room(packed.n());
        kernels::linear_bias(&x.values, packed, &bias.values, &mut out);
        Ok(Rows::new(out, packed.n()))
    }

    fn full_attention(&self, qkv: &Rows, num_images: usize, num_heads: usize) -> Result<Rows> {
        let hidden = qkv.width / 3;
        let head_dim = hidden / num_heads;
        check_width("q, k and v", qkv, 3 * num_heads * head_dim)?;
        let num_patches = qkv.num_rows() / num_images;
        check("q, k and v", qkv, num_images * num_patches, qkv.width)?;
        let mut out = qkv.room(hidden);
        kernels::full_attention(&qkv.values, num_images, num_heads, head_dim, &mut out);
        Ok(Rows::new(out, hidden))
    }

    fn gelu(&self, mut x: Rows) -> Result<Rows> {
        kernels::gelu(x.values_mut());
        Ok(x)
    }

    fn add(&self, mut a: Rows, b: &Rows) -> Result<Rows> {
        check("the second term of a sum", b, a.num_rows(), a.width)?;
        kernels::add(a.values_mut(), &b.values);
        Ok(a)
    }

    fn average_pool(&self, x: &Rows, grid: usize, kernel: usize) -> Result<Rows> {
        let (width, side) = (x.width, grid / kernel);
        let num_images = x.num_rows() / (grid * grid);
        check("the patches", x, num_images * grid * grid, width)?;
        let mut out = vec![0.0; num_images * side * side * width];
        out.par_chunks_exact_mut(width)
            .enumerate()
            .for_each(|(token, out)| {
                let (image, token) = (token / (side * side), token % (side * side));
                let (top, left) = (token / side * kernel, token % side * kernel);
                for y in top..top + kernel {
                    for column in left..left + kernel {
                        let patch = image * grid * grid + y * grid + column;
                        kernels::add(out, &x.values[patch * width..][..width]);
                    }
                }
                let share = 1.0 / (kernel * kernel) as f32;
                out.iter_mut().for_each(|sum| *sum *= share);
            });
        Ok(Rows::new(out, width))
    }

    fn norm_linear(&self, x: &Rows, norm: &Rows, eps: f64, weight: &CpuLinear) -> Result<Rows> {
        matmul(&normed(x, norm, eps)?, weight)
    }

    fn keep_rows(&self, x: &Rows, rows: Range<usize>) -> Result<Rows> {
        check_range(x, &rows)?;
        let values = &x.values[rows.start * x.width..rows.end * x.width];
        Ok(Rows::new(values.to_vec(), x.width))
    }
}

impl SamplingOps for CpuBackend {
    fn sample(&self, logits: &Rows, rows: &[SampleRow<'_>]) -> Result<Vec<Sampled>> {
        check("the logits", logits, rows.len(), logits.width)?;
        Ok(logits
            .values
            .par_chunks_exact(logits.width)
            .zip(rows)
            .map(|(logits, row)| sample_row(logits, row))
            .collect())
    }

    fn score(&self, logits: &Rows, rows: &[ScoreRow]) -> Result<Vec<Sampled>> {
        check("the logits", logits, rows.len(), logits.width)?;
        Ok(logits
            .values
            .par_chunks_exact(logits.width)
            .zip(rows)
            .map(|(logits, row)| score_row(logits, row))
            .collect())
    }

    fn sampled(&self, sampled_tokens: &Vec<Sampled>) -> Result<Vec<Sampled>> {
        Ok(sampled_tokens.clone())
    }
}
