//! What the scheduler tells about itself.

use super::kv_groups::BlockCount;

/// Gauges as they are now, and counters since the start. Read in constant time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SchedulerStats {
    /// Sequences that hold blocks.
    pub num_running: usize,
    /// Sequences that wait, preempted ones included.
    pub num_waiting: usize,
    /// Share of the blocks that unfinished sequences hold, 0 to 1, in the group that is fuller.
    pub kv_usage: f64,
    /// Blocks that nobody holds, with or without a prefix in them.
    pub num_free_blocks: BlockCount,
    /// Of the free blocks, those that still hold a prefix which a new sequence may find.
    pub num_cached_blocks: BlockCount,
    /// How often a sequence has lost its blocks to another one.
    pub num_preemptions: u64,
    /// Prompt tokens of the sequences admitted so far, for which the cache was asked; a preempted
    /// sequence counts once.
    pub prefix_queried_tokens: u64,
    /// Of those, how many were found.
    pub prefix_hit_tokens: u64,
}
