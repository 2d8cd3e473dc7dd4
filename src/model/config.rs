//! The model's configuration from config.json, in all variants that writers have used.
//!
//! Holds the validated numbers of the architecture: a `ModelConfig` need not be checked again.
//! Knows nothing of tensors. Absent fields have the defaults of transformers 5.23
//! (`configuration_gemma3.py`, `configuration_siglip.py`).

use std::path::Path;

use serde_json::{Value, json};

use super::quantization::refuse_quantised;
use crate::backend::ModelShape;
use crate::core::KvGroups;
use crate::error::Result;
use crate::files;
use crate::files::json_fields::Fields;

/// The only activation function of the family, in the text model and the vision encoder.
const ACTIVATION: &str = "gelu_pytorch_tanh";

// Upper limits: far above every known checkpoint, low enough that no product of two overflows.
const MAX_WIDTH: usize = 1 << 18;
const MAX_LAYERS: usize = 1 << 10;
const MAX_HEADS: usize = 1 << 10;
const MAX_VOCAB: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 27;
const MAX_IMAGE_SIZE: usize = 1 << 13;

/// Kinds of attention layers, by the keys that a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// All positions up to the query's.
    Global,
    /// The last `sliding_window` positions, the query's own included.
    Sliding,
}

impl LayerKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Global, Self::Sliding];
}

/// A checkpoint's architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The language model.
    pub text: TextConfig,
    /// Vision encoder and projector; `None` for text-only checkpoints.
    pub vision: Option<VisionConfig>,
    /// `<image_soft_token>`; `None` for text-only checkpoints.
    pub image_token_id: Option<u32>,
    /// Stop tokens of config.json; the list in generation_config.json takes precedence.
    pub eos_token_ids: Vec<u32>,
    /// If false, the checkpoint must have `lm_head.weight`. If true, it may, and then it is used.
    pub tie_word_embeddings: bool,
}

/// Configuration of the language model.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Number of rows of the embedding. The embedding tensor's shape takes precedence: text-only
    /// checkpoints have been written without this field, and the default is that of the multimodal
    /// ones.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Numbers per head; even.
    pub head_dim: usize,
    /// Attention scores are multiplied by this to the power of −0.5.
    pub query_pre_attn_scalar: f64,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Number of keys that a sliding layer sees, the query's own included.
    pub sliding_window: usize,
    /// Kind of each layer.
    pub layer_kinds: Vec<LayerKind>,
    /// Rotary embedding of global layers.
    pub rope_global: RopeParams,
    /// Rotary embedding of sliding layers.
    pub rope_local: RopeParams,
    /// Maximum length of a sequence that the checkpoint was made for.
    pub max_position_embeddings: usize,
}

/// A rotary embedding: `default` (factor 1) or `linear`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeParams {
    /// Base of the frequencies.
    pub theta: f64,
    /// Positions are divided by this.
    pub factor: f64,
}

/// Configuration of SigLIP and the projector.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Width of the vision encoder.
    pub hidden_size: usize,
    /// Width of its MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Side of the square image in pixels; a multiple of `patch_size`.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Epsilon of every layer norm, and of the projector's RMS norm.
    pub layer_norm_eps: f64,
    /// Number of tokens per image: a square number whose root divides the patches' grid.
    pub mm_tokens_per_image: usize,
}

impl ModelConfig {
    /// Returns the sizes by which a device's kernels are chosen.
    pub fn shape(&self) -> ModelShape {
        let text = &self.text;
        ModelShape {
            hidden_size: text.hidden_size,
            intermediate_size: text.intermediate_size,
            num_heads: text.num_attention_heads,
            num_kv_heads: text.num_key_value_heads,
            head_dim: text.head_dim,
            groups: text.kv_groups(),
        }
    }

    /// Reads config.json. `file` is named in errors.
    ///
    /// # Errors
    /// Returns `Checkpoint` for invalid JSON, a field that is missing, misplaced or out of range,
    /// and for settings that Gemma 3 does not have.
    pub fn from_json(file: &Path, text: &[u8]) -> Result<Self> {
        let value = files::json(file, text)?;
        Self::from_fields(&Fields::new(file, &value)?)
    }

