//! A request while the engine works on it: receives token streams, returns deltas of answers.
//!
//! Keeps tokens and parts together. The `text` module decides what a token adds to an answer,
//! including reasoning, calls and stop strings. This module knows nothing of JSON.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::stream::{SelectAll, Stream, StreamExt};
use tokio::time::Instant;

use super::answering::Answering;
use super::request_log::RequestLog;
use super::sampling::SamplingPlan;
use super::types::stop_reason::StopReason;
use super::types::usage::Usage;
use crate::api::http::error::ApiError;
use crate::api::http::limits::Permit;
use crate::api::http::state::Ticket;
use crate::core::{FinishReason, GenerateRequest, TokenEvent};
use crate::engine::TokenStream;
use crate::error::{Error, Result};
use crate::metrics::{AnswerMeter, FinishedReason, PromptFacts, PromptMeter};
use crate::text::{AnswerPart, AnswerReader, AnswerSyntax, Read, ReadEnd, StopText};

/// All answers to one request. Dropping it aborts the unfinished ones.
#[derive(Debug)]
pub(crate) struct Generation {
    answers: SelectAll<AnswerStream>,
    num_open: usize,
    /// Number of answers to each prompt.
    num_choices: usize,
    prompt_tokens: usize,
    /// Number of images in the prompts.
    num_images: usize,
    /// Cached tokens of each prompt, as its first answer found them. The other answers reuse the
    /// first one's blocks, so they do not count.
    cached_tokens: Vec<usize>,
    /// Reasoning tokens of all answers.
    reasoning_tokens: usize,
    /// `None` once all answers have ended, because the client may send its next request as soon as
    /// it has the last event.
    permit: Option<Permit>,
    log: RequestLog,
    _ticket: Ticket,
}

/// What one or more tokens add to one answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AnswerDelta {
    /// Index of the answer. Answers to the same prompt are adjacent.
    pub(crate) index: usize,
    /// Final parts: later tokens do not change them. Empty only on the last delta.
    pub(crate) parts: Vec<AnswerPart>,
    /// The tokens since the last delta, including reasoning and calls. Text of the last token may
    /// still be held back.
    pub(crate) tokens: Vec<TokenEvent>,
    /// How many of them are reasoning.
    pub(crate) num_reasoning: usize,
    /// Present on the last delta.
    pub(crate) finish: Option<Finish>,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finish {
    /// The engine's reason, or `Stop` after a stop string or after the only allowed call.
    pub(crate) reason: FinishReason,
    /// The stop string or stop token that ended the answer.
    pub(crate) stop_reason: Option<StopReason>,
}

impl Generation {
    /// Submits the engine's requests, one for each answer: all of them or none. Takes the log once
    /// the engine has them.
    ///
    /// # Errors
    /// The engine's error if it rejects the request.
    ///
    /// # Panics
    /// If the log is already taken.
    pub(crate) fn start(
        answering: &Answering,
        requests: Vec<GenerateRequest>,
        syntax: &AnswerSyntax,
        mut permit: Permit,
        ticket: Ticket,
        log: &mut Option<RequestLog>,
    ) -> std::result::Result<Self, ApiError> {
        let Answering {
            model,
            plan,
            prompts,
            ..
        } = answering;
        let most = requests.iter().step_by(plan.num_choices);
        let most: Vec<usize> = most.map(|request| request.sampling.max_tokens).collect();
        let streams = model.engine.submit_all(requests)?;
        let mut log = log.take().expect("a request is submitted once");
        let meters = prompts.iter().zip(most).map(|(prompt, max_tokens)| {
            let prompt = PromptFacts {
                arrived: log.arrived(),
                submitted: Instant::now(),
                num_tokens: prompt.ids.len(),
                max_tokens,
                num_choices: plan.num_choices,
            };
            PromptMeter::new(Arc::clone(log.metrics()), prompt)
        });
        let meters: Vec<_> = meters.collect();
        let answers = streams
            .into_iter()
            .enumerate()
            .map(|(index, tokens)| AnswerStream {
                index,
                tokens: Some(tokens),
                reader: AnswerReader::new(
                    Arc::clone(&model.tokenizer),
                    syntax,
                    plan.stop_rule(),
                    plan.text,
                ),
                plan: Arc::clone(plan),
                held: Vec::new(),
                num_reasoning: 0,
                meter: meters[index / plan.num_choices].answer(),
            });
        let answers: SelectAll<_> = answers.collect();
        let prompt_tokens = prompts.iter().map(|prompt| prompt.ids.len()).sum();
        log.submitted(prompt_tokens);
        permit.used(0);
        Ok(Self {
            permit: Some(permit),
            num_open: answers.len(),
            answers,
            num_choices: plan.num_choices,
            prompt_tokens,
            num_images: answering.num_images(),
            cached_tokens: vec![0; prompts.len()],
            reasoning_tokens: 0,
            log,
            _ticket: ticket,
        })
    }

