//! Estimates the memory that a model will use, before anything is loaded.
//!
//! Owns the estimate and the limits that follow from it. Uses shapes only, no tensors.

use std::fmt;

use super::kv_plan::{KvBudget, KvPlan, KvShape, UseOfBytes};
use crate::backend::{BLOCK_SIZE, DeviceMemory, MemorySharing, StepLimits};
use crate::config::{ByteSize, Limits};
use crate::core::PrefixCaching;
use crate::error::{Error, Result};
use crate::model::MAX_IMAGES_PER_CALL;
use crate::model::config::ModelConfig;
use crate::scheduler::SchedulerConfig;

/// Activations are f32 on the CPU; on GPUs only some are, so this is an upper bound.
const ELEMENT_BYTES: u64 = 4;
/// The program itself, a tokenizer of 262 thousand tokens, connections, prompts in flight.
const PROCESS_BYTES: u64 = 256 << 20;
/// Maximum share of the memory besides the weights that the KV cache gets by default: the machine
/// has other work too.
const KV_SHARE: (u64, u64) = (4, 5);
/// Minimum context length; below this a chat is not useful, and the server reports the lack of
/// memory instead.
const LEAST_MODEL_LEN: usize = 512;

const NO_ROOM: &str = "Lower --max-num-batched-tokens, --max-num-seqs or --max-model-len, serve a \
                       smaller model, or give the server more memory.";

/// Returns the bytes besides weights, activations and the cache.
fn base_bytes(memory: DeviceMemory) -> u64 {
    match memory.sharing {
        MemorySharing::Shared => PROCESS_BYTES + memory.driver_bytes,
        MemorySharing::Exclusive => memory.driver_bytes,
    }
}

/// Returns the default size of the KV cache when `free` bytes are left.
fn kv_share(memory: DeviceMemory, free: u64) -> (u64, UseOfBytes) {
    match memory.sharing {
        MemorySharing::Shared => {
            let (share, of) = KV_SHARE;
            (free / of * share, UseOfBytes::AsNeeded)
        }
        MemorySharing::Exclusive => (free, UseOfBytes::All),
    }
}

/// Memory use of a model, and the limits within which it runs.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// Bytes of the model's parameters.
    pub weights: u64,
    /// Bytes of activations, image embeddings, and the process or the driver itself.
    pub workspace: u64,
    /// Part of `workspace`: activations and logits of the largest step.
    pub activations: u64,
    /// Part of `workspace`: activations and logits of the largest step that a GPU captures.
    pub captured: u64,
    /// Part of `workspace`: cached image embeddings.
    pub features: u64,
    /// Bytes of the KV cache's pools.
    pub kv_cache: u64,
    /// Configuration of the scheduler.
    pub scheduler: SchedulerConfig,
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "weights {}, KV cache {} ({} tokens, {} requests at full length), computing up to {}",
            ByteSize(self.weights),
            ByteSize(self.kv_cache),
            self.num_tokens(),
            self.num_full_length(),
            ByteSize(self.workspace)
        )
    }
}

impl MemoryPlan {
    /// Sizes of the largest step, for the device's backend.
    pub fn step_limits(&self) -> StepLimits {
        StepLimits {
            max_rows: self.scheduler.max_num_batched_tokens,
            max_sequences: self.scheduler.max_num_seqs,
            max_model_len: self.scheduler.max_model_len,
            activation_bytes: self.activations,
            captured_bytes: self.captured,
            feature_bytes: self.features,
        }
    }

    /// Number of tokens that the KV cache holds, in the layers that keep every token.
    pub fn num_tokens(&self) -> usize {
        let blocks = self.scheduler.num_blocks;
        blocks[self.scheduler.groups.first_global().unwrap_or(0)] * self.scheduler.block_size
    }

    /// Number of requests of `max_model_len` tokens that the KV cache holds at a time.
    pub fn num_full_length(&self) -> usize {
        let config = &self.scheduler;
        // The last token is sampled and needs no KV slot.
        let len = config.max_model_len - 1;
        // Sliding layers need one window per sequence plus one step's worth of new tokens in total.
        let each = config.groups.blocks_for(len, 1, config.block_size);
        let computed = config.blocks_for(len).saturating_sub(each);
        let windows = config.num_blocks.saturating_sub(computed);
        (windows.by_group().into_iter())
            .zip(each.by_group())
            .filter_map(|(total, each)| total.checked_div(each))
            .min()
            .unwrap_or(0)
    }
}

/// Minimum memory to serve a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastMemory {
    /// Bytes of the model's parameters.
    pub weights: u64,
    /// Bytes of activations, image embeddings, and the process or the driver itself.
    pub workspace: u64,
    /// Bytes of one sequence's KV cache.
    pub kv_cache: u64,
}

impl LeastMemory {
    /// Sum of all parts.
    pub fn total(&self) -> u64 {
        self.weights + self.workspace + self.kv_cache
    }
}

