//! A model that is ready to serve: all that the HTTP side needs of it.
//!
//! Plain data. Knows nothing of how the model was found or how requests arrive.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::request_seeds::RequestSeeds;
use crate::core::{PreparationFields, RolePolicy, Thinking, TokenId, ToolFormat};
use crate::engine::EngineHandle;
use crate::image::ImageProcessor;
use crate::text::{ChatTemplate, Grammars, ImageTokens, NamedTokens, ReasoningMarkers, Tokenizer};

/// A loaded model with everything that converts requests to tokens and back.
#[derive(Debug)]
pub struct ServedModel {
    /// Names that clients may use; the first is its own name. Never empty.
    pub names: Vec<String>,
    /// Time at which it became ready, in Unix seconds.
    pub created: u64,
    /// Handle to its engine.
    pub engine: EngineHandle,
    /// Converts text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Grammars for constrained answers.
    pub grammars: Arc<Grammars>,
    /// Converts messages to a prompt; `None` for a model that only continues text.
    pub template: Option<ChatTemplate>,
    /// Tokens that the checkpoint names, such as `bos_token`.
    pub named_tokens: NamedTokens,
    /// Image preprocessing; `None` for a text-only model.
    pub images: Option<ImageSupport>,
    /// Maximum length of a sequence, prompt and output together, in tokens.
    pub max_model_len: usize,
    /// Number of rows of the embedding: larger ids cannot be computed, even if the tokenizer knows
    /// them (a text-only model's tokenizer has `<image_soft_token>` just past its last row).
    pub vocab_size: usize,
    /// Sampling defaults for requests that do not specify them.
    pub sampling_defaults: SamplingDefaults,
    /// Seeds for requests without one.
    pub seeds: RequestSeeds,
    /// How the model thinks; `None` for a model that does not.
    pub thinking: Option<ThinkingSupport>,
    /// Format in which the model writes tool calls.
    pub tool_format: ToolFormat,
    /// Handling of turns in an order that templates do not accept.
    pub roles: RolePolicy,
    /// Tokens that end an answer, unless a request ignores them.
    pub eos_token_ids: Vec<TokenId>,
}

/// How a model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinkingSupport {
    /// When it thinks; never [`Thinking::Never`].
    pub when: Thinking,
    /// Tokens around reasoning.
    pub markers: ReasoningMarkers,
}

/// Image preprocessing of a model.
#[derive(Clone, Debug)]
pub struct ImageSupport {
    /// Converts encoded images to pixels.
    pub processor: ImageProcessor,
    /// How images are prepared unless a request says otherwise.
    pub preparation: PreparationFields,
    /// Tokens that represent an image in a prompt.
    pub tokens: ImageTokens,
    /// Maximum number of images per prompt; `None` means as many as fit.
    pub max_per_prompt: Option<usize>,
}

/// Sampling defaults of a checkpoint, for requests that do not specify them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// Temperature; 0 means greedy.
    pub temperature: f32,
    /// Top-p; 1 means off.
    pub top_p: f32,
    /// Top-k; `None` means off.
    pub top_k: Option<NonZeroU32>,
    /// Min-p; 0 means off.
    pub min_p: f32,
    /// Repetition penalty; 1 means off.
    pub repetition_penalty: f32,
}

impl SamplingDefaults {
    /// The model's own distribution, as in OpenAI's API.
    pub const NEUTRAL: Self = Self {
        temperature: 1.0,
        top_p: 1.0,
        top_k: None,
        min_p: 0.0,
        repetition_penalty: 1.0,
    };
    /// The most probable token, as transformers without a generation_config.json.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        ..Self::NEUTRAL
    };
}
