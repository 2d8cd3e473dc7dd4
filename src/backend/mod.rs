//! The operations that the model is written over, and what they exchange.
//!
//! Each operation has the grain that a fused kernel needs. The candle backend is plain and
//! obviously right: it is the specification of every other one. A backend knows nothing of
//! sequences, requests or checkpoints' names: it gets packed rows, block tables and numbers.
//!
//! Dimensions: `tokens` packed rows of a step, `hidden`, `heads`, `kv_heads`, `head_dim`,
//! `patches` of one image, `images`.

pub mod candle;
pub mod cpu;
pub mod cuda;
pub mod sampler;

mod adjust;
mod seen_tokens;

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use crate::core::{BlockId, PixelValues, SamplingParams, TokenId, TokenLogprobs, TokenMask};
use crate::error::Result;

pub use seen_tokens::{SeenToken, SeenTokens};

/// Positions per KV block, in both groups.
pub const BLOCK_SIZE: usize = 32;

/// Types of the numbers in a checkpoint's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostDtype {
    /// 32-bit IEEE, little endian.
    F32,
    /// The upper half of an f32.
    Bf16,
}

impl HostDtype {
    /// Bytes per number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A checkpoint's tensor in host memory, most often a window into the mapped file.
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

    /// Index of the first number that is NaN or infinite, if there is one. Goes through memory as
    /// fast as it can be read.
    pub fn first_not_finite(&self) -> Option<usize> {
        /// Few enough that what is read is in the cache when it is converted next.
        const PART: usize = 1 << 18;
        let (size, is_finite): (usize, fn(&[u8]) -> bool) = match self.dtype {
            HostDtype::F32 => (4, |part| {
                let bits = part.as_chunks::<4>().0.iter();
                let magnitude = bits.map(|bytes| u32::from_le_bytes(*bytes) & 0x7FFF_FFFF);
                // Not `any`: without a way out the loop is vectorised.
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

    /// Vectors one after another, as f32. For small parameters.
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

/// Which keys of the cache a layer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// Every position before the query's.
    Global,
    /// The last `window` positions, the query's own included.
    Sliding,
}

/// Attention's constants within one model; the same in every layer but for the kind.
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
    /// Of the norms over each head of q and k.
    pub eps: f64,
}

/// Rotary frequencies of one kind of layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `(head_dim / 2)`: `theta^(-2i/head_dim) / factor`, in f32 as the reference computes it.
    pub inv_freq: Vec<f32>,
}

/// Those of both kinds of layers.
#[derive(Clone, Copy, Debug)]
pub struct Ropes<'a> {
    /// Of the global layers.
    pub global: &'a Rope,
    /// Of the sliding layers.
    pub sliding: &'a Rope,
}

/// Blocks of one sequence in one group of the cache.
///
/// ```text
/// position  0 ........ 32·num_released ....................
/// blocks    (given back) [ blocks[0] ][ blocks[1] ] …
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockTable {
    /// Leading blocks that were given back behind the window.
    pub num_released: usize,
    /// The rest, in order of position.
    pub blocks: Vec<BlockId>,
}

/// One sequence's share of a step: `len` tokens from position `start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSequence {
    /// First packed row.
    pub row: usize,
    /// Position of that row's token in the sequence.
    pub start: usize,
    /// Rows.
    pub len: usize,
    /// Blocks of the global group, up to position `start + len`.
    pub global: BlockTable,
    /// Blocks of the sliding group, up to position `start + len`.
    pub sliding: BlockTable,
    /// Positions of images within `start..start + len`; tokens of one see each other.
    pub image_spans: Vec<Range<usize>>,
}

impl StepSequence {
    /// The keys that the query at `position` sees: contiguous whatever the mask.
    ///
    /// Follows `create_causal_mask` / `create_sliding_window_causal_mask` with the
    /// `token_type_ids` overlay of transformers' `modeling_gemma3.py`: behind, the window also
    /// cuts an image's own tokens; ahead, an image reaches to its own end.
    pub fn key_range(&self, position: usize, window: Option<usize>) -> Range<usize> {
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let end = self
            .image_spans
            .iter()
            .find(|span| span.contains(&position))
            .map_or(position + 1, |span| span.end);
        first..end
    }

    /// The table of the group that `kind` reads.
    pub fn table(&self, kind: LayerKind) -> &BlockTable {
        match kind {
            LayerKind::Global => &self.global,
            LayerKind::Sliding => &self.sliding,
        }
    }
}

/// One step's packed tokens and where they belong. No padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepInput {
    /// `(tokens)`
    pub token_ids: Vec<TokenId>,
    /// `(tokens)`: each token's position in its sequence.
    pub positions: Vec<u32>,
    /// In order of `row`; together they cover every row once.
    pub sequences: Vec<StepSequence>,
    /// Rows whose token is not known yet: the device takes it from the samples of the step before.
    /// What `token_ids` has there means nothing.
    pub fed: Vec<FedRow>,
    /// Rows whose next token is wanted, ascending.
    pub logit_rows: Vec<u32>,
}