/// Returns the memory that a model whose weights take `weights` bytes needs for one sequence of the
/// length in the limits, or of its whole context.
///
/// # Errors
/// Returns `Config` for limits that contradict the model.
pub fn least_memory(
    config: &ModelConfig,
    weights: u64,
    limits: &Limits,
    memory: DeviceMemory,
) -> Result<LeastMemory> {
    check_limits(config, limits)?;
    let shape = KvShape::new(
        &config.text,
        limits.max_num_batched_tokens,
        memory.kv_element_bytes,
    );
    let context = config.text.max_position_embeddings;
    let Workspace { sum, .. } = Workspace::new(config, limits, memory);
    Ok(LeastMemory {
        weights,
        workspace: sum,
        kv_cache: shape.least_bytes(limits.max_model_len.unwrap_or(context)),
    })
}

/// Memory for computation.
struct Workspace {
    activations: u64,
    captured: u64,
    features: u64,
    /// Sum of these, and of what the process or the driver needs.
    sum: u64,
}

impl Workspace {
    fn new(config: &ModelConfig, limits: &Limits, memory: DeviceMemory) -> Self {
        let activations = activation_bytes(config, limits) + memory.split_bytes;
        let captured = captured_bytes(config, limits, memory);
        let features = match config.vision {
            Some(_) => limits.encoder_cache_memory.0,
            None => 0,
        };
        Self {
            activations,
            captured,
            features,
            sum: activations + captured + features + base_bytes(memory),
        }
    }
}

/// Plans the use of a device's memory for a model whose weights take `weights` bytes there.
///
/// # Errors
/// Returns `OutOfMemory` with the needed and available bytes, and which option helps. `Config` for
/// limits that contradict the model or each other.
pub fn plan(
    name: &str,
    config: &ModelConfig,
    weights: u64,
    limits: &Limits,
    memory: DeviceMemory,
) -> Result<MemoryPlan> {
    check_limits(config, limits)?;
    let Workspace {
        activations,
        captured,
        features,
        sum,
    } = Workspace::new(config, limits, memory);
    let needs = Needs {
        name,
        weights,
        workspace: sum,
        memory,
        shape: KvShape::new(
            &config.text,
            limits.max_num_batched_tokens,
            memory.kv_element_bytes,
        ),
        context: config.text.max_position_embeddings,
    };
    let kv = needs.kv_plan(limits)?;
    let scheduler = SchedulerConfig {
        max_num_seqs: limits.max_num_seqs,
        max_num_batched_tokens: limits.max_num_batched_tokens,
        max_model_len: kv.max_model_len,
        block_size: BLOCK_SIZE,
        groups: needs.shape.groups,
        num_blocks: kv.num_blocks,
        prefix_caching: PrefixCaching::On,
    };
    scheduler.validate()?;
    Ok(MemoryPlan {
        weights: needs.weights,
        workspace: needs.workspace,
        activations,
        captured,
        features,
        kv_cache: kv.bytes,
        scheduler,
    })
}

fn check_limits(config: &ModelConfig, limits: &Limits) -> Result<()> {
    let context = config.text.max_position_embeddings;
    if let Some(wanted) = limits.max_model_len
        && wanted > context
    {
        return Err(Error::Config(format!(
            "--max-model-len {wanted} is more than the model's context of {context} tokens"
        )));
    }
    if let Some(vision) = &config.vision
        && limits.max_num_batched_tokens < vision.mm_tokens_per_image
    {
        return Err(Error::Config(format!(
            "--max-num-batched-tokens {} cannot hold an image, which takes {} tokens of one step",
            limits.max_num_batched_tokens, vision.mm_tokens_per_image
        )));
    }
    Ok(())
}

/// Bytes of the largest step's activations that are alive at the same time.
fn activation_bytes(config: &ModelConfig, limits: &Limits) -> u64 {
    let text_rows = (limits.max_num_batched_tokens * text_row(config)) as u64;
    // Images are encoded a few at a time, before the step's text.
    let vision_rows = config.vision.as_ref().map_or(0, |vision| {
        let row = 7 * vision.hidden_size + 2 * vision.intermediate_size;
        let in_a_step = limits.max_num_batched_tokens / vision.mm_tokens_per_image;
        let num_images = in_a_step.min(MAX_IMAGES_PER_CALL);
        (num_images * vision.grid() * vision.grid() * row) as u64
    });
    // Twice: the model's logits and the adjusted ones.
    let logits = 2 * (limits.max_num_seqs * config.text.vocab_size) as u64;
    (text_rows.max(vision_rows) + logits) * ELEMENT_BYTES
}

/// Like [`activation_bytes`], for a captured step of one row per sequence; 0 if none is captured.
fn captured_bytes(config: &ModelConfig, limits: &Limits, memory: DeviceMemory) -> u64 {
    let Some(captured) = memory.captured_rows else {
        return 0;
    };
    let num_rows = captured.at_most(limits.max_num_seqs);
    let row = text_row(config) + config.text.vocab_size;
    (num_rows * row) as u64 * ELEMENT_BYTES + memory.split_bytes
}

