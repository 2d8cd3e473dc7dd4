//! The text decoder. Follows transformers' `modeling_gemma3.py`.

use crate::backend::{
    AttentionShape, Backend, BackendTypes, HostLinear, LayerSpec, Loading, NormPair, QkNorm, Role,
    Rope,
};
use crate::error::Result;
use crate::model::config::{LayerKind, ModelConfig, TextConfig};
use crate::model::weights::Weights;
use crate::model::{Observer, Stage, StepOf};

/// Prefix of the decoder's tensors in the hub's layout.
const PREFIX: &str = "language_model.model";
/// Present when the head is not tied to the embedding.
const HEAD: &str = "language_model.lm_head.weight";

/// Embedding, layers, final norm and head.
pub struct Decoder<B: BackendTypes> {
    /// `(vocab, hidden)`; also used as the head unless `head` is present.
    embedding: B::Linear,
    /// `(vocab, hidden)`
    head: Option<B::Linear>,
    vocab_size: usize,
    embedding_scale: f32,
    layers: Vec<Layer<B>>,
    /// `(hidden)`
    final_norm: B::Tensor,
    /// Rotary frequencies of each kind of layer.
    ropes: [Rope; 2],
    eps: f64,
}

struct Layer<B: BackendTypes> {
    spec: LayerSpec,
    // (hidden) each, 1 + weight
    input_norm: B::Tensor,
    post_attention_norm: B::Tensor,
    pre_feedforward_norm: B::Tensor,
    post_feedforward_norm: B::Tensor,
    qk_norm: QkNorm<B::Tensor>,
    /// `((heads + 2·kv_heads)·head_dim, hidden)`
    qkv: B::Linear,
    /// `(hidden, heads·head_dim)`
    output: B::Linear,
    /// `(2·mlp, hidden)`, gate first
    gate_up: B::Linear,
    /// `(hidden, mlp)`
    down: B::Linear,
}

/// Returns the description of an attention layer; each has keys and values of its own.
fn layer_spec(config: &TextConfig, index: usize) -> LayerSpec {
    let kind = config.layer_kinds[index];
    LayerSpec {
        shape: AttentionShape {
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            scale: config.query_pre_attn_scalar.powf(-0.5) as f32,
            window: config.window(kind),
            eps: config.rms_norm_eps,
        },
        group: config
            .attention_kinds()
            .position(|other| other == kind)
            .expect("the layer's own kind is among them"),
        rope: LayerKind::ALL
            .iter()
            .position(|other| *other == kind)
            .expect("all kinds are among them"),
        pool: index,
    }
}

impl<B: Loading> Layer<B> {
    fn load(backend: &B, config: &TextConfig, weights: &Weights, index: usize) -> Result<Self> {
        let (hidden, mlp, head_dim) = (
            config.hidden_size,
            config.intermediate_size,
            config.head_dim,
        );
        let query_width = config.num_attention_heads * head_dim;
        let kv_width = config.num_key_value_heads * head_dim;
        let tensor = |name: &str, shape: &[usize]| {
            weights.tensor(&format!("{PREFIX}.layers.{index}.{name}.weight"), shape)
        };
        let norm = |name: &str, width: usize| backend.norm_weight(tensor(name, &[width])?);
        Ok(Self {
            spec: layer_spec(config, index),
            input_norm: norm("input_layernorm", hidden)?,
            post_attention_norm: norm("post_attention_layernorm", hidden)?,
            pre_feedforward_norm: norm("pre_feedforward_layernorm", hidden)?,
            post_feedforward_norm: norm("post_feedforward_layernorm", hidden)?,
            qk_norm: QkNorm {
                query: norm("self_attn.q_norm", head_dim)?,
                key: norm("self_attn.k_norm", head_dim)?,
            },
            qkv: backend.load_linear(HostLinear::stacked(
                Role::Column,
                vec![
                    tensor("self_attn.q_proj", &[query_width, hidden])?,
                    tensor("self_attn.k_proj", &[kv_width, hidden])?,
                    tensor("self_attn.v_proj", &[kv_width, hidden])?,
                ],
            ))?,
            output: backend.load_linear(HostLinear::new(
                Role::Row,
                tensor("self_attn.o_proj", &[hidden, query_width])?,
            ))?,
            gate_up: backend.load_linear(HostLinear::stacked(
                Role::Column,
                vec![
                    tensor("mlp.gate_proj", &[mlp, hidden])?,
                    tensor("mlp.up_proj", &[mlp, hidden])?,
                ],
            ))?,
            down: backend.load_linear(HostLinear::new(
                Role::Row,
                tensor("mlp.down_proj", &[hidden, mlp])?,
            ))?,
        })
    }
}

