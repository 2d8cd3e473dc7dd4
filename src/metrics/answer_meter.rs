//! Measures one answer's latencies and tokens, from its request's arrival to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::Metrics;
use super::answers::EndedAnswer;
use crate::core::TokenEvent;

/// What the answers to one prompt have in common.
#[derive(Debug)]
pub struct PromptMeter {
    metrics: Arc<Metrics>,
    prompt: PromptFacts,
    num_completed: AtomicUsize,
    /// Tokens of the longest answer that is complete.
    longest: AtomicUsize,
}

/// A prompt that the engine has taken.
#[derive(Clone, Copy, Debug)]
pub struct PromptFacts {
    /// When its request arrived.
    pub arrived: Instant,
    /// When the engine took it.
    pub submitted: Instant,
    /// Number of its tokens.
    pub num_tokens: usize,
    /// Most tokens of each answer.
    pub max_tokens: usize,
    /// Number of answers to it.
    pub num_choices: usize,
}

/// Measures an answer as it is sent to its client. If dropped before `end`, the answer counts as
/// aborted.
#[derive(Debug)]
pub struct AnswerMeter {
    prompt: Arc<PromptMeter>,
    tokens: Option<Tokens>,
    has_ended: bool,
}

/// The tokens of an answer so far.
#[derive(Clone, Copy, Debug)]
struct Tokens {
    begun: Instant,
    first: Instant,
    last: Instant,
    number: usize,
    num_preemptions: usize,
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

impl PromptMeter {
    /// A meter for the answers to a prompt.
    pub fn new(metrics: Arc<Metrics>, prompt: PromptFacts) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            prompt,
            num_completed: AtomicUsize::new(0),
            longest: AtomicUsize::new(0),
        })
    }

    /// A meter for one of them.
    pub fn answer(self: &Arc<Self>) -> AnswerMeter {
        AnswerMeter {
            prompt: Arc::clone(self),
            tokens: None,
            has_ended: false,
        }
    }

    fn completed(&self, tokens: &Tokens) {
        let PromptFacts {
            arrived,
            num_tokens,
            max_tokens,
            num_choices,
            ..
        } = self.prompt;
        let answers = &self.metrics.answers;
        answers.completed(&EndedAnswer {
            since_arrival: arrived.elapsed(),
            prefill: tokens.first - tokens.begun,
            decode: tokens.last - tokens.first,
            prompt_tokens: num_tokens,
            num_tokens: tokens.number,
            max_tokens,
            num_preemptions: tokens.num_preemptions,
        });
        let longest = self.longest.fetch_max(tokens.number, Ordering::Relaxed);
        let num_before = self.num_completed.fetch_add(1, Ordering::Relaxed);
        if num_before + 1 == num_choices {
            answers.prompt_completed(num_choices, longest.max(tokens.number));
        }
    }
}

impl AnswerMeter {
    /// A token came.
    pub fn token(&mut self, event: &TokenEvent) {
        let now = Instant::now();
        let PromptFacts {
            arrived,
            submitted,
            num_tokens,
            ..
        } = self.prompt.prompt;
        let answers = &self.prompt.metrics.answers;
        answers.generation_tokens.inc();
        match &mut self.tokens {
            None => {
                answers.prompt_tokens.inc_by(num_tokens as u64);
                answers.queue_time.observe(event.queued.as_secs_f64());
                let since = now - arrived;
                answers.time_to_first_token.observe(since.as_secs_f64());
                self.tokens = Some(Tokens {
                    begun: (submitted + event.queued).min(now),
                    first: now,
                    last: now,
                    number: 1,
                    num_preemptions: event.num_preemptions,
                });
            }
            Some(tokens) => {
                answers.next_token(now - tokens.last);
                tokens.last = now;
                tokens.number += 1;
                tokens.num_preemptions = event.num_preemptions;
            }
        }
    }

    /// The answer has ended; only the first end counts.
    pub fn end(&mut self, reason: FinishedReason) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        self.prompt.metrics.answers.ended(reason);
        let is_whole = matches!(reason, FinishedReason::Stop | FinishedReason::Length);
        if let Some(tokens) = self.tokens.filter(|_| is_whole) {
            self.prompt.completed(&tokens);
        }
    }
}

impl Drop for AnswerMeter {
    fn drop(&mut self) {
        self.end(FinishedReason::Abort);
    }
}
