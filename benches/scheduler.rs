//! A scheduler step without a model: `schedule` and `update` while everybody decodes.
//!
//!     cargo bench --bench scheduler

mod harness;

use std::hint::black_box;

use harness::{Mode, median, report, seconds};
use medgemma::core::{GenerateRequest, SamplingParams, SeqId, Terms, TokenId};
use medgemma::scheduler::{BlockCount, KvGroups, Scheduler, SchedulerConfig};

/// `running` sequences that decode and `waiting` ones behind them.
fn crowded(running: usize, waiting: usize) -> Scheduler {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        max_num_seqs: running,
        max_num_batched_tokens: 8192,
        max_model_len: 131_072,
        block_size: 32,
        groups: KvGroups::Both { window: 1024 },
        num_blocks: BlockCount {
            global: running * 128 + 10_000,
            sliding: running * 40 + 1_000,
        },
    })
    .expect("limits that work");
    for id in 0..(running + waiting) as u64 {
        let request = GenerateRequest {
            prompt: vec![TokenId(7); 1_200],
            images: Vec::new(),
            sampling: SamplingParams {
                stop_token_ids: vec![TokenId(1), TokenId(106)],
                ..SamplingParams::greedy(100_000)
            },
            terms: Terms::default(),
        };
        scheduler.add(SeqId(id), request).expect("it fits");
    }
    while step(&mut scheduler) < running {}
    scheduler
}

/// Plans and takes in one step; how many sequences got a token.
fn step(scheduler: &mut Scheduler) -> usize {
    let batch = scheduler.schedule();
    let sampled: Vec<_> = batch
        .chunks
        .iter()
        .filter(|chunk| chunk.samples)
        .map(|chunk| (chunk.seq, TokenId(9)))
        .collect();
    black_box(scheduler.update(&batch, &sampled));
    sampled.len()
}

fn main() {
    let mode = Mode::from_arguments();
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
    }
}
