//! A scheduler step without a model: `schedule` and `update` while everybody decodes, and the same
//! with the device's input, which outlives the step after it, as it does in a pipelined engine.
//!
//!     cargo bench --bench scheduler

mod harness;

use std::hint::black_box;

use harness::{Mode, median, report, seconds};
use medgemma::core::{
    BlockCount, GenerateRequest, KvGroups, PrefixCaching, SamplingParams, SchedulingParams, SeqId,
    TokenId,
};
use medgemma::engine::ModelInput;
use medgemma::scheduler::{Batch, Scheduler, SchedulerConfig};

/// `running` sequences that decode and `waiting` ones behind them.
fn crowded(running: usize, waiting: usize) -> Scheduler {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        max_num_seqs: running,
        max_num_batched_tokens: 8192,
        max_model_len: 131_072,
        block_size: 32,
        groups: KvGroups::new(&[None, Some(1024)]),
        num_blocks: BlockCount::new(&[running * 128 + 10_000, running * 40 + 1_000]),
        prefix_caching: PrefixCaching::On,
    })
    .expect("limits that work");
    for id in 0..(running + waiting) as u64 {
        let request = GenerateRequest {
            prompt: prompt(id),
            images: Vec::new(),
            sampling: SamplingParams {
                stop_token_ids: vec![TokenId(1), TokenId(106)],
                ..SamplingParams::greedy(100_000)
            },
            constraint: None,
            prompt_logprobs: None,
            scheduling: SchedulingParams::default(),
        };
        scheduler.add(SeqId(id), request).expect("it fits");
    }
    while step(&mut scheduler) < running {}
    scheduler
}

/// Nobody shares another's.
fn prompt(id: u64) -> Vec<TokenId> {
    let first = TokenId(u32::try_from(id).expect("few requests") + 10);
    std::iter::once(first)
        .chain(std::iter::repeat_n(TokenId(7), 1_199))
        .collect()
}

/// What the process holds in memory, where the system tells.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Bytes that a waiting request takes beside its tokens.
fn bytes_per_waiting(num_waiting: usize) -> Option<f64> {
    let before = resident_bytes()?;
    let scheduler = crowded(1, num_waiting);
    let tokens = num_waiting * 1_200 * size_of::<TokenId>();
    let bytes = resident_bytes()? - before - tokens as f64;
    black_box(scheduler);
    Some(bytes / num_waiting as f64)
}

/// A token for each sequence that samples one.
fn sampled(batch: &Batch) -> Vec<(SeqId, &'static [TokenId])> {
    let sampling = batch.chunks.iter().filter(|chunk| chunk.num_samples > 0);
    sampling
        .map(|chunk| (chunk.seq, &[TokenId(9)][..]))
        .collect()
}

/// Plans and takes in one step; how many sequences got a token.
fn step(scheduler: &mut Scheduler) -> usize {
    let batch = scheduler.schedule();
    let sampled = sampled(&batch);
    black_box(scheduler.update(&batch, &sampled));
    sampled.len()
}

/// Plans, writes out and takes in one step; `in_flight` is the input of the step before it.
fn step_with_input(scheduler: &mut Scheduler, in_flight: &mut ModelInput) {
    let batch = scheduler.schedule();
    *in_flight = ModelInput::new(scheduler, &batch);
    black_box(scheduler.update(&batch, &sampled(&batch)));
}

fn main() {
    let mode = Mode::from_arguments();
    if let Some(bytes) = bytes_per_waiting(mode.pick(10_000, 100)) {
        report("a waiting request, beside its tokens", bytes, "bytes");
    }
    let runs = mode.pick(2_000, 1);
    for (running, waiting) in mode.pick(
        &[(256, 0), (256, 10_000), (1_024, 0), (1_024, 10_000)][..],
        &[(4, 8)],
    ) {
        let mut scheduler = crowded(*running, *waiting);
        let took = median(runs, || {
            seconds(|| assert_eq!(step(&mut scheduler), *running))
        });
        let what = format!("step with {running} running, {waiting} waiting");
        report(&what, took * 1e6, "µs");
        let mut in_flight = ModelInput::default();
        let took = median(runs, || {
            seconds(|| step_with_input(&mut scheduler, &mut in_flight))
        });
        report(&format!("{what}, with its input"), took * 1e6, "µs");
    }
}
