//! The operations that the model is built from, and the types they exchange.
//!
//! Each operation has the granularity that a fused kernel needs. The candle backend is simple and
//! obviously correct: it is the specification of all others. A backend knows nothing of sequences,
//! requests or tensor names: it gets packed rows, block tables and numbers.
//!
//! Dimensions: `tokens` packed rows of a step, `hidden`, `heads`, `kv_heads`, `head_dim`,
//! `patches` of one image, `images`.

pub mod candle;
pub mod cpu;
pub mod cuda;
pub mod sampler;

mod adjust;
mod device_memory;
mod open;
mod seen_tokens;
mod shape;

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use crate::core::{BlockTable, PixelValues, SamplingParams, TokenId, TokenLogprobs, TokenMask};
use crate::error::Result;

pub use cuda::precompile::{CompiledKernels, KernelCompiler};
pub use device_memory::{CapturedRows, DeviceMemory, MemorySharing};
pub use open::{BackendUser, Opened, Processor, open};
pub use seen_tokens::{SeenToken, SeenTokens};
pub use shape::{ModelShape, StepLimits};

/// Number of positions per KV block, in both groups.
pub const BLOCK_SIZE: usize = 32;

/// Number types in checkpoint files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostDtype {
    /// 32-bit IEEE, little endian.
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

impl HostDtype {
    /// Number of bytes per number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A checkpoint's tensor in host memory, usually a slice of the mapped file.
#[derive(Clone, Debug)]
pub struct HostTensor<'a> {
    /// Type of the numbers in `data`.
    pub dtype: HostDtype,
    /// Row-major.
    pub shape: Vec<usize>,
    /// `shape.product() · dtype.size()` bytes.
    pub data: Cow<'a, [u8]>,
}

impl HostTensor<'_> {
    /// The numbers widened to f32, which is exact.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            HostDtype::F32 => self
                .data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
            HostDtype::Bf16 => self
                .data
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16))
                .collect(),
        }
    }

    /// Returns the index of the first number that is NaN or infinite, if there is one. Runs at
    /// memory bandwidth.
    pub fn first_not_finite(&self) -> Option<usize> {
        /// Numbers per part: few enough that the data is still in the cache when it is converted
        /// next.
        const PART: usize = 1 << 18;
        let (size, is_finite): (usize, fn(&[u8]) -> bool) = match self.dtype {
            HostDtype::F32 => (4, |part| {
                let bits = part.as_chunks::<4>().0.iter();
                let magnitude = bits.map(|bytes| u32::from_le_bytes(*bytes) & 0x7FFF_FFFF);
                // Not `any`: without an early exit the loop is vectorised.
                magnitude.fold(0, u32::max) < 0x7F80_0000
            }),
            HostDtype::Bf16 => (2, |part| {
                let bits = part.as_chunks::<2>().0.iter();
                let magnitude = bits.map(|bytes| u16::from_le_bytes(*bytes) & 0x7FFF);
                magnitude.fold(0, u16::max) < 0x7F80
            }),
        };
        let bad = self
            .data
            .par_chunks(PART)
            .enumerate()
            .find_first(|(_, part)| !is_finite(part));
        let (idx, part) = bad?;
        let within = part
            .chunks_exact(size)
            .position(|number| !is_finite(number));
        Some(idx * PART / size + within.expect("one of the part's numbers is not finite"))
    }

    /// Concatenates vectors, as f32. For small parameters.
    pub fn concat(parts: &[HostTensor<'_>]) -> HostTensor<'static> {
        let numbers: Vec<f32> = parts.iter().flat_map(HostTensor::to_f32).collect();
        HostTensor {
            dtype: HostDtype::F32,
            shape: vec![numbers.len()],
            data: numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
        }
    }
}

/// Kinds of attention layers, by the keys that a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// All positions up to the query's.
    Global,
    /// The last `window` positions, the query's own included.
    Sliding,
}

/// The constants of attention in one model; the layers differ only in their kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// `query_pre_attn_scalar^-0.5`, which need not be `head_dim^-0.5`.
    pub scale: f32,
    /// Keys that a sliding layer sees, the query's own included.
    pub window: Option<usize>,
    /// Epsilon of the norms over each head of q and k.
    pub eps: f64,
}

