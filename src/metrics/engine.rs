//! The engine's metrics, made from one snapshot for each scrape.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::label;
use crate::engine::{EngineStats, StepSizes};

/// One family for each number of `stats`.
pub(super) fn families(stats: &EngineStats) -> Vec<MetricFamily> {
    let encoder = (stats.encoder_hits, stats.encoder_misses);
    vec![
        gauge(
            "vllm:num_requests_running",
            "Running sequences.",
            stats.num_running as f64,
        ),
        gauge(
            "vllm:num_requests_waiting",
            "Waiting sequences.",
            stats.num_waiting as f64,
        ),
        gauge(
            "vllm:kv_cache_usage_perc",
            "Share of the KV blocks that unfinished sequences hold, 0 to 1.",
            stats.kv_usage,
        ),
        cache_config(stats),
        lora_requests(),
        counter(
            "vllm:num_preemptions_total",
            "Number of preemptions.",
            stats.num_preemptions,
        ),
        counter(
            "vllm:prefix_cache_queries_total",
            "Prompt tokens looked up in the prefix cache.",
            stats.prefix_queried_tokens,
        ),
        counter(
            "vllm:prefix_cache_hits_total",
            "Prompt tokens found in the prefix cache.",
            stats.prefix_hit_tokens,
        ),
        counter(
            "vllm:mm_cache_queries_total",
            "Images looked up in the encoder cache.",
            encoder.0 + encoder.1,
        ),
        counter(
            "vllm:mm_cache_hits_total",
            "Images found in the encoder cache.",
            encoder.0,
        ),
        step_tokens(stats),
        counter(
            "medgemma:encoder_cache_hits_total",
            "Encoder cache hits.",
            encoder.0,
        ),
        counter(
            "medgemma:encoder_cache_misses_total",
            "Encoder cache misses.",
            encoder.1,
        ),
        counter(
            "medgemma:engine_steps_total",
            "Steps of the model.",
            stats.num_steps,
        ),
        counter(
            "medgemma:computed_tokens_total",
            "Tokens that steps computed, of prompts and answers.",
            stats.num_computed_tokens,
        ),
        counter(
            "medgemma:skipped_masks_total",
            "Times that a step left a sequence out because its grammar mask was not ready.",
            stats.num_skipped_masks,
        ),
        blocks(stats),
    ]
}

/// A router learns from it how many tokens the cache holds, so it is of the pool that keeps whole
/// sequences where there is one.
fn cache_config(stats: &EngineStats) -> MetricFamily {
    let num_blocks = stats.pools[stats.groups.first_global().unwrap_or(0)].total;
    let labels = vec![
        label("block_size", &stats.block_size.to_string()),
        label("num_gpu_blocks", &num_blocks.to_string()),
    ];
    family(
        "vllm:cache_config_info",
        "KV cache configuration.",
        MetricType::GAUGE,
        vec![gauge_metric(labels, 1.0)],
    )
}

/// No adapters are served; routers ask all the same. The value is the time, as vLLM's is.
fn lora_requests() -> MetricFamily {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let labels = vec![
        label("max_lora", "0"),
        label("running_lora_adapters", ""),
        label("waiting_lora_adapters", ""),
    ];
    family(
        "vllm:lora_requests_info",
        "Adapters of the requests; none are served.",
        MetricType::GAUGE,
        vec![gauge_metric(
            labels,
            now.map_or(0.0, |since| since.as_secs_f64()),
        )],
    )
}

/// vLLM's histogram, whose name says `total`.
fn step_tokens(stats: &EngineStats) -> MetricFamily {
    let mut histogram = Histogram::default();
    histogram.set_sample_count(stats.num_steps);
    histogram.set_sample_sum(stats.num_computed_tokens as f64);
    let mut cumulative = 0;
    let buckets = StepSizes::BOUNDS.iter().zip(stats.step_sizes.counts());
    let buckets = buckets.map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    let mut metric = Metric::from_label(Vec::new());
    metric.set_histogram(histogram);
    family(
        "vllm:iteration_tokens_total",
        "Tokens that a step computed, of prompts and answers.",
        MetricType::HISTOGRAM,
        vec![metric],
    )
}

fn blocks(stats: &EngineStats) -> MetricFamily {
    let groups = 0..stats.groups.num_groups();
    let metrics = groups.flat_map(|group| {
        let (group, pool) = (stats.groups.name(group), stats.pools[group]);
        let used = pool.total.saturating_sub(pool.free);
        [("used", used), ("free", pool.free)].map(|(state, number)| {
            let labels = vec![label("group", &group), label("state", state)];
            gauge_metric(labels, number as f64)
        })
    });
    family(
        "medgemma:kv_blocks",
        "KV blocks of each group of layers; free ones may be cached.",
        MetricType::GAUGE,
        metrics.collect(),
    )
}

fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    let metric = gauge_metric(Vec::new(), value);
    family(name, help, MetricType::GAUGE, vec![metric])
}

fn gauge_metric(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

pub(super) fn counter(name: &str, help: &str, value: u64) -> MetricFamily {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(Vec::new());
    metric.set_counter(counter);
    family(name, help, MetricType::COUNTER, vec![metric])
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