/// A row that continues where the step before left off, before the host has seen its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FedRow {
    /// Packed row of this step.
    pub row: u32,
    /// Index into the samples of the step before.
    pub sample: u32,
}

impl StepInput {
    /// Every row's token, those of the step before included, for a backend that has them at hand.
    fn resolved_token_ids(&self, previous: Option<&Vec<Sampled>>) -> Vec<TokenId> {
        let mut ids = self.token_ids.clone();
        for fed in &self.fed {
            let sampled_tokens = previous.expect("only a step that follows another is fed by it");
            ids[fed.row as usize] = sampled_tokens[fed.sample as usize].token;
        }
        ids
    }
}

/// What the sampler needs to know of one row.
#[derive(Clone, Copy, Debug)]
pub struct SampleRow<'a> {
    /// The request's wishes.
    pub params: &'a SamplingParams,
    /// Position in the sequence of the token to be sampled; samples depend on it and the seed only.
    pub position: usize,
    /// New tokens so far; below `min_tokens` no stop token is sampled.
    pub num_generated: usize,
    /// What may be sampled; `None` where everything may.
    pub mask: Option<&'a TokenMask>,
    /// The tokens before, where `params` has penalties for them.
    pub seen: Option<&'a SeenTokens>,
}

impl<'a> SampleRow<'a> {
    /// A row that depends on nothing but its logits and these.
    pub fn new(params: &'a SamplingParams, position: usize, num_generated: usize) -> Self {
        Self {
            params,
            position,
            num_generated,
            mask: None,
            seen: None,
        }
    }

    /// Stop tokens that come too early.
    fn banned(&self) -> &'a [TokenId] {
        if self.num_generated < self.params.min_tokens {
            &self.params.stop_token_ids
        } else {
            &[]
        }
    }
}

/// A row whose next token is known, and what is to be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreRow {
    /// What follows.
    pub token: TokenId,
    /// How many of the most probable tokens to report.
    pub num_top: usize,
}

/// A token that was sampled, or scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// When the row asked for them, and always of one that was scored.
    pub logprobs: Option<TokenLogprobs>,
    /// Whether the logits were numbers. If not, `token` is 0 and means nothing.
    pub is_finite: bool,
}

/// What a KV cache must hold.
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

/// Parameters of one decoder layer's attention, beyond its matmuls.
#[derive(Debug)]
pub struct QkNorm<T> {
    /// `(head_dim)`, 1 + weight.
    pub query: T,
    /// `(head_dim)`, 1 + weight.
    pub key: T,
}

/// A branch's own norm and the one that follows the sum.
#[derive(Debug)]
pub struct NormPair<'a, T> {
    /// `(hidden)`, 1 + weight: over the branch, before it is added.
    pub post: &'a T,
    /// `(hidden)`, 1 + weight: over the sum.
    pub next: &'a T,
    /// Of both.
    pub eps: f64,
}

/// Which cache and which frequencies an attention layer works on.
#[derive(Clone, Copy, Debug)]
pub struct LayerRef {
    /// Index in `KvLayout::layers`.
    pub index: usize,
    /// Its kind.
    pub kind: LayerKind,
}

/// What a step computes between its metadata and its logits.
pub type StepWork<'a, B> = dyn FnMut(
        &<B as Backend>::Step,
        &mut <B as Backend>::KvCache,
    ) -> Result<Option<<B as Backend>::Tensor>>
    + 'a;

/// The operations. Activations are f32 or whatever the backend computes in; matmuls accumulate
/// in f32, and norms, softmax and rotary angles are f32 in every backend.
pub trait Backend: Sized + Send + Sync {
    /// An activation or a small parameter; cheap to clone.
    type Tensor: Clone + Send + Sync;
    /// A weight of a matmul, `(out, in)`, laid out as the backend likes it.
    type Matrix: Send + Sync;
    /// Every layer's key and value pools.
    type KvCache: Send;
    /// A step's metadata where the kernels want it.
    type Step;
    /// Tokens that were sampled, or that the device will have sampled once it gets there.
    type SampledTokens: Send;

    /// Runs a step's work on the thread from which this backend's operations are cheapest to call.
    fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    // ---- loading -------------------------------------------------------------------------

