//! One answer's times and tokens, from its request's arrival to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Metrics;

/// Measures an answer as it is handed to its client. Dropped before an end was told, the client
/// has left.
#[derive(Debug)]
pub struct AnswerMeter {
    metrics: Arc<Metrics>,
    arrived: Instant,
    prompt_tokens: usize,
    last_token: Option<Instant>,
    has_ended: bool,
}

/// How an answer ended, as vLLM's metrics call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishedReason {
    /// By a stop token or a stop string.
    Stop,
    /// By its length.
    Length,
    /// The client left.
    Abort,
    /// By an error.
    Error,
}

impl FinishedReason {
    pub(super) const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::Abort, Self::Error];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

impl AnswerMeter {
    /// A meter for one answer; its request arrived at `arrived`.
    pub fn new(metrics: Arc<Metrics>, arrived: Instant, prompt_tokens: usize) -> Self {
        Self {
            metrics,
            arrived,
            prompt_tokens,
            last_token: None,
            has_ended: false,
        }
    }

    /// A token came; its answer had waited for `queued` before its first step.
    pub fn token(&mut self, queued: Duration) {
        let now = Instant::now();
        let metrics = &self.metrics;
        metrics.generation_tokens.inc();
        match self.last_token.replace(now) {
            None => {
                metrics.prompt_tokens.inc_by(self.prompt_tokens as u64);
                metrics.queue_time.observe(queued.as_secs_f64());
                let since = now - self.arrived;
                metrics.time_to_first_token.observe(since.as_secs_f64());
            }
            Some(before) => {
                let gap = (now - before).as_secs_f64();
                metrics.inter_token_latency.observe(gap);
                metrics.time_per_output_token.observe(gap);
            }
        }
    }

    /// The answer has ended; only the first end counts.
    pub fn end(&mut self, reason: FinishedReason) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let metrics = &self.metrics;
        let ended = metrics
            .request_success
            .with_label_values(&[reason.as_str()]);
        ended.inc();
        // The time of one that was cut short says nothing of how long answers take.
        if matches!(reason, FinishedReason::Stop | FinishedReason::Length) {
            let since = self.arrived.elapsed();
            metrics.e2e_latency.observe(since.as_secs_f64());
        }
    }
}

impl Drop for AnswerMeter {
    fn drop(&mut self) {
        self.end(FinishedReason::Abort);
    }
}