/// Rotary frequencies of one kind of layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `(head_dim / 2)`: `theta^(-2i/head_dim) / factor`, in f32 as the reference computes it.
    pub inv_freq: Vec<f32>,
}

/// Rotary frequencies of both kinds of layers.
#[derive(Clone, Copy, Debug)]
pub struct Ropes<'a> {
    /// Rotary frequencies of the global layers.
    pub global: &'a Rope,
    /// Rotary frequencies of the sliding layers.
    pub sliding: &'a Rope,
}

/// One sequence's part of a step: `len` tokens from position `start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSequence {
    /// First packed row.
    pub row: usize,
    /// Position of that row's token in the sequence.
    pub start: usize,
    /// Number of rows.
    pub len: usize,
    /// Blocks of the global group, up to position `start + len`.
    pub global: BlockTable,
    /// Blocks of the sliding group, up to position `start + len`.
    pub sliding: BlockTable,
    /// Positions of images within `start..start + len`; tokens of one image see each other.
    pub image_spans: Vec<Range<usize>>,
}

impl StepSequence {
    /// Returns the keys that the query at `position` sees; always a contiguous range.
    ///
    /// Follows `create_causal_mask` / `create_sliding_window_causal_mask` with the `token_type_ids`
    /// overlay of transformers' `modeling_gemma3.py`: backwards, the window limits also what an
    /// image's own tokens see; forwards, a token of an image sees up to the image's end.
    pub fn key_range(&self, position: usize, window: Option<usize>) -> Range<usize> {
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let end = self
            .image_spans
            .iter()
            .find(|span| span.contains(&position))
            .map_or(position + 1, |span| span.end);
        first..end
    }

    /// Returns the table of the group that `kind` reads.
    pub fn table(&self, kind: LayerKind) -> &BlockTable {
        match kind {
            LayerKind::Global => &self.global,
            LayerKind::Sliding => &self.sliding,
        }
    }
}

/// The packed tokens of one step and their places. No padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepInput {
    /// `(tokens)`
    pub token_ids: Vec<TokenId>,
    /// `(tokens)`: each token's position in its sequence.
    pub positions: Vec<u32>,
    /// In order of `row`; together they cover every row once.
    pub sequences: Vec<StepSequence>,
    /// Rows whose token is not known yet: the device takes it from the samples of the previous
    /// step. Their values in `token_ids` are placeholders.
    pub fed: Vec<FedRow>,
    /// Rows whose logits are needed, ascending.
    pub logit_rows: Vec<u32>,
}

/// A row whose token is the sample of the previous step that is still on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FedRow {
    /// Packed row of this step.
    pub row: u32,
    /// Index into the samples of the previous step.
    pub sample: u32,
}

impl StepInput {
    /// Returns every row's token, including samples of the previous step, for a backend that has
    /// them on the host.
    fn resolved_token_ids(&self, previous: Option<&Vec<Sampled>>) -> Vec<TokenId> {
        let mut ids = self.token_ids.clone();
        for fed in &self.fed {
            let sampled_tokens = previous.expect("only a step that follows another is fed by it");
            ids[fed.row as usize] = sampled_tokens[fed.sample as usize].token;
        }
        ids
    }
}

/// Sampling inputs of one row.
#[derive(Clone, Copy, Debug)]
pub struct SampleRow<'a> {
    /// Sampling parameters of the request.
    pub params: &'a SamplingParams,
    /// Position in the sequence of the token to be sampled; the random numbers depend only on it
    /// and the seed.
    pub position: usize,
    /// Number of tokens generated so far; below `min_tokens` no stop token is sampled.
    pub num_generated: usize,
    /// Mask of allowed tokens; `None` if all are allowed.
    pub mask: Option<&'a TokenMask>,
    /// Counts of the earlier tokens, if `params` has penalties.
    pub seen: Option<&'a SeenTokens>,
}

impl<'a> SampleRow<'a> {
    /// Creates a row without mask and token counts.
    pub fn new(params: &'a SamplingParams, position: usize, num_generated: usize) -> Self {
        Self {
            params,
            position,
            num_generated,
            mask: None,
            seen: None,
        }
    }

    /// Stop tokens that are not allowed yet.
    fn banned(&self) -> &'a [TokenId] {
        if self.num_generated < self.params.min_tokens {
            &self.params.stop_token_ids
        } else {
            &[]
        }
    }
}

