//! The text decoder. Follows transformers' `modeling_gemma3.py`.

use crate::backend::{AttentionShape, Backend, LayerKind, LayerRef, QkNorm, Rope, Ropes};
use crate::error::Result;
use crate::model::config::{ModelConfig, TextConfig};
use crate::model::weights::Weights;
use crate::model::{Observer, Stage, StepOf};

/// Where the decoder's tensors begin in the hub's layout.
const PREFIX: &str = "language_model.model";
/// Present when the head is not tied to the embedding.
const HEAD: &str = "language_model.lm_head.weight";

/// Embedding, layers, final norm and head.
pub struct Decoder<B: Backend> {
    /// `(vocab, hidden)`; also the head unless `head` is there.
    embedding: B::Matrix,
    /// `(vocab, hidden)`
    head: Option<B::Matrix>,
    embedding_scale: f32,
    layers: Vec<Layer<B>>,
    /// `(hidden)`
    final_norm: B::Tensor,
    shape: AttentionShape,
    global_rope: Rope,
    sliding_rope: Rope,
    eps: f64,
}

struct Layer<B: Backend> {
    kind: LayerKind,
    // (hidden) each, 1 + weight
    input_norm: B::Tensor,
    post_attention_norm: B::Tensor,
    pre_feedforward_norm: B::Tensor,
    post_feedforward_norm: B::Tensor,
    qk_norm: QkNorm<B::Tensor>,
    /// `((heads + 2·kv_heads)·head_dim, hidden)`
    qkv: B::Matrix,
    /// `(hidden, heads·head_dim)`
    output: B::Matrix,
    /// `(2·mlp, hidden)`, gate first
    gate_up: B::Matrix,
    /// `(hidden, mlp)`
    down: B::Matrix,
}

impl<B: Backend> Layer<B> {
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
            kind: config.layer_kinds[index],
            input_norm: norm("input_layernorm", hidden)?,
            post_attention_norm: norm("post_attention_layernorm", hidden)?,
            pre_feedforward_norm: norm("pre_feedforward_layernorm", hidden)?,
            post_feedforward_norm: norm("post_feedforward_layernorm", hidden)?,
            qk_norm: QkNorm {
                query: norm("self_attn.q_norm", head_dim)?,
                key: norm("self_attn.k_norm", head_dim)?,
            },
            qkv: backend.matrix(vec![
                tensor("self_attn.q_proj", &[query_width, hidden])?,
                tensor("self_attn.k_proj", &[kv_width, hidden])?,
                tensor("self_attn.v_proj", &[kv_width, hidden])?,
            ])?,
            output: backend.matrix(vec![tensor("self_attn.o_proj", &[hidden, query_width])?])?,
            gate_up: backend.matrix(vec![
                tensor("mlp.gate_proj", &[mlp, hidden])?,
                tensor("mlp.up_proj", &[mlp, hidden])?,
            ])?,
            down: backend.matrix(vec![tensor("mlp.down_proj", &[hidden, mlp])?])?,
        })
    }
}

