//! The operations of a backend, as a sum of small traits.
//!
//! ```text
//!  BackendTypes ──┬── Loading      weights and cache, at startup
//!                 ├── TextOps      a step of the decoder
//!                 ├── VisionOps    the vision encoder, before a step
//!                 └── SamplingOps  tokens from logits, after a step
//! ```
//!
//! Dimensions: `tokens` packed rows of a step, `rows` of any tensor, `hidden`, `heads`, `kv_heads`,
//! `head_dim`, `patches` of one image, `images`. Activations are f32 or the backend's own type;
//! matmuls accumulate in f32, and norms, softmax and rotary angles are f32 in every backend.
//!
//! Errors: every operation returns `Backend` for tensors whose shapes do not fit each other, and for
//! a failure of the device; one that allocates returns `OutOfMemory` if the device's memory is used
//! up. None of them is expected while a model runs within the limits that it was loaded with.

use std::ops::Range;

use super::attention::{KvLayout, LayerSpec, QkNorm, Rope};
use super::host_tensor::HostTensor;
use super::linear::{HostLinear, Linear};
use super::sampling::{SampleRow, Sampled, ScoreRow};
use super::step_input::StepInput;
use crate::core::PixelValues;
use crate::error::Result;

/// The types that a backend's operations exchange, and what it says of itself.
pub trait BackendTypes: Sized + Send + Sync {
    /// An activation or a small parameter, `(rows, width)`; cheap to clone.
    type Tensor: Clone + Send + Sync;
    /// A weight of a matmul, `(out, in)`.
    type Linear: Linear;
    /// Key and value pools of all layers.
    type KvCache: Send;
    /// A step's metadata in the form that the kernels need: which row belongs to which sequence, and
    /// where its keys are.
    type Step;
    /// Sampled tokens, which the device may still be computing.
    type SampledTokens: Send;

    /// Runs a step's work on the thread on which this backend's operations are cheapest to call.
    fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    /// Describes the used device memory by purpose, if known.
    fn memory(&self) -> Option<String> {
        None
    }

    /// Returns a tensor's shape and its values in f32, after waiting for the device. This is for
    /// comparisons, not for the serving path.
    fn read(&self, x: &Self::Tensor) -> Result<(Vec<usize>, Vec<f32>)>;
}

/// Operations at startup: they copy weights to the device and allocate the cache.
pub trait Loading: BackendTypes {
    /// Loads a small parameter, as f32 in its own shape.
    fn parameter(&self, tensor: HostTensor<'_>) -> Result<Self::Tensor>;

    /// Loads a norm's weight `(width)` as the kernels need it: `1 + weight`, summed in f32.
    fn norm_weight(&self, tensor: HostTensor<'_>) -> Result<Self::Tensor>;

    /// Loads a weight of a matmul. Its [`Linear::spec`] has the size and the role of the given
    /// weight, and the format in which this backend holds it.
    ///
    /// # Errors
    /// Returns the errors of [`HostLinear::spec`], and `OutOfMemory`.
    fn load_linear(&self, weight: HostLinear<'_>) -> Result<Self::Linear>;

    /// Allocates the pools of all layers; no block of them is in use.
    ///
    /// # Errors
    /// Returns `OutOfMemory` if the device has less memory, and `Config` for a head size that its
    /// kernels do not support.
    fn kv_cache(&self, layout: &KvLayout) -> Result<Self::KvCache>;

    /// Returns the steps to run at startup, so that nothing has to be prepared while requests wait.
    /// They use blocks that belong to no sequence.
    fn warm_up_steps(&self) -> Vec<StepInput> {
        Vec::new()
    }
}

/// The norm after a branch and the norm after the residual sum.
#[derive(Debug)]
pub struct NormPair<'a, T> {
    /// `(hidden)`, 1 + weight: norm of the branch, before it is added.
    pub post: &'a T,
    /// `(hidden)`, 1 + weight: norm of the sum.
    pub next: &'a T,
    /// Epsilon of both norms.
    pub eps: f64,
}

/// The work of a step between its metadata and its logits.
pub type StepWork<'a, B> = dyn FnMut(
        &<B as BackendTypes>::Step,
        &mut <B as BackendTypes>::KvCache,
    ) -> Result<Option<<B as BackendTypes>::Tensor>>
    + 'a;

/// Operations of a step of the decoder. Each takes the step, so that a backend can tell which
/// sequence a row belongs to, and refuse a tensor that has more rows than the step.
pub trait TextOps: BackendTypes {
    /// Moves a step's metadata to the device. `ropes` has the frequencies that [`LayerSpec::rope`]
    /// refers to; `previous` has the samples that `input.sampled_inputs` refers to.
    ///
    /// # Errors
    /// Returns `Backend` for more rows or sequences than the backend was opened for.
    ///
    /// # Panics
    /// Panics if `input.sampled_inputs` refers to samples and `previous` is `None`.
    fn begin_step(
        &self,
        input: &StepInput,
        previous: Option<&Self::SampledTokens>,
        ropes: &[Rope],
    ) -> Result<Self::Step>;

