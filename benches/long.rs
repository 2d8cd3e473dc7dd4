//! A prompt of 100,000 tokens, read in chunks beside requests that decode: how fast, how long the
//! others wait, how many blocks the sliding layers keep, and how near the last log-probabilities
//! are to transformers'.
//!
//!     cargo bench --bench long
//!
//! The model and the reference are those of the tests (`tests/golden/generate.py long`). A smoke
//! run reads the first 3,000 tokens, which nothing is compared with.

#[expect(dead_code, reason = "it runs once: there is no median")]
mod harness;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use harness::{Mode, report};
use medgemma::backend::BLOCK_SIZE;
use medgemma::backend::cpu::CpuBackend;
use medgemma::core::{
    BlockCount, GenerateRequest, KvGroups, PrefixCaching, SamplingParams, SchedulingParams,
    TokenId, TokenLogprobs,
};
use medgemma::engine::{self, EngineConfig, EngineHandle, EngineLimits, Runner, Stepping};
use medgemma::model::Model;
use medgemma::model::config::ModelConfig;
use medgemma::model::weights::Weights;
use medgemma::scheduler::SchedulerConfig;
use serde::Deserialize;

/// Tokens of a step.
const CHUNK: usize = 512;
const NUM_NEIGHBOURS: usize = 3;
/// Sums of 100,000 terms in another order.
const TOLERANCE: f32 = 2e-3;

/// What transformers says, and of which prompt.
#[derive(Deserialize)]
struct Reference {
    num_tokens: usize,
    first_word: u32,
    num_words: u32,
    logprobs: Vec<f32>,
}

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

/// As `make/long.py` draws it.
fn prompt(reference: &Reference, len: usize) -> Vec<TokenId> {
    (0..len as u32)
        .map(|idx| idx.wrapping_mul(2_654_435_761) >> 16)
        .map(|noise| TokenId(reference.first_word + noise % reference.num_words))
        .collect()
}

fn start(max_model_len: usize) -> EngineHandle {
    let file = golden("models/text1b/config.json");
    let json = std::fs::read(&file).expect("the tests' model is there");
    let config = ModelConfig::from_json(&file, &json).expect("transformers wrote it");
    let weights = Weights::open(&golden("models/text1b")).expect("the tests' model is there");
    let groups = KvGroups::new(&[None, Some(config.text.sliding_window)]);
    let per_sequence = groups.blocks_for(max_model_len, CHUNK, BLOCK_SIZE);
    let num_blocks = BlockCount::new(&[2 * per_sequence[0], 8 * per_sequence[1]]);
    let model = Model::load(CpuBackend, &config, &weights).expect("it loads");
    let runner = Runner::new(model, num_blocks).expect("a cache");
    let config = EngineConfig {
        limits: EngineLimits {
            scheduler: SchedulerConfig {
                max_num_seqs: 1 + NUM_NEIGHBOURS,
                max_num_batched_tokens: CHUNK,
                max_model_len,
                block_size: BLOCK_SIZE,
                groups,
                num_blocks,
                prefix_caching: PrefixCaching::Off,
            },
            max_in_flight: 8,
            max_queued_tokens: 2 * max_model_len,
            max_queued_per_tenant: None,
        },
        stepping: Stepping::Ahead,
        step_timeout: None,
        shutdown_timeout: Duration::ZERO,
    };
    engine::start(runner, config).expect("it starts").0
}

/// What was seen while the prompt was read.
#[derive(Default)]
struct Seen {
    gaps: Vec<f64>,
    most_sliding_blocks: usize,
}

/// Decodes until the engine takes no more of it, and looks around at every token.
async fn neighbour(engine: &EngineHandle, max_tokens: usize) -> Seen {
    let mut stream = engine.submit(request(vec![TokenId(30); 20], max_tokens, None));
    let stream = stream.as_mut().expect("there is room");
    let mut seen = Seen::default();
    let mut last = None;
    while let Some(event) = stream.next().await {
        event.expect("no error");
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            seen.gaps.push((now - last).as_secs_f64());
        }
        let pool = engine.stats().pools[1];
        seen.most_sliding_blocks = seen.most_sliding_blocks.max(pool.total - pool.free);
    }
    seen
}

