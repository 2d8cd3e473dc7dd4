//! What a model will take of this machine's memory, foreseen before anything is loaded.
//!
//! Owns the forecast and the limits that follow from it. Knows the shapes only, no tensors.

use std::fmt;

use super::kv_plan::{KvBudget, KvPlan, KvShape, UseOfBytes};
use crate::backend::BLOCK_SIZE;
use crate::config::{ByteSize, Limits};
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::scheduler::SchedulerConfig;

/// The CPU computes in f32, whatever the weights are stored in.
const ELEMENT_BYTES: u64 = 4;
/// The program itself, a tokenizer of 262 thousand tokens, connections, prompts in flight.
const PROCESS_BYTES: u64 = 256 << 20;
/// Of what is left beside the weights, the KV cache takes at most this share unless it is told
/// otherwise: the machine has other work too.
const KV_SHARE: (u64, u64) = (4, 5);
/// Below this a chat is not worth the name, and the server rather says what is short.
const LEAST_MODEL_LEN: usize = 512;

const NO_ROOM: &str = "Lower --max-num-batched-tokens, --max-num-seqs or --max-model-len, serve a \
                       smaller model, or give the server more memory.";

/// What a model takes, and the limits within which it runs.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// The model's parameters.
    pub weights: u64,
    /// Activations and logits of the largest step, and the process itself.
    pub workspace: u64,
    /// The KV cache's pools.
    pub kv_cache: u64,
    /// What the scheduler works within.
    pub scheduler: SchedulerConfig,
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "weights {}, KV cache {}, computing up to {}",
            ByteSize(self.weights),
            ByteSize(self.kv_cache),
            ByteSize(self.workspace)
        )
    }
}

/// Plans for a machine with `available` bytes (`None` where that is not known) and a model whose
/// weights take `weights` bytes: they are kept as the file stores them.
///
/// # Errors
/// `OutOfMemory` with what is needed, what there is, and which option helps. `Config` for limits
/// that contradict the model or each other.
pub fn plan(
    name: &str,
    config: &ModelConfig,
    weights: u64,
    limits: &Limits,
    available: Option<u64>,
) -> Result<MemoryPlan> {
    check_limits(config, limits)?;
    let needs = Needs {
        name,
        weights,
        workspace: workspace_bytes(config, limits),
        available: available.unwrap_or(u64::MAX),
        shape: KvShape::new(&config.text, limits.max_num_batched_tokens),
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
    };
    scheduler.validate()?;
    Ok(MemoryPlan {
        weights: needs.weights,
        workspace: needs.workspace,
        kv_cache: kv.bytes,
        scheduler,
    })
}

/// What this machine, or the container around the process, has left; `None` where that cannot be
/// known. Files in the page cache count as free.
pub fn available_memory() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let of_machine = system.available_memory();
    let of_container = system.cgroup_limits().map_or(u64::MAX, |limits| {
        limits.total_memory.saturating_sub(limits.rss)
    });
    (of_machine > 0).then_some(of_machine.min(of_container))
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

/// The largest step's activations, as many as are alive at a time, and the process itself.
fn workspace_bytes(config: &ModelConfig, limits: &Limits) -> u64 {
    let text = &config.text;
    let query = text.num_attention_heads * text.head_dim;
    let kv = text.num_key_value_heads * text.head_dim;
    // Residual, its norm and a branch, in and out; q, k, v and the heads' output; the MLP's two
    // halves and their product.
    let text_row = 4 * text.hidden_size + 2 * (query + kv) + 3 * text.intermediate_size;
    let text_rows = (limits.max_num_batched_tokens * text_row) as u64;
    // Pictures are encoded one after another, before the step's text.
    let vision_rows = config.vision.as_ref().map_or(0, |vision| {
        let row = 7 * vision.hidden_size + 2 * vision.intermediate_size;
        (vision.grid() * vision.grid() * row) as u64
    });
    // Once as they come out, once as they are sampled.
    let logits = 2 * (limits.max_num_seqs * text.vocab_size) as u64;
    (text_rows.max(vision_rows) + logits) * ELEMENT_BYTES + PROCESS_BYTES
}

/// What is fixed before the KV cache is divided.
struct Needs<'a> {
    name: &'a str,
    weights: u64,
    workspace: u64,
    available: u64,
    shape: KvShape,
    /// The checkpoint's own limit.
    context: usize,
}

impl Needs<'_> {
    fn kv_plan(&self, limits: &Limits) -> Result<KvPlan> {
        if self.weights >= self.available {
            return Err(Error::OutOfMemory(format!(
                "{} needs {} for its weights alone, but {} are available. Serve a smaller \
                 model, or give the server more memory.",
                self.name,
                ByteSize(self.weights),
                ByteSize(self.available)
            )));
        }
        let wanted_len = limits.max_model_len.unwrap_or(self.context);
        let free = self.available.saturating_sub(self.weights + self.workspace);
        let (bytes, use_of_bytes) = match limits.kv_cache_memory {
            Some(ByteSize(bytes)) if bytes > free => return Err(self.too_large(bytes)),
            Some(ByteSize(bytes)) => (bytes, UseOfBytes::All),
            None => {
                let (share, of) = KV_SHARE;
                (free / of * share, UseOfBytes::AsNeeded)
            }
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

    /// Not even `--kv-cache-memory` bytes are left.
    fn too_large(&self, kv_cache: u64) -> Error {
        let free = self.available.saturating_sub(self.weights + self.workspace);
        let hint = match free {
            0 => NO_ROOM.to_owned(),
            free => format!("--kv-cache-memory can be at most {}.", ByteSize(free)),
        };
        Error::OutOfMemory(format!("{} {hint}", self.sum(kv_cache)))
    }

    /// The wanted length does not fit into the KV cache's `bytes`.
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
            ByteSize(self.available)
        )
    }
}
