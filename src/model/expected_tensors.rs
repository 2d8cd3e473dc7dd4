//! Names and shapes of all tensors of an architecture. A checkpoint is checked against them before
//! memory is planned and anything is loaded.
//!
//! The list must agree with the loading code of decoder, vision encoder and projector; a test
//! compares them.

use super::config::{ModelConfig, TextConfig, VisionConfig};
use super::tensor_names::{EMBEDDING, LM_HEAD};
use super::weights::Weights;
use crate::error::Result;

/// A tensor's canonical name and its shape.
pub type ExpectedTensor = (String, Vec<usize>);

/// Returns the tensors of `config`, whose `vocab_size` must be the embedding's own. A separate head
/// is included only if the config requires one.
pub fn expected_tensors(config: &ModelConfig) -> impl Iterator<Item = ExpectedTensor> {
    let text = &config.text;
    let table = vec![text.vocab_size, text.hidden_size];
    let head = (!config.tie_word_embeddings).then(|| (LM_HEAD.to_owned(), table.clone()));
    let vision = config
        .vision
        .iter()
        .flat_map(move |vision| vision_encoder(vision, text.hidden_size));
    std::iter::once((EMBEDDING.to_owned(), table))
        .chain(head)
        .chain(decoder(text))
        .chain(vision)
}

/// Checks that every tensor exists, with the shape that the config implies and a supported type.
///
/// # Errors
/// Returns `Checkpoint`, naming file and tensor.
pub fn check(config: &ModelConfig, weights: &Weights) -> Result<()> {
    expected_tensors(config).try_for_each(|(name, shape)| weights.check(&name, &shape))?;
    if weights.contains(LM_HEAD) {
        weights.check(LM_HEAD, &[config.text.vocab_size, config.text.hidden_size])?;
    }
    Ok(())
}

fn decoder(config: &TextConfig) -> impl Iterator<Item = ExpectedTensor> {
    let (hidden, mlp, head_dim) = (
        config.hidden_size,
        config.intermediate_size,
        config.head_dim,
    );
    let query = config.num_attention_heads * head_dim;
    let kv = config.num_key_value_heads * head_dim;
    let layer = [
        ("input_layernorm", vec![hidden]),
        ("post_attention_layernorm", vec![hidden]),
        ("pre_feedforward_layernorm", vec![hidden]),
        ("post_feedforward_layernorm", vec![hidden]),
        ("self_attn.q_norm", vec![head_dim]),
        ("self_attn.k_norm", vec![head_dim]),
        ("self_attn.q_proj", vec![query, hidden]),
        ("self_attn.k_proj", vec![kv, hidden]),
        ("self_attn.v_proj", vec![kv, hidden]),
        ("self_attn.o_proj", vec![hidden, query]),
        ("mlp.gate_proj", vec![mlp, hidden]),
        ("mlp.up_proj", vec![mlp, hidden]),
        ("mlp.down_proj", vec![hidden, mlp]),
    ];
    let layers = (0..config.num_hidden_layers).flat_map(move |index| {
        layer.clone().map(|(name, shape)| {
            (
                format!("language_model.model.layers.{index}.{name}.weight"),
                shape,
            )
        })
    });
    layers.chain(std::iter::once((
        "language_model.model.norm.weight".to_owned(),
        vec![hidden],
    )))
}

fn vision_encoder(
    config: &VisionConfig,
    text_hidden: usize,
) -> impl Iterator<Item = ExpectedTensor> {
    const PREFIX: &str = "vision_tower.vision_model";
    let (width, mlp, patch) = (
        config.hidden_size,
        config.intermediate_size,
        config.patch_size,
    );
    let layer = [
        ("layer_norm1.weight", vec![width]),
        ("layer_norm1.bias", vec![width]),
        ("self_attn.q_proj.weight", vec![width, width]),
        ("self_attn.q_proj.bias", vec![width]),
        ("self_attn.k_proj.weight", vec![width, width]),
        ("self_attn.k_proj.bias", vec![width]),
        ("self_attn.v_proj.weight", vec![width, width]),
        ("self_attn.v_proj.bias", vec![width]),
        ("self_attn.out_proj.weight", vec![width, width]),
        ("self_attn.out_proj.bias", vec![width]),
        ("layer_norm2.weight", vec![width]),
        ("layer_norm2.bias", vec![width]),
        ("mlp.fc1.weight", vec![mlp, width]),
        ("mlp.fc1.bias", vec![mlp]),
        ("mlp.fc2.weight", vec![width, mlp]),
        ("mlp.fc2.bias", vec![width]),
    ];
    let around = [
        (
            "embeddings.patch_embedding.weight",
            vec![width, 3, patch, patch],
        ),
        ("embeddings.patch_embedding.bias", vec![width]),
        (
            "embeddings.position_embedding.weight",
            vec![config.grid() * config.grid(), width],
        ),
        ("post_layernorm.weight", vec![width]),
        ("post_layernorm.bias", vec![width]),
    ];
    let projector = [
        ("mm_soft_emb_norm.weight", vec![width]),
        ("mm_input_projection_weight", vec![width, text_hidden]),
    ];
    let layers = (0..config.num_hidden_layers).flat_map(move |index| {
        layer
            .clone()
            .map(|(name, shape)| (format!("{PREFIX}.encoder.layers.{index}.{name}"), shape))
    });
    around
        .into_iter()
        .map(|(name, shape)| (format!("{PREFIX}.{name}"), shape))
        .chain(layers)
        .chain(projector.map(|(name, shape)| (format!("multi_modal_projector.{name}"), shape)))
}
