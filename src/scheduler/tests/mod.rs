//! Small configurations and helpers for the tests.

mod device;
mod drafts;
mod kv;
mod order;
mod pipelined;
mod pool;
mod prefix;
mod random_requests;
mod random_shared_prefixes;
mod request_checks;
mod shares;
mod steps;

use std::sync::Arc;

use crate::core::{
    BlockCount, FinishReason, GenerateRequest, ImageHash, ImageSpan, KvGroups, MAX_KV_GROUPS,
    PixelValues, PrefixCaching, SamplingParams, SchedulingParams, SeqId, TokenId,
};

use super::{Batch, Finished, Scheduler, SchedulerConfig, Sequence};

/// Never a stop token in these tests.
const WORD: TokenId = TokenId(7);
const STOP: TokenId = TokenId(1);

impl SchedulerConfig {
    /// Large enough for everything that a test does not limit itself. Prompts here are mostly the
    /// same word, so nothing is shared unless a test asks for it.
    fn for_test() -> Self {
        Self {
            max_num_seqs: 8,
            max_num_batched_tokens: 16,
            max_model_len: 1000,
            block_size: 4,
            groups: KvGroups::new(&[None, Some(8)]),
            num_blocks: BlockCount::new(&[1000, 1000]),
            prefix_caching: PrefixCaching::Off,
        }
    }
}

fn scheduler(config: SchedulerConfig) -> Scheduler {
    Scheduler::new(config).expect("the test's limits can work")
}

/// A prompt of `prompt_len` tokens, answered with `max_tokens`.
fn text(prompt_len: usize, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: vec![WORD; prompt_len],
        images: Vec::new(),
        sampling: SamplingParams::greedy(max_tokens),
        constraint: None,
        prompt_logprobs: None,
        scheduling: SchedulingParams::default(),
    }
}

/// The same with images at `(start, len)`.
fn with_images(request: GenerateRequest, spans: &[(usize, usize)]) -> GenerateRequest {
    let pixels = PixelValues {
        size: 0,
        rgb: Arc::new([]),
        hash: ImageHash([0; 32]),
    };
    let images = spans.iter().map(|&(start, len)| ImageSpan {
        start,
        len,
        pixels: pixels.clone(),
    });
    GenerateRequest {
        images: images.collect(),
        ..request
    }
}

/// A chunk as `(sequence, start, len)`.
type Computed = (u64, usize, usize);

fn chunks(batch: &Batch) -> Vec<Computed> {
    let chunks = batch.chunks.iter();
    chunks.map(|c| (c.seq.0, c.start, c.len)).collect()
}

/// `WORD` for every chunk that samples.
fn words(batch: &Batch) -> Vec<(SeqId, &'static [TokenId])> {
    let sampling = batch.chunks.iter().filter(|chunk| chunk.num_samples > 0);
    sampling.map(|chunk| (chunk.seq, &[WORD][..])).collect()
}

/// The sequences that ended, and why.
fn ends(finished: &[Finished]) -> Vec<(SeqId, FinishReason)> {
    finished.iter().map(|end| (end.seq, end.reason)).collect()
}

/// One step in which each chunk that samples samples `WORD`.
fn step(scheduler: &mut Scheduler) -> (Vec<Computed>, Vec<(SeqId, FinishReason)>) {
    let batch = scheduler.schedule();
    scheduler.check_integrity();
    let finished = scheduler.update(&batch, &words(&batch));
    scheduler.check_integrity();
    (chunks(&batch), ends(&finished))
}

/// The chunks of the next `count` steps.
fn steps(scheduler: &mut Scheduler, count: usize) -> Vec<Vec<Computed>> {
    (0..count).map(|_| step(scheduler).0).collect()
}
