//! The server's metrics in Prometheus' text format.
//!
//! Metrics that vLLM has too use vLLM's name, type and buckets (its `v1/metrics/loggers.py`), so
//! existing dashboards work unchanged. Other metrics begin with `medgemma:`. `engine` has gauges
//! and counters from `EngineStats`; `answer_meter` has latencies. Knows nothing of HTTP, and labels
//! never contain anything that a client wrote.

mod answer_meter;
mod answers;
mod engine;

use std::sync::OnceLock;

use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use answers::AnswerMetrics;

use crate::engine::EngineStats;
use crate::log::Log;

pub use answer_meter::{AnswerMeter, FinishedReason, PromptFacts, PromptMeter};

/// The metrics that are counted outside the engine; the engine's own are added when they are
/// encoded.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    answers: AnswerMetrics,
    errors: IntCounterVec,
    cancelled: IntCounter,
    images_decoded: IntCounter,
    auth_failures: IntCounter,
    /// Where the process has a log.
    log: OnceLock<Log>,
    images_abandoned: IntCounter,
    request_memory: IntGauge,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        Self {
            answers: AnswerMetrics::new(&registry),
            errors: counters(
                &registry,
                "medgemma:request_errors_total",
                "Requests that were rejected or failed, by error code.",
                "code",
            ),
            cancelled: counter(
                &registry,
                "medgemma:requests_cancelled_total",
                "Requests whose client disconnected before the end.",
            ),
            images_decoded: counter(
                &registry,
                "medgemma:images_decoded_total",
                "Images that were decoded and resized.",
            ),
            auth_failures: counter(
                &registry,
                "medgemma:auth_failures_total",
                "Requests with a missing or invalid API key.",
            ),
            log: OnceLock::new(),
            images_abandoned: counter(
                &registry,
                "medgemma:images_abandoned_total",
                "Images whose decoding was cancelled because the client disconnected.",
            ),
            request_memory: gauge(
                &registry,
                "medgemma:request_memory_bytes",
                "Memory of requests: bodies, parsed data, images.",
            ),
            registry,
        }
    }

    /// Reports the lines that `log` drops. A process has one log; later calls have no effect.
    pub fn count_dropped_lines_of(&self, log: &Log) {
        self.log.get_or_init(|| log.clone());
    }

    /// Sets the number of bytes that requests hold.
    pub fn request_memory(&self, bytes: u64) {
        self.request_memory
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts a request that was rejected or failed; `code` is one of our error codes.
    pub fn error(&self, code: &'static str) {
        self.errors.with_label_values(&[code]).inc();
    }

    /// Counts a request with a missing or invalid API key.
    pub fn auth_failure(&self) {
        self.auth_failures.inc();
    }

    /// Counts a request whose client disconnected before the end.
    pub fn cancelled(&self) {
        self.cancelled.inc();
    }

    /// Counts an image that was decoded and resized.
    pub fn image_decoded(&self) {
        self.images_decoded.inc();
    }

    /// Counts an image whose decoding was cancelled.
    pub fn image_abandoned(&self) {
        self.images_abandoned.inc();
    }

    /// Everything, in Prometheus' text format 0.0.4, labelled with the model's name.
    ///
    /// The classic format: in OpenMetrics counters lose `_total` in their TYPE line and infos are
    /// a type of their own, which the parsers of routers do not know.
    pub fn encode(&self, model_name: &str, stats: &EngineStats) -> String {
        let mut families = self.registry.gather();
        families.extend(engine::families(stats));
        families.push(engine::counter(
            "medgemma:log_lines_dropped_total",
            "Log lines that were dropped because the log could not be written fast enough.",
            self.log.get().map_or(0, Log::num_dropped),
        ));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        for family in &mut families {
            let is_vllms = family.name().starts_with("vllm:");
            // vLLM numbers its engines, and its dashboards may choose by that; here there is one.
            if is_vllms {
                add_label(family, "engine", "0");
            }
            add_label(family, "model_name", model_name);
        }
        TextEncoder::new()
            .encode_to_string(&families)
            .expect("each family has a metric, and text takes them all")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn add_label(family: &mut MetricFamily, name: &str, value: &str) {
    for metric in family.mut_metric() {
        let mut labels = vec![label(name, value)];
        labels.append(&mut metric.take_label());
        metric.set_label(labels);
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect("the name is in Prometheus' alphabet");
    let registered = registry.register(Box::new(counter.clone()));
    registered.expect("no other metric has the name");
    counter
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label]);
    let counters = counters.expect("the names are in Prometheus' alphabet");
    let registered = registry.register(Box::new(counters.clone()));
    registered.expect("no other metric has the name");
    counters
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect("the name is in Prometheus' alphabet");
    let registered = registry.register(Box::new(gauge.clone()));
    registered.expect("no other metric has the name");
    gauge
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let histogram = Histogram::with_opts(options).expect("the buckets rise");
    let registered = registry.register(Box::new(histogram.clone()));
    registered.expect("no other metric has the name");
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::MAX_KV_GROUPS;
    use crate::engine::PoolStats;

    #[test]
    fn the_text_has_a_routers_names_and_the_engines_values() {
        let metrics = Metrics::new();
        metrics.error("rate_limit_exceeded");
        metrics.error("rate_limit_exceeded");
        let stats = EngineStats {
            num_running: 3,
            num_waiting: 5,
            kv_usage: 0.25,
            block_size: 32,
            pools: [PoolStats {
                total: 100,
                free: 75,
            }; MAX_KV_GROUPS],
            num_preemptions: 7,
            ..EngineStats::default()
        };
        let text = metrics.encode("me\"di\n", &stats);
        for line in [
            "# TYPE vllm:num_requests_running gauge",
            "vllm:num_requests_running{model_name=\"me\\\"di\\n\",engine=\"0\"} 3",
            "vllm:num_requests_waiting{model_name=\"me\\\"di\\n\",engine=\"0\"} 5",
            "vllm:kv_cache_usage_perc{model_name=\"me\\\"di\\n\",engine=\"0\"} 0.25",
            "# TYPE vllm:num_preemptions_total counter",
            "vllm:num_preemptions_total{model_name=\"me\\\"di\\n\",engine=\"0\"} 7",
            "vllm:cache_config_info{model_name=\"me\\\"di\\n\",engine=\"0\",block_size=\"32\",num_gpu_blocks=\"100\"} 1",
            "vllm:request_success_total{model_name=\"me\\\"di\\n\",engine=\"0\",finished_reason=\"abort\"} 0",
            "medgemma:request_errors_total{model_name=\"me\\\"di\\n\",code=\"rate_limit_exceeded\"} 2",
            "# TYPE vllm:time_to_first_token_seconds histogram",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names: Vec<_> = types.filter_map(|line| line.split(' ').next()).collect();
        let mut once = names.clone();
        once.dedup();
        assert_eq!(names, once, "each family stands once");
    }
}