    /// Runs a step's work. A backend with a high cost per queued operation may capture what `work`
    /// queued and replay it for a later step of the same kind; then `work` is not called at all.
    fn run_step(
        &self,
        step: Self::Step,
        cache: &mut Self::KvCache,
        work: &mut StepWork<'_, Self>,
    ) -> Result<Option<Self::Tensor>> {
        work(&step, cache)
    }

    /// Looks up the rows of `table (vocab, hidden)` that the step's token ids name, multiplied by
    /// `scale`: `(tokens, hidden)`.
    ///
    /// # Errors
    /// Returns `Backend` for an id that has no row, if the ids are on the host.
    fn embed(&self, step: &Self::Step, table: &Self::Linear, scale: f32) -> Result<Self::Tensor>;

    /// Replaces the rows of `hidden (tokens, hidden)` from `row` on by an image's embeddings
    /// `(image_tokens, hidden)`, unscaled.
    fn put_image_features(
        &self,
        step: &Self::Step,
        hidden: Self::Tensor,
        features: &Self::Tensor,
        row: usize,
    ) -> Result<Self::Tensor>;

    /// Computes `x / rms(x) · weight` per row, where `rms(x) = √(mean(x²) + eps)`: `(rows, width)`.
    fn rms_norm(
        &self,
        step: &Self::Step,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        eps: f64,
    ) -> Result<Self::Tensor>;

    /// Computes `sum = residual + norm(branch, post)` and `norm(sum, next)`, and returns them in this
    /// order, `(rows, hidden)` each.
    fn add_norm_norm(
        &self,
        step: &Self::Step,
        residual: &Self::Tensor,
        branch: &Self::Tensor,
        norms: &NormPair<'_, Self::Tensor>,
    ) -> Result<(Self::Tensor, Self::Tensor)>;

    /// Computes `x · weightᵀ` of `x (rows, in)`: `(rows, out)`.
    fn linear(
        &self,
        step: &Self::Step,
        x: &Self::Tensor,
        weight: &Self::Linear,
    ) -> Result<Self::Tensor>;

    /// Applies norm and RoPE to q and k of `qkv (tokens, (heads + 2·kv_heads)·head_dim)`, writes k
    /// and v into the layer's cache and returns q `(tokens, heads·head_dim)`.
    fn rope_and_cache(
        &self,
        step: &Self::Step,
        qkv: &Self::Tensor,
        norm: &QkNorm<Self::Tensor>,
        layer: &LayerSpec,
        cache: &mut Self::KvCache,
    ) -> Result<Self::Tensor>;

    /// Computes softmax attention of `q (tokens, heads·head_dim)` over the layer's cache:
    /// `(tokens, heads·head_dim)`. Which keys a row sees is what
    /// [`StepSequence::key_range`](super::StepSequence::key_range) returns.
    fn paged_attention(
        &self,
        step: &Self::Step,
        q: &Self::Tensor,
        layer: &LayerSpec,
        cache: &Self::KvCache,
    ) -> Result<Self::Tensor>;

    /// Computes [`Self::rope_and_cache`], then [`Self::paged_attention`].
    fn attend(
        &self,
        step: &Self::Step,
        qkv: &Self::Tensor,
        norm: &QkNorm<Self::Tensor>,
        layer: &LayerSpec,
        cache: &mut Self::KvCache,
    ) -> Result<Self::Tensor> {
        let q = self.rope_and_cache(step, qkv, norm, layer, cache)?;
        self.paged_attention(step, &q, layer, cache)
    }

    /// Computes `gelu_tanh(gate) · up` of `(rows, 2·width)`, gate first: `(rows, width)`.
    fn geglu(&self, step: &Self::Step, gate_up: &Self::Tensor) -> Result<Self::Tensor>;

    /// Computes [`Self::add_norm_norm`], then a matmul: `(sum, norm(sum, next)·weightᵀ)`.
    fn add_norm_linear(
        &self,
        step: &Self::Step,
        residual: &Self::Tensor,
        branch: &Self::Tensor,
        norms: &NormPair<'_, Self::Tensor>,
        weight: &Self::Linear,
    ) -> Result<(Self::Tensor, Self::Tensor)> {
        let (sum, normed) = self.add_norm_norm(step, residual, branch, norms)?;
        Ok((sum, self.linear(step, &normed, weight)?))
    }

