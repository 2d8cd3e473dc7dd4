//! Implements the backend's operations with kernels.
//!
//! The residual stream and the outputs of matmuls are f32; inputs of matmuls and the cache are
//! bf16. Decode steps of up to [`super::kernels::gemv::MAX_ROWS`] rows take five launches per
//! layer.

use std::cell::OnceCell;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use half::bf16;

use super::device::Device;
use super::kernels::decode_attention::Queries;
use super::kernels::elementwise::{self, AveragePool, Patches, SelectRows};
use super::kernels::embed::{self, Embed};
use super::kernels::gemv::Output;
use super::kernels::kv_args::Pools;
use super::kernels::norm::{self, LayerNorm, NormOutput, RmsNorm};
use super::kernels::rope::{self, RopeKernel};
use super::memory::MemoryKind;
use super::packed_step::PackedStep;
use super::tensor::{CudaMatrix, CudaTensor};
use super::{attention, matmul, sampled_tokens, weights};
use crate::backend::attention::{BLOCK_SIZE, KvLayout, LayerSpec, PoolLayout, QkNorm, Rope};
use crate::backend::host_tensor::HostTensor;
use crate::backend::linear::HostLinear;
use crate::backend::operations::{
    BackendTypes, Loading, NormPair, SamplingOps, StepWork, TextOps, VisionOps,
};
use crate::backend::sampling::{SampleRow, Sampled, ScoreRow};
use crate::backend::step_input::StepInput;
use crate::core::{BlockId, Dtype, PixelValues};
use crate::error::{Error, Result};

use super::backend::{CudaBackend, CudaKvCache, CudaStep, count};

impl<D: Device> BackendTypes for CudaBackend<D> {
    type Tensor = CudaTensor;
    type Linear = CudaMatrix;
    type KvCache = CudaKvCache;
    type Step = CudaStep;
    type SampledTokens = sampled_tokens::CudaSampledTokens;

    fn memory(&self) -> Option<String> {
        Some(self.account.to_string())
    }

    fn read(&self, x: &CudaTensor) -> Result<(Vec<usize>, Vec<f32>)> {
        let x = self.widened(x)?;
        let mut bytes = vec![0; x.num_bytes()];
        self.device.download(x.at, &mut bytes)?;
        let numbers = bytes.as_chunks::<4>().0.iter();
        let numbers = numbers.map(|number| f32::from_le_bytes(*number)).collect();
        Ok((vec![x.num_rows, x.width], numbers))
    }
}

impl<D: Device> Loading for CudaBackend<D> {
    fn parameter(&self, tensor: HostTensor<'_>) -> Result<CudaTensor> {
        weights::parameter(&self.device, &self.account, &tensor, |number| number)
    }

    fn norm_weight(&self, tensor: HostTensor<'_>) -> Result<CudaTensor> {
        weights::parameter(&self.device, &self.account, &tensor, |number| number + 1.0)
    }

    fn load_linear(&self, weight: HostLinear<'_>) -> Result<CudaMatrix> {
        weights::linear(&self.device, &self.account, &weight)
    }

    fn kv_cache(&self, layout: &KvLayout) -> Result<CudaKvCache> {
        let sized_pools = layout.sized_pools()?;
        // One more block in each pool, for padding rows.
        let pool_bytes = |&(pool, num_blocks): &(PoolLayout, usize)| {
            (num_blocks + 1) * pool.num_kv_heads * BLOCK_SIZE * pool.head_dim * 2
        };
        let num_bytes = sized_pools.iter().map(|pool| 2 * pool_bytes(pool)).sum();
        let buffer = self
            .account
            .allocate(&self.device, MemoryKind::KvCache, num_bytes)?;
        let mut at = self.device.address(&buffer);
        // Memory that no row has written yet is never seen, but must be finite.
        self.device.fill_zero(at, num_bytes)?;
        let layers = sized_pools
            .iter()
            .map(|pool| {
                let pools = Pools {
                    keys: at,
                    values: at.at(pool_bytes(pool)),
                };
                at = at.at(2 * pool_bytes(pool));
                pools
            })
            .collect();
        let num_blocks = layout.num_blocks.iter();
        let padding_blocks = num_blocks.map(|num| BlockId(count(*num))).collect();
        *self.padding_blocks.lock().expect("a fault ends the engine") = Some(padding_blocks);
        // Captured graphs write into the cache that they were captured with.
        let mut graphs = self.graphs.lock().expect("a fault ends the engine");
        graphs.clear();
        Ok(CudaKvCache {
            layers,
            _owner: buffer,
        })
    }