    /// Returns the next delta of any answer, or `None` when all have ended. An error is the last
    /// item.
    pub(crate) async fn next(&mut self) -> Option<std::result::Result<AnswerDelta, ApiError>> {
        match self.answers.next().await? {
            Ok(delta) => {
                if let Some(token) = delta.tokens.first()
                    && delta.index.is_multiple_of(self.num_choices)
                {
                    self.cached_tokens[delta.index / self.num_choices] = token.num_cached_tokens;
                }
                self.reasoning_tokens += delta.num_reasoning;
                self.log.generated(&delta.tokens, self.num_cached_tokens());
                if let Some(permit) = &mut self.permit {
                    permit.used(self.log.output_tokens());
                }
                if let Some(finish) = &delta.finish {
                    self.num_open -= 1;
                    self.log.finished(finish.reason);
                }
                if self.num_open > 0 {
                    self.log.goes_on();
                } else {
                    self.permit = None;
                }
                Some(Ok(delta))
            }
            Err(error) => {
                self.answers.clear();
                self.permit = None;
                let error = ApiError::from(error);
                self.log.failed(error.refusal());
                Some(Err(error.logged()))
            }
        }
    }

    /// Returns the token usage so far.
    pub(crate) fn usage(&self) -> Usage {
        Usage::new(
            self.prompt_tokens,
            self.num_cached_tokens(),
            self.log.output_tokens(),
            self.reasoning_tokens,
        )
        .with_images(self.num_images)
    }

    fn num_cached_tokens(&self) -> usize {
        self.cached_tokens.iter().sum()
    }
}

/// The stream of one answer.
#[derive(Debug)]
struct AnswerStream {
    index: usize,
    /// `None` once the answer has ended. Dropping the stream makes the engine stop.
    tokens: Option<TokenStream>,
    reader: AnswerReader,
    plan: Arc<SamplingPlan>,
    /// Tokens whose text is held back.
    held: Vec<TokenEvent>,
    /// How many of them are reasoning.
    num_reasoning: usize,
    meter: AnswerMeter,
}

impl AnswerStream {
    /// Takes one token. Returns `None` while its text is held back.
    fn accept(&mut self, event: TokenEvent) -> Option<AnswerDelta> {
        self.meter.token(&event);
        let token = event.token;
        let ended = event.finish;
        self.held.push(event);

        let mut read = Read::default();
        // A stop token ends the answer; by default it is not part of its text.
        if ended != Some(FinishReason::Stop) || self.plan.text.stop == StopText::Kept {
            read = self.reader.push(token);
            self.num_reasoning += usize::from(read.is_reasoning);
        }
        if ended.is_some() && read.end.is_none() {
            let rest = self.reader.finish();
            read.parts.extend(rest.parts);
            read.end = rest.end;
        }

        let finish = match (read.end, ended) {
            (Some(ReadEnd::StopString(stop_idx)), _) => Some(Finish {
                reason: FinishReason::Stop,
                stop_reason: Some(StopReason::Text(self.plan.stop[stop_idx].clone())),
            }),
            (Some(ReadEnd::Call), _) => Some(Finish {
                reason: FinishReason::Stop,
                stop_reason: None,
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
        } else if read.parts.is_empty() {
            return None;
        }
        Some(AnswerDelta {
            index: self.index,
            parts: read.parts,
            tokens: std::mem::take(&mut self.held),
            num_reasoning: std::mem::take(&mut self.num_reasoning),
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
                    // A token stream must report a finish reason before it ends.
                    self.tokens = None;
                    self.meter.end(FinishedReason::Error);
                    return Poll::Ready(Some(Err(Error::EngineDead)));
                }
            }
        }
    }
}
