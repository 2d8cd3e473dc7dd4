//! The vision encoder: SigLIP without its pooling head. Follows transformers' `modeling_siglip.py`.

use crate::backend::{BackendTypes, HostLinear, HostTensor, Loading, Role, VisionOps};
use crate::core::PixelValues;
use crate::error::Result;
use crate::model::config::VisionConfig;
use crate::model::weights::Weights;

/// Prefix of the encoder's tensors in the hub's layout.
const PREFIX: &str = "vision_tower.vision_model";

/// Patch embedding, pre-norm layers and the final norm.
pub struct VisionEncoder<B: BackendTypes> {
    /// `(vision, 3·patch²)`, channel first
    patch_weight: B::Linear,
    /// `(vision)`
    patch_bias: B::Tensor,
    /// `(patches, vision)`
    positions: B::Tensor,
    layers: Vec<Layer<B>>,
    post_norm: Affine<B::Tensor>,
    patch_size: usize,
    num_heads: usize,
    eps: f64,
}

/// A layer norm's weight and bias, `(vision)` each.
#[derive(Debug)]
struct Affine<T> {
    weight: T,
    bias: T,
}

/// A matmul with bias.
struct Dense<B: BackendTypes> {
    /// `(out, in)`
    weight: B::Linear,
    /// `(out)`
    bias: B::Tensor,
}

impl<B: VisionOps> Dense<B> {
    fn forward(&self, backend: &B, x: &B::Tensor) -> Result<B::Tensor> {
        backend.linear_bias(x, &self.weight, &self.bias)
    }
}

struct Layer<B: BackendTypes> {
    attention_norm: Affine<B::Tensor>,
    /// `(3·vision, vision)`: q, k, v
    qkv: Dense<B>,
    output: Dense<B>,
    mlp_norm: Affine<B::Tensor>,
    up: Dense<B>,
    down: Dense<B>,
}

/// Loads tensors by name below one prefix.
struct Loader<'a, B: Loading> {
    backend: &'a B,
    weights: &'a Weights,
    prefix: String,
}

impl<B: Loading> Loader<'_, B> {
    fn affine(&self, name: &str, width: usize) -> Result<Affine<B::Tensor>> {
        Ok(Affine {
            weight: self.parameter(&format!("{name}.weight"), &[width])?,
            bias: self.parameter(&format!("{name}.bias"), &[width])?,
        })
    }

    fn parameter(&self, name: &str, shape: &[usize]) -> Result<B::Tensor> {
        let tensor = self
            .weights
            .tensor(&format!("{}.{name}", self.prefix), shape)?;
        self.backend.parameter(tensor)
    }

    /// Stacks the named weights, each `(out, in)`, to one.
    fn dense(&self, role: Role, names: &[&str], [out, input]: [usize; 2]) -> Result<Dense<B>> {
        let weights = names
            .iter()
            .map(|name| {
                self.weights
                    .tensor(&format!("{}.{name}.weight", self.prefix), &[out, input])
            })
            .collect::<Result<Vec<_>>>()?;
        let biases = names
            .iter()
            .map(|name| {
                self.weights
                    .tensor(&format!("{}.{name}.bias", self.prefix), &[out])
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Dense {
            weight: self
                .backend
                .load_linear(HostLinear::stacked(role, weights))?,
            bias: self.backend.parameter(HostTensor::concat(&biases))?,
        })
    }
}

impl<B: Loading> VisionEncoder<B> {
    /// Loads the encoder's tensors.
    pub fn load(backend: &B, config: &VisionConfig, weights: &Weights) -> Result<Self> {
        let (width, mlp) = (config.hidden_size, config.intermediate_size);
        let root = Loader {
            backend,
            weights,
            prefix: PREFIX.to_owned(),
        };
        let patch = config.patch_size;
        let grid = config.image_size / patch;
        let mut kernel = weights.tensor(
            &format!("{PREFIX}.embeddings.patch_embedding.weight"),
            &[width, 3, patch, patch],
        )?;
        kernel.shape = vec![width, 3 * patch * patch];
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                let layer = Loader {
                    prefix: format!("{PREFIX}.encoder.layers.{index}"),
                    ..root
                };
                Ok(Layer {
                    attention_norm: layer.affine("layer_norm1", width)?,
                    qkv: layer.dense(
                        Role::Column,
                        &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
                        [width, width],
                    )?,
                    output: layer.dense(Role::Row, &["self_attn.out_proj"], [width, width])?,
                    mlp_norm: layer.affine("layer_norm2", width)?,
                    up: layer.dense(Role::Column, &["mlp.fc1"], [mlp, width])?,
                    down: layer.dense(Role::Row, &["mlp.fc2"], [width, mlp])?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            patch_weight: backend.load_linear(HostLinear::new(Role::Replicated, kernel))?,
            patch_bias: root.parameter("embeddings.patch_embedding.bias", &[width])?,
            positions: root.parameter(
                "embeddings.position_embedding.weight",
                &[grid * grid, width],
            )?,
            layers,
            post_norm: root.affine("post_layernorm", width)?,
            patch_size: patch,
            num_heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
        })
    }
}

impl<B: VisionOps> VisionEncoder<B> {
    /// Returns the hidden state `(images·patches, vision)`.
    pub fn forward(&self, backend: &B, images: &[PixelValues]) -> Result<B::Tensor> {
        self.forward_observed(backend, images, &mut |_| Ok(()))
    }

    /// [`Self::forward`] that passes the state after the embedding and after each layer to
    /// `observe`.
    pub fn forward_observed(
        &self,
        backend: &B,
        images: &[PixelValues],
        observe: &mut dyn FnMut(&B::Tensor) -> Result<()>,
    ) -> Result<B::Tensor> {
        let mut x = backend.patch_embed(
            images,
            self.patch_size,
            &self.patch_weight,
            &self.patch_bias,
            &self.positions,
        )?;
        observe(&x)?;
        for layer in &self.layers {
            let normed = self.norm(backend, &x, &layer.attention_norm)?;
            let qkv = layer.qkv.forward(backend, &normed)?; // (images·patches, 3·vision)
            let mixed = backend.full_attention(&qkv, images.len(), self.num_heads)?;
            x = backend.add(layer.output.forward(backend, &mixed)?, &x)?;

            let normed = self.norm(backend, &x, &layer.mlp_norm)?;
            let inner = backend.gelu(layer.up.forward(backend, &normed)?)?; // (images·patches, mlp)
            x = backend.add(layer.down.forward(backend, &inner)?, &x)?;
            observe(&x)?;
        }
        self.norm(backend, &x, &self.post_norm)
    }

    fn norm(&self, backend: &B, x: &B::Tensor, norm: &Affine<B::Tensor>) -> Result<B::Tensor> {
        backend.layer_norm(x, &norm.weight, &norm.bias, self.eps)
    }
}