fn request(
    prompt: Vec<TokenId>,
    max_tokens: usize,
    top_logprobs: Option<usize>,
) -> GenerateRequest {
    GenerateRequest {
        prompt,
        images: Vec::new(),
        sampling: SamplingParams {
            top_logprobs,
            ..SamplingParams::greedy(max_tokens)
        },
        constraint: None,
        prompt_logprobs: None,
        scheduling: SchedulingParams::default(),
    }
}

async fn read(engine: &EngineHandle, prompt: Vec<TokenId>, num_words: usize) -> TokenLogprobs {
    let mut stream = engine
        .submit(request(prompt, 1, Some(num_words)))
        .expect("there is room");
    let event = stream.next().await.expect("a token").expect("no error");
    event.logprobs.expect("they were asked for")
}

fn main() {
    let mode = Mode::from_arguments();
    let json = std::fs::read(golden("numbers/long.json")).expect("the reference is there");
    let reference: Reference = serde_json::from_slice(&json).expect("generate.py wrote it");
    let len = mode.pick(reference.num_tokens, 3_000);
    let num_words = reference.logprobs.len();
    let engine = start(len + 100);

    // The neighbours decode for as long as the prompt is read: a token each in every step.
    let num_steps = len / (CHUNK - NUM_NEIGHBOURS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let began = Instant::now();
    let (logprobs, seconds, seen) = runtime.block_on(async {
        let reading = async {
            let logprobs = read(&engine, prompt(&reference, len), num_words).await;
            (logprobs, began.elapsed().as_secs_f64())
        };
        let neighbours = (0..NUM_NEIGHBOURS).map(|_| neighbour(&engine, num_steps));
        let neighbours = futures_util::future::join_all(neighbours);
        // The neighbours are polled first, so they ask first: who decodes goes on decoding.
        let (seen, (logprobs, seconds)) = futures_util::future::join(neighbours, reading).await;
        (logprobs, seconds, seen)
    });

    let gaps: Vec<f64> = seen.iter().flat_map(|seen| seen.gaps.clone()).collect();
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    let most_blocks = seen.iter().map(|seen| seen.most_sliding_blocks).max();
    let most_blocks = most_blocks.expect("there are neighbours");
    report("prompt", len as f64, "tokens");
    report("read in", seconds, "s");
    report("neighbours' tokens meanwhile", gaps.len() as f64, "");
    report("longest wait of a neighbour", longest * 1e3, "ms");
    report("a step on average", seconds / num_steps as f64 * 1e3, "ms");
    report("sliding blocks at most", most_blocks as f64, "");
    report("blocks of the whole prompt", (len / BLOCK_SIZE) as f64, "");
    assert!(
        gaps.len() + NUM_NEIGHBOURS >= NUM_NEIGHBOURS * num_steps,
        "the neighbours stood still"
    );
    // Two chunks in flight and four windows, each with blocks that are not full.
    let bound = 2 * CHUNK.div_ceil(BLOCK_SIZE) + 4 * (1 + NUM_NEIGHBOURS);
    assert!(most_blocks <= bound, "more than {bound} sliding blocks");

    if len == reference.num_tokens {
        let worst = logprobs
            .top
            .iter()
            .map(|&(token, logprob)| (logprob - reference.logprobs[token.0 as usize]).abs())
            .fold(0.0, f32::max);
        assert_eq!(logprobs.top.len(), num_words, "every token is compared");
        report(
            "largest difference to transformers",
            f64::from(worst) * 1e6,
            "e-6",
        );
        assert!(worst <= TOLERANCE, "more than {TOLERANCE}");
    }
}
