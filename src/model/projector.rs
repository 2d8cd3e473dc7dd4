//! The multimodal projector: turns patches of the vision encoder into decoder tokens. Follows
//! `Gemma3MultiModalProjector`.

use crate::backend::{BackendTypes, HostLinear, Loading, Role, VisionOps};
use crate::error::Result;
use crate::model::config::VisionConfig;
use crate::model::weights::Weights;

/// Average pooling, norm and one matmul.
pub struct Projector<B: BackendTypes> {
    /// `(vision)`, 1 + weight
    norm: B::Tensor,
    /// `(hidden, vision)`; the file holds its transpose
    weight: B::Linear,
    /// Number of patches per side of the image.
    grid: usize,
    /// Number of patches per side of the square that becomes one token.
    kernel: usize,
    eps: f64,
}

impl<B: Loading> Projector<B> {
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
            weight: backend.load_linear(HostLinear::transposed(Role::Replicated, weight))?,
            grid,
            kernel: grid / tokens_per_side,
            eps: config.layer_norm_eps,
        })
    }
}

impl<B: VisionOps> Projector<B> {
    /// Maps `(images·patches, vision)` to `(images·image_tokens, hidden)`.
    pub fn forward(&self, backend: &B, patches: &B::Tensor) -> Result<B::Tensor> {
        let pooled = backend.average_pool(patches, self.grid, self.kernel)?;
        backend.norm_linear(&pooled, &self.norm, self.eps, &self.weight)
    }
}
