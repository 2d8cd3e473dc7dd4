//! Models, written once over [`Backend`]: [`Gemma3`] with its SigLIP vision encoder.
//!
//! Owns the weights and the order of operations. Knows nothing of requests, sampling parameters or
//! the number of sequences: a step is packed rows with block tables.
//!
//! ```text
//!  Model ── what every family does alike: cache, warm-up, scoring, images in small batches
//!    └── Forward ── what a family computes: Gemma3 { Decoder, VisionEncoder, Projector }
//! ```
//!
//! Dimensions: `tokens` packed rows of a step; `hidden`; `heads` and `kv_heads` of `head_dim`;
//! `mlp` the inner width; `vocab`; in the vision encoder `patches` per image, its width `vision`,
//! and `image_tokens` per image after pooling.

pub mod checkpoint;
pub mod config;
pub mod dummy;
pub mod expected_tensors;
pub mod safetensors_header;
pub mod shard_index;
pub mod tensor_names;
pub mod weights;

mod decoder;
mod forward;
mod gemma3;
mod half_precision;
mod mapped_file;
mod projector;
mod quantization;
mod siglip;

use crate::backend::{
    BLOCK_SIZE, Backend, BackendTypes, KvLayout, LayerSpec, SampleRow, ScoreRow, StepInput,
    StepSequence,
};
use crate::core::{
    BlockCount, BlockId, BlockTable, ImageHash, PixelValues, SamplingParams, TokenId,
};
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;

pub use decoder::Decoder;
pub use forward::Forward;
pub use gemma3::Gemma3;
pub use projector::Projector;
pub use siglip::VisionEncoder;

/// A loaded checkpoint on its device.
pub struct Model<B: Backend, F: Forward<B> = Gemma3<B>> {
    backend: B,
    family: F,
}

/// Whether a warm-up encodes an image, which takes a CPU many seconds with a large vision encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUpImages {
    /// Encode one image, if there is a vision encoder.
    One,
    /// Encode no image.
    None,
}

/// Maximum number of images that are encoded together. A few have enough rows to occupy any device,
/// and the encoder's working memory grows with each.
pub const MAX_IMAGES_PER_CALL: usize = 4;

/// Input and output dimensions of the vision encoder for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Side of the square, in pixels.
    pub size: usize,
    /// Number of tokens per image.
    pub num_tokens: usize,
    /// Number of values per token.
    pub hidden: usize,
}

impl ImageShape {
    /// Returns a grey image of this size.
    pub fn blank(&self) -> PixelValues {
        PixelValues {
            size: self.size,
            rgb: vec![127; self.size * self.size * 3].into(),
            hash: ImageHash([0; 32]),
        }
    }

    /// Number of values in one image's embeddings.
    pub fn num_features(&self) -> usize {
        self.num_tokens * self.hidden
    }
}

/// An image's embeddings on the device and the first packed row that they replace.
#[derive(Debug)]
pub struct ImageRows<T> {
    /// First of the step's rows that holds one of the image's tokens.
    pub row: usize,
    /// `(image_tokens, hidden)`
    pub features: T,
}

/// Consecutive packed rows whose next tokens are known and scored.
#[derive(Clone, Copy, Debug)]
pub struct ScoredRun<'a> {
    /// The first of the rows.
    pub row: usize,
    /// One entry per row.
    pub rows: &'a [ScoreRow],
}

/// Results of a step that are still on the device.
pub struct Computed<B: Backend> {
    /// `(logit_rows, vocab)`; `None` if the step has no logit rows.
    pub logits: Option<B::Tensor>,
    /// Scores of the scored rows, in order; each entry covers several rows.
    pub scores: Vec<B::SampledTokens>,
}

/// Inputs of one step.
pub struct StepOf<'a, B: Backend> {
    /// The packed rows.
    pub input: &'a StepInput,
    /// Samples of the previous step, which `input.sampled_inputs` refers to.
    pub previous: Option<&'a B::SampledTokens>,
    /// Images that have tokens among the rows.
    pub images: &'a [ImageRows<B::Tensor>],
}

impl<B: Backend> Model<B, Gemma3<B>> {
    /// Loads every tensor that the architecture needs from `weights`.
    ///
    /// # Errors
    /// Returns an error that names the file and the tensor that is missing or has the wrong shape.
    pub fn load(backend: B, config: &ModelConfig, weights: &Weights) -> Result<Self> {
        let family = Gemma3::load(&backend, config, weights)?;
        Ok(Self::new(backend, family))
    }
}

