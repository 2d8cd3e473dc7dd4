//! Statistics of the scheduler.

use super::kv_groups::BlockCount;

/// Current gauges, and counters since the start. Read in constant time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SchedulerStats {
    /// Number of sequences that hold blocks.
    pub num_running: usize,
    /// Number of sequences that wait, preempted ones included.
    pub num_waiting: usize,
    /// Fraction of the blocks that unfinished sequences hold, 0 to 1, in the fuller group.
    pub kv_usage: f64,
    /// Number of blocks that no sequence holds, with or without a cached prefix in them.
    pub num_free_blocks: BlockCount,
    /// Number of free blocks that still hold a prefix which a new sequence may find.
    pub num_cached_blocks: BlockCount,
    /// Number of times a sequence has lost its blocks to another one.
    pub num_preemptions: u64,
    /// Number of prompt tokens that were looked up in the prefix cache, over the sequences admitted
    /// so far; a preempted sequence counts once.
    pub prefix_queried_tokens: u64,
    /// Number of these tokens that were found.
    pub prefix_hit_tokens: u64,
}