/// Inputs for scoring a row whose next token is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreRow {
    /// The token that follows the row.
    pub token: TokenId,
    /// Number of most probable tokens to report.
    pub num_top: usize,
}

/// A sampled or scored token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// Log-probabilities: for a sampled row if requested, for a scored row always.
    pub logprobs: Option<TokenLogprobs>,
    /// Whether the logits were finite. If not, `token` is 0 and meaningless.
    pub is_finite: bool,
}

/// Dimensions of a KV cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// One entry per layer.
    pub layers: Vec<LayerKind>,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Blocks in each global layer's pool.
    pub num_global_blocks: usize,
    /// Blocks in each sliding layer's pool.
    pub num_sliding_blocks: usize,
}

/// Weights of the q and k norms of one decoder layer.
#[derive(Debug)]
pub struct QkNorm<T> {
    /// `(head_dim)`, 1 + weight.
    pub query: T,
    /// `(head_dim)`, 1 + weight.
    pub key: T,
}

/// The norm after a branch and the norm after the residual sum.
#[derive(Debug)]
pub struct NormPair<'a, T> {
    /// `(hidden)`, 1 + weight: norm of the branch, before it is added.
    pub post: &'a T,
    /// `(hidden)`, 1 + weight: norm of the sum.
    pub next: &'a T,
    /// Used by both norms.
    pub eps: f64,
}

/// Identifies an attention layer: it selects the cache and the rotary frequencies.
#[derive(Clone, Copy, Debug)]
pub struct LayerRef {
    /// Index in `KvLayout::layers`.
    pub index: usize,
    /// Kind of the layer.
    pub kind: LayerKind,
}

/// The work of a step between its metadata and its logits.
pub type StepWork<'a, B> = dyn FnMut(
        &<B as Backend>::Step,
        &mut <B as Backend>::KvCache,
    ) -> Result<Option<<B as Backend>::Tensor>>
    + 'a;

/// The operations. Activations are f32 or the backend's own type; matmuls accumulate in f32, and
/// norms, softmax and rotary angles are f32 in every backend.
pub trait Backend: Sized + Send + Sync {
    /// An activation or a small parameter; cheap to clone.
    type Tensor: Clone + Send + Sync;
    /// A weight of a matmul, `(out, in)`, in the backend's own layout.
    type Matrix: Send + Sync;
    /// Key and value pools of all layers.
    type KvCache: Send;
    /// A step's metadata in the form that the kernels need.
    type Step;
    /// Sampled tokens, which the device may still be computing.
    type SampledTokens: Send;

    /// Runs a step's work on the thread on which this backend's operations are cheapest to call.
    fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    // ---- loading -------------------------------------------------------------------------