    /// Reads the fields of a config.json from any source.
    ///
    /// # Errors
    /// Returns the errors of `from_json`.
    pub fn from_fields(fields: &Fields<'_>) -> Result<Self> {
        let is_multimodal = match fields.text("model_type")? {
            Some("gemma3") => true,
            Some("gemma3_text") => false,
            Some(other) => {
                return Err(fields.error(
                    "model_type",
                    format_args!("is \"{other}\"; only gemma3 and gemma3_text are supported"),
                ));
            }
            None => return Err(fields.error("model_type", "is missing")),
        };
        refuse_other_heads(fields)?;
        refuse_quantised(fields)?;
        let nested = fields.section("text_config")?;
        let text_fields = match &nested {
            Some(nested) => nested,
            None if is_multimodal => return Err(fields.error("text_config", "is missing")),
            None => fields,
        };
        let vision = match fields.section("vision_config")? {
            Some(vision_fields) if is_multimodal => {
                Some(VisionConfig::from_fields(&vision_fields, fields)?)
            }
            _ => None,
        };
        let image_token_id = vision
            .as_ref()
            .map(|_| image_token_id(fields))
            .transpose()?;
        let mut eos_token_ids = fields.token_ids("eos_token_id")?;
        if eos_token_ids.is_empty() {
            eos_token_ids = text_fields.token_ids("eos_token_id")?;
        }
        if eos_token_ids.is_empty() {
            eos_token_ids = vec![1];
        }
        let tie_word_embeddings = fields.flag("tie_word_embeddings")?.unwrap_or(true)
            && text_fields.flag("tie_word_embeddings")?.unwrap_or(true);
        Ok(Self {
            text: TextConfig::from_fields(text_fields)?,
            vision,
            image_token_id,
            eos_token_ids,
            tie_word_embeddings,
        })
    }

    /// Number of parameters in the checkpoint, without a separate head.
    pub fn num_parameters(&self) -> u64 {
        let hidden = self.text.hidden_size;
        self.text.num_parameters()
            + self
                .vision
                .as_ref()
                .map_or(0, |vision| vision.num_parameters(hidden))
    }
}

/// Refuses architectures with another head: without its weights, the answers would be noise.
fn refuse_other_heads(fields: &Fields<'_>) -> Result<()> {
    const KNOWN: [&str; 2] = ["Gemma3ForConditionalGeneration", "Gemma3ForCausalLM"];
    let names = fields.list("architectures")?.unwrap_or_default();
    match names
        .iter()
        .find(|name| name.as_str().is_none_or(|name| !KNOWN.contains(&name)))
    {
        Some(name) => Err(fields.error(
            "architectures",
            format_args!("names {name}; only {} are supported", KNOWN.join(" and ")),
        )),
        None => Ok(()),
    }
}

/// Default id of `<image_soft_token>`.
pub const DEFAULT_IMAGE_TOKEN_ID: u32 = 262_144;

fn image_token_id(fields: &Fields<'_>) -> Result<u32> {
    for name in ["image_token_index", "image_token_id"] {
        match fields.token_ids(name)?.as_slice() {
            [] => {}
            [id] => return Ok(*id),
            _ => return Err(fields.error(name, "must be one token id, not a list")),
        }
    }
    Ok(DEFAULT_IMAGE_TOKEN_ID)
}

