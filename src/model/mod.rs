//! Gemma 3 with its SigLIP tower, written once over [`Backend`].
//!
//! Owns the weights and the order of operations. Knows nothing of requests, sampling parameters
//! or how many sequences there are: a step is packed rows with block tables.
//!
//! Dimensions: `tokens` packed rows of a step; `hidden`; `heads` and `kv_heads` of `head_dim`;
//! `mlp` the inner width; `vocab`; in the tower `patches` per picture, `vision` its width and
//! `image_tokens` per picture after pooling.

pub mod checkpoint;
pub mod config;
pub mod dummy;
pub mod fields;
pub mod tensor_names;
pub mod weights;

mod gemma3;
mod mapped_file;
mod projector;
mod siglip;

use crate::backend::{AttentionShape, Backend, KvLayout, StepInput};
use crate::core::PixelValues;
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
}

/// A picture's features on the device and the first packed row that they replace.
#[derive(Debug)]
pub struct ImageRows<T> {
    /// First of the step's rows that holds one of the picture's tokens.
    pub row: usize,
    /// `(image_tokens, hidden)`
    pub features: T,
}

/// What one step computes.
pub struct StepOf<'a, B: Backend> {
    /// The packed rows.
    pub input: &'a StepInput,
    /// The draws of the step before, which `input.fed` refers to.
    pub previous: Option<&'a B::Draws>,
    /// The pictures whose tokens are among the rows.
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

    /// Each picture's features, `(image_tokens, hidden)`, in the order of `images`.
    ///
    /// # Panics
    /// If the model has no vision tower: requests with pictures are refused long before.
    pub fn encode_images(&self, images: &[PixelValues]) -> Result<Vec<B::Tensor>> {
        let vision = self
            .vision
            .as_ref()
            .expect("pictures reach only models with a tower");
        images
            .iter()
            .map(|image| {
                let patches = vision
                    .tower
                    .forward(&self.backend, std::slice::from_ref(image))?;
                vision.projector.forward(&self.backend, &patches)
            })
            .collect()
    }

    /// One step: writes the new tokens' keys and values into `cache` and returns the logits of
    /// the input's `logit_rows`, `(logit_rows, vocab)`; `None` when no row asks for any.
    pub fn forward(
        &self,
        step: StepOf<'_, B>,
        cache: &mut B::KvCache,
    ) -> Result<Option<B::Tensor>> {
        self.forward_observed(step, cache, &mut |_, _| Ok(()))
    }

    /// [`Self::forward`] that shows every stage's hidden state on the way, for comparisons with
    /// the reference.
    pub fn forward_observed(
        &self,
        step: StepOf<'_, B>,
        cache: &mut B::KvCache,
        observe: &mut Observer<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        self.decoder.forward(&self.backend, step, cache, observe)
    }
}

/// Sees a stage's hidden state `(tokens, hidden)`.
pub type Observer<'a, B> = dyn FnMut(Stage, &<B as Backend>::Tensor) -> Result<()> + 'a;

/// Points at which the hidden state can be compared with the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Scaled embeddings with the pictures' features in place.
    Embedded,
    /// The residual stream after the layer of this index.
    Layer(usize),
    /// After the final norm, only `logit_rows`.
    Final,
}
