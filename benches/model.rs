//! Prefill and decode on the CPU, in process: the shape of gemma-3-270m with random weights.
//!
//!     cargo bench --bench model                 # bf16 weights
//!     cargo bench --bench model -- DIR          # a checkpoint, e.g. benches/peer_transformers.py's

mod harness;

use std::path::{Path, PathBuf};
use std::slice::from_ref;

use harness::{Mode, median, report, seconds};
use medgemma::backend::BLOCK_SIZE;
use medgemma::backend::cpu::CpuBackend;
use medgemma::core::{
    BlockCount, GenerateRequest, KvGroups, PrefixCaching, SamplingParams, SchedulingParams, SeqId,
    TokenId,
};
use medgemma::engine::Runner;
use medgemma::model::config::ModelConfig;
use medgemma::model::weights::Weights;
use medgemma::model::{Gemma3, Model};
use medgemma::scheduler::{Scheduler, SchedulerConfig};

const GEMMA_3_270M: &str = r#"{"model_type": "gemma3_text", "vocab_size": 262144,
    "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
    "query_pre_attn_scalar": 256, "sliding_window": 512, "sliding_window_pattern": 6,
    "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0}"#;

const SMOKE: &str = r#"{"model_type": "gemma3_text", "vocab_size": 512,
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32,
    "query_pre_attn_scalar": 32, "sliding_window": 64, "sliding_window_pattern": 6,
    "max_position_embeddings": 2048, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0}"#;

/// Scheduler and runner, stepped by hand.
struct Rig {
    scheduler: Scheduler,
    runner: Runner<CpuBackend, Gemma3<CpuBackend>>,
    next_id: u64,
}

impl Rig {
    fn load(mode: Mode, checkpoint: Option<&Path>) -> Self {
        let (config, weights) = match checkpoint {
            Some(dir) => {
                let file = dir.join("config.json");
                let json = std::fs::read(&file).expect("the checkpoint has a config.json");
                let config = ModelConfig::from_json(&file, &json).expect("Gemma 3");
                (
                    config,
                    Weights::open(dir).expect("the checkpoint has weights"),
                )
            }
            None => {
                let json = mode.pick(GEMMA_3_270M, SMOKE);
                let config = ModelConfig::from_json(Path::new("270m"), json.as_bytes())
                    .expect("the shape above");
                (config, Weights::dummy(1))
            }
        };
        let num_blocks = BlockCount::new(&[1024; 2]);
        let model = Model::load(CpuBackend, &config, &weights).expect("it loads");
        let limits = SchedulerConfig {
            max_num_seqs: 64,
            max_num_batched_tokens: 2048,
            max_model_len: 2048,
            block_size: BLOCK_SIZE,
            groups: KvGroups::new(&[None, Some(config.text.sliding_window)]),
            num_blocks,
            // Each run measures the whole prompt.
            prefix_caching: PrefixCaching::Off,
        };
        Self {
            scheduler: Scheduler::new(limits).expect("limits that work"),
            runner: Runner::new(model, num_blocks).expect("a cache"),
            next_id: 0,
        }
    }

    fn add(&mut self, prompt_len: usize, max_tokens: usize) {
        let prompt = (0..prompt_len)
            .map(|idx| TokenId((idx * 37 % 500) as u32 + 5))
            .collect();
        let request = GenerateRequest {
            prompt,
            images: Vec::new(),
            sampling: SamplingParams::greedy(max_tokens),
            scheduling: SchedulingParams::default(),
            constraint: None,
            prompt_logprobs: None,
        };
        self.scheduler
            .add(SeqId(self.next_id), request)
            .expect("it fits");
        self.next_id += 1;
    }

    fn step(&mut self) {
        let batch = self.scheduler.schedule();
        let sampled = self
            .runner
            .execute(&self.scheduler, &batch)
            .expect("a step");
        let tokens = sampled.iter().map(|(id, s)| (*id, from_ref(&s.token)));
        let tokens: Vec<_> = tokens.collect();
        self.scheduler.update(&batch, &tokens);
    }

    /// Tokens a second over `num_steps` decode steps of `batch` sequences behind short prompts.
    fn decode(&mut self, batch: usize, num_steps: usize) -> f64 {
        for _ in 0..batch {
            self.add(16, num_steps + 2);
        }
        self.step(); // the prompts
        self.step(); // warm
        let took = seconds(|| (0..num_steps).for_each(|_| self.step()));
        assert!(
            !self.scheduler.has_work(),
            "every sequence ends with the last step"
        );
        (batch * num_steps) as f64 / took
    }

    /// Tokens a second of one prompt, its first new token included.
    fn prefill(&mut self, prompt_len: usize) -> f64 {
        self.add(prompt_len, 1);
        let took = seconds(|| self.step());
        assert!(!self.scheduler.has_work());
        prompt_len as f64 / took
    }
}

fn main() {
    let mode = Mode::from_arguments();
    let checkpoint = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let mut rig = Rig::load(mode, checkpoint.map(PathBuf::from).as_deref());
    let num_steps = mode.pick(32, 2);
    let runs = mode.pick(3, 1);
    let prompt_len = mode.pick(512, 32);
    let rate = median(runs, || rig.prefill(prompt_len));
    report(&format!("prefill, prompt of {prompt_len}"), rate, "tok/s");
    for batch in [1, 8, 16] {
        let rate = median(runs, || rig.decode(batch, num_steps));
        report(&format!("decode, batch {batch}"), rate, "tok/s");
    }
}
