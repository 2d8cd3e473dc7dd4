//! `POST /v1/completions`: continues a raw prompt, without a chat template.

mod convert;
mod operation;
mod refused;
pub(crate) mod request;
pub(crate) mod response;

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use self::convert::{Echo, convert_prompts};
pub(crate) use self::operation::OPERATION;
use self::refused::REFUSED;
use self::request::CompletionRequest;
use self::response::{Completion, CompletionChoice};
use crate::api::generate::answer::{Answer, AnswerFormat, StreamEvent};
use crate::api::generate::answering::Answering;
use crate::api::generate::generation::{AnswerDelta, Finish};
use crate::api::generate::logprobs::{self, EchoedTokens};
use crate::api::generate::metadata::ServiceTier;
use crate::api::generate::options::{Delivery, StreamUsage, TokenIds, completion_logprobs};
use crate::api::generate::output::{GuidedFields, OutputPlan, asked_grammar};
use crate::api::generate::prompt::PreparedPrompt;
use crate::api::generate::refused::GENERATION;
use crate::api::generate::truncation::Truncation;
use crate::api::generate::types::media_fields::read_preparation;
use crate::api::generate::types::sampling_fields::SamplingFields;
use crate::api::generate::types::usage::Usage;
use crate::api::generate::{Call, Endpoint, OwnFields, SharedFields, generate};
use crate::api::http::body_fields::{BodyFields, names_of};
use crate::api::http::error::ApiError;
use crate::api::http::json_response::to_json;
use crate::api::http::state::AppState;
use crate::core::{FinishReason, TokenEvent, TokenId};
use crate::registry::ServedModel;
use crate::text::{AnswerPart, AnswerSyntax};

/// Default of `max_tokens` for this endpoint, as in OpenAI's API and vLLM.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Handles a text completion request with one or more prompts.
///
/// # Errors
/// The errors of [`generate`].
pub(crate) async fn completions(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    generate::<Completions>(app, request).await
}

struct Completions;

impl Endpoint for Completions {
    const ID_PREFIX: &'static str = "cmpl-";
    type Content = Vec<PreparedPrompt>;
    type Echo = Returned;

    fn read(body: &str, model: &ServedModel) -> Result<Call<Self::Content, Returned>, ApiError> {
        let [sampling, scheduling, stream, labels, media] = SharedFields::names();
        let names = [
            names_of::<CompletionRequest>(),
            sampling,
            scheduling,
            stream,
            labels,
            media,
        ];
        let body = BodyFields::find(body, &names, &[REFUSED, GENERATION]);
        let fields: CompletionRequest = body.read()?;
        let mut shared = SharedFields::read(&body)?;
        body.check_refused()?;
        // Checked, and without effect: a raw prompt has no images.
        read_preparation(shared.media.mm_processor_kwargs.take(), model)?;
        let echo = match fields.echo {
            Some(true) => Echo::Yes,
            Some(false) | None => Echo::No,
        };
        let returned = returned(echo, &mut shared.sampling)?;
        if echo == Echo::Yes && has_named_tokens(&shared.sampling) && fields.logprobs.is_some() {
            return Err(ApiError::contradiction(
                "logprob_token_ids",
                "'logprob_token_ids' are for the tokens of an answer: leave out 'echo', or \
                 'logprob_token_ids'.",
            ));
        }
        let top_logprobs = completion_logprobs(fields.logprobs)?;
        let guided = GuidedFields {
            json: fields.guided_json,
            regex: fields.guided_regex,
            choice: fields.guided_choice,
            grammar: fields.guided_grammar,
        };
        let (format, structured) = (fields.response_format, fields.structured_outputs);
        let own = OwnFields {
            model: fields.model,
            top_logprobs,
            output: OutputPlan {
                grammar: asked_grammar(format, structured, guided)?,
                ..OutputPlan::default()
            },
            syntax: AnswerSyntax::default(),
        };
        let mut call = Call::new(shared, own, model)?;
        call.plan = call.plan.or_max_tokens(DEFAULT_MAX_TOKENS);
        if echo == Echo::Yes {
            call.plan.echoed_logprobs = top_logprobs;
        }
        let truncation = Truncation::from_fields(
            fields.truncate_prompt_tokens,
            fields.truncation_side.as_deref(),
            model.max_model_len,
        )?;
        let prompts = convert_prompts(fields.prompt, echo, truncation, model)?;
        Ok(call.through(|()| prompts, returned))
    }

    async fn prompts(
        _app: &AppState,
        _model: &Arc<ServedModel>,
        prompts: Vec<PreparedPrompt>,
    ) -> Result<Vec<PreparedPrompt>, ApiError> {
        Ok(prompts)
    }