impl TextConfig {
    /// Reads the fields of a text_config.
    ///
    /// # Errors
    /// Returns the errors of `ModelConfig::from_json`.
    pub fn from_fields(fields: &Fields<'_>) -> Result<Self> {
        if let Some(model_type) = fields.text("model_type")?
            && model_type != "gemma3_text"
        {
            return Err(fields.error(
                "model_type",
                format_args!("is \"{model_type}\"; only gemma3_text is supported"),
            ));
        }
        fields.refuse_unless("hidden_activation", &[json!(ACTIVATION)])?;
        fields.refuse_unless("attention_bias", &[json!(false)])?;
        fields.refuse_unless("attn_logit_softcapping", &[])?;
        fields.refuse_unless("final_logit_softcapping", &[])?;
        fields.refuse_unless("use_bidirectional_attention", &[json!(false)])?;
        refuse_quantised(fields)?;

        let num_hidden_layers = fields.count("num_hidden_layers", Some(26), MAX_LAYERS)?;
        let num_attention_heads = fields.count("num_attention_heads", Some(8), MAX_HEADS)?;
        let num_key_value_heads = fields.count("num_key_value_heads", Some(4), MAX_HEADS)?;
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            return Err(fields.error(
                "num_key_value_heads",
                format_args!(
                    "is {num_key_value_heads}; it must divide num_attention_heads, which is \
                     {num_attention_heads}"
                ),
            ));
        }
        let head_dim = fields.count("head_dim", Some(256), MAX_WIDTH)?;
        if !head_dim.is_multiple_of(2) {
            return Err(fields.error(
                "head_dim",
                format_args!("is {head_dim}; it must be even for rotary embeddings"),
            ));
        }
        let (rope_global, rope_local) = ropes(fields)?;
        Ok(Self {
            vocab_size: fields.count("vocab_size", Some(262_208), MAX_VOCAB)?,
            hidden_size: fields.count("hidden_size", Some(2304), MAX_WIDTH)?,
            intermediate_size: fields.count("intermediate_size", Some(9216), MAX_WIDTH)?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            query_pre_attn_scalar: fields.positive("query_pre_attn_scalar", 256.0)?,
            rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
            sliding_window: fields.count("sliding_window", Some(4096), MAX_POSITIONS)?,
            layer_kinds: layer_kinds(fields, num_hidden_layers)?,
            rope_global,
            rope_local,
            max_position_embeddings: fields.count(
                "max_position_embeddings",
                Some(131_072),
                MAX_POSITIONS,
            )?,
        })
    }

    /// Returns the kinds of layers that the model has, in the order of their KV groups.
    pub fn attention_kinds(&self) -> impl Iterator<Item = LayerKind> {
        let kinds = LayerKind::ALL.into_iter();
        kinds.filter(|kind| self.layer_kinds.contains(kind))
    }

    /// Returns the KV groups: one for each kind of layers.
    pub fn kv_groups(&self) -> KvGroups {
        let windows = self.attention_kinds().map(|kind| self.window(kind));
        KvGroups::new(&windows.collect::<Vec<_>>())
    }

    /// Number of keys that a query sees in a layer of this kind; `None` if it sees all before it.
    pub fn window(&self, kind: LayerKind) -> Option<usize> {
        match kind {
            LayerKind::Global => None,
            LayerKind::Sliding => Some(self.sliding_window),
        }
    }

    /// Number of layers of one kind.
    pub fn num_layers(&self, kind: LayerKind) -> usize {
        self.layer_kinds.iter().filter(|k| **k == kind).count()
    }

    /// Number of parameters of the text model, without a separate head.
    pub fn num_parameters(&self) -> u64 {
        let hidden = self.hidden_size as u64;
        let q = (self.num_attention_heads * self.head_dim) as u64;
        let kv = (self.num_key_value_heads * self.head_dim) as u64;
        let matmuls = hidden * (2 * q + 2 * kv) + 3 * hidden * self.intermediate_size as u64;
        let norms = 4 * hidden + 2 * self.head_dim as u64;
        let layers = self.num_hidden_layers as u64;
        self.vocab_size as u64 * hidden + layers * (matmuls + norms) + hidden
    }
}

/// Returns the kind of each layer: `layer_types` takes precedence over the two spellings of the
/// pattern.
fn layer_kinds(fields: &Fields<'_>, num_layers: usize) -> Result<Vec<LayerKind>> {
    // transformers reads the underscored spelling only to write it back; 4.5x wrote it in addition
    // to layer_types, which says the same.
    const DEFAULT_PATTERN: usize = 6;
    let underscored = fields.count("_sliding_window_pattern", Some(DEFAULT_PATTERN), MAX_LAYERS)?;
    let pattern = fields.count("sliding_window_pattern", Some(underscored), MAX_LAYERS)?;
    let Some(names) = fields.list("layer_types")? else {
        return Ok((1..=num_layers)
            .map(|n| {
                if n.is_multiple_of(pattern) {
                    LayerKind::Global
                } else {
                    LayerKind::Sliding
                }
            })
            .collect());
    };
    if names.len() != num_layers {
        return Err(fields.error(
            "layer_types",
            format_args!(
                "has {} entries; num_hidden_layers is {num_layers}",
                names.len()
            ),
        ));
    }
    names
        .iter()
        .map(|name| match name.as_str() {
            Some("full_attention") => Ok(LayerKind::Global),
            Some("sliding_attention") => Ok(LayerKind::Sliding),
            _ => Err(fields.error(
                "layer_types",
                format_args!(
                    "names {name}; only full_attention and sliding_attention are supported"
                ),
            )),
        })
        .collect()
}

