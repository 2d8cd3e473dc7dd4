//! Writes one log line about each generating request: token counts and times, never content.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::api::http::error::Refusal;
use crate::core::{FinishReason, TokenEvent};
use crate::metrics::Metrics;

/// Counts while a request runs, and writes its line when it is dropped, however the request ended.
/// If no end was recorded, the client has disconnected.
#[derive(Debug)]
pub(crate) struct RequestLog {
    /// The request's span, with its id and model.
    span: Span,
    metrics: Arc<Metrics>,
    arrived: Instant,
    submitted: Option<Instant>,
    first_token: Option<Instant>,
    /// Queueing time of the first token that arrived.
    queued: Option<Duration>,
    prompt_tokens: usize,
    cached_tokens: usize,
    output_tokens: usize,
    end: End,
}

/// How a request ended.
#[derive(Debug)]
enum End {
    /// Not ended yet. If it is dropped in this state, the client has disconnected.
    Open,
    /// Rejected before the engine took it. The rejection is logged elsewhere.
    Refused,
    /// With an answer.
    Finished(FinishReason),
    /// With an error after it had begun.
    Failed(Refusal),
}

impl RequestLog {
    /// Starts the log of a request that begins now, in the current span.
    pub(crate) fn begin(metrics: Arc<Metrics>) -> Self {
        Self {
            span: Span::current(),
            metrics,
            arrived: Instant::now(),
            submitted: None,
            first_token: None,
            queued: None,
            prompt_tokens: 0,
            cached_tokens: 0,
            output_tokens: 0,
            end: End::Open,
        }
    }

    /// Returns the time when the request arrived.
    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Returns the metrics that the request counts in.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Records that the request was rejected before the engine took it.
    pub(crate) fn refused(&mut self) {
        self.end = End::Refused;
    }

    /// Records that the engine has taken the request.
    pub(crate) fn submitted(&mut self, prompt_tokens: usize) {
        self.submitted = Some(Instant::now());
        self.prompt_tokens = prompt_tokens;
    }

    /// Records generated tokens. `cached_tokens` is the number of cached prompt tokens known so
    /// far.
    pub(crate) fn generated(&mut self, tokens: &[TokenEvent], cached_tokens: usize) {
        self.first_token.get_or_insert_with(Instant::now);
        self.queued = self.queued.or(tokens.first().map(|token| token.queued));
        self.cached_tokens = cached_tokens;
        self.output_tokens += tokens.len();
    }

    /// Returns the number of all tokens since the beginning.
    pub(crate) fn output_tokens(&self) -> usize {
        self.output_tokens
    }

    /// Records that an answer has ended. If there are several, the last one is logged.
    pub(crate) fn finished(&mut self, reason: FinishReason) {
        self.end = End::Finished(reason);
    }

    /// Records that the request ended with an error.
    pub(crate) fn failed(&mut self, refusal: Refusal) {
        self.end = End::Failed(refusal);
    }

    /// Records that some answers are not finished yet.
    pub(crate) fn goes_on(&mut self) {
        self.end = End::Open;
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        // A panic is logged by the middleware that catches it.
        if matches!(self.end, End::Refused) || std::thread::panicking() {
            return;
        }
        let _span = self.span.enter();
        let millis = |time: Duration| time.as_millis() as u64;
        let since_arrival = |at: Instant| millis(at - self.arrived);
        let Self {
            prompt_tokens,
            cached_tokens,
            output_tokens,
            ..
        } = *self;
        let prepare_ms = self.submitted.map(since_arrival);
        let queue_ms = self.queued.map(millis);
        let first_token_ms = self.first_token.map(since_arrival);
        let total_ms = millis(self.arrived.elapsed());
        // Counted here, because a disabled log line does not evaluate its arguments.
        let (outcome, finish, refusal) = match &self.end {
            End::Failed(refusal) => {
                self.metrics.error(refusal.code.unwrap_or("unknown"));
                ("request failed", "error", Some(refusal))
            }
            End::Finished(reason) => ("request finished", reason.as_str(), None),
            End::Open | End::Refused => {
                self.metrics.cancelled();
                ("request finished", "client left", None)
            }
        };
        let code = refusal.and_then(|refusal| refusal.code);
        match refusal.and_then(|refusal| refusal.detail.as_deref()) {
            Some(detail) => tracing::error!(
                prompt_tokens,
                cached_tokens,
                output_tokens,
                prepare_ms,
                queue_ms,
                first_token_ms,
                total_ms,
                finish,
                code,
                detail,
                "{outcome}"
            ),
            // Not the server's fault: success, an exceeded deadline, or a shutdown.
            None => tracing::info!(
                prompt_tokens,
                cached_tokens,
                output_tokens,
                prepare_ms,
                queue_ms,
                first_token_ms,
                total_ms,
                finish,
                code,
                "{outcome}"
            ),
        }
    }
}
