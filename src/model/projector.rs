//! The multimodal projector: turns patches of the vision encoder into decoder tokens. Follows
//! `Gemma3MultiModalProjector`.

use crate::backend::Backend;
use crate::error::Result;
use crate::model::config::VisionConfig;
use crate::model::weights::Weights;

/// Average pooling, norm and one matmul.
pub struct Projector<B: Backend> {
    /// `(vision)`, 1 + weight
    norm: B::Tensor,
    /// `(hidden, vision)`; the file holds its transpose
    weight: B::Matrix,
    /// Number of patches per side of the image.
    grid: usize,
    /// Number of patches per side of the square that becomes one token.
    kernel: usize,
    eps: f64,
}

impl<B: Backend> Projector<B> {
    /// Loads the projector's tensors; `hidden` is the decoder's width.
    pub fn load(
        backend: &B,
        config: &VisionConfig,
        hidden: usize,
        weights: &Weights,
    ) -> Result<Self> {
        let vision = config.hidden_size;
        let grid = config.image_size / config.patch_size;
        let tokens_per_side = config.mm_tokens_per_image.isqrt();
        let norm = weights.tensor("multi_modal_projector.mm_soft_emb_norm.weight", &[vision])?;
        let weight = weights.tensor(
            "multi_modal_projector.mm_input_projection_weight",
            &[vision, hidden],
        )?;
        Ok(Self {
            norm: backend.norm_weight(norm)?,
            weight: backend.matrix_transposed(weight)?,
            grid,
            kernel: grid / tokens_per_side,
            eps: config.layer_norm_eps,
        })
    }

    /// Maps `(images·patches, vision)` to `(images·image_tokens, hidden)`.
    pub fn forward(&self, backend: &B, patches: &B::Tensor) -> Result<B::Tensor> {
        let pooled = backend.average_pool(patches, self.grid, self.kernel)?;
        let normed = backend.rms_norm(&pooled, &self.norm, self.eps)?;
        backend.linear(&normed, &self.weight)
    }
}