    /// A small parameter, in its own shape.
    fn parameter(&self, tensor: HostTensor<'_>) -> Result<Self::Tensor>;
    /// A norm's weight as the kernels want it: `1 + weight`, summed in f32.
    fn norm_weight(&self, tensor: HostTensor<'_>) -> Result<Self::Tensor>;
    /// Several `(out_i, in)` weights stacked to one `(Σ out_i, in)`.
    fn matrix(&self, parts: Vec<HostTensor<'_>>) -> Result<Self::Matrix>;
    /// A weight stored `(in, out)`.
    fn matrix_transposed(&self, tensor: HostTensor<'_>) -> Result<Self::Matrix>;
    /// Gate and up, `(width, in)` each, to what [`Backend::add_norm_geglu`] and
    /// [`Backend::geglu`] after a matmul take.
    fn gate_up(&self, gate: HostTensor<'_>, up: HostTensor<'_>) -> Result<Self::Matrix> {
        self.matrix(vec![gate, up])
    }
    /// Pools for both groups, all layers.
    fn kv_cache(&self, layout: &KvLayout) -> Result<Self::KvCache>;

    /// Steps to run before any that counts, so that nothing has to be prepared while requests
    /// wait. They use blocks that no sequence ever has.
    fn warm_up_steps(&self) -> Vec<StepInput> {
        Vec::new()
    }
    /// Bytes of the device that were taken, by purpose, where that is known.
    fn memory(&self) -> Option<String> {
        None
    }

    // ---- text ----------------------------------------------------------------------------

    /// Moves a step's metadata to the device. `ropes` are those of global and sliding layers;
    /// `previous` has what `input.fed` asks for.
    fn begin_step(
        &self,
        input: &StepInput,
        previous: Option<&Self::SampledTokens>,
        ropes: Ropes<'_>,
    ) -> Result<Self::Step>;
    /// Runs a step's work. A backend that pays for every operation it queues may keep what `work`
    /// queued and queue it again, whole, for a later step of the same kind: then `work` is not
    /// called at all.
    fn run_step(
        &self,
        step: Self::Step,
        cache: &mut Self::KvCache,
        work: &mut StepWork<'_, Self>,
    ) -> Result<Option<Self::Tensor>> {
        work(&step, cache)
    }
    /// Rows of `table` times `scale`: `(tokens, hidden)`.
    fn embed(&self, step: &Self::Step, table: &Self::Matrix, scale: f32) -> Result<Self::Tensor>;
    /// Replaces the rows from `row` on by an image's features `(image_tokens, hidden)`, unscaled.
    fn put_image_features(
        &self,
        hidden: Self::Tensor,
        features: &Self::Tensor,
        row: usize,
    ) -> Result<Self::Tensor>;
    /// `x / rms(x) · weight`, per row.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Tensor, eps: f64) -> Result<Self::Tensor>;
    /// `sum = residual + norm(branch, post)` and `norm(sum, next)`, in this order.
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
    /// Norms and rotates q and k of `qkv (tokens, (heads + 2·kv_heads)·head_dim)`, writes k and v
    /// into the layer's cache and returns q `(tokens, heads·head_dim)`.
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
    /// `add_norm_norm` with the matmul of the second norm: `(sum, norm(sum, next)·weightᵀ)`.
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
    /// `add_norm_norm` with the inner half of the MLP: `(sum, geglu(norm(sum, next)·gate_upᵀ))`.
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
    /// The step's `logit_rows` of x, in order.
    fn select_logit_rows(&self, step: &Self::Step, x: &Self::Tensor) -> Result<Self::Tensor>;
    /// Samples one token per row of `logits (rows, vocab)`. Need not wait for the device.
    fn sample(&self, logits: &Self::Tensor, rows: &[SampleRow<'_>]) -> Result<Self::SampledTokens>;
    /// Log-probabilities of one known token per row of `logits (rows, vocab)`, at most
    /// [`Self::max_score_rows`]. Need not wait for the device.
    fn score(&self, logits: &Self::Tensor, rows: &[ScoreRow]) -> Result<Self::SampledTokens>;
    /// Rows that are scored together. Their logits are a megabyte each, and every position of a
    /// prompt may want them: so they are made and used a few rows at a time.
    fn max_score_rows(&self) -> usize {
        32
    }
    /// These rows of x, for as long as the step.
    fn rows(&self, x: &Self::Tensor, rows: Range<usize>) -> Result<Self::Tensor>;
    /// The tokens, in the order of their rows. Waits for the device.
    fn sampled(&self, sampled_tokens: &Self::SampledTokens) -> Result<Vec<Sampled>>;

    // ---- vision --------------------------------------------------------------------------

    /// Normalised patches, their convolution, bias and learned positions:
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

    /// These rows of x, where they last: steps do not compute there. What images became is kept
    /// from step to step.
    fn keep_rows(&self, x: &Self::Tensor, rows: Range<usize>) -> Result<Self::Tensor>;

    // ---- reading back --------------------------------------------------------------------

    /// Shape and values in f32: for comparisons, not for the serving path.
    fn read(&self, x: &Self::Tensor) -> Result<(Vec<usize>, Vec<f32>)>;
}

/// Every patch as a row of `(images · patches, 3 · patch²)`, channel first, normalised.
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
                            // The reference folds rescaling and normalising into this one step.
                            .map(|x| (f32::from(row[x * 3 + channel]) - 127.5) / 127.5),
                    );
                }
            }
        }
    }
    rows
}