impl<B: Backend> Decoder<B> {
    /// Takes the decoder's tensors.
    pub fn load(backend: &B, config: &ModelConfig, weights: &Weights) -> Result<Self> {
        let ties_head = config.tie_word_embeddings;
        let config = &config.text;
        let table_name = format!("{PREFIX}.embed_tokens.weight");
        // The file knows better than the config, whose default is the multimodal checkpoints'.
        let vocab_size = weights
            .shape(&table_name)
            .and_then(|shape| shape.first().copied())
            .unwrap_or(config.vocab_size);
        let table_shape = [vocab_size, config.hidden_size];
        // Packed at once: the largest tensor, and its pages are let go when others are asked for.
        let embedding = backend.matrix(vec![weights.tensor(&table_name, &table_shape)?])?;
        let head = if weights.contains(HEAD) || !ties_head {
            Some(backend.matrix(vec![weights.tensor(HEAD, &table_shape)?])?)
        } else {
            None
        };
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::load(backend, config, weights, index))
            .collect::<Result<Vec<_>>>()?;
        let final_norm = weights.tensor(&format!("{PREFIX}.norm.weight"), &[config.hidden_size])?;
        let has_sliding = config.layer_kinds.contains(&LayerKind::Sliding);
        Ok(Self {
            embedding,
            head,
            embedding_scale: (config.hidden_size as f64).sqrt() as f32,
            layers,
            final_norm: backend.norm_weight(final_norm)?,
            shape: AttentionShape {
                num_heads: config.num_attention_heads,
                num_kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
                scale: config.query_pre_attn_scalar.powf(-0.5) as f32,
                window: has_sliding.then_some(config.sliding_window),
                eps: config.rms_norm_eps,
            },
            global_rope: Rope {
                inv_freq: config.rope_global.inv_freq(config.head_dim),
            },
            sliding_rope: Rope {
                inv_freq: config.rope_local.inv_freq(config.head_dim),
            },
            eps: config.rms_norm_eps,
        })
    }

    /// Attention's constants.
    pub fn attention_shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// One entry per layer.
    pub fn layer_kinds(&self) -> Vec<LayerKind> {
        self.layers.iter().map(|layer| layer.kind).collect()
    }

    /// See [`crate::model::Model::forward_observed`].
    pub fn forward(
        &self,
        backend: &B,
        step: StepOf<'_, B>,
        cache: &mut B::KvCache,
        observe: &mut Observer<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let StepOf {
            input,
            previous,
            images,
        } = step;
        let ropes = Ropes {
            global: &self.global_rope,
            sliding: &self.sliding_rope,
        };
        let step = backend.begin_step(input, previous, ropes)?;

        let mut residual = backend.embed(&step, &self.embedding, self.embedding_scale)?; // (tokens, hidden)
        for image in images {
            // Unscaled: the reference scatters the features over the scaled embeddings.
            residual = backend.put_image_features(residual, &image.features, image.row)?;
        }
        observe(Stage::Embedded, &residual)?;

        let Some(first) = self.layers.first() else {
            return Ok(None);
        };
        let mut normed = backend.rms_norm(&residual, &first.input_norm, self.eps)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let attended = self.attention(backend, &step, layer, index, &normed, cache)?;
            let (attended_residual, before_mlp) = backend.add_norm_norm(
                &residual,
                &attended,
                &layer.post_attention_norm,
                &layer.pre_feedforward_norm,
                self.eps,
            )?;
            let gate_up = backend.linear(&before_mlp, &layer.gate_up)?; // (tokens, 2·mlp)
            let branch = backend.linear(&backend.geglu(&gate_up)?, &layer.down)?; // (tokens, hidden)
            // The next layer's first norm rides along; after the last layer it is the final one.
            let next = match self.layers.get(index + 1) {
                Some(next) => &next.input_norm,
                None => &self.final_norm,
            };
            (residual, normed) = backend.add_norm_norm(
                &attended_residual,
                &branch,
                &layer.post_feedforward_norm,
                next,
                self.eps,
            )?;
            observe(Stage::Layer(index), &residual)?;
        }

        if input.logit_rows.is_empty() {
            return Ok(None);
        }
        let last = backend.select_rows(&normed, &input.logit_rows)?; // (logit_rows, hidden)
        observe(Stage::Final, &last)?;
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        Ok(Some(backend.linear(&last, head)?)) // (logit_rows, vocab)
    }

    /// `(tokens, hidden)` → `(tokens, hidden)`
    fn attention(
        &self,
        backend: &B,
        step: &B::Step,
        layer: &Layer<B>,
        index: usize,
        x: &B::Tensor,
        cache: &mut B::KvCache,
    ) -> Result<B::Tensor> {
        let layer_ref = LayerRef {
            index,
            kind: layer.kind,
        };
        let qkv = backend.linear(x, &layer.qkv)?; // (tokens, (heads + 2·kv_heads)·head_dim)
        let q =
            backend.rotate_and_store(step, &qkv, &layer.qk_norm, &self.shape, layer_ref, cache)?;
        let mixed = backend.paged_attention(step, &q, &self.shape, layer_ref, cache)?; // (tokens, heads·head_dim)
        backend.linear(&mixed, &layer.output)
    }
}
