//! The metrics of answers: how many, of how many tokens, and how long each part of them took.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, Registry};

use super::answer_meter::FinishedReason;
use super::{counter, counters, histogram};

/// vLLM's, in seconds.
const FIRST_TOKEN_BUCKETS: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// vLLM's, in seconds.
const TOKEN_BUCKETS: [f64; 19] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
/// vLLM's, in seconds.
const REQUEST_BUCKETS: [f64; 21] = [
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
/// vLLM's for a model of Gemma 3's context, in tokens.
const NUM_TOKENS_BUCKETS: [f64; 16] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5,
];
/// vLLM's.
const CHOICES_BUCKETS: [f64; 5] = [1.0, 2.0, 5.0, 10.0, 20.0];
/// vLLM's.
const PREEMPTIONS_BUCKETS: [f64; 7] = [1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];

/// What answers are counted in.
#[derive(Debug)]
pub(super) struct AnswerMetrics {
    pub(super) prompt_tokens: IntCounter,
    pub(super) generation_tokens: IntCounter,
    success: IntCounterVec,
    pub(super) time_to_first_token: Histogram,
    inter_token_latency: Histogram,
    /// What vLLM called `inter_token_latency` before; dashboards read either.
    time_per_output_token: Histogram,
    pub(super) queue_time: Histogram,
    e2e_latency: Histogram,
    prefill_time: Histogram,
    decode_time: Histogram,
    inference_time: Histogram,
    mean_time_per_output_token: Histogram,
    request_prompt_tokens: Histogram,
    request_generation_tokens: Histogram,
    max_tokens: Histogram,
    num_preemptions: Histogram,
    num_choices: Histogram,
    longest_choice: Histogram,
}

/// Measurements of a finished answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndedAnswer {
    /// From the request's arrival to the last token.
    pub(super) since_arrival: Duration,
    /// From the first step to the first token.
    pub(super) prefill: Duration,
    /// From the first token to the last.
    pub(super) decode: Duration,
    pub(super) prompt_tokens: usize,
    pub(super) num_tokens: usize,
    /// Maximum number of its tokens.
    pub(super) max_tokens: usize,
    pub(super) num_preemptions: usize,
}

impl AnswerMetrics {
    /// All at zero.
    pub(super) fn new(registry: &Registry) -> Self {
        let success = counters(
            registry,
            "vllm:request_success_total",
            "Finished answers by finish reason.",
            "finished_reason",
        );
        // A series that appears with its first event hides that event from rate().
        for reason in FinishedReason::ALL {
            success.with_label_values(&[reason.as_str()]);
        }
        let time = |name, help| histogram(registry, name, help, &REQUEST_BUCKETS);
        let tokens = |name, help| histogram(registry, name, help, &NUM_TOKENS_BUCKETS);
        let gap = |name, help| histogram(registry, name, help, &TOKEN_BUCKETS);
        Self {
            prompt_tokens: counter(
                registry,
                "vllm:prompt_tokens_total",
                "Tokens of prompts that were read, once for each answer, cached ones included.",
            ),
            generation_tokens: counter(
                registry,
                "vllm:generation_tokens_total",
                "Generated tokens.",
            ),
            success,
            time_to_first_token: histogram(
                registry,
                "vllm:time_to_first_token_seconds",
                "From a request's arrival to an answer's first token.",
                &FIRST_TOKEN_BUCKETS,
            ),
            inter_token_latency: gap(
                "vllm:inter_token_latency_seconds",
                "From one token of an answer to the next.",
            ),
            time_per_output_token: gap(
                "vllm:time_per_output_token_seconds",
                "The same as vllm:inter_token_latency_seconds, under its older name.",
            ),
            queue_time: time(
                "vllm:request_queue_time_seconds",
                "From the engine's acceptance to the first step for an answer.",
            ),
            e2e_latency: time(
                "vllm:e2e_request_latency_seconds",
                "From a request's arrival to an answer's end.",
            ),
            prefill_time: time(
                "vllm:request_prefill_time_seconds",
                "From the first step for an answer to its first token.",
            ),
            decode_time: time(
                "vllm:request_decode_time_seconds",
                "From an answer's first token to its last.",
            ),
            inference_time: time(
                "vllm:request_inference_time_seconds",
                "From the first step for an answer to its last token.",
            ),
            mean_time_per_output_token: gap(
                "vllm:request_time_per_output_token_seconds",
                "Mean time from one token to the next, of each answer of several tokens.",
            ),
            request_prompt_tokens: tokens(
                "vllm:request_prompt_tokens",
                "Tokens of an answer's prompt, cached ones included.",
            ),
            request_generation_tokens: tokens(
                "vllm:request_generation_tokens",
                "Tokens of an answer.",
            ),
            max_tokens: tokens(
                "vllm:request_params_max_tokens",
                "Maximum number of tokens of an answer.",
            ),
            num_preemptions: histogram(
                registry,
                "vllm:request_num_preemptions",
                "Number of preemptions of an answer.",
                &PREEMPTIONS_BUCKETS,
            ),
            num_choices: histogram(
                registry,
                "vllm:request_params_n",
                "Answers to a prompt.",
                &CHOICES_BUCKETS,
            ),
            longest_choice: tokens(
                "vllm:request_max_num_generation_tokens",
                "Tokens of the longest answer to a prompt.",
            ),
        }
    }

    /// Records the time between two tokens of an answer.
    pub(super) fn next_token(&self, gap: Duration) {
        self.inter_token_latency.observe(gap.as_secs_f64());
        self.time_per_output_token.observe(gap.as_secs_f64());
    }

    /// Counts an answer that ended for this reason.
    pub(super) fn ended(&self, reason: FinishedReason) {
        self.success.with_label_values(&[reason.as_str()]).inc();
    }

    /// Records a finished answer. Aborted answers are not recorded: their latencies and lengths
    /// would distort the distributions.
    pub(super) fn completed(&self, answer: &EndedAnswer) {
        let inference = answer.prefill + answer.decode;
        for (histogram, time) in [
            (&self.e2e_latency, answer.since_arrival),
            (&self.prefill_time, answer.prefill),
            (&self.decode_time, answer.decode),
            (&self.inference_time, inference),
        ] {
            histogram.observe(time.as_secs_f64());
        }
        for (histogram, number) in [
            (&self.request_prompt_tokens, answer.prompt_tokens),
            (&self.request_generation_tokens, answer.num_tokens),
            (&self.max_tokens, answer.max_tokens),
            (&self.num_preemptions, answer.num_preemptions),
        ] {
            histogram.observe(number as f64);
        }
        if answer.num_tokens > 1 {
            let mean = answer.decode.as_secs_f64() / (answer.num_tokens - 1) as f64;
            self.mean_time_per_output_token.observe(mean);
        }
    }

    /// All `num_choices` answers to a prompt came to their ends; the longest had `longest` tokens.
    pub(super) fn prompt_completed(&self, num_choices: usize, longest: usize) {
        self.num_choices.observe(num_choices as f64);
        self.longest_choice.observe(longest as f64);
    }
}