    fn warm_up_steps(&self) -> Vec<StepInput> {
        self.padding_blocks().map_or(Vec::new(), |padding_blocks| {
            self.plan.warm_up_steps(&padding_blocks)
        })
    }
}

impl<D: Device> TextOps for CudaBackend<D> {
    fn begin_step(
        &self,
        input: &StepInput,
        previous: Option<&sampled_tokens::CudaSampledTokens>,
        ropes: &[Rope],
    ) -> Result<CudaStep> {
        let num_real = input.token_ids.len();
        let is_decode = input.sequences.iter().all(|sequence| sequence.len == 1)
            && input.logit_rows.len() == num_real;
        let captured = self.plan.captured_rows(num_real).filter(|_| is_decode);
        let padding_blocks = self
            .padding_blocks()
            .ok_or_else(|| Error::Backend("a step without a cache".to_owned()))?;
        let num_packed = captured.unwrap_or(num_real);
        let packed = PackedStep::new(
            input,
            self.plan.groups.windows(),
            num_packed,
            &padding_blocks,
        );
        if packed.words.len() > self.standing.metadata_words {
            return Err(Error::Backend(format!(
                "a step of {num_real} rows in {} sequences needs {} words of metadata, over {}",
                input.sequences.len(),
                packed.words.len(),
                self.standing.metadata_words
            )));
        }
        let bytes: Vec<u8> = packed.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.device.upload(&bytes, self.standing.metadata)?;
        if !input.sampled_inputs.is_empty() {
            let sampled_tokens =
                previous.expect("only a step that follows another takes its samples");
            embed::feed(
                &self.device,
                self.word(packed.sampled_inputs),
                count(input.sampled_inputs.len()),
                sampled_tokens.tokens(),
                self.word(packed.layout.token_ids()),
            )?;
        }
        Ok(CudaStep {
            layout: packed.layout,
            num_rows: num_real,
            num_real,
            num_logit_rows: input.logit_rows.len(),
            is_decode,
            tiles: packed.tiles,
            num_tiles: packed.num_tiles,
            frequencies: ropes
                .iter()
                .map(|rope| self.frequencies(rope))
                .collect::<Result<_>>()?,
            cos_sin: OnceCell::new(),
        })
    }