impl<B: Loading> Decoder<B> {
    /// Loads the decoder's tensors.
    pub fn load(backend: &B, config: &ModelConfig, weights: &Weights) -> Result<Self> {
        let ties_head = config.tie_word_embeddings;
        let config = &config.text;
        let table_name = format!("{PREFIX}.embed_tokens.weight");
        // The tensor's shape takes precedence over the config, whose default is that of multimodal
        // checkpoints.
        let vocab_size = weights
            .shape(&table_name)
            .and_then(|shape| shape.first().copied())
            .unwrap_or(config.vocab_size);
        let table_shape = [vocab_size, config.hidden_size];
        // Packed first: it is the largest tensor, and its pages are released when others are
        // requested.
        let table = |name: &str| {
            let tensor = weights.tensor(name, &table_shape)?;
            backend.load_linear(HostLinear::new(Role::Head, tensor))
        };
        let embedding = table(&table_name)?;
        let head = if weights.contains(HEAD) || !ties_head {
            Some(table(HEAD)?)
        } else {
            None
        };
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::load(backend, config, weights, index))
            .collect::<Result<Vec<_>>>()?;
        let final_norm = weights.tensor(&format!("{PREFIX}.norm.weight"), &[config.hidden_size])?;
        Ok(Self {
            embedding,
            head,
            vocab_size,
            embedding_scale: (config.hidden_size as f64).sqrt() as f32,
            layers,
            final_norm: backend.norm_weight(final_norm)?,
            ropes: LayerKind::ALL.map(|kind| {
                let rope = match kind {
                    LayerKind::Global => config.rope_global,
                    LayerKind::Sliding => config.rope_local,
                };
                Rope {
                    inv_freq: rope.inv_freq(config.head_dim),
                }
            }),
            eps: config.rms_norm_eps,
        })
    }
}

impl<B: Backend> Decoder<B> {
    /// Number of rows of the embedding.
    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Returns the attention layers.
    pub(super) fn attention_layers(&self) -> Vec<LayerSpec> {
        self.layers.iter().map(|layer| layer.spec).collect()
    }

    /// Rotary frequencies that the layers refer to.
    pub(super) fn ropes(&self) -> &[Rope] {
        &self.ropes
    }

    /// See [`Forward::hidden`](super::Forward::hidden).
    pub(super) fn hidden(
        &self,
        backend: &B,
        step_of: &StepOf<'_, B>,
        step: &B::Step,
        cache: &mut B::KvCache,
        observe: &mut Observer<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let mut residual = backend.embed(step, &self.embedding, self.embedding_scale)?; // (tokens, hidden)
        for image in step_of.images {
            // Unscaled: the reference writes the image embeddings over the scaled text embeddings.
            residual = backend.put_image_features(step, residual, &image.features, image.row)?;
        }
        observe(Stage::Embedded, &residual)?;

        let Some(first) = self.layers.first() else {
            return Ok(None);
        };
        let normed = backend.rms_norm(step, &residual, &first.input_norm, self.eps)?;
        let mut qkv = backend.linear(step, &normed, &first.qkv)?; // (tokens, (heads + 2·kv_heads)·head_dim)
        let mut last = None;
        for (index, layer) in self.layers.iter().enumerate() {
            let mixed = backend.attend(step, &qkv, &layer.qk_norm, &layer.spec, cache)?; // (tokens, heads·head_dim)
            let attended = backend.linear(step, &mixed, &layer.output)?; // (tokens, hidden)
            let before_mlp = NormPair {
                post: &layer.post_attention_norm,
                next: &layer.pre_feedforward_norm,
                eps: self.eps,
            };
            let (attended_residual, inner) =
                backend.add_norm_geglu(step, &residual, &attended, &before_mlp, &layer.gate_up)?; // (tokens, mlp)
            let branch = backend.linear(step, &inner, &layer.down)?; // (tokens, hidden)

            // The next layer's first norm and matmul are fused here; after the last layer, the
            // final norm.
            let post = &layer.post_feedforward_norm;
            match self.layers.get(index + 1) {
                Some(next) => {
                    let between = NormPair {
                        post,
                        next: &next.input_norm,
                        eps: self.eps,
                    };
                    (residual, qkv) = backend.add_norm_linear(
                        step,
                        &attended_residual,
                        &branch,
                        &between,
                        &next.qkv,
                    )?;
                }
                None => {
                    let end = NormPair {
                        post,
                        next: &self.final_norm,
                        eps: self.eps,
                    };
                    let (sum, normed) =
                        backend.add_norm_norm(step, &attended_residual, &branch, &end)?;
                    residual = sum;
                    last = Some(normed);
                }
            }
            observe(Stage::Layer(index), &residual)?;
        }

        Ok(last) // (tokens, hidden)
    }

    /// See [`Forward::logits`](super::Forward::logits).
    pub(super) fn logits(
        &self,
        backend: &B,
        step: &B::Step,
        hidden: &B::Tensor,
    ) -> Result<B::Tensor> {
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        backend.linear(step, hidden, head)
    }
}