    fn format(answering: Answering, returned: Returned) -> impl AnswerFormat {
        let num_answers = answering.prompts.len() * answering.plan.num_choices;
        CompletionFormat {
            returned,
            answering,
            progress: vec![Progress::default(); num_answers],
            is_first: true,
            num_open: num_answers,
        }
    }
}

/// What of an answer is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Returned {
    /// The answer, behind its prompt if that is echoed.
    Answer,
    /// The echoed prompt alone.
    Prompt,
}

/// Returns a field that is present if it has a value, or always.
fn present<T>(value: Option<T>, always: bool) -> Option<Option<T>> {
    (always || value.is_some()).then_some(value)
}

/// Returns what is returned. Where it is the prompt alone, one token is generated all the same: with
/// it come the prompt's log-probabilities.
///
/// # Errors
/// 400 for an answer of no tokens without an echo.
fn returned(echo: Echo, sampling: &mut SamplingFields) -> Result<Returned, ApiError> {
    let max_tokens = &mut sampling.max_tokens;
    if *max_tokens != Some(0) || sampling.max_completion_tokens.is_some() {
        return Ok(Returned::Answer);
    }
    if echo == Echo::No {
        return Err(ApiError::invalid_value(
            "max_tokens",
            "'max_tokens' must be at least 1, got 0. With 'echo': true it may be 0: then the prompt \
             alone is returned.",
        ));
    }
    *max_tokens = Some(1);
    Ok(Returned::Prompt)
}

fn has_named_tokens(sampling: &SamplingFields) -> bool {
    let ids = sampling.logprob_token_ids.as_deref();
    ids.is_some_and(|ids| !ids.is_empty())
}

/// Formats text completions as JSON.
struct CompletionFormat {
    returned: Returned,
    answering: Answering,
    /// Progress of each answer.
    progress: Vec<Progress>,
    /// Whether no chunk has been sent yet.
    is_first: bool,
    /// Number of answers that have not ended.
    num_open: usize,
}

/// How much of an answer has been sent.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Number of characters of all tokens so far.
    offset: usize,
    has_begun: bool,
}

/// A piece of an answer, as one choice of a response shows it.
struct Part<'a> {
    index: usize,
    text: &'a str,
    tokens: &'a [TokenEvent],
    finish: Option<Finish>,
}

impl CompletionFormat {
    fn chunk(&mut self, part: Part<'_>, usage: Usage) -> String {
        let usage = self.usage(usage);
        let is_first = std::mem::replace(&mut self.is_first, false);
        let mut progress = self.progress[part.index];
        let index = part.index;
        self.num_open -= usize::from(part.finish.is_some());
        let is_last = self.num_open == 0;
        let chunk = Completion {
            inputs: self.answering.inputs().filter(|_| is_last),
            usage: self.answering.options.delivery.usage().on_the_way(usage),
            prompt_token_ids: self.only_prompt().filter(|_| is_first).map(Some),
            ..self.completion(vec![self.choice(part, &mut progress)])
        };
        let json = to_json(&chunk);
        self.progress[index] = progress;
        json
    }

    fn completion<'a>(&'a self, choices: Vec<CompletionChoice<'a>>) -> Completion<'a> {
        Completion {
            id: &self.answering.identity.id,
            object: "text_completion",
            created: self.answering.identity.created,
            model: &self.answering.identity.model,
            choices,
            usage: None,
            service_tier: self.answering.options.service_tier.map(ServiceTier::name),
            system_fingerprint: &self.answering.identity.system_fingerprint,
            prompt_token_ids: None,
            kv_transfer_params: None,
            inputs: None,
        }
    }