    fn run_step(
        &self,
        step: CudaStep,
        cache: &mut CudaKvCache,
        work: &mut StepWork<'_, Self>,
    ) -> Result<Option<CudaTensor>> {
        let captured = self.plan.captured_rows(step.num_real);
        let Some(num_rows) = captured.filter(|_| step.is_decode) else {
            return work(&step, cache);
        };
        let num_real = step.num_real;
        let mut graphs = self.graphs.lock().expect("a fault ends the engine");
        let graph = match graphs.entry(num_rows) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let full = CudaStep {
                    num_rows,
                    num_logit_rows: num_rows,
                    ..step
                };
                self.is_capturing.store(true, Ordering::Relaxed);
                let graph = self.capture(full, cache, work);
                self.is_capturing.store(false, Ordering::Relaxed);
                place.insert(graph?)
            }
        };
        self.device.replay(&graph.graph)?;
        Ok(Some(CudaTensor {
            at: graph.logits,
            num_rows: num_real,
            width: graph.vocab_size,
            dtype: Dtype::F32,
            // Not overwritten before the next replay.
            _owner: Arc::new(()),
        }))
    }

    fn embed(&self, step: &CudaStep, table: &CudaMatrix, scale: f32) -> Result<CudaTensor> {
        let out = self.alloc_tensor(step.num_rows, table.width, Dtype::F32)?;
        let op = Embed {
            token_ids: self.word(step.layout.token_ids()),
            table: table.at,
            // The reference rounds the scale to the type that it computes in.
            scale: bf16::from_f32(scale).to_f32(),
            num_rows: count(step.num_rows),
            width: count(table.width),
            out: out.at,
        };
        embed::embed(&self.device, &op)?;
        Ok(out)
    }

    fn put_image_features(
        &self,
        _step: &CudaStep,
        hidden: CudaTensor,
        features: &CudaTensor,
        row: usize,
    ) -> Result<CudaTensor> {
        let from = features.typed(Dtype::F32, "an image's features")?;
        let to = hidden.typed(Dtype::F32, "the embeddings")?;
        if features.width != hidden.width || row + features.num_rows > hidden.num_rows {
            return Err(Error::Backend(format!(
                "{features:?} cannot replace rows of {hidden:?} from {row} on"
            )));
        }
        let to = to.at(row * hidden.width * 4);
        self.device.copy(from, to, features.num_bytes())?;
        Ok(hidden)
    }

    fn rms_norm(
        &self,
        _step: &CudaStep,
        x: &CudaTensor,
        weight: &CudaTensor,
        eps: f64,
    ) -> Result<CudaTensor> {
        self.normed(x, weight, eps)
    }

    fn add_norm_norm(
        &self,
        _step: &CudaStep,
        residual: &CudaTensor,
        branch: &CudaTensor,
        norms: &NormPair<'_, CudaTensor>,
    ) -> Result<(CudaTensor, CudaTensor)> {
        self.add_normed(residual, branch, norms)
    }

    fn linear(&self, _step: &CudaStep, x: &CudaTensor, weight: &CudaMatrix) -> Result<CudaTensor> {
        matmul::linear(self, x, weight, None)
    }

    fn rope_and_cache(
        &self,
        step: &CudaStep,
        qkv: &CudaTensor,
        norm: &QkNorm<CudaTensor>,
        layer: &LayerSpec,
        cache: &mut CudaKvCache,
    ) -> Result<CudaTensor> {
        let rope = self.rope(step, qkv, norm, layer)?;
        let width = layer.shape.num_heads * layer.shape.head_dim;
        let out = self.alloc_tensor(step.num_rows, width, Dtype::Bf16)?;
        let op = RopeKernel { rope, q: out.at };
        let rows = self.paged_rows(step, layer.group);
        let pools = &cache.layers[layer.pool];
        rope::rope_and_cache(&self.device, &rows, &self.plan.heads, pools, &op)?;
        Ok(out)
    }

    fn paged_attention(
        &self,
        step: &CudaStep,
        q: &CudaTensor,
        layer: &LayerSpec,
        cache: &CudaKvCache,
    ) -> Result<CudaTensor> {
        let rows = self.attention_rows(step, layer);
        attention::paged(self, &rows, q, layer.shape.scale, &cache.layers[layer.pool])
    }

    fn attend(
        &self,
        step: &CudaStep,
        qkv: &CudaTensor,
        norm: &QkNorm<CudaTensor>,
        layer: &LayerSpec,
        cache: &mut CudaKvCache,
    ) -> Result<CudaTensor> {
        let rows = self.attention_rows(step, layer);
        if rows.num_tiles > 0 {
            let q = self.rope_and_cache(step, qkv, norm, layer, cache)?;
            return self.paged_attention(step, &q, layer, cache);
        }
        let rope = self.rope(step, qkv, norm, layer)?;
        let pools = &cache.layers[layer.pool];
        attention::decode(
            self,
            &rows,
            Queries::Rotated(rope),
            layer.shape.scale,
            pools,
        )
    }

    fn geglu(&self, _step: &CudaStep, gate_up: &CudaTensor) -> Result<CudaTensor> {
        let width = gate_up.width / 2;
        let out = self.alloc_tensor(gate_up.num_rows, width, Dtype::Bf16)?;
        let from = gate_up.typed(Dtype::F32, "gate and up")?;
        let num_rows = count(gate_up.num_rows);
        elementwise::geglu(&self.device, from, num_rows, count(width), out.at)?;
        Ok(out)
    }

    fn add_norm_linear(
        &self,
        _step: &CudaStep,
        residual: &CudaTensor,
        branch: &CudaTensor,
        norms: &NormPair<'_, CudaTensor>,
        weight: &CudaMatrix,
    ) -> Result<(CudaTensor, CudaTensor)> {
        self.add_norm_matmul(residual, branch, norms, weight, Output::F32)
    }

    fn add_norm_geglu(
        &self,
        _step: &CudaStep,
        residual: &CudaTensor,
        branch: &CudaTensor,
        norms: &NormPair<'_, CudaTensor>,
        gate_up: &CudaMatrix,
    ) -> Result<(CudaTensor, CudaTensor)> {
        self.add_norm_matmul(residual, branch, norms, gate_up, Output::Geglu)
    }

    fn select_logit_rows(&self, step: &CudaStep, x: &CudaTensor) -> Result<CudaTensor> {
        if step.is_decode {
            // Every row is requested.
            return Ok(x.clone());
        }
        let out = self.alloc_tensor(step.num_logit_rows, x.width, x.dtype)?;
        let op = SelectRows {
            x: x.at,
            rows: self.word(step.layout.logit_rows()),
            num_selected: count(step.num_logit_rows),
            row_bytes: count(x.width * x.dtype.size()),
            out: out.at,
        };
        elementwise::select_rows(&self.device, &op)?;
        Ok(out)
    }

    fn rows(&self, _step: &CudaStep, x: &CudaTensor, rows: Range<usize>) -> Result<CudaTensor> {
        Ok(CudaTensor {
            at: x.at.at(rows.start * x.width * x.dtype.size()),
            num_rows: rows.len(),
            ..x.clone()
        })
    }
}

