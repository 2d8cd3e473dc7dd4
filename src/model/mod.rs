//! Gemma 3 with its SigLIP vision encoder, written once over [`Backend`].
//!
//! Owns the weights and the order of operations. Knows nothing of requests, sampling parameters or
//! the number of sequences: a step is packed rows with block tables.
//!
//! Dimensions: `tokens` packed rows of a step; `hidden`; `heads` and `kv_heads` of `head_dim`;
//! `mlp` the inner width; `vocab`; in the vision encoder `patches` per image, its width `vision`,
//! and `image_tokens` per image after pooling.

pub mod checkpoint;
pub mod config;
pub mod dummy;
pub mod expected_tensors;
pub mod fields;
pub mod safetensors_header;
pub mod shard_index;
pub mod tensor_names;
pub mod weights;

mod gemma3;
mod mapped_file;
mod projector;
mod siglip;

use crate::backend::{
    BLOCK_SIZE, Backend, BackendTypes, KvLayout, PoolLayout, SampleRow, ScoreRow, StepInput,
    StepSequence,
};
use crate::core::{BlockId, BlockTable, PixelValues, SamplingParams, TokenId};
use crate::error::Result;
use crate::model::config::{LayerKind, ModelConfig};
use crate::model::weights::Weights;

pub use gemma3::Decoder;
pub use projector::Projector;
pub use siglip::VisionTower;

/// A loaded checkpoint on its device.
pub struct Model<B: Backend> {
    backend: B,
    decoder: Decoder<B>,
    vision: Option<Vision<B>>,
}

struct Vision<B: Backend> {
    tower: VisionTower<B>,
    projector: Projector<B>,
    image: ImageShape,
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
    /// Samples of the previous step, which `input.fed` refers to.
    pub previous: Option<&'a B::SampledTokens>,
    /// Images that have tokens among the rows.
    pub images: &'a [ImageRows<B::Tensor>],
}

impl<B: Backend> Model<B> {
    /// Loads every tensor that the architecture needs from `weights`.
    ///
    /// # Errors
    /// Returns an error that names the file and the tensor that is missing or has the wrong shape.
    pub fn load(backend: B, config: &ModelConfig, weights: &Weights) -> Result<Self> {
        let decoder = Decoder::load(&backend, config, weights)?;
        let vision = match &config.vision {
            Some(vision) => Some(Vision {
                tower: VisionTower::load(&backend, vision, weights)?,
                projector: Projector::load(&backend, vision, config.text.hidden_size, weights)?,
                image: ImageShape {
                    size: vision.image_size,
                    num_tokens: vision.mm_tokens_per_image,
                    hidden: config.text.hidden_size,
                },
            }),
            None => None,
        };
        Ok(Self {
            backend,
            decoder,
            vision,
        })
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Number of rows of the embedding; token ids must be smaller.
    pub fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    /// Dimensions of the vision encoder, if there is one.
    pub fn image_shape(&self) -> Option<ImageShape> {
        self.vision.as_ref().map(|vision| vision.image)
    }

    /// Creates a cache with this many blocks in each group's pools.
    pub fn kv_cache(
        &self,
        num_global_blocks: usize,
        num_sliding_blocks: usize,
    ) -> Result<B::KvCache> {
        let layers = self.decoder.attention_layers();
        let pools = layers.iter().map(|layer| PoolLayout {
            group: layer.group,
            num_kv_heads: layer.shape.num_kv_heads,
            head_dim: layer.shape.head_dim,
        });
        self.backend.kv_cache(&KvLayout {
            pools: pools.collect(),
            num_blocks: vec![num_global_blocks, num_sliding_blocks],
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
        if let Some(vision) = &self.vision {
            self.encode_images(&[vision.tower.blank_image()])?;
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
            match (&self.vision, images) {
                (Some(vision), WarmUpImages::One) => {
                    let features = self.encode_images(&[vision.tower.blank_image()])?;
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
        let layers = self.decoder.attention_layers();
        let table = |kind: &LayerKind| {
            let is_used = layers.iter().any(|layer| layer.group == kind.group());
            let block = is_used.then_some(BlockId(0));
            BlockTable::new(BLOCK_SIZE, 0, Vec::from_iter(block))
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
                tables: LayerKind::ALL.iter().map(table).collect(),
                image_spans: Vec::new(),
            }],
            fed: Vec::new(),
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
            let vision = self
                .vision
                .as_ref()
                .expect("images reach only models with a tower");
            let patches = vision.tower.forward(&self.backend, images)?; // (images·patches, vision)
            let together = vision.projector.forward(&self.backend, &patches)?; // (images·image_tokens, hidden)
            for idx in 0..images.len() {
                let num_tokens = vision.image.num_tokens;
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
        self.decoder.forward(&self.backend, step, cache)
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
        self.decoder
            .forward_scored(&self.backend, step, runs, cache)
    }

    /// [`Self::forward`] that passes every stage's hidden state to an observer, for comparisons
    /// with the reference.
    pub fn forward_observed(
        &self,
        step: StepOf<'_, B>,
        cache: &mut B::KvCache,
        observe: &mut Observer<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        self.decoder
            .forward_observed(&self.backend, step, cache, observe)
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
