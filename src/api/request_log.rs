//! One line about each request that generated: how much and how long, never what.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use super::answer::finish_name;
use super::error::Refusal;
use crate::core::{FinishReason, TokenEvent};
use crate::metrics::{AnswerMeter, Metrics};

/// Counts while a request runs and writes its line when it is dropped, however the request ended.
/// Dropped with no end told, the client has left.
#[derive(Debug)]
pub(super) struct RequestLog {
    /// The request's own, with its id and model.
    span: Span,
    metrics: Arc<Metrics>,
    arrived: Instant,
    submitted: Option<Instant>,
    first_token: Option<Instant>,
    /// Of the first token that came.
    queued: Option<Duration>,
    prompt_tokens: usize,
    cached_tokens: usize,
    output_tokens: usize,
    end: End,
}

/// How a request ended.
#[derive(Debug)]
enum End {
    /// Not yet; dropped like this, the client has left.
    Open,
    /// Before the engine took it, with an answer that is logged where it is made.
    Refused,
    /// With an answer.
    Finished(FinishReason),
    /// With an error after it had begun.
    Failed(Refusal),
}

impl RequestLog {
    /// A request that begins now, in the current span.
    pub(super) fn begin(metrics: Arc<Metrics>) -> Self {
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

    /// When it began.
    pub(super) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// What measures one of its answers.
    pub(super) fn meter(&self, prompt_tokens: usize) -> AnswerMeter {
        AnswerMeter::new(Arc::clone(&self.metrics), self.arrived, prompt_tokens)
    }

    /// The request was refused before the engine took it.
    pub(super) fn refused(&mut self) {
        self.end = End::Refused;
    }

    /// The engine has taken the request.
    pub(super) fn submitted(&mut self, prompt_tokens: usize) {
        self.submitted = Some(Instant::now());
        self.prompt_tokens = prompt_tokens;
    }

    /// Tokens have come; of the prompts, `cached_tokens` were cached, as far as is known.
    pub(super) fn generated(&mut self, tokens: &[TokenEvent], cached_tokens: usize) {
        self.first_token.get_or_insert_with(Instant::now);
        self.queued = self.queued.or(tokens.first().map(|token| token.queued));
        self.cached_tokens = cached_tokens;
        self.output_tokens += tokens.len();
    }

    /// All tokens since the beginning.
    pub(super) fn output_tokens(&self) -> usize {
        self.output_tokens
    }

    /// An answer has ended; of several the last one counts.
    pub(super) fn finished(&mut self, reason: FinishReason) {
        self.end = End::Finished(reason);
    }

    /// The request ends with an error.
    pub(super) fn failed(&mut self, refusal: Refusal) {
        self.end = End::Failed(refusal);
    }

    /// Some answers are still to come.
    pub(super) fn goes_on(&mut self) {
        self.end = End::Open;
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        // A panic is an answer too; whoever catches it logs it.
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
        // Counted here: a log line that nobody wants evaluates nothing.
        let (outcome, finish, refusal) = match &self.end {
            End::Failed(refusal) => {
                self.metrics.error(refusal.code.unwrap_or("unknown"));
                ("request failed", "error", Some(refusal))
            }
            End::Finished(reason) => ("request finished", finish_name(*reason), None),
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
            // Not our fault: all is well, its time was up, or the server was asked to stop.
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
