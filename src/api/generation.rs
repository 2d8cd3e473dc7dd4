//! A request while the engine works on it: token streams in, pieces of answers out.
//!
//! Owns detokenising, stop strings and what is held back for them. Knows nothing of JSON.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::stream::{SelectAll, Stream, StreamExt};

use super::error::ApiError;
use super::lower::{PreparedPrompt, SamplingPlan};
use super::request_log::RequestLog;
use super::state::Ticket;
use super::types::{StopReason, Usage};
use crate::core::{Constraint, FinishReason, GenerateRequest, Terms, TokenEvent};
use crate::engine::TokenStream;
use crate::error::{Error, Result};
use crate::metrics::{AnswerMeter, FinishedReason};
use crate::registry::ServedModel;
use crate::text::{AnswerPart, Detokenizer};

/// All answers to one request. Dropping it aborts those that have not ended.
#[derive(Debug)]
pub(super) struct Generation {
    answers: SelectAll<AnswerStream>,
    num_open: usize,
    /// Answers to each prompt.
    num_choices: usize,
    prompt_tokens: usize,
    /// Of each prompt, as its first answer found them in the cache: the others find the first's.
    cached_tokens: Vec<usize>,
    log: RequestLog,
    _ticket: Ticket,
}

/// What the engine is to do for a request.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) prompts: &'a [PreparedPrompt],
    pub(super) plan: SamplingPlan,
    pub(super) constraint: Option<Arc<dyn Constraint>>,
    pub(super) terms: Terms,
}

/// What a few tokens add to one answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AnswerDelta {
    /// Which answer; those to the same prompt stand together.
    pub(super) index: usize,
    /// Safe to send: nothing to come changes them. Empty only on the last delta.
    pub(super) parts: Vec<AnswerPart>,
    /// The tokens since the last delta. Text of the last of them may still be held back.
    pub(super) tokens: Vec<TokenEvent>,
    /// Present on the last delta.
    pub(super) finish: Option<Finish>,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finish {
    /// As the engine says, or `Stop` for a stop string.
    pub(super) reason: FinishReason,
    /// What of the client's choice ended it.
    pub(super) stop_reason: Option<StopReason>,
}

impl Generation {
    /// Hands each prompt to the engine once for each of its answers, all of them or none.
    ///
    /// # Errors
    /// What the engine refuses.
    pub(super) fn start(
        model: &ServedModel,
        task: Task<'_>,
        mut log: RequestLog,
        ticket: Ticket,
    ) -> std::result::Result<Self, ApiError> {
        let Task {
            prompts,
            plan,
            constraint,
            terms,
        } = task;
        let mut requests = Vec::with_capacity(prompts.len() * plan.num_choices);
        for prompt in prompts {
            let room = model.max_model_len.saturating_sub(prompt.ids.len()).max(1);
            requests.extend((0..plan.num_choices).map(|choice| GenerateRequest {
                prompt: prompt.ids.clone(),
                images: prompt.images.clone(),
                sampling: plan.params(choice, room),
                constraint: constraint.clone(),
                prompt_logprobs: None,
                terms,
            }));
        }
        let streams = match model.engine.submit_all(requests) {
            Ok(streams) => streams,
            Err(error) => {
                log.refused();
                return Err(error.into());
            }
        };
        let num_choices = plan.num_choices;
        let plan = Arc::new(plan);
        let answers = streams.into_iter().enumerate().map(|(index, tokens)| {
            let prompt_len = prompts[index / num_choices].ids.len();
            AnswerStream {
                index,
                tokens: Some(tokens),
                // Stop strings count once `min_tokens` are there.
                detokenizer: Detokenizer::new(Arc::clone(&model.tokenizer), &[]),
                plan: Arc::clone(&plan),
                held: Vec::new(),
                num_tokens: 0,
                meter: log.meter(prompt_len),
            }
        });
        let answers: SelectAll<_> = answers.collect();
        let prompt_tokens = prompts.iter().map(|prompt| prompt.ids.len()).sum();
        log.submitted(prompt_tokens);
        Ok(Self {
            num_open: answers.len(),
            answers,
            num_choices,
            prompt_tokens,
            cached_tokens: vec![0; prompts.len()],
            log,
            _ticket: ticket,
        })
    }

