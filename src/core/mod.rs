//! The shared data types that the HTTP side and the engine exchange.
//!
//! Data types, and the interface of constraints. Knows nothing of HTTP, tokenizers, tensors or
//! devices, so that every other module may use it.

mod block_table;
mod constraint;
mod kv_groups;
mod preparation;
mod settings;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use block_table::BlockTable;
pub use constraint::{Constraint, ConstraintState, NextMask, TokenMask, Urgency};
pub use kv_groups::{BlockCount, KvGroups, MAX_KV_GROUPS};
pub use preparation::{
    CtWindows, EVEN_FRAMES, FrameChoice, PanAndScan, Preparation, PreparationError,
    PreparationFields, Window, WindowChoice, WindowPreset,
};
pub use settings::{Dtype, ImageFit, PrefixCaching, RolePolicy, Thinking, ToolFormat};

/// A token id: an index into the model's vocabulary.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct TokenId(pub u32);

/// Id of a sequence, unique for the lifetime of the process; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// Index of a KV cache block within one group's pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

impl fmt::Display for SeqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq-{}", self.0)
    }
}

/// Hash (256 bits) of an image's pixels, its size and the processor's settings.
///
/// Wide enough that two different images never share cached results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageHash(pub [u8; 32]);

/// A preprocessed image in the vision encoder's input format.
///
/// Kept as bytes (2.4 MB at 896×896, a quarter of f32); the backend normalises with
/// `(x − 127.5) / 127.5` when it embeds the patches.
#[derive(Clone)]
pub struct PixelValues {
    /// Side of the square, in pixels.
    pub size: usize,
    /// Interleaved RGB, row-major: `(size, size, 3)`.
    pub rgb: Arc<[u8]>,
    /// Hash of these pixels, used as a cache key.
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

/// Position of one image's embeddings in a prompt.
#[derive(Clone, Debug)]
pub struct ImageSpan {
    /// Index of the span's first `<image_soft_token>` in the prompt.
    pub start: usize,
    /// Number of `<image_soft_token>`s.
    pub len: usize,
    /// The image itself.
    pub pixels: PixelValues,
}

/// Parameters that determine how the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Temperature; 0 means greedy.
    pub temperature: f32,
    /// Nucleus sampling: the smallest set of tokens whose probability reaches this; 1 means off.
    pub top_p: f32,
    /// Only the k most probable tokens; `None` means off.
    pub top_k: Option<NonZeroU32>,
    /// Only tokens at least this fraction as probable as the best one; 0 means off.
    pub min_p: f32,
    /// Added once to the logit of each of these tokens; ascending by token, each once.
    pub logit_bias: Arc<[(TokenId, f32)]>,
    /// Subtracted from the logit of a token once if it was generated before.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time that it was generated before.
    pub frequency_penalty: f32,
    /// Divides the positive and multiplies the negative logits of tokens that are in the prompt or
    /// were generated before; 1 means off.
    pub repetition_penalty: f32,
    /// Seed; samples depend only on this and on the token's position, never on the batch.
    pub seed: u64,
    /// Maximum number of new tokens; at least 1.
    pub max_tokens: usize,
    /// Minimum number of new tokens before a stop token may be sampled.
    pub min_tokens: usize,
    /// Tokens that end the sequence (the model's own, unless ignored, and the user's).
    pub stop_token_ids: Vec<TokenId>,
    /// Number of alternatives to report log-probabilities for; `Some(0)` reports only the chosen
    /// token's.
    pub top_logprobs: Option<usize>,
    /// Tokens whose log-probabilities are reported in place of the most probable ones; only with
    /// `top_logprobs`.
    pub logprob_token_ids: Arc<[TokenId]>,
}

impl SamplingParams {
    /// Parameters for greedy decoding of at most `max_tokens` tokens, without stop tokens.
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
            logprob_token_ids: Arc::default(),
        }
    }

    /// Whether sampling depends on counts of earlier tokens, besides the logits.
    pub fn has_penalties(&self) -> bool {
        self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || self.repetition_penalty != 1.0
    }
}

/// Id of a tenant. Tenants get equal shares of the machine.
///
/// If tenants are not distinguished, all requests belong to the default one, which may use
/// everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TenantId(pub u64);

/// Cache salt: requests share cached prefixes only with requests of the same salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheSalt(pub [u8; 32]);

/// How a request is scheduled; does not affect its results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulingParams {
    /// Smaller values are served earlier, as in vLLM.
    pub priority: i32,
    /// Tenant of the request; within a priority, tenants get equal shares.
    pub tenant: TenantId,
    /// Salt of the prefix cache; requests with `None` share among themselves.
    pub cache_salt: Option<CacheSalt>,
    /// Time at which the request is given up, waiting or running.
    pub deadline: Option<Instant>,
}

/// A request to generate one sequence; `n > 1` becomes several of these.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Prompt with image placeholders expanded; never empty.
    pub prompt: Vec<TokenId>,
    /// Images in order of `start`, not overlapping, each inside the prompt.
    pub images: Vec<ImageSpan>,
    /// Sampling parameters.
    pub sampling: SamplingParams,
    /// Constraint that every token of the answer must satisfy.
    pub constraint: Option<Arc<dyn Constraint>>,
    /// Number of alternatives to each of the prompt's tokens to report log-probabilities for;
    /// `Some(0)` reports only the prompt's own. Such a request uses nothing from the prefix cache,
    /// since every position's logits are needed.
    pub prompt_logprobs: Option<usize>,
    /// Scheduling parameters.
    pub scheduling: SchedulingParams,
}

/// Log-probabilities of the model's own distribution, before temperature and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Log-probability of the chosen token, or of the prompt's token.
    pub logprob: f32,
    /// Number of tokens that are at least as probable, itself included: 1 is the best, as in vLLM.
    pub rank: u32,
    /// The most probable tokens, best first; or the tokens that the request names, in its order.
    pub top: Vec<(TokenId, f32)>,
}

/// Reason why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was sampled.
    Stop,
    /// `max_tokens` or the model's length was reached.
    Length,
}

impl FinishReason {
    /// Returns its name in OpenAI's API and in the log: `stop` or `length`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// One generated token with its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEvent {
    /// The token; stop tokens are reported too.
    pub token: TokenId,
    /// Log-probabilities; present when the request asked for them.
    pub logprobs: Option<TokenLogprobs>,
    /// Log-probabilities of the prompt's tokens from the second on; present on the first event of a
    /// request that asked for them.
    pub prompt_logprobs: Option<Arc<[TokenLogprobs]>>,
    /// Reason for the end; present on the last event.
    pub finish: Option<FinishReason>,
    /// Number of prompt tokens that were found in the cache; the same on every event.
    pub num_cached_tokens: usize,
    /// Time from acceptance to the first step that computed something of the request; the same on
    /// every event.
    pub queued: Duration,
    /// Number of times the request has lost its KV blocks to another so far.
    pub num_preemptions: usize,
}