    /// Computes [`Self::add_norm_norm`], then the first half of the MLP with a weight of gate and
    /// up, stacked in this order: `(sum, geglu(norm(sum, next)·gate_upᵀ))`.
    fn add_norm_geglu(
        &self,
        step: &Self::Step,
        residual: &Self::Tensor,
        branch: &Self::Tensor,
        norms: &NormPair<'_, Self::Tensor>,
        gate_up: &Self::Linear,
    ) -> Result<(Self::Tensor, Self::Tensor)> {
        let (sum, inner) = self.add_norm_linear(step, residual, branch, norms, gate_up)?;
        Ok((sum, self.geglu(step, &inner)?))
    }

    /// Returns the step's `logit_rows` of `x (tokens, hidden)`, in order: `(logit_rows, hidden)`.
    fn select_logit_rows(&self, step: &Self::Step, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Returns these rows of x, `(rows.len(), width)`; valid until the end of the step.
    fn rows(&self, step: &Self::Step, x: &Self::Tensor, rows: Range<usize>)
    -> Result<Self::Tensor>;
}

/// Operations of the vision encoder, which runs before the step that needs its images.
pub trait VisionOps: BackendTypes {
    /// Normalises the patches of square images, `patch_size` pixels each way, and applies
    /// convolution, bias `(hidden)` and learned positions `(patches, hidden)`:
    /// `(images·patches, hidden)`. `weight` is `(hidden, 3·patch_size²)`, channel first.
    fn patch_embed(
        &self,
        images: &[PixelValues],
        patch_size: usize,
        weight: &Self::Linear,
        bias: &Self::Tensor,
        positions: &Self::Tensor,
    ) -> Result<Self::Tensor>;

    /// Computes a layer norm with `weight` and `bias`, `(width)` each, per row: `(rows, width)`.
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: &Self::Tensor,
        eps: f64,
    ) -> Result<Self::Tensor>;

    /// Computes `x · weightᵀ + bias` of `x (rows, in)`, with `bias (out)`: `(rows, out)`.
    fn linear_bias(
        &self,
        x: &Self::Tensor,
        weight: &Self::Linear,
        bias: &Self::Tensor,
    ) -> Result<Self::Tensor>;

    /// Computes attention without mask within each image, of `qkv (images·patches, 3·hidden)`:
    /// `(images·patches, hidden)`. `num_heads` divides `hidden`.
    fn full_attention(
        &self,
        qkv: &Self::Tensor,
        num_images: usize,
        num_heads: usize,
    ) -> Result<Self::Tensor>;

    /// Computes `gelu_tanh(x)`, in x's shape.
    fn gelu(&self, x: Self::Tensor) -> Result<Self::Tensor>;

    /// Computes `a + b`, both of the same shape.
    fn add(&self, a: Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// Computes the mean over squares of `kernel × kernel` patches of each image's `grid × grid`:
    /// `(images·(grid/kernel)², hidden)`. `kernel` divides `grid`.
    fn average_pool(&self, x: &Self::Tensor, grid: usize, kernel: usize) -> Result<Self::Tensor>;

    /// Computes `(x / rms(x) · norm) · weightᵀ` of `x (rows, in)`, with `norm (in)`, 1 + weight:
    /// `(rows, out)`. It maps pooled patches to the decoder's width.
    fn norm_linear(
        &self,
        x: &Self::Tensor,
        norm: &Self::Tensor,
        eps: f64,
        weight: &Self::Linear,
    ) -> Result<Self::Tensor>;

    /// Copies these rows of x, `(rows.len(), width)`, to memory that later steps do not overwrite:
    /// image embeddings are kept across steps.
    fn keep_rows(&self, x: &Self::Tensor, rows: Range<usize>) -> Result<Self::Tensor>;
}

/// Operations on logits. They may run long after the step that computed the logits, but before the
/// next step begins.
pub trait SamplingOps: BackendTypes {
    /// Samples one token per row of `logits (rows, vocab)`. It need not wait for the device.
    fn sample(&self, logits: &Self::Tensor, rows: &[SampleRow<'_>]) -> Result<Self::SampledTokens>;

    /// Computes log-probabilities, in nats, of one known token per row of `logits (rows, vocab)`,
    /// at most [`Self::max_score_rows`] rows. It need not wait for the device.
    fn score(&self, logits: &Self::Tensor, rows: &[ScoreRow]) -> Result<Self::SampledTokens>;

    /// Maximum number of rows that are scored together. The logits of a row take a megabyte, and
    /// every position of a prompt may be scored, so they are computed and used a few rows at a
    /// time.
    fn max_score_rows(&self) -> usize {
        32
    }

    /// Returns the tokens, in the order of their rows. Waits for the device.
    fn sampled(&self, sampled_tokens: &Self::SampledTokens) -> Result<Vec<Sampled>>;
}

/// All operations of a model.
pub trait Backend: Loading + TextOps + VisionOps + SamplingOps {}

impl<B: Loading + TextOps + VisionOps + SamplingOps> Backend for B {}
