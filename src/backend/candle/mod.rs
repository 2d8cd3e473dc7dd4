//! The reference backend: plain candle expressions in f32, on any device that candle supports.
//!
//! It is the specification that other backends are compared with, so being obviously correct comes
//! before speed. Knows nothing of models; see [`crate::backend::Backend`].

mod operations;

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use crate::backend::attention::{KvLayout, LayerSpec, QkNorm, Rope};
use crate::backend::host_tensor::{HostDtype, HostTensor};
use crate::backend::linear::{HostLinear, Linear, LinearSpec, StoredLinear};
use crate::backend::operations::{
    BackendTypes, Loading, NormPair, SamplingOps, TextOps, VisionOps,
};
use crate::backend::sampler::{sample_row, score_row};
use crate::backend::sampling::{SampleRow, Sampled, ScoreRow};
use crate::backend::step_input::StepInput;
use crate::core::PixelValues;
use crate::error::{Error, Result};

/// The candle backend on one device, in f32.
#[derive(Debug)]
pub struct CandleBackend {
    device: Device,
}

impl CandleBackend {
    /// Creates a backend on the CPU.
    pub fn cpu() -> Self {
        Self {
            device: Device::Cpu,
        }
    }

    /// Creates a backend on GPU `ordinal`, with candle's own kernels.
    ///
    /// # Errors
    /// Returns `Config` when there is no such GPU, or the program was built without the feature
    /// `candle-cuda`.
    pub fn cuda(ordinal: usize) -> Result<Self> {
        let device = Device::new_cuda(ordinal)
            .map_err(|error| Error::Config(format!("candle cannot open GPU {ordinal}: {error}")))?;
        Ok(Self { device })
    }
}

/// A weight of a matmul, `(out, in)` f32.
#[derive(Debug)]
pub struct CandleLinear {
    weight: Tensor,
    spec: LinearSpec,
}

impl Linear for CandleLinear {
    fn spec(&self) -> LinearSpec {
        self.spec
    }
}

/// Pools of all layers.
#[derive(Debug)]
pub struct CandleKvCache {
    pools: Vec<operations::KvPool>,
}

/// A step's metadata as tensors.
#[derive(Debug)]
pub struct CandleStep(operations::Step);

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Backend(error.to_string())
    }
}

impl CandleBackend {
    /// Copies the tensor to the device, widened to f32, in its own shape.
    fn upload(&self, tensor: &HostTensor<'_>) -> Result<Tensor> {
        let dtype = match tensor.dtype {
            HostDtype::F32 => DType::F32,
            HostDtype::Bf16 => DType::BF16,
        };
        let stored = Tensor::from_raw_buffer(&tensor.data, dtype, &tensor.shape, &self.device)?;
        Ok(stored.to_dtype(DType::F32)?)
    }
}

impl BackendTypes for CandleBackend {
    type Tensor = Tensor;
    type Linear = CandleLinear;
    type KvCache = CandleKvCache;
    type Step = CandleStep;
    type SampledTokens = Vec<Sampled>;

    fn read(&self, x: &Tensor) -> Result<(Vec<usize>, Vec<f32>)> {
        Ok((x.dims().to_vec(), x.flatten_all()?.to_vec1()?))
    }
}

impl Loading for CandleBackend {
    fn parameter(&self, tensor: HostTensor<'_>) -> Result<Tensor> {
        self.upload(&tensor)
    }

    fn norm_weight(&self, tensor: HostTensor<'_>) -> Result<Tensor> {
        Ok((self.upload(&tensor)? + 1.0)?)
    }

    fn load_linear(&self, weight: HostLinear<'_>) -> Result<CandleLinear> {
        let spec = LinearSpec {
            format: HostDtype::F32,
            ..weight.spec()?
        };
        let weight = match &weight.stored {
            StoredLinear::Stacked(parts) => {
                let parts: Vec<Tensor> = parts
                    .iter()
                    .map(|part| self.upload(part))
                    .collect::<Result<_>>()?;
                Tensor::cat(&parts, 0)?
            }
            StoredLinear::Transposed(tensor) => self.upload(tensor)?.t()?.contiguous()?,
        };
        Ok(CandleLinear { weight, spec })
    }

    fn kv_cache(&self, layout: &KvLayout) -> Result<CandleKvCache> {
        let pools = layout.sized_pools()?.into_iter();
        let pools = pools
            .map(|(pool, num_blocks)| operations::KvPool::new(pool, num_blocks, &self.device))
            .collect::<candle_core::Result<_>>()?;
        Ok(CandleKvCache { pools })
    }
}

impl TextOps for CandleBackend {
    fn begin_step(
        &self,
        input: &StepInput,
        previous: Option<&Vec<Sampled>>,
        ropes: &[Rope],
    ) -> Result<CandleStep> {
        let mut input = input.clone();
        input.token_ids = input.resolved_token_ids(previous);
        let step = operations::Step::new(&input, ropes, &self.device)?;
        Ok(CandleStep(step))
    }

    fn embed(&self, step: &CandleStep, table: &CandleLinear, scale: f32) -> Result<Tensor> {
        Ok(operations::embed(&step.0, &table.weight, scale)?)
    }

    fn put_image_features(
        &self,
        _step: &CandleStep,
        hidden: Tensor,
        features: &Tensor,
        row: usize,
    ) -> Result<Tensor> {
        Ok(operations::put_rows(&hidden, features, row)?)
    }