/// Returns the rotary embeddings of global and sliding layers.
///
/// Follows `convert_rope_params_to_dict` of `configuration_gemma3.py`: version 5 has
/// `rope_parameters` by kind of layer; version 4's `rope_scaling` overrides the global layers'
/// entry, and its two bases are used where `rope_parameters` has none.
fn ropes(fields: &Fields<'_>) -> Result<(RopeParams, RopeParams)> {
    let theta_global = fields.positive("rope_theta", 1e6)?;
    let theta_local = fields.positive("rope_local_base_freq", 1e4)?;
    let nested = fields.section("rope_parameters")?;
    let (mut global, mut local) = (None, None);
    if let Some(nested) = &nested {
        const KINDS: [&str; 2] = ["full_attention", "sliding_attention"];
        if let Some(other) = nested.names().find(|name| !KINDS.contains(name)) {
            return Err(nested.error(
                other,
                "is not supported: rope_parameters must be given for full_attention and \
                 sliding_attention",
            ));
        }
        global = nested.section(KINDS[0])?;
        local = nested.section(KINDS[1])?;
    }
    let scaling = fields.section("rope_scaling")?;
    let theta = |section: Option<&Fields<'_>>, default| {
        section.map_or(Ok(default), |s| s.positive("rope_theta", default))
    };
    let theta_global = theta(global.as_ref(), theta_global)?;
    let theta_global = theta(scaling.as_ref(), theta_global)?;
    let theta_local = theta(local.as_ref(), theta_local)?;
    let factor = |section: Option<&Fields<'_>>| section.map_or(Ok(1.0), rope_factor);
    let global = RopeParams {
        theta: theta_global,
        factor: factor(scaling.as_ref().or(global.as_ref()))?,
    };
    let local = RopeParams {
        theta: theta_local,
        factor: factor(local.as_ref())?,
    };
    Ok((global, local))
}

fn rope_factor(section: &Fields<'_>) -> Result<f64> {
    section.refuse_unless("partial_rotary_factor", &[json!(1), json!(1.0)])?;
    // `type` is the older spelling.
    let older = section.text("type")?;
    let rope_type = section.text("rope_type")?.or(older).unwrap_or("default");
    let factor = section.positive("factor", 1.0)?;
    match rope_type {
        "linear" if section.get("factor").is_none() => {
            Err(section.error("factor", "is missing, and rope_type is \"linear\""))
        }
        "linear" => Ok(factor),
        "default" if factor == 1.0 => Ok(1.0),
        "default" => Err(section.error(
            "factor",
            format_args!("is {factor}, but rope_type is \"default\"; it must be \"linear\""),
        )),
        other => Err(section.error(
            "rope_type",
            format_args!("is \"{other}\"; only default and linear are supported"),
        )),
    }
}

impl RopeParams {
    /// `(head_dim / 2)`: `theta^(−2i / head_dim) / factor`, each step rounded to f32.
    ///
    /// Follows `compute_default_rope_parameters` of `modeling_gemma3.py` and
    /// `_compute_linear_scaling_rope_parameters` of `modeling_rope_utils.py`. Powers are correctly
    /// rounded here; torch's vectorised powers are sometimes off by one unit in the last place (in
    /// one of the 128 frequencies of head_dim 256), which is not imitated.
    pub fn inv_freq(&self, head_dim: usize) -> Vec<f32> {
        let base = f64::from(self.theta as f32);
        let factor = self.factor as f32;
        (0..head_dim)
            .step_by(2)
            .map(|i| {
                let exponent = i as f32 / head_dim as f32;
                let power = base.powf(f64::from(exponent)) as f32;
                1.0 / power / factor
            })
            .collect()
    }
}

