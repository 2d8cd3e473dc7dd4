//! Divides an amount of memory into KV cache blocks for the KV groups.
//!
//! The number of blocks that a sequence needs is computed by `core::KvGroups::blocks_for`.

use crate::backend::BLOCK_SIZE;
use crate::core::{BlockCount, KvGroups, MAX_KV_GROUPS};
use crate::model::config::TextConfig;

/// Length in tokens of a typical sequence for which the pools are sized: a chat with an image or a
/// long report. Longer sequences fit too, but fewer at a time.
const MODERATE_LEN: usize = 4096;

/// Sizes of blocks, and how sequences use them.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvShape {
    pub(super) groups: KvGroups,
    /// Size of a block of all layers of a group, by group.
    block_bytes: [u64; MAX_KV_GROUPS],
    max_num_batched_tokens: usize,
}

/// Number of blocks in the pools of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvPlan {
    pub(super) num_blocks: BlockCount,
    pub(super) max_model_len: usize,
    pub(super) bytes: u64,
}

/// Memory limit for the pools, and how to use it.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvBudget {
    pub(super) bytes: u64,
    pub(super) use_of_bytes: UseOfBytes,
    pub(super) max_num_seqs: usize,
}

/// Whether to use more memory than `max_num_seqs` moderate sequences need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UseOfBytes {
    /// Use no more than that: the user did not ask for more.
    AsNeeded,
    /// Use all, as far as `max_num_seqs` sequences of full length can use it.
    All,
}

impl KvShape {
    /// Creates the shape for keys and values of `element_bytes` per number.
    pub(super) fn new(
        text: &TextConfig,
        max_num_batched_tokens: usize,
        element_bytes: usize,
    ) -> Self {
        let per_layer = 2 * text.num_key_value_heads * text.head_dim * BLOCK_SIZE * element_bytes;
        let mut block_bytes = [0; MAX_KV_GROUPS];
        for (bytes, kind) in block_bytes.iter_mut().zip(text.attention_kinds()) {
            *bytes = (per_layer * text.num_layers(kind)) as u64;
        }
        Self {
            groups: text.kv_groups(),
            block_bytes,
            max_num_batched_tokens,
        }
    }

    pub(super) fn bytes(&self, blocks: BlockCount) -> u64 {
        let groups = blocks.by_group().into_iter().zip(self.block_bytes);
        groups.map(|(blocks, bytes)| blocks as u64 * bytes).sum()
    }

    /// Returns pools for one sequence of `max_model_len` tokens that is computed in chunks, or for
    /// `num_seqs` decoding sequences of `len` tokens plus one step's worth of chunks.
    fn pools(&self, max_model_len: usize, num_seqs: usize, len: usize) -> BlockCount {
        let max_chunk = self.max_num_batched_tokens;
        let longest = self.groups.blocks_for(max_model_len, max_chunk, BLOCK_SIZE);
        let moderate = self.groups.blocks_for(len, 1, BLOCK_SIZE);
        let windows = self.groups.windows().iter().enumerate();
        let pools = windows.map(|(group, window)| {
            let chunk_blocks = match window {
                Some(_) => max_chunk.div_ceil(BLOCK_SIZE),
                None => 0,
            };
            longest[group].max(num_seqs * moderate[group] + chunk_blocks)
        });
        pools.collect()
    }

    /// Minimum number of bytes for one sequence of `max_model_len` tokens.
    pub(super) fn least_bytes(&self, max_model_len: usize) -> u64 {
        let max_chunk = self.max_num_batched_tokens;
        self.bytes(self.groups.blocks_for(max_model_len, max_chunk, BLOCK_SIZE))
    }

    /// Length of the longest sequence, up to `max_model_len`, that fits into `bytes` alone; 0 if
    /// none does.
    pub(super) fn longest_within(&self, bytes: u64, max_model_len: usize) -> usize {
        if self.least_bytes(max_model_len) <= bytes {
            return max_model_len;
        }
        let whole_blocks = largest(max_model_len / BLOCK_SIZE, |blocks| {
            self.least_bytes(blocks * BLOCK_SIZE) <= bytes
        });
        whole_blocks * BLOCK_SIZE
    }

    /// Returns pools within the budget for one sequence of `max_model_len` tokens and as many
    /// moderate ones as fit; `None` when not even the one fits.
    pub(super) fn plan(&self, max_model_len: usize, budget: &KvBudget) -> Option<KvPlan> {
        if self.least_bytes(max_model_len) > budget.bytes {
            return None;
        }
        let moderate = max_model_len.min(MODERATE_LEN);
        let fits =
            |num_seqs, len| self.bytes(self.pools(max_model_len, num_seqs, len)) <= budget.bytes;
        let num_seqs = largest(budget.max_num_seqs, |num_seqs| fits(num_seqs, moderate));
        let num_blocks = match budget.use_of_bytes {
            // Only the minimum fits: one sequence at a time.
            _ if num_seqs == 0 => {
                let max_chunk = self.max_num_batched_tokens;
                self.groups.blocks_for(max_model_len, max_chunk, BLOCK_SIZE)
            }
            UseOfBytes::All if num_seqs == budget.max_num_seqs => {
                let len = moderate
                    + largest(max_model_len - moderate, |more| {
                        fits(num_seqs, moderate + more)
                    });
                self.pools(max_model_len, num_seqs, len)
            }
            _ => self.pools(max_model_len, num_seqs, moderate),
        };
        Some(KvPlan {
            num_blocks,
            max_model_len,
            bytes: self.bytes(num_blocks),
        })
    }
}

/// Returns the largest number up to `max` for which `holds` is true, if it is true for 1 to that
/// number and false beyond; 0 if it is false for 1.
fn largest(max: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut good, mut bad) = (0, max + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if holds(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}