/// Number of values of one row that are alive at the same time.
fn text_row(config: &ModelConfig) -> usize {
    let text = &config.text;
    let query = text.num_attention_heads * text.head_dim;
    let kv = text.num_key_value_heads * text.head_dim;
    // Residual, its norm and a branch, in and out; q, k, v and the heads' output; the MLP's two
    // halves and their product.
    4 * text.hidden_size + 2 * (query + kv) + 3 * text.intermediate_size
}

/// Memory needs that are fixed before the KV cache is divided.
struct Needs<'a> {
    name: &'a str,
    weights: u64,
    workspace: u64,
    memory: DeviceMemory,
    shape: KvShape,
    /// The checkpoint's own maximum length.
    context: usize,
}

impl Needs<'_> {
    fn kv_plan(&self, limits: &Limits) -> Result<KvPlan> {
        let available = self.memory.available_or_max();
        if self.weights >= available {
            return Err(Error::OutOfMemory(format!(
                "{} needs {} for its weights alone, but {} are available. Serve a smaller \
                 model, or give the server more memory.",
                self.name,
                ByteSize(self.weights),
                ByteSize(available)
            )));
        }
        let wanted_len = limits.max_model_len.unwrap_or(self.context);
        let free = self.free();
        let (bytes, use_of_bytes) = match limits.kv_cache_memory {
            Some(ByteSize(bytes)) if bytes > free => return Err(self.too_large(bytes)),
            Some(ByteSize(bytes)) => (bytes, UseOfBytes::All),
            None => kv_share(self.memory, free),
        };
        let budget = KvBudget {
            bytes,
            use_of_bytes,
            max_num_seqs: limits.max_num_seqs,
        };
        if let Some(plan) = self.shape.plan(wanted_len, &budget) {
            return Ok(plan);
        }
        let longest = self.shape.longest_within(bytes, wanted_len);
        match limits.max_model_len {
            None if longest >= LEAST_MODEL_LEN.min(wanted_len) => {
                tracing::warn!(
                    max_model_len = longest,
                    context = self.context,
                    kv_cache = %ByteSize(bytes),
                    "the KV cache cannot hold the model's whole context"
                );
                let plan = self.shape.plan(longest, &budget);
                Ok(plan.expect("the length was chosen to fit"))
            }
            _ => Err(self.too_long(limits, bytes, wanted_len, longest)),
        }
    }

    /// Bytes that weights and workspace leave.
    fn free(&self) -> u64 {
        let available = self.memory.available_or_max();
        available.saturating_sub(self.weights + self.workspace)
    }

    /// Creates the error when not even `--kv-cache-memory` bytes are left.
    fn too_large(&self, kv_cache: u64) -> Error {
        let free = self.free();
        let hint = match free {
            0 => NO_ROOM.to_owned(),
            free => format!("--kv-cache-memory can be at most {}.", ByteSize(free)),
        };
        Error::OutOfMemory(format!("{} {hint}", self.sum(kv_cache)))
    }

    /// Creates the error when the requested length does not fit into the KV cache's `bytes`.
    fn too_long(&self, limits: &Limits, bytes: u64, wanted_len: usize, longest: usize) -> Error {
        let needed = self.shape.least_bytes(wanted_len);
        let lower = format!(
            "--max-model-len {longest} would fit, or lower --max-num-batched-tokens (now {})",
            limits.max_num_batched_tokens
        );
        match limits.kv_cache_memory {
            Some(_) if longest >= LEAST_MODEL_LEN.min(wanted_len) => Error::OutOfMemory(format!(
                "A sequence of {wanted_len} tokens needs {} of KV cache, but \
                     --kv-cache-memory is {}. {lower}.",
                ByteSize(needed),
                ByteSize(bytes)
            )),
            Some(_) => Error::OutOfMemory(format!(
                "--kv-cache-memory {} is too little: a sequence of {wanted_len} tokens needs {}. \
                 Raise it, or lower --max-model-len and --max-num-batched-tokens (now {}).",
                ByteSize(bytes),
                ByteSize(needed),
                limits.max_num_batched_tokens
            )),
            None if longest >= LEAST_MODEL_LEN.min(wanted_len) => {
                Error::OutOfMemory(format!("{} {lower}.", self.sum(needed)))
            }
            None => Error::OutOfMemory(format!("{} {}", self.sum(needed), NO_ROOM)),
        }
    }

    fn sum(&self, kv_cache: u64) -> String {
        format!(
            "{} needs {} for its weights, up to {} to compute in and {} for its KV cache: \
             {} in all, but {} are available.",
            self.name,
            ByteSize(self.weights),
            ByteSize(self.workspace),
            ByteSize(kv_cache),
            ByteSize(self.weights + self.workspace + kv_cache),
            ByteSize(self.memory.available_or_max())
        )
    }
}