    /// Loads a small parameter in its own shape.
    fn parameter(&self, tensor: HostTensor<'_>) -> Result<Self::Tensor>;
    /// Loads a norm's weight as the kernels need it: `1 + weight`, summed in f32.
    fn norm_weight(&self, tensor: HostTensor<'_>) -> Result<Self::Tensor>;
    /// Loads several `(out_i, in)` weights stacked to one `(Σ out_i, in)`.
    fn matrix(&self, parts: Vec<HostTensor<'_>>) -> Result<Self::Matrix>;
    /// Loads a weight stored as `(in, out)`.
    fn matrix_transposed(&self, tensor: HostTensor<'_>) -> Result<Self::Matrix>;
    /// Loads gate and up, `(width, in)` each, in the form that [`Backend::add_norm_geglu`] and
    /// [`Backend::geglu`] after a matmul expect.
    fn gate_up(&self, gate: HostTensor<'_>, up: HostTensor<'_>) -> Result<Self::Matrix> {
        self.matrix(vec![gate, up])
    }
    /// Allocates the pools of both groups for all layers.
    fn kv_cache(&self, layout: &KvLayout) -> Result<Self::KvCache>;

    /// Steps to run at startup, so that nothing has to be prepared while requests wait. They use
    /// blocks that belong to no sequence.
    fn warm_up_steps(&self) -> Vec<StepInput> {
        Vec::new()
    }
    /// Describes the used device memory by purpose, if known.
    fn memory(&self) -> Option<String> {
        None
    }

    // ---- text ----------------------------------------------------------------------------

    /// Moves a step's metadata to the device. `ropes` has the frequencies of global and sliding
    /// layers; `previous` has the samples that `input.fed` refers to.
    fn begin_step(
        &self,
        input: &StepInput,
        previous: Option<&Self::SampledTokens>,
        ropes: Ropes<'_>,
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
    /// Looks up rows of `table`, multiplied by `scale`: `(tokens, hidden)`.
    fn embed(&self, step: &Self::Step, table: &Self::Matrix, scale: f32) -> Result<Self::Tensor>;
    /// Replaces the rows from `row` on by an image's embeddings `(image_tokens, hidden)`, unscaled.
    fn put_image_features(
        &self,
        hidden: Self::Tensor,
        features: &Self::Tensor,
        row: usize,
    ) -> Result<Self::Tensor>;
    /// `x / rms(x) · weight`, per row.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Tensor, eps: f64) -> Result<Self::Tensor>;
    /// Returns `sum = residual + norm(branch, post)` and `norm(sum, next)`, in this order.
    fn add_norm_norm(
        &self,
        residual: &Self::Tensor,
        branch: &Self::Tensor,
        post: &Self::Tensor,
        next: &Self::Tensor,
        eps: f64,
    ) -> Result<(Self::Tensor, Self::Tensor)>;
    /// `x · weightᵀ`: `(rows, out)`.
    fn linear(&self, x: &Self::Tensor, weight: &Self::Matrix) -> Result<Self::Tensor>;
    /// Applies norm and RoPE to q and k of `qkv (tokens, (heads + 2·kv_heads)·head_dim)`, writes k
    /// and v into the layer's cache and returns q `(tokens, heads·head_dim)`.
    fn rope_and_cache(
        &self,
        step: &Self::Step,
        qkv: &Self::Tensor,
        norm: &QkNorm<Self::Tensor>,
        shape: &AttentionShape,
        layer: LayerRef,
        cache: &mut Self::KvCache,
    ) -> Result<Self::Tensor>;
    /// Softmax attention of q over the layer's cache: `(tokens, heads·head_dim)`.
    fn paged_attention(
        &self,
        step: &Self::Step,
        q: &Self::Tensor,
        shape: &AttentionShape,
        layer: LayerRef,
        cache: &Self::KvCache,
    ) -> Result<Self::Tensor>;
    /// `gelu_tanh(gate) · up` of `(rows, 2·width)`, gate first: `(rows, width)`.
    fn geglu(&self, gate_up: &Self::Tensor) -> Result<Self::Tensor>;
    /// `add_norm_norm` followed by a matmul: `(sum, norm(sum, next)·weightᵀ)`.
    fn add_norm_linear(
        &self,
        residual: &Self::Tensor,
        branch: &Self::Tensor,
        norms: &NormPair<'_, Self::Tensor>,
        weight: &Self::Matrix,
    ) -> Result<(Self::Tensor, Self::Tensor)> {
        let (sum, normed) =
            self.add_norm_norm(residual, branch, norms.post, norms.next, norms.eps)?;
        Ok((sum, self.linear(&normed, weight)?))
    }
    /// `add_norm_norm` followed by the first half of the MLP: `(sum, geglu(norm(sum,
    /// next)·gate_upᵀ))`.
    fn add_norm_geglu(
        &self,
        residual: &Self::Tensor,
        branch: &Self::Tensor,
        norms: &NormPair<'_, Self::Tensor>,
        gate_up: &Self::Matrix,
    ) -> Result<(Self::Tensor, Self::Tensor)> {
        let (sum, inner) = self.add_norm_linear(residual, branch, norms, gate_up)?;
        Ok((sum, self.geglu(&inner)?))
    }
    /// `rope_and_cache`, then `paged_attention`.
    fn attend(
        &self,
        step: &Self::Step,
        qkv: &Self::Tensor,
        norm: &QkNorm<Self::Tensor>,
        shape: &AttentionShape,
        layer: LayerRef,
        cache: &mut Self::KvCache,
    ) -> Result<Self::Tensor> {
        let q = self.rope_and_cache(step, qkv, norm, shape, layer, cache)?;
        self.paged_attention(step, &q, shape, layer, cache)
    }
    /// Returns the step's `logit_rows` of x, in order.
    fn select_logit_rows(&self, step: &Self::Step, x: &Self::Tensor) -> Result<Self::Tensor>;
    /// Samples one token per row of `logits (rows, vocab)`. Need not wait for the device.
    fn sample(&self, logits: &Self::Tensor, rows: &[SampleRow<'_>]) -> Result<Self::SampledTokens>;
    /// Computes log-probabilities of one known token per row of `logits (rows, vocab)`, at most
    /// [`Self::max_score_rows`] rows. Need not wait for the device.
    fn score(&self, logits: &Self::Tensor, rows: &[ScoreRow]) -> Result<Self::SampledTokens>;
    /// Maximum number of rows that are scored together. The logits of a row take a megabyte, and
    /// every position of a prompt may be scored, so they are computed and used a few rows at a
    /// time.
    fn max_score_rows(&self) -> usize {
        32
    }
    /// Returns these rows of x; valid until the end of the step.
    fn rows(&self, x: &Self::Tensor, rows: Range<usize>) -> Result<Self::Tensor>;
    /// Returns the tokens, in the order of their rows. Waits for the device.
    fn sampled(&self, sampled_tokens: &Self::SampledTokens) -> Result<Vec<Sampled>>;

    // ---- vision --------------------------------------------------------------------------

    /// Normalises the patches and applies convolution, bias and learned positions:
    /// `(images·patches, hidden)`. `weight` is `(hidden, 3·patch·patch)`, channel first.
    fn patch_embed(
        &self,
        images: &[PixelValues],
        patch_size: usize,
        weight: &Self::Matrix,
        bias: &Self::Tensor,
        positions: &Self::Tensor,
    ) -> Result<Self::Tensor>;
    /// Layer norm with bias, per row.
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: &Self::Tensor,
        eps: f64,
    ) -> Result<Self::Tensor>;
    /// `x · weightᵀ + bias`.
    fn linear_bias(
        &self,
        x: &Self::Tensor,
        weight: &Self::Matrix,
        bias: &Self::Tensor,
    ) -> Result<Self::Tensor>;
    /// Attention without mask within each image, of `qkv (images·patches, 3·hidden)`:
    /// `(images·patches, hidden)`.
    fn full_attention(
        &self,
        qkv: &Self::Tensor,
        num_images: usize,
        num_heads: usize,
    ) -> Result<Self::Tensor>;
    /// `gelu_tanh(x)`.
    fn gelu(&self, x: Self::Tensor) -> Result<Self::Tensor>;
    /// `a + b`.
    fn add(&self, a: Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;
    /// Mean over squares of `kernel × kernel` patches of each image's `grid × grid`:
    /// `(images·(grid/kernel)², hidden)`.
    fn average_pool(&self, x: &Self::Tensor, grid: usize, kernel: usize) -> Result<Self::Tensor>;

    /// Copies these rows of x to memory that later steps do not overwrite. Image embeddings are
    /// kept across steps.
    fn keep_rows(&self, x: &Self::Tensor, rows: Range<usize>) -> Result<Self::Tensor>;

    // ---- reading back --------------------------------------------------------------------

    /// Returns shape and values in f32: for comparisons, not for the serving path.
    fn read(&self, x: &Self::Tensor) -> Result<(Vec<usize>, Vec<f32>)>;
}

/// Returns every patch as a normalised row of `(images · patches, 3 · patch²)`, channel first.
fn patches(images: &[PixelValues], patch_size: usize) -> Vec<f32> {
    let mut rows = Vec::new();
    for image in images {
        let grid = image.size / patch_size;
        rows.reserve(grid * grid * 3 * patch_size * patch_size);
        for patch in 0..grid * grid {
            let (top, left) = (patch / grid * patch_size, patch % grid * patch_size);
            for channel in 0..3 {
                for y in top..top + patch_size {
                    let row = &image.rgb[y * image.size * 3..(y + 1) * image.size * 3];
                    rows.extend(
                        (left..left + patch_size)
                            // Rescaling and normalising are combined in one step, as in the
                            // reference.
                            .map(|x| (f32::from(row[x * 3 + channel]) - 127.5) / 127.5),
                    );
                }
            }
        }
    }
    rows
}