impl<D: Device> VisionOps for CudaBackend<D> {
    fn patch_embed(
        &self,
        images: &[PixelValues],
        patch_size: usize,
        weight: &CudaMatrix,
        bias: &CudaTensor,
        positions: &CudaTensor,
    ) -> Result<CudaTensor> {
        let mut sums = Vec::new();
        for image in images {
            let pixels = self.alloc(image.rgb.len())?;
            self.device.upload(&image.rgb, pixels.at())?;
            let grid = image.size / patch_size;
            let patches = self.alloc_tensor(grid * grid, weight.width, Dtype::Bf16)?;
            let op = Patches {
                rgb: pixels.at(),
                size: count(image.size),
                patch: count(patch_size),
                padded: count(weight.width),
                out: patches.at,
            };
            elementwise::patches(&self.device, &op)?;
            let convolved = self.linear_bias(&patches, weight, bias)?;
            sums.push(self.add(convolved, positions)?);
        }
        self.stack(sums)
    }

    fn layer_norm(
        &self,
        x: &CudaTensor,
        weight: &CudaTensor,
        bias: &CudaTensor,
        eps: f64,
    ) -> Result<CudaTensor> {
        let out = self.alloc_tensor(x.num_rows, x.width, Dtype::Bf16)?;
        let op = LayerNorm {
            x: x.typed(Dtype::F32, "a layer norm")?,
            weight: weight.parameter(x.width, "a layer norm's weight")?,
            bias: bias.parameter(x.width, "a layer norm's bias")?,
            eps: eps as f32,
            out: out.at,
            output: NormOutput::Bf16,
        };
        norm::layer_norm(&self.device, norm_rows(x), &op)?;
        Ok(out)
    }

    fn linear_bias(
        &self,
        x: &CudaTensor,
        weight: &CudaMatrix,
        bias: &CudaTensor,
    ) -> Result<CudaTensor> {
        matmul::linear(self, x, weight, Some(bias))
    }

    fn full_attention(
        &self,
        qkv: &CudaTensor,
        num_images: usize,
        num_heads: usize,
    ) -> Result<CudaTensor> {
        attention::full(self, qkv, num_images, num_heads)
    }

    fn gelu(&self, x: CudaTensor) -> Result<CudaTensor> {
        let out = self.alloc_tensor(x.num_rows, x.width, Dtype::Bf16)?;
        let from = x.typed(Dtype::F32, "gelu")?;
        elementwise::gelu(&self.device, from, (x.num_rows * x.width) as u64, out.at)?;
        Ok(out)
    }

    fn add(&self, a: CudaTensor, b: &CudaTensor) -> Result<CudaTensor> {
        if (a.num_rows, a.width) != (b.num_rows, b.width) {
            return Err(Error::Backend(format!("{a:?} plus {b:?}")));
        }
        let out = self.alloc_tensor(a.num_rows, a.width, Dtype::F32)?;
        let count = (a.num_rows * a.width) as u64;
        let (left, right) = (a.typed(Dtype::F32, "a sum")?, b.typed(Dtype::F32, "a sum")?);
        elementwise::add(&self.device, left, right, count, out.at)?;
        Ok(out)
    }

    fn average_pool(&self, x: &CudaTensor, grid: usize, kernel: usize) -> Result<CudaTensor> {
        let x = self.widened(x)?;
        let num_images = x.num_rows / (grid * grid);
        let pooled = grid / kernel;
        let out = self.alloc_tensor(num_images * pooled * pooled, x.width, Dtype::F32)?;
        let op = AveragePool {
            x: x.at,
            num_images: count(num_images),
            grid: count(grid),
            kernel: count(kernel),
            width: count(x.width),
            out: out.at,
        };
        elementwise::average_pool(&self.device, &op)?;
        Ok(out)
    }