    fn choice<'a>(&'a self, part: Part<'a>, progress: &mut Progress) -> CompletionChoice<'a> {
        let is_first = !std::mem::replace(&mut progress.has_begun, true);
        let returns_ids = self.answering.options.token_ids == TokenIds::Return;
        let prompt = &self.answering.prompts[part.index / self.answering.plan.num_choices];
        let tokenizer = &self.answering.model.tokenizer;
        let of_prompt = part.tokens.first();
        let of_prompt = of_prompt.and_then(|event| event.prompt_logprobs.as_deref());
        let echo = prompt.echo.as_ref();
        let echo = echo.filter(|_| is_first);
        let echoed = echo.zip(self.answering.plan.echoed_logprobs);
        let echoed = echoed.map(|(echo, num_top)| EchoedTokens {
            ids: &prompt.ids,
            num_silent: echo.num_silent,
            logprobs: of_prompt.unwrap_or_default(),
            num_top,
        });
        let prompt_logprobs = self.answering.plan.prompt_logprobs.zip(of_prompt);
        let prompt_logprobs = prompt_logprobs.map(|(num_top, of_prompt)| {
            logprobs::for_prompt(&prompt.ids, of_prompt, num_top, tokenizer)
        });
        // vLLM's whole responses have these fields always, its chunks only where there is something.
        let is_whole = self.answering.options.delivery == Delivery::Whole;
        let (tokens, text, finish) = match self.returned {
            Returned::Answer => {
                let finish = part
                    .finish
                    .map(|finish| (finish.reason, finish.stop_reason));
                (part.tokens, part.text, finish)
            }
            Returned::Prompt => {
                let finish = part.finish.map(|_| (FinishReason::Length, None));
                (&[][..], "", finish)
            }
        };
        let (reason, stop_reason) = finish.unzip();
        let token_ids = returns_ids.then(|| tokens.iter().map(|event| event.token).collect());
        let writer = self.answering.logprob_writer();
        CompletionChoice {
            index: part.index,
            text: match echo {
                Some(echo) => Cow::Owned(format!("{}{text}", echo.text)),
                None => Cow::Borrowed(text),
            },
            logprobs: writer.for_completion(echoed, tokens, &mut progress.offset),
            prompt_logprobs: present(prompt_logprobs, is_whole),
            finish_reason: reason.map(FinishReason::as_str),
            stop_reason: present(stop_reason.flatten(), is_whole),
            prompt_token_ids: present(
                (returns_ids && is_first).then_some(prompt.ids.as_slice()),
                is_whole,
            ),
            token_ids: present(token_ids, is_whole),
        }
    }

    /// Returns the usage as it is reported: a token that is not returned is not counted.
    fn usage(&self, usage: Usage) -> Usage {
        match self.returned {
            Returned::Answer => usage,
            Returned::Prompt => {
                let cached = usage.prompt_tokens_details.cached_tokens;
                Usage::new(usage.prompt_tokens, cached, 0, 0)
            }
        }
    }

    /// Returns the prompt's token ids, if they were requested and there is only one prompt.
    fn only_prompt(&self) -> Option<&[TokenId]> {
        match (
            self.answering.options.token_ids,
            self.answering.prompts.as_slice(),
        ) {
            (TokenIds::Return, [prompt]) => Some(&prompt.ids),
            _ => None,
        }
    }
}

impl AnswerFormat for CompletionFormat {
    fn opening(&mut self) -> Vec<StreamEvent> {
        Vec::new()
    }

    fn delta(&mut self, delta: AnswerDelta, usage: Usage) -> Vec<StreamEvent> {
        let index = delta.index;
        let mut chunks = Vec::with_capacity(2);
        let mut tokens = delta.tokens.as_slice();
        let text = delta.parts.iter().map(|part| match part {
            AnswerPart::Text(text) => text.as_str(),
            _ => unreachable!("nothing is told apart in a text completion"),
        });
        let text: String = text.collect();
        if !text.is_empty() && self.returned == Returned::Answer {
            let part = Part {
                index,
                text: &text,
                tokens,
                finish: None,
            };
            chunks.push(self.chunk(part, usage));
            tokens = &[];
        }
        if delta.finish.is_some() {
            let part = Part {
                index,
                text: "",
                tokens,
                finish: delta.finish,
            };
            chunks.push(self.chunk(part, usage));
        }
        chunks.into_iter().map(StreamEvent::data).collect()
    }

    fn closing(&mut self, usage: Usage) -> Vec<StreamEvent> {
        let mut events = Vec::with_capacity(2);
        if self.answering.options.delivery.usage() != StreamUsage::Omit {
            events.push(StreamEvent::data(to_json(&Completion {
                usage: Some(Some(self.usage(usage))),
                ..self.completion(Vec::new())
            })));
        }
        events.push(StreamEvent::done());
        events
    }

    fn failed(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        vec![StreamEvent::data(error.to_json()), StreamEvent::done()]
    }

    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> String {
        let choices = answers.iter().enumerate().map(|(index, answer)| {
            let part = Part {
                index,
                text: &answer.text,
                tokens: &answer.tokens,
                finish: Some(answer.finish.clone()),
            };
            self.choice(part, &mut Progress::default())
        });
        to_json(&Completion {
            usage: Some(Some(self.usage(usage))),
            prompt_token_ids: Some(self.only_prompt()),
            kv_transfer_params: Some(()),
            inputs: self.answering.inputs(),
            ..self.completion(choices.collect())
        })
    }
}
