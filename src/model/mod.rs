//! Gemma 3 with its SigLIP tower, written once over [`Backend`].
//!
//! Owns the weights and the order of operations. Knows nothing of requests, sampling parameters
//! or how many sequences there are: a step is packed rows with block tables.
//!
//! Dimensions: `tokens` packed rows of a step; `hidden`; `heads` and `kv_heads` of `head_dim`;
//! `mlp` the inner width; `vocab`; in the tower `patches` per image, `vision` its width and
//! `image_tokens` per image after pooling.

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
    AttentionShape, BLOCK_SIZE, Backend, BlockTable, KvLayout, LayerKind, SampleRow, ScoreRow,
    StepInput, StepSequence,
};
use crate::core::{BlockId, PixelValues, SamplingParams, TokenId};
use crate::error::Result;
use crate::model::config::ModelConfig;
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

/// Whether a warm-up encodes an image, which takes a CPU many seconds with a large tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUpImages {
    /// One, if there is a tower.
    One,
    /// None.
    None,
}

/// Images that go through the tower together. A few have rows enough to fill any device, and the
/// memory that the tower works in grows with each.
pub const MAX_IMAGES_PER_CALL: usize = 4;

/// What the tower takes and gives for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Side of the square, in pixels.
    pub size: usize,
    /// Tokens that the image becomes.
    pub num_tokens: usize,
    /// Numbers per token.
    pub hidden: usize,
}

impl ImageShape {
    /// Numbers in one image's features.
    pub fn num_features(&self) -> usize {
        self.num_tokens * self.hidden
    }
}

/// An image's features on the device and the first packed row that they replace.
#[derive(Debug)]
pub struct ImageRows<T> {
    /// First of the step's rows that holds one of the image's tokens.
    pub row: usize,
    /// `(image_tokens, hidden)`
    pub features: T,
}

/// Consecutive packed rows whose next tokens are known, and are scored.
#[derive(Clone, Copy, Debug)]
pub struct ScoredRun<'a> {
    /// The first of them.
    pub row: usize,
    /// One each.
    pub rows: &'a [ScoreRow],
}

/// What a step leaves on the device.
pub struct Computed<B: Backend> {
    /// `(logit_rows, vocab)`; `None` when no row asks for any.
    pub logits: Option<B::Tensor>,
    /// Of the scored rows, in order, some of them in each.
    pub scores: Vec<B::SampledTokens>,
}

/// What one step computes.
pub struct StepOf<'a, B: Backend> {
    /// The packed rows.
    pub input: &'a StepInput,
    /// The samples of the step before, which `input.fed` refers to.
    pub previous: Option<&'a B::SampledTokens>,
    /// The images whose tokens are among the rows.
    pub images: &'a [ImageRows<B::Tensor>],
}

impl<B: Backend> Model<B> {
    /// Takes every tensor the architecture needs out of `weights`.
    ///
    /// # Errors
    /// Names the file and the tensor that is missing or misshapen.
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

    /// The operations that this model runs on.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Attention's constants, the same in every layer.
    pub fn attention_shape(&self) -> &AttentionShape {
        self.decoder.attention_shape()
    }

    /// Rows of the embedding: tokens from here on do not exist.
    pub fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    /// What the tower takes, if there is one.
    pub fn image_shape(&self) -> Option<ImageShape> {
        self.vision.as_ref().map(|vision| vision.image)
    }

    /// A cache with this many blocks in each group's pools.
    pub fn kv_cache(
        &self,
        num_global_blocks: usize,
        num_sliding_blocks: usize,
    ) -> Result<B::KvCache> {
        let shape = self.attention_shape();
        self.backend.kv_cache(&KvLayout {
            layers: self.decoder.layer_kinds(),
            num_kv_heads: shape.num_kv_heads,
            head_dim: shape.head_dim,
            num_global_blocks,
            num_sliding_blocks,
        })
    }

    /// Runs every kind of step that the backend wants to have run once before it counts, and
    /// encodes an image. No sequence's blocks are touched.
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

    /// Whether what the model computes is finite: the logits of a step of `num_tokens` tokens, all
    /// different, and a blank image's features where that is asked for. The step writes into the
    /// first block of each group, before any sequence has it.
    ///
    /// # Errors
    /// What the backend says.
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
        let layers = self.decoder.layer_kinds();
        let table = |kind| BlockTable {
            num_released: 0,
            blocks: layers
                .contains(&kind)
                .then_some(BlockId(0))
                .into_iter()
                .collect(),
        };
        let narrow = |number: usize| u32::try_from(number).expect("far below 4 G tokens");
        StepInput {
            // From all over the vocabulary.
            token_ids: (0..num_tokens)
                .map(|idx| TokenId(narrow(idx * vocab_size / num_tokens)))
                .collect(),
            positions: (0..num_tokens).map(narrow).collect(),
            sequences: vec![StepSequence {
                row: 0,
                start: 0,
                len: num_tokens,
                global: table(LayerKind::Global),
                sliding: table(LayerKind::Sliding),
                image_spans: Vec::new(),
            }],
            fed: Vec::new(),
            logit_rows: vec![narrow(num_tokens - 1)],
        }
    }

    /// Each image's features, `(image_tokens, hidden)`, in the order of `images`. At most
    /// [`MAX_IMAGES_PER_CALL`] go through the tower at a time.
    ///
    /// # Panics
    /// If there are images and no vision tower: requests with images are refused long before.
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

    /// One step: writes the new tokens' keys and values into `cache` and returns the logits of
    /// the input's `logit_rows`, `(logit_rows, vocab)`; `None` when no row asks for any.
    pub fn forward(
        &self,
        step: StepOf<'_, B>,
        cache: &mut B::KvCache,
    ) -> Result<Option<B::Tensor>> {
        self.decoder.forward(&self.backend, step, cache)
    }

    /// [`Self::forward`] that also tells how probable the tokens behind some rows are.
    ///
    /// Their logits live a few rows at a time, and before those of `logit_rows`.
    pub fn forward_scored(
        &self,
        step: StepOf<'_, B>,
        runs: &[ScoredRun<'_>],
        cache: &mut B::KvCache,
    ) -> Result<Computed<B>> {
        self.decoder
            .forward_scored(&self.backend, step, runs, cache)
    }

    /// [`Self::forward`] that shows every stage's hidden state on the way, for comparisons with
    /// the reference.
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

/// Sees a stage's hidden state `(tokens, hidden)`.
pub type Observer<'a, B> = dyn FnMut(Stage, &<B as Backend>::Tensor) -> Result<()> + 'a;

/// Points at which the hidden state can be compared with the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Scaled embeddings with the images' features in place.
    Embedded,
    /// The residual stream after the layer of this index.
    Layer(usize),
    /// After the final norm.
    Final,
}
