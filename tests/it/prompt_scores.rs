//! How probable a prompt's tokens are: what transformers says of them, however the prompt is cut.

use std::time::Duration;

use futures_util::StreamExt;
use medgemma::backend::cpu::CpuBackend;
use medgemma::core::{GenerateRequest, TokenLogprobs};
use medgemma::engine::{self, EngineConfig, EngineLimits, Runner, Stepping};
use medgemma::model::Model;
use medgemma::scheduler::SchedulerConfig;

use crate::generation::{greedy, load, request, roomy};
use crate::golden::Numbers;

const TOLERANCE: f32 = 1e-4;

/// The prompt's scores, from a running engine that is asked twice.
async fn scores(
    model: Model<CpuBackend>,
    scheduler: SchedulerConfig,
    stepping: Stepping,
    request: &GenerateRequest,
) -> Vec<TokenLogprobs> {
    let blocks = scheduler.num_blocks;
    let runner = Runner::new(model, blocks).expect("a cache");
    let config = EngineConfig {
        limits: EngineLimits {
            scheduler,
            max_in_flight: 4,
            max_queued_tokens: 4096,
            max_queued_per_tenant: None,
        },
        stepping,
        step_timeout: None,
        shutdown_timeout: Duration::from_secs(30),
    };
    let (handle, thread) = engine::start(runner, config).expect("limits that work");
    let mut all = Vec::new();
    // The second time the whole prompt is in the cache, where no logits are.
    for _ in 0..2 {
        let mut stream = handle.submit(request.clone()).expect("it is let in");
        let event = stream.next().await.expect("an event").expect("a token");
        all.push(event.prompt_logprobs.expect("asked for").to_vec());
        let event = stream.next().await.expect("an event").expect("a token");
        assert!(event.prompt_logprobs.is_none(), "told once");
    }
    handle.drain();
    thread.join();
    assert_eq!(all[0], all[1]);
    all.swap_remove(0)
}

#[tokio::test]
async fn a_prompt_is_as_probable_as_transformers_says() {
    for name in ["multimodal", "text27b"] {
        for (case_name, case) in &Numbers::of(name).cases {
            for (stepping, max_tokens) in [(Stepping::Alternating, 2048), (Stepping::Ahead, 300)] {
                let (config, model) = load(name);
                let mut scheduler = roomy(&config);
                scheduler.max_num_batched_tokens = max_tokens;
                let mut request = request(&config, case, greedy(2));
                // What was generated there stands in the prompt here.
                request
                    .prompt
                    .extend(case.greedy.iter().map(|greedy| greedy.token));
                request.prompt_logprobs = Some(5);
                let num_asked = request.prompt.len() - 1;
                let scores = scores(model, scheduler, stepping, &request).await;
                assert_eq!(scores.len(), num_asked);
                let rest = &scores[num_asked - case.greedy.len()..];
                for (ours, theirs) in rest.iter().zip(&case.greedy) {
                    let what = format!("{name} {case_name} {stepping:?}");
                    // It was the best, since it was chosen.
                    assert_eq!(ours.rank, 1, "{what}");
                    assert!((ours.logprob - theirs.logprob).abs() < TOLERANCE, "{what}");
                    for (ours, theirs) in ours.top.iter().zip(&theirs.top) {
                        assert_eq!(ours.0, theirs.0, "{what}");
                        assert!((ours.1 - theirs.1).abs() < TOLERANCE, "{what}");
                    }
                }
                for score in &scores {
                    assert!(score.logprob <= score.top[0].1);
                    let better = score.top.iter().filter(|top| top.1 > score.logprob);
                    assert!(score.rank as usize > better.count());
                }
            }
        }
    }
}
