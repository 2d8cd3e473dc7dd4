//! Statistics of the engine, for metrics and logs.
//!
//! Plain data, written once per step and copied out. Knows nothing of metrics' names or formats.

use std::time::Duration;

use crate::core::{KvGroups, MAX_KV_GROUPS};
use crate::scheduler::SchedulerConfig;

/// A snapshot of the engine's statistics. Totals count from the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineStats {
    /// Number of sequences that hold KV blocks.
    pub num_running: usize,
    /// Number of sequences that wait for a slot or for blocks, preempted ones included.
    pub num_waiting: usize,
    /// Fraction of the KV blocks that unfinished sequences hold, 0 to 1.
    pub kv_usage: f64,
    /// Number of times a sequence lost its blocks to another.
    pub num_preemptions: u64,
    /// Number of prompt tokens looked up in the prefix cache.
    pub prefix_queried_tokens: u64,
    /// Number of these tokens that were found.
    pub prefix_hit_tokens: u64,
    /// Number of tokens in a KV block.
    pub block_size: usize,
    /// The KV groups.
    pub groups: KvGroups,
    /// Pool of each KV group.
    pub pools: [PoolStats; MAX_KV_GROUPS],
    /// Number of images whose embeddings were in the encoder cache.
    pub encoder_hits: u64,
    /// Number of images that the vision encoder had to encode.
    pub encoder_misses: u64,
    /// Number of computed steps.
    pub num_steps: u64,
    /// Number of tokens that those steps computed, of prompts and answers.
    pub num_computed_tokens: u64,
    /// How large those steps were.
    pub step_sizes: StepSizes,
    /// Number of sampled tokens.
    pub num_generated_tokens: u64,
    /// Number of times a step was sampled without a sequence because its mask was late.
    pub num_skipped_masks: u64,
}

/// One group's pool of KV blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Number of all blocks.
    pub total: usize,
    /// Number of blocks that no unfinished sequence holds; some of them may be cached.
    pub free: usize,
}

/// How many steps computed how many tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepSizes {
    counts: [u64; Self::BOUNDS.len()],
}

impl StepSizes {
    /// The most tokens of a step in each bucket: vLLM's. Larger steps are in none.
    pub const BOUNDS: [usize; 13] = [
        1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384,
    ];

    /// Returns the number of steps in each bucket, which are not in those before it.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Records a step that computed `num_tokens`.
    pub(super) fn add(&mut self, num_tokens: usize) {
        let bucket = Self::BOUNDS.iter().position(|bound| num_tokens <= *bound);
        if let Some(bucket) = bucket {
            self.counts[bucket] += 1;
        }
    }
}

impl EngineStats {
    /// Statistics before the first step.
    pub(super) fn at_start(scheduler: &SchedulerConfig) -> Self {
        let unused = |total| PoolStats { total, free: total };
        Self {
            block_size: scheduler.block_size,
            groups: scheduler.groups,
            pools: scheduler.num_blocks.by_group().map(unused),
            ..Self::default()
        }
    }
}

/// Throughput of the engine: tokens per second, counting only the time in which it had work.
///
/// It takes durations, so it needs no clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServiceRate {
    tokens: f64,
    busy: f64,
    answers: f64,
    answer_tokens: f64,
}

impl ServiceRate {
    /// Seconds of work, and number of answers, after which half of the measurements is forgotten.
    const MEMORY: f64 = 10.0;

    /// Records a step that computed `num_tokens` and occupied the device for `took`.
    pub(super) fn step(&mut self, num_tokens: usize, took: Duration) {
        self.tokens += num_tokens as f64;
        self.busy += took.as_secs_f64();
        if self.busy > Self::MEMORY {
            self.tokens /= 2.0;
            self.busy /= 2.0;
        }
    }

    /// Records an answer that ended after `num_tokens`.
    pub(super) fn answer(&mut self, num_tokens: usize) {
        self.answers += 1.0;
        self.answer_tokens += num_tokens as f64;
        if self.answers > Self::MEMORY {
            self.answers /= 2.0;
            self.answer_tokens /= 2.0;
        }
    }

    /// Estimates the time to serve a queue of `num_requests` whose prompts have `prompt_tokens` in
    /// total, in whole seconds from 1 to 60.
    pub(super) fn time_for(&self, num_requests: usize, prompt_tokens: usize) -> Duration {
        let answer = match self.answers {
            0.0 => 0.0,
            answers => self.answer_tokens / answers,
        };
        let tokens = prompt_tokens as f64 + num_requests as f64 * answer;
        let seconds = if self.tokens > 0.0 {
            tokens * self.busy / self.tokens
        } else {
            // Nothing was measured yet.
            1.0
        };
        Duration::from_secs(seconds.ceil().clamp(1.0, 60.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_its_tokens_over_the_measured_rate() {
        let mut rate = ServiceRate::default();
        assert_eq!(rate.time_for(100, 1_000_000), Duration::from_secs(1));
        // 1,000 tokens a second, idle time not counted.
        for _ in 0..50 {
            rate.step(500, Duration::from_millis(500));
        }
        assert_eq!(rate.time_for(0, 5_500), Duration::from_secs(6));
        assert_eq!(rate.time_for(3, 0), Duration::from_secs(1));
        rate.answer(2_000);
        rate.answer(4_000);
        assert_eq!(rate.time_for(3, 0), Duration::from_secs(9));
        assert_eq!(rate.time_for(1_000, 0), Duration::from_secs(60));
    }

    #[test]
    fn steps_are_sorted_by_their_size() {
        let mut sizes = StepSizes::default();
        for num_tokens in [1, 2, 8, 9, 2048, 16_384, 16_385] {
            sizes.add(num_tokens);
        }
        assert_eq!(sizes.counts(), [1, 2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn the_rate_follows_the_last_seconds() {
        let mut rate = ServiceRate::default();
        for _ in 0..60 {
            rate.step(10_000, Duration::from_secs(1));
        }
        for _ in 0..60 {
            rate.step(100, Duration::from_secs(1));
        }
        let now = rate.time_for(0, 1_000).as_secs();
        assert!((9..=10).contains(&now), "{now} s for 1,000 tokens");
    }
}
