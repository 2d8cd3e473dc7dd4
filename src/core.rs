//! The shared nouns: what the HTTP side and the engine say to each other.
//!
//! Owns plain data only. Knows nothing of HTTP, tokenizers, tensors or devices,
//! so that every other module may use it.

mod constraint;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use constraint::{Constraint, ConstraintState, NextMask, TokenMask, Urgency};

/// Index into the model's vocabulary.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Default,
    JsonSchema,
)]
#[serde(transparent)]
pub struct TokenId(pub u32);

/// A sequence's identity for as long as the process lives; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// A block of the KV cache within one group's pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

impl fmt::Display for SeqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq-{}", self.0)
    }
}

/// 256 bits over an image's pixels, its size and the processor's settings.
///
/// Wide enough that two different images never share cached results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageHash(pub [u8; 32]);

/// One preprocessed image, as the vision tower takes it.
///
/// Kept as bytes (2.4 MB at 896×896, a quarter of f32); the backend normalises with
/// `(x − 127.5) / 127.5` when it embeds the patches.
#[derive(Clone)]
pub struct PixelValues {
    /// Side of the square, in pixels.
    pub size: usize,
    /// Interleaved RGB, row-major: `(size, size, 3)`.
    pub rgb: Arc<[u8]>,
    /// Identity of these pixels for caches.
    pub hash: ImageHash,
}

impl fmt::Debug for PixelValues {
    // Never the pixels: an image must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PixelValues")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Where one image's features stand in a prompt.
#[derive(Clone, Debug)]
pub struct ImageSpan {
    /// Index of the span's first `<image_soft_token>` in the prompt.
    pub start: usize,
    /// Number of `<image_soft_token>`s.
    pub len: usize,
    /// The image itself.
    pub pixels: PixelValues,
}

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus: smallest set of tokens whose probability reaches this; 1 is off.
    pub top_p: f32,
    /// Only the k most probable tokens; `None` is off.
    pub top_k: Option<NonZeroU32>,
    /// Only tokens at least this share as probable as the best one; 0 is off.
    pub min_p: f32,
    /// Added once to the logit of each of these tokens; ascending by token, each once.
    pub logit_bias: Arc<[(TokenId, f32)]>,
    /// Subtracted from the logit of a token once if it was generated before.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time that it was generated before.
    pub frequency_penalty: f32,
    /// Divides the positive and multiplies the negative logits of tokens that stand in the prompt
    /// or were generated before; 1 is off.
    pub repetition_penalty: f32,
    /// Samples depend on this and on the token's position only, never on the batch.
    pub seed: u64,
    /// At most this many new tokens; at least 1.
    pub max_tokens: usize,
    /// No stop token may be sampled before this many new tokens.
    pub min_tokens: usize,
    /// End the sequence when one of these is sampled (the model's own, unless ignored, and the user's).
    pub stop_token_ids: Vec<TokenId>,
    /// How many alternatives to report log-probabilities for; `Some(0)` reports the chosen token's only.
    pub top_logprobs: Option<usize>,
}

impl SamplingParams {
    /// Greedy decoding of at most `max_tokens` tokens, without stop tokens.
    pub fn greedy(max_tokens: usize) -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            logit_bias: Arc::default(),
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            max_tokens,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            top_logprobs: None,
        }
    }

    /// Whether a sample depends on the tokens before it, beyond what the model makes of them.
    pub fn has_penalties(&self) -> bool {
        self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || self.repetition_penalty != 1.0
    }
}

/// Who asks. Requests of one tenant share its fair part of the machine.
///
/// The default is whoever asks where nobody is told apart: all of the machine is its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TenantId(pub u64);

/// Requests share cached prefixes only with those of the same salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheSalt(pub [u8; 32]);

/// How a request is to be treated, apart from what it computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulingParams {
    /// Smaller is served earlier, as in vLLM.
    pub priority: i32,
    /// Within a priority, tenants get equal parts.
    pub tenant: TenantId,
    /// `None` shares with everybody else who has none.
    pub cache_salt: Option<CacheSalt>,
    /// When to give the request up, waiting or running.
    pub deadline: Option<Instant>,
}

/// One sequence to generate; `n > 1` is several of these.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Prompt with image placeholders expanded; never empty.
    pub prompt: Vec<TokenId>,
    /// In order of `start`, not overlapping, each inside the prompt.
    pub images: Vec<ImageSpan>,
    /// How to continue it.
    pub sampling: SamplingParams,
    /// What every token of the answer must keep to.
    pub constraint: Option<Arc<dyn Constraint>>,
    /// How many alternatives to each of the prompt's tokens to report log-probabilities for;
    /// `Some(0)` reports the prompt's own only. Such a request takes nothing from the prefix cache,
    /// since every position's logits are wanted.
    pub prompt_logprobs: Option<usize>,
    /// How to treat it.
    pub scheduling: SchedulingParams,
}

/// Log-probabilities of the model's own distribution, before temperature and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the token that was chosen, or that stands in the prompt.
    pub logprob: f32,
    /// How many tokens are at least as probable, itself included: 1 is the best, as vLLM counts.
    pub rank: u32,
    /// The most probable tokens, best first.
    pub top: Vec<(TokenId, f32)>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was sampled.
    Stop,
    /// `max_tokens` or the model's length was reached.
    Length,
}

/// One generated token on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEvent {
    /// The token; a stop token is reported too.
    pub token: TokenId,
    /// Present when the request asked for log-probabilities.
    pub logprobs: Option<TokenLogprobs>,
    /// Of the prompt's tokens from the second on, one each; present on the first event of a request
    /// that asked for them.
    pub prompt_logprobs: Option<Arc<[TokenLogprobs]>>,
    /// Present on the last event.
    pub finish: Option<FinishReason>,
    /// Of the prompt, how many tokens were found in the cache; the same on every event.
    pub num_cached_tokens: usize,
    /// From acceptance to the first step that computed something of it; the same on every event.
    pub queued: Duration,
}
