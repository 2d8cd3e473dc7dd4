//! Gemma 3: the text decoder with its vision encoder and projector.

use super::config::ModelConfig;
use super::forward::Forward;
use super::weights::Weights;
use super::{Decoder, ImageShape, Observer, Projector, StepOf, VisionEncoder};
use crate::backend::{Backend, LayerSpec, Rope};
use crate::core::PixelValues;
use crate::error::Result;

/// The weights of a Gemma 3 checkpoint.
pub struct Gemma3<B: Backend> {
    decoder: Decoder<B>,
    vision: Option<Vision<B>>,
}

struct Vision<B: Backend> {
    encoder: VisionEncoder<B>,
    projector: Projector<B>,
    image: ImageShape,
}

impl<B: Backend> Gemma3<B> {
    /// Loads every tensor that the architecture needs from `weights`.
    ///
    /// # Errors
    /// Returns an error that names the file and the tensor that is missing or has the wrong shape.
    pub fn load(backend: &B, config: &ModelConfig, weights: &Weights) -> Result<Self> {
        let decoder = Decoder::load(backend, config, weights)?;
        let hidden = config.text.hidden_size;
        let vision = match &config.vision {
            Some(vision) => Some(Vision {
                encoder: VisionEncoder::load(backend, vision, weights)?,
                projector: Projector::load(backend, vision, hidden, weights)?,
                image: ImageShape {
                    size: vision.image_size,
                    num_tokens: vision.mm_tokens_per_image,
                    hidden,
                },
            }),
            None => None,
        };
        Ok(Self { decoder, vision })
    }
}

impl<B: Backend> Forward<B> for Gemma3<B> {
    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn attention_layers(&self) -> Vec<LayerSpec> {
        self.decoder.attention_layers()
    }

    fn ropes(&self) -> &[Rope] {
        self.decoder.ropes()
    }

    fn image_shape(&self) -> Option<ImageShape> {
        self.vision.as_ref().map(|vision| vision.image)
    }

    fn hidden(
        &self,
        backend: &B,
        step_of: &StepOf<'_, B>,
        step: &B::Step,
        cache: &mut B::KvCache,
        observe: &mut Observer<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        self.decoder.hidden(backend, step_of, step, cache, observe)
    }

    fn logits(&self, backend: &B, step: &B::Step, hidden: &B::Tensor) -> Result<B::Tensor> {
        self.decoder.logits(backend, step, hidden)
    }

    fn encode_images(&self, backend: &B, images: &[PixelValues]) -> Result<B::Tensor> {
        let vision = self.vision.as_ref();
        let vision = vision.expect("images reach only models with a vision encoder");
        let patches = vision.encoder.forward(backend, images)?; // (images·patches, vision)
        vision.projector.forward(backend, &patches) // (images·image_tokens, hidden)
    }
}
