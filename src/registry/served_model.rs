//! A model that answers: what the HTTP side needs of it, in one place.
//!
//! Plain data. Knows neither how the model was found nor how requests arrive.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::catalog::Thinking;
use super::request_seeds::RequestSeeds;
use crate::core::TokenId;
use crate::engine::EngineHandle;
use crate::image::ImageProcessor;
use crate::text::{ChatTemplate, Grammars, ImageTokens, ThoughtMarkers, Tokenizer, ToolFormat};

/// A loaded model with everything that turns requests into its tokens and back.
#[derive(Debug)]
pub struct ServedModel {
    /// What clients may call it; the first is its own name. Never empty.
    pub names: Vec<String>,
    /// When it became ready, in Unix seconds.
    pub created: u64,
    /// Where requests go.
    pub engine: EngineHandle,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// What answers can be made to keep to.
    pub grammars: Arc<Grammars>,
    /// Messages to a prompt; `None` for a model that only continues text.
    pub template: Option<ChatTemplate>,
    /// How images are taken; `None` for a model that takes text only.
    pub images: Option<ImageSupport>,
    /// Longest sequence, prompt and output together, in tokens.
    pub max_model_len: usize,
    /// Rows of the embedding: ids at or beyond it cannot be computed, even if the tokenizer knows
    /// them (a text-only model's tokenizer has `<image_soft_token>` just behind its last row).
    pub vocab_size: usize,
    /// What applies where a request does not say.
    pub sampling_defaults: SamplingDefaults,
    /// The seeds of requests that bring none.
    pub seeds: RequestSeeds,
    /// How it thinks; `None` for a model that does not.
    pub thinking: Option<ThinkingSupport>,
    /// How it writes calls of tools.
    pub tool_format: ToolFormat,
    /// What is done with turns in an order that templates do not take.
    pub roles: RolePolicy,
    /// Tokens that end an answer, unless a request ignores them.
    pub eos_token_ids: Vec<TokenId>,
}

/// How a model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinkingSupport {
    /// Whether it does so unasked: never [`Thinking::Never`].
    pub when: Thinking,
    /// What stands around a thought.
    pub markers: ThoughtMarkers,
}

/// What is done with turns in an order that templates do not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolePolicy {
    /// Turns of one role become one, and several system messages; an empty turn of the user's
    /// begins where nobody else's may.
    Merge,
    /// Nothing: the template refuses them in its own words.
    Strict,
}

/// How a model takes images.
#[derive(Clone, Debug)]
pub struct ImageSupport {
    /// Encoded bytes to pixels.
    pub processor: ImageProcessor,
    /// What stands for an image in a prompt.
    pub tokens: ImageTokens,
    /// Most images in one prompt; `None` is as many as fit.
    pub max_per_prompt: Option<usize>,
}

/// How a checkpoint wants to be sampled where a request does not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 is off.
    pub top_p: f32,
    /// `None` is off.
    pub top_k: Option<NonZeroU32>,
}

impl SamplingDefaults {
    /// The model's own distribution, as OpenAI's API has it.
    pub const NEUTRAL: Self = Self {
        temperature: 1.0,
        top_p: 1.0,
        top_k: None,
    };
}