impl<B: Backend, F: Forward<B>> Model<B, F> {
    /// Creates a model from weights that are on the backend's device.
    pub fn new(backend: B, family: F) -> Self {
        Self { backend, family }
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Number of rows of the embedding; token ids must be smaller.
    pub fn vocab_size(&self) -> usize {
        self.family.vocab_size()
    }

    /// Dimensions of the vision encoder, if there is one.
    pub fn image_shape(&self) -> Option<ImageShape> {
        self.family.image_shape()
    }

    /// Creates a cache with this many blocks in each group's pools.
    pub fn kv_cache(&self, num_blocks: BlockCount) -> Result<B::KvCache> {
        let layers = self.family.attention_layers();
        self.backend.kv_cache(&KvLayout {
            pools: KvLayout::pools_of(&layers)?,
            num_blocks: num_blocks.by_group()[..num_groups(&layers)].to_vec(),
        })
    }

    /// Runs the backend's warm-up steps and encodes an image. No sequence's blocks are touched.
    pub fn warm_up(&self, cache: &mut B::KvCache) -> Result<()> {
        let warm_up_steps = self.backend.warm_up_steps();
        if warm_up_steps.is_empty() {
            return Ok(());
        }
        let params = SamplingParams::greedy(1);
        for input in &warm_up_steps {
            let step = StepOf {
                input,
                previous: None,
                images: &[],
            };
            let Some(logits) = self.forward(step, cache)? else {
                continue;
            };
            let row = SampleRow::new(&params, 1, 0);
            let rows = vec![row; input.logit_rows.len()];
            let sampled_tokens = self.backend.sample(&logits, &rows)?;
            self.backend.sampled(&sampled_tokens)?;
        }
        if let Some(image) = self.image_shape() {
            self.encode_images(&[image.blank()])?;
        }
        Ok(())
    }

    /// Checks that the model's outputs are finite: the logits of a step of `num_tokens` different
    /// tokens, and a blank image's embeddings if requested. The step writes into the first block of
    /// each group, so it must run before any sequence uses it.
    ///
    /// # Errors
    /// Returns the backend's errors.
    pub fn computes_finite_numbers(
        &self,
        num_tokens: usize,
        images: WarmUpImages,
        cache: &mut B::KvCache,
    ) -> Result<bool> {
        let input = self.warm_up_step(num_tokens.clamp(1, BLOCK_SIZE));
        let is_finite = |tensor: &B::Tensor| -> Result<bool> {
            let (_, numbers) = self.backend.read(tensor)?;
            Ok(numbers.iter().all(|number| number.is_finite()))
        };
        self.backend.enter(|| {
            let step = StepOf {
                input: &input,
                previous: None,
                images: &[],
            };
            if let Some(logits) = self.forward(step, cache)?
                && !is_finite(&logits)?
            {
                return Ok(false);
            }
            match (self.image_shape(), images) {
                (Some(image), WarmUpImages::One) => {
                    let features = self.encode_images(&[image.blank()])?;
                    features
                        .iter()
                        .map(is_finite)
                        .try_fold(true, |all, one| Ok(all & one?))
                }
                _ => Ok(true),
            }
        })
    }

    fn warm_up_step(&self, num_tokens: usize) -> StepInput {
        let vocab_size = self.vocab_size();
        let layers = self.family.attention_layers();
        let table = |group| {
            debug_assert!(layers.iter().any(|layer| layer.group == group));
            BlockTable::new(BLOCK_SIZE, 0, vec![BlockId(0)])
        };
        let narrow = |number: usize| u32::try_from(number).expect("far below 4 G tokens");
        StepInput {
            // Ids spread over the whole vocabulary.
            token_ids: (0..num_tokens)
                .map(|idx| TokenId(narrow(idx * vocab_size / num_tokens)))
                .collect(),
            positions: (0..num_tokens).map(narrow).collect(),
            sequences: vec![StepSequence {
                row: 0,
                start: 0,
                len: num_tokens,
                tables: (0..num_groups(&layers)).map(table).collect(),
                image_spans: Vec::new(),
            }],
            sampled_inputs: Vec::new(),
            logit_rows: vec![narrow(num_tokens - 1)],
        }
    }

    /// Returns each image's embeddings, `(image_tokens, hidden)`, in the order of `images`. At most
    /// [`MAX_IMAGES_PER_CALL`] are encoded at a time.
    ///
    /// # Panics
    /// Panics if there are images and no vision encoder; requests with images are refused earlier
    /// in that case.
    pub fn encode_images(&self, images: &[PixelValues]) -> Result<Vec<B::Tensor>> {
        let mut features = Vec::with_capacity(images.len());
        for images in images.chunks(MAX_IMAGES_PER_CALL) {
            let shape = self.image_shape();
            let num_tokens = shape
                .expect("images reach only models with a vision encoder")
                .num_tokens;
            let together = self.family.encode_images(&self.backend, images)?; // (images·image_tokens, hidden)
            for idx in 0..images.len() {
                let rows = idx * num_tokens..(idx + 1) * num_tokens;
                features.push(self.backend.keep_rows(&together, rows)?);
            }
        }
        Ok(features)
    }

    /// Runs one step: writes the new tokens' keys and values into `cache` and returns the logits of
    /// the input's `logit_rows`, `(logit_rows, vocab)`; `None` if there are no such rows.
    pub fn forward(
        &self,
        step: StepOf<'_, B>,
        cache: &mut B::KvCache,
    ) -> Result<Option<B::Tensor>> {
        let metadata = self.begin_step(&step)?;
        let mut work = |metadata: &B::Step, cache: &mut B::KvCache| {
            self.compute(&step, metadata, cache, &mut |_, _| Ok(()))
        };
        if step.images.is_empty() {
            self.backend.run_step(metadata, cache, &mut work)
        } else {
            // Image embeddings belong to this step only, so it must not be captured or replayed.
            work(&metadata, cache)
        }
    }

    /// [`Self::forward`] that also returns log-probabilities of known tokens behind some rows.
    ///
    /// The logits of these rows are computed a few rows at a time, before those of `logit_rows`.
    pub fn forward_scored(
        &self,
        step: StepOf<'_, B>,
        runs: &[ScoredRun<'_>],
        cache: &mut B::KvCache,
    ) -> Result<Computed<B>> {
        let metadata = &self.begin_step(&step)?;
        let mut scores = Vec::new();
        let logits = self.compute(&step, metadata, cache, &mut |stage, hidden| {
            if stage == Stage::Final {
                for run in runs {
                    self.score(metadata, hidden, run, &mut scores)?;
                }
            }
            Ok(())
        })?;
        Ok(Computed { logits, scores })
    }

    /// [`Self::forward`] that passes every stage's hidden state to an observer, for comparisons
    /// with the reference.
    pub fn forward_observed(
        &self,
        step: StepOf<'_, B>,
        cache: &mut B::KvCache,
        observe: &mut Observer<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let metadata = self.begin_step(&step)?;
        self.compute(&step, &metadata, cache, observe)
    }

    fn begin_step(&self, step: &StepOf<'_, B>) -> Result<B::Step> {
        let ropes = self.family.ropes();
        self.backend.begin_step(step.input, step.previous, ropes)
    }

    fn compute(
        &self,
        step_of: &StepOf<'_, B>,
        step: &B::Step,
        cache: &mut B::KvCache,
        observe: &mut Observer<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let (backend, family) = (&self.backend, &self.family);
        let hidden = family.hidden(backend, step_of, step, cache, observe)?;
        let Some(hidden) = hidden else {
            return Ok(None);
        };
        observe(Stage::Final, &hidden)?;
        if step_of.input.logit_rows.is_empty() {
            return Ok(None);
        }
        let selected = backend.select_logit_rows(step, &hidden)?; // (logit_rows, hidden)
        family.logits(backend, step, &selected).map(Some) // (logit_rows, vocab)
    }

    /// Computes the scores of one run, a few rows at a time.
    fn score(
        &self,
        step: &B::Step,
        hidden: &B::Tensor,
        run: &ScoredRun<'_>,
        scores: &mut Vec<B::SampledTokens>,
    ) -> Result<()> {
        let mut row = run.row;
        for rows in run.rows.chunks(self.backend.max_score_rows()) {
            let few = self.backend.rows(step, hidden, row..row + rows.len())?; // (rows, hidden)
            let logits = self.family.logits(&self.backend, step, &few)?; // (rows, vocab)
            scores.push(self.backend.score(&logits, rows)?);
            row += rows.len();
        }
        Ok(())
    }
}

/// Callback for a stage's hidden state `(tokens, hidden)`.
pub type Observer<'a, B> = dyn FnMut(Stage, &<B as BackendTypes>::Tensor) -> Result<()> + 'a;

/// Points at which the hidden state can be compared with the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Scaled embeddings with the image embeddings in place.
    Embedded,
    /// The residual stream after the layer of this index.
    Layer(usize),
    /// After the final norm.
    Final,
}

/// Number of KV groups of these layers.
fn num_groups(layers: &[LayerSpec]) -> usize {
    let groups = layers.iter().map(|layer| layer.group + 1);
    groups.max().unwrap_or(0)
}
