//! Limits of the scheduler, and the check of requests against them before they are queued.

use crate::core::{BlockCount, GenerateRequest, KvGroups, PrefixCaching};
use crate::error::{Error, Result};

use super::sequence::atomic_runs;

/// Limits that stay the same for the scheduler's lifetime. Cheap to copy, so that the HTTP side can
/// [`check`](Self::check) requests without the engine's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Maximum number of sequences that hold blocks at the same time.
    pub max_num_seqs: usize,
    /// Maximum number of tokens computed in a step, over all sequences.
    pub max_num_batched_tokens: usize,
    /// Maximum length of a sequence, prompt and answer together.
    pub max_model_len: usize,
    /// Number of tokens in a KV block.
    pub block_size: usize,
    /// The model's KV groups.
    pub groups: KvGroups,
    /// Number of blocks in each group's pool.
    pub num_blocks: BlockCount,
    /// Whether sequences reuse blocks that others have computed.
    pub prefix_caching: PrefixCaching,
}

impl SchedulerConfig {
    /// Checks that a scheduler can work within these limits.
    ///
    /// # Errors
    /// Returns [`Error::Config`], naming the limit that is impossible.
    pub fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Config(message));
        if self.max_num_seqs == 0 {
            return refuse("--max-num-seqs must be at least 1".into());
        }
        if self.max_num_batched_tokens < self.max_num_seqs {
            return refuse(format!(
                "--max-num-batched-tokens {} is less than --max-num-seqs {}: each running \
                 request needs a token a step",
                self.max_num_batched_tokens, self.max_num_seqs
            ));
        }
        if self.max_model_len < 2 {
            return refuse(format!(
                "--max-model-len {} leaves no room for a prompt and an answer of a token each",
                self.max_model_len
            ));
        }
        if self.block_size == 0 {
            return refuse("KV blocks must hold at least one token".into());
        }
        if self.groups.windows().contains(&Some(0)) {
            return refuse("the model's sliding window must be at least one token".into());
        }
        let fewest = self.blocks_for(1);
        if !fewest.fits_in(self.num_blocks) {
            return refuse(format!(
                "the KV cache has {}, fewer than one token needs; raise --kv-cache-memory",
                self.describe_blocks()
            ));
        }
        Ok(())
    }

    /// Describes the number of blocks in each group.
    pub fn describe_blocks(&self) -> String {
        let groups = (0..self.groups.num_groups()).map(|group| {
            let name = self.groups.name(group);
            format!("{} blocks for {name} layers", self.num_blocks[group])
        });
        groups.collect::<Vec<_>>().join(" and ")
    }

    /// Checks that a request can be run to its end. A request that passes can always be completed,
    /// however the cache is shared: in the worst case it gets the whole cache for itself.
    ///
    /// # Errors
    /// Returns [`Error::PromptTooLong`], [`Error::ImageSpanTooLong`] or [`Error::NeverFits`].
    pub fn check(&self, request: &GenerateRequest) -> Result<()> {
        let prompt_len = request.prompt.len();
        // At least one token must be generated.
        if prompt_len >= self.max_model_len {
            return Err(Error::PromptTooLong {
                max_model_len: self.max_model_len,
                prompt_len,
            });
        }
        let longest_run = atomic_runs(&request.images)
            .iter()
            .map(|run| run.len())
            .max();
        if let Some(needed) = longest_run.filter(|&len| len > self.max_num_batched_tokens) {
            return Err(Error::ImageSpanTooLong {
                needed,
                budget: self.max_num_batched_tokens,
            });
        }
        // The last token is sampled and never computed.
        let needed = self.blocks_for(self.max_len(request) - 1).by_group();
        for (needed, total) in needed.into_iter().zip(self.num_blocks.by_group()) {
            if needed > total {
                return Err(Error::NeverFits { needed, total });
            }
        }
        Ok(())
    }

    /// Maximum length of a request's sequence.
    pub(super) fn max_len(&self, request: &GenerateRequest) -> usize {
        let wanted = request
            .prompt
            .len()
            .saturating_add(request.sampling.max_tokens);
        wanted.min(self.max_model_len)
    }

    /// Maximum number of blocks that `num_tokens` computed tokens ever need, however they are split
    /// into chunks.
    pub fn blocks_for(&self, num_tokens: usize) -> BlockCount {
        let max_chunk = self.max_num_batched_tokens;
        self.groups
            .blocks_for(num_tokens, max_chunk, self.block_size)
    }
}