    fn norm_linear(
        &self,
        x: &CudaTensor,
        norm: &CudaTensor,
        eps: f64,
        weight: &CudaMatrix,
    ) -> Result<CudaTensor> {
        matmul::linear(self, &self.normed(x, norm, eps)?, weight, None)
    }

    fn keep_rows(&self, x: &CudaTensor, rows: Range<usize>) -> Result<CudaTensor> {
        let row_bytes = x.width * x.dtype.size();
        let num_bytes = rows.len() * row_bytes;
        // If a step has more images than the buffer holds, this one is kept only until the step
        // ends.
        let region =
            (self.standing.features.alloc(num_bytes)).or_else(|_| self.alloc(num_bytes))?;
        let kept = CudaTensor {
            at: region.at(),
            num_rows: rows.len(),
            width: x.width,
            dtype: x.dtype,
            _owner: Arc::new(region),
        };
        self.device
            .copy(x.at.at(rows.start * row_bytes), kept.at, num_bytes)?;
        Ok(kept)
    }
}

impl<D: Device> SamplingOps for CudaBackend<D> {
    fn sample(
        &self,
        logits: &CudaTensor,
        rows: &[SampleRow<'_>],
    ) -> Result<sampled_tokens::CudaSampledTokens> {
        sampled_tokens::sample(self, logits, rows)
    }

    fn score(
        &self,
        logits: &CudaTensor,
        rows: &[ScoreRow],
    ) -> Result<sampled_tokens::CudaSampledTokens> {
        sampled_tokens::score(self, logits, rows)
    }

    fn max_score_rows(&self) -> usize {
        // The planned memory has space for twice as many rows of logits.
        self.plan.max_sequences.clamp(1, 32)
    }

    fn sampled(&self, sampled_tokens: &sampled_tokens::CudaSampledTokens) -> Result<Vec<Sampled>> {
        sampled_tokens.wait()
    }
}

impl<D: Device> CudaBackend<D> {
    /// Returns the same numbers as f32.
    fn widened(&self, x: &CudaTensor) -> Result<CudaTensor> {
        if x.dtype == Dtype::F32 {
            return Ok(x.clone());
        }
        let out = self.alloc_tensor(x.num_rows, x.width, Dtype::F32)?;
        elementwise::to_f32(&self.device, x.at, (x.num_rows * x.width) as u64, out.at)?;
        Ok(out)
    }

    /// Computes `x / rms(x) · weight`, per row.
    fn normed(&self, x: &CudaTensor, weight: &CudaTensor, eps: f64) -> Result<CudaTensor> {
        let out = self.alloc_tensor(x.num_rows, x.width, Dtype::Bf16)?;
        let op = RmsNorm {
            x: x.typed(Dtype::F32, "a norm")?,
            weight: weight.parameter(x.width, "a norm's weight")?,
            eps: eps as f32,
            out: out.at,
        };
        norm::rms_norm(&self.device, norm_rows(x), &op)?;
        Ok(out)
    }

    /// See [`TextOps::add_norm_norm`].
    pub(super) fn add_normed(
        &self,
        residual: &CudaTensor,
        branch: &CudaTensor,
        norms: &NormPair<'_, CudaTensor>,
    ) -> Result<(CudaTensor, CudaTensor)> {
        let sum = self.alloc_tensor(residual.num_rows, residual.width, Dtype::F32)?;
        let out = self.alloc_tensor(residual.num_rows, residual.width, Dtype::Bf16)?;
        let op = self.add_norm_norm_op(residual, branch, norms, &sum, out.at)?;
        norm::add_norm_norm(&self.device, norm_rows(residual), &op)?;
        Ok((sum, out))
    }

    /// Concatenates the parts' rows.
    fn stack(&self, mut parts: Vec<CudaTensor>) -> Result<CudaTensor> {
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let num_rows = parts.iter().map(|part| part.num_rows).sum();
        let width = parts.first().map_or(0, |part| part.width);
        let out = self.alloc_tensor(num_rows, width, Dtype::F32)?;
        let mut to = out.at;
        for part in &parts {
            self.device.copy(part.at, to, part.num_bytes())?;
            to = to.at(part.num_bytes());
        }
        Ok(out)
    }
}

fn norm_rows(x: &CudaTensor) -> norm::Rows {
    norm::Rows {
        num_rows: count(x.num_rows),
        width: count(x.width),
    }
}
