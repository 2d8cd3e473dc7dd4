//! What one family of models computes.

use super::{ImageShape, Observer, StepOf};
use crate::backend::{Backend, LayerSpec, Rope};
use crate::core::PixelValues;
use crate::error::Result;

/// The weights of one family of models, and the order of its operations. [`Model`](super::Model)
/// does everything else with it.
pub trait Forward<B: Backend>: Send + Sync {
    /// Number of rows of the embedding; token ids must be smaller.
    fn vocab_size(&self) -> usize;

    /// Returns the attention layers in the order of their computation. A cache is allocated for
    /// their pools: those of layers with the same pool must agree.
    fn attention_layers(&self) -> Vec<LayerSpec>;

    /// Returns the rotary frequencies that the layers refer to.
    fn ropes(&self) -> &[Rope];

    /// Dimensions of the vision encoder, if there is one.
    fn image_shape(&self) -> Option<ImageShape>;

    /// Computes the step's hidden state after the final norm, `(tokens, hidden)`, and writes the new
    /// tokens' keys and values into the cache. `None` if the model has no layers. Passes the state
    /// at every stage to `observe`.
    ///
    /// # Errors
    /// Returns the errors of the backend and of `observe`.
    fn hidden(
        &self,
        backend: &B,
        step_of: &StepOf<'_, B>,
        step: &B::Step,
        cache: &mut B::KvCache,
        observe: &mut Observer<'_, B>,
    ) -> Result<Option<B::Tensor>>;

    /// Computes the logits `(rows, vocab)` of some rows of the hidden state, `(rows, hidden)`.
    ///
    /// # Errors
    /// Returns the errors of the backend.
    fn logits(&self, backend: &B, step: &B::Step, hidden: &B::Tensor) -> Result<B::Tensor>;

    /// Encodes a few images together: `(images·image_tokens, hidden)`.
    ///
    /// # Errors
    /// Returns the errors of the backend.
    ///
    /// # Panics
    /// Panics if there is no vision encoder.
    fn encode_images(&self, backend: &B, images: &[PixelValues]) -> Result<B::Tensor>;
}
