//! One line about each request that generated: how much and how long, never what.

use std::time::Instant;

use tracing::Span;

use super::error::Refusal;
use crate::core::FinishReason;

/// Counts while a request runs and writes its line when it is dropped, however the request ended.
#[derive(Debug)]
pub(super) struct RequestLog {
    /// The request's own, with its id and model.
    span: Span,
    started: Instant,
    submitted: Option<Instant>,
    first_token: Option<Instant>,
    prompt_tokens: usize,
    output_tokens: usize,
    end: End,
}

/// How a request ended.
#[derive(Debug)]
enum End {
    /// Not yet; dropped like this, the client has left.
    Open,
    /// With an answer.
    Finished(FinishReason),
    /// With an error after it had begun.
    Failed(Refusal),
}

impl RequestLog {
    /// A request that begins now, in the current span.
    pub(super) fn begin() -> Self {
        Self {
            span: Span::current(),
            started: Instant::now(),
            submitted: None,
            first_token: None,
            prompt_tokens: 0,
            output_tokens: 0,
            end: End::Open,
        }
    }

    /// The engine has taken the request.
    pub(super) fn submitted(&mut self, prompt_tokens: usize) {
        self.submitted = Some(Instant::now());
        self.prompt_tokens = prompt_tokens;
    }

    /// Tokens have come.
    pub(super) fn generated(&mut self, num_tokens: usize) {
        self.first_token.get_or_insert_with(Instant::now);
        self.output_tokens += num_tokens;
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
        // Refused before the engine took it: the answer is logged where it is made.
        let Some(submitted) = self.submitted else {
            return;
        };
        let _span = self.span.enter();
        let prompt_tokens = self.prompt_tokens;
        let output_tokens = self.output_tokens;
        let prepare_ms = (submitted - self.started).as_millis() as u64;
        let first_token_ms = self
            .first_token
            .map(|first| (first - self.started).as_millis() as u64);
        let total_ms = self.started.elapsed().as_millis() as u64;
        match &self.end {
            End::Failed(refusal) => tracing::error!(
                prompt_tokens,
                cached_tokens = 0,
                output_tokens,
                prepare_ms,
                first_token_ms,
                total_ms,
                finish = "error",
                code = refusal.code,
                detail = refusal.detail,
                "request failed"
            ),
            end => tracing::info!(
                prompt_tokens,
                cached_tokens = 0,
                output_tokens,
                prepare_ms,
                first_token_ms,
                total_ms,
                finish = match end {
                    End::Finished(reason) => super::answer::finish_name(*reason),
                    _ => "client left",
                },
                "request finished"
            ),
        }
    }
}