    fn rms_norm(
        &self,
        _step: &CandleStep,
        x: &Tensor,
        weight: &Tensor,
        eps: f64,
    ) -> Result<Tensor> {
        Ok(operations::rms_norm(x, weight, eps)?)
    }

    fn add_norm_norm(
        &self,
        _step: &CandleStep,
        residual: &Tensor,
        branch: &Tensor,
        norms: &NormPair<'_, Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let sum = (residual + operations::rms_norm(branch, norms.post, norms.eps)?)?;
        let normed = operations::rms_norm(&sum, norms.next, norms.eps)?;
        Ok((sum, normed))
    }

    fn linear(&self, _step: &CandleStep, x: &Tensor, weight: &CandleLinear) -> Result<Tensor> {
        Ok(operations::linear(x, &weight.weight)?)
    }

    fn rope_and_cache(
        &self,
        step: &CandleStep,
        qkv: &Tensor,
        norm: &QkNorm<Tensor>,
        layer: &LayerSpec,
        cache: &mut CandleKvCache,
    ) -> Result<Tensor> {
        let pool = &cache.pools[layer.pool];
        Ok(operations::rope_and_cache(&step.0, qkv, norm, layer, pool)?)
    }

    fn paged_attention(
        &self,
        step: &CandleStep,
        q: &Tensor,
        layer: &LayerSpec,
        cache: &CandleKvCache,
    ) -> Result<Tensor> {
        let pool = &cache.pools[layer.pool];
        Ok(operations::paged_attention(&step.0, q, layer, pool)?)
    }

    fn geglu(&self, _step: &CandleStep, gate_up: &Tensor) -> Result<Tensor> {
        Ok(operations::geglu(gate_up)?)
    }

    fn select_logit_rows(&self, step: &CandleStep, x: &Tensor) -> Result<Tensor> {
        let rows = step.0.input.logit_rows.as_slice();
        Ok(x.index_select(&Tensor::new(rows, &self.device)?, 0)?)
    }

    fn rows(&self, _step: &CandleStep, x: &Tensor, rows: Range<usize>) -> Result<Tensor> {
        Ok(x.narrow(0, rows.start, rows.len())?)
    }
}

impl VisionOps for CandleBackend {
    fn patch_embed(
        &self,
        images: &[PixelValues],
        patch_size: usize,
        weight: &CandleLinear,
        bias: &Tensor,
        positions: &Tensor,
    ) -> Result<Tensor> {
        let width = 3 * patch_size * patch_size;
        let patches = crate::backend::patches::patches(images, patch_size);
        let num_patches = patches.len() / width;
        let patches = Tensor::from_vec(patches, (num_patches, width), &self.device)?;
        let convolved = operations::linear(&patches, &weight.weight)?.broadcast_add(bias)?;
        let (per_image, hidden) = positions.dims2()?;
        Ok(convolved
            .reshape((images.len(), per_image, hidden))?
            .broadcast_add(positions)?
            .reshape((num_patches, hidden))?)
    }

    fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
        Ok(operations::layer_norm(x, weight, bias, eps)?)
    }

    fn linear_bias(&self, x: &Tensor, weight: &CandleLinear, bias: &Tensor) -> Result<Tensor> {
        Ok(operations::linear(x, &weight.weight)?.broadcast_add(bias)?)
    }

    fn full_attention(&self, qkv: &Tensor, num_images: usize, num_heads: usize) -> Result<Tensor> {
        Ok(operations::full_attention(qkv, num_images, num_heads)?)
    }

    fn gelu(&self, x: Tensor) -> Result<Tensor> {
        Ok(x.gelu()?)
    }

    fn add(&self, a: Tensor, b: &Tensor) -> Result<Tensor> {
        Ok((&a + b)?)
    }

    fn average_pool(&self, x: &Tensor, grid: usize, kernel: usize) -> Result<Tensor> {
        Ok(operations::average_pool(x, grid, kernel)?)
    }

    fn norm_linear(
        &self,
        x: &Tensor,
        norm: &Tensor,
        eps: f64,
        weight: &CandleLinear,
    ) -> Result<Tensor> {
        Ok(operations::linear(
            &operations::rms_norm(x, norm, eps)?,
            &weight.weight,
        )?)
    }

    fn keep_rows(&self, x: &Tensor, rows: Range<usize>) -> Result<Tensor> {
        Ok(x.narrow(0, rows.start, rows.len())?.copy()?)
    }
}

impl SamplingOps for CandleBackend {
    fn sample(&self, logits: &Tensor, rows: &[SampleRow<'_>]) -> Result<Vec<Sampled>> {
        let logits = logits.to_vec2::<f32>()?;
        Ok(logits
            .iter()
            .zip(rows)
            .map(|(logits, row)| sample_row(logits, row))
            .collect())
    }

    fn score(&self, logits: &Tensor, rows: &[ScoreRow]) -> Result<Vec<Sampled>> {
        let logits = logits.to_vec2::<f32>()?;
        Ok(logits
            .iter()
            .zip(rows)
            .map(|(logits, row)| score_row(logits, row))
            .collect())
    }

    fn sampled(&self, sampled_tokens: &Vec<Sampled>) -> Result<Vec<Sampled>> {
        Ok(sampled_tokens.clone())
    }
}