    /// The next piece of any answer; `None` when all have ended. After an error there is nothing
    /// more.
    pub(super) async fn next(&mut self) -> Option<std::result::Result<AnswerDelta, ApiError>> {
        match self.answers.next().await? {
            Ok(delta) => {
                if let Some(token) = delta.tokens.first()
                    && delta.index.is_multiple_of(self.num_choices)
                {
                    self.cached_tokens[delta.index / self.num_choices] = token.num_cached_tokens;
                }
                self.log.generated(&delta.tokens, self.num_cached_tokens());
                if let Some(finish) = &delta.finish {
                    self.num_open -= 1;
                    self.log.finished(finish.reason);
                }
                if self.num_open > 0 {
                    self.log.goes_on();
                }
                Some(Ok(delta))
            }
            Err(error) => {
                self.answers.clear();
                let error = ApiError::from(error);
                self.log.failed(error.refusal());
                Some(Err(error.logged()))
            }
        }
    }

    /// Tokens so far.
    pub(super) fn usage(&self) -> Usage {
        Usage::new(
            self.prompt_tokens,
            self.num_cached_tokens(),
            self.log.output_tokens(),
        )
    }

    fn num_cached_tokens(&self) -> usize {
        self.cached_tokens.iter().sum()
    }
}

/// One answer as it comes.
#[derive(Debug)]
struct AnswerStream {
    index: usize,
    /// `None` once the answer has ended; dropping it tells the engine to stop.
    tokens: Option<TokenStream>,
    detokenizer: Detokenizer,
    plan: Arc<SamplingPlan>,
    /// Tokens whose text is held back.
    held: Vec<TokenEvent>,
    /// All tokens so far.
    num_tokens: usize,
    meter: AnswerMeter,
}

impl AnswerStream {
    /// Takes one token; `None` while its text is held back.
    fn accept(&mut self, event: TokenEvent) -> Option<AnswerDelta> {
        self.meter.token(event.queued);
        let token = event.token;
        let ended = event.finish;
        self.held.push(event);
        if self.num_tokens == self.plan.min_tokens() {
            self.detokenizer.look_for(&self.plan.stop);
        }
        self.num_tokens += 1;

        let mut text = String::new();
        let mut stopped = None;
        // A stop token ends the answer and is no part of its text.
        if ended != Some(FinishReason::Stop) {
            let piece = self.detokenizer.push(token);
            text = piece.text;
            stopped = piece.stopped;
        }
        if ended.is_some() && stopped.is_none() {
            let rest = self.detokenizer.finish();
            text.push_str(&rest.text);
            stopped = rest.stopped;
        }

        let finish = match (stopped, ended) {
            (Some(stop_idx), _) => Some(Finish {
                reason: FinishReason::Stop,
                stop_reason: Some(StopReason::Text(self.plan.stop[stop_idx].clone())),
            }),
            (None, Some(FinishReason::Stop)) => Some(Finish {
                reason: FinishReason::Stop,
                stop_reason: (self.plan.client_stop_ids.contains(&token))
                    .then_some(StopReason::Token(token)),
            }),
            (None, Some(FinishReason::Length)) => Some(Finish {
                reason: FinishReason::Length,
                stop_reason: None,
            }),
            (None, None) => None,
        };
        if let Some(finish) = &finish {
            self.tokens = None;
            self.meter.end(match finish.reason {
                FinishReason::Stop => FinishedReason::Stop,
                FinishReason::Length => FinishedReason::Length,
            });
        } else if text.is_empty() {
            return None;
        }
        let parts = match text.is_empty() {
            true => Vec::new(),
            false => vec![AnswerPart::Text(text)],
        };
        Some(AnswerDelta {
            index: self.index,
            parts,
            tokens: std::mem::take(&mut self.held),
            finish,
        })
    }
}

impl Stream for AnswerStream {
    type Item = Result<AnswerDelta>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(tokens) = &mut self.tokens else {
                return Poll::Ready(None);
            };
            match ready!(tokens.poll_next_unpin(cx)) {
                Some(Ok(event)) => {
                    if let Some(delta) = self.accept(event) {
                        return Poll::Ready(Some(Ok(delta)));
                    }
                }
                Some(Err(error)) => {
                    self.tokens = None;
                    self.meter.end(FinishedReason::Error);
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    // The stream says how it ended before it ends.
                    self.tokens = None;
                    self.meter.end(FinishedReason::Error);
                    return Poll::Ready(Some(Err(Error::EngineDead)));
                }
            }
        }
    }
}