impl VisionConfig {
    /// Reads the fields of a vision_config, and mm_tokens_per_image from `root`.
    ///
    /// # Errors
    /// Returns the errors of `ModelConfig::from_json`.
    pub fn from_fields(fields: &Fields<'_>, root: &Fields<'_>) -> Result<Self> {
        if let Some(model_type) = fields.text("model_type")?
            && model_type != "siglip_vision_model"
        {
            return Err(fields.error(
                "model_type",
                format_args!("is \"{model_type}\"; only siglip_vision_model is supported"),
            ));
        }
        fields.refuse_unless("hidden_act", &[json!(ACTIVATION)])?;
        fields.refuse_unless("num_channels", &[json!(3)])?;
        refuse_quantised(fields)?;
        // A pooling head would not be used: the projector takes the last hidden state.
        fields.flag("vision_use_head")?;

        let hidden_size = fields.count("hidden_size", Some(768), MAX_WIDTH)?;
        let num_attention_heads = fields.count("num_attention_heads", Some(12), MAX_HEADS)?;
        if !hidden_size.is_multiple_of(num_attention_heads) {
            return Err(fields.error(
                "num_attention_heads",
                format_args!(
                    "is {num_attention_heads}; it must divide hidden_size, which is {hidden_size}"
                ),
            ));
        }
        let image_size = side(fields, "image_size", 224)?;
        let patch_size = side(fields, "patch_size", 16)?;
        if !image_size.is_multiple_of(patch_size) {
            return Err(fields.error(
                "patch_size",
                format_args!("is {patch_size}; it must divide image_size, which is {image_size}"),
            ));
        }
        let grid = image_size / patch_size;
        let mm_tokens_per_image = root.count("mm_tokens_per_image", Some(256), grid * grid)?;
        let tokens_per_side = mm_tokens_per_image.isqrt();
        if tokens_per_side * tokens_per_side != mm_tokens_per_image
            || !grid.is_multiple_of(tokens_per_side)
        {
            return Err(root.error(
                "mm_tokens_per_image",
                format_args!(
                    "is {mm_tokens_per_image}; it must be the square of a divisor of {grid}, the \
                     patches along one side"
                ),
            ));
        }
        Ok(Self {
            hidden_size,
            intermediate_size: fields.count("intermediate_size", Some(3072), MAX_WIDTH)?,
            num_hidden_layers: fields.count("num_hidden_layers", Some(12), MAX_LAYERS)?,
            num_attention_heads,
            image_size,
            patch_size,
            layer_norm_eps: fields.positive("layer_norm_eps", 1e-6)?,
            mm_tokens_per_image,
        })
    }

    /// Number of patches along one side of the image.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Number of parameters of the vision encoder and of the projector to `text_hidden`.
    pub fn num_parameters(&self, text_hidden: usize) -> u64 {
        let hidden = self.hidden_size as u64;
        let mlp = self.intermediate_size as u64;
        let patch = 3 * (self.patch_size * self.patch_size) as u64;
        let patches = (self.grid() * self.grid()) as u64;
        let embeddings = hidden * (patch + 1 + patches);
        let attention = 4 * hidden * (hidden + 1);
        let layer = attention + 2 * hidden * mlp + mlp + hidden + 4 * hidden;
        let projector = hidden + hidden * text_hidden as u64;
        embeddings + self.num_hidden_layers as u64 * layer + 2 * hidden + projector
    }
}

/// Reads a square's side, written as one number or as two equal ones.
fn side(fields: &Fields<'_>, name: &str, default: usize) -> Result<usize> {
    match fields.get(name) {
        Some(Value::Array(sides)) => match sides.as_slice() {
            [height, width] if height == width => height
                .as_u64()
                .and_then(|side| usize::try_from(side).ok())
                .filter(|side| (1..=MAX_IMAGE_SIZE).contains(side))
                .ok_or_else(|| fields.wrong_type(name, "a whole number", height)),
            _ => Err(fields.error(name, "must be the side of a square")),
        },
        _ => fields.count(name, Some(default), MAX_IMAGE_SIZE),
    }
}
