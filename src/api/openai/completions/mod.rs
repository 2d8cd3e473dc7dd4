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
use crate::api::generate::options::{StreamUsage, TokenIds, completion_logprobs};
use crate::api::generate::output::{GuidedFields, OutputPlan, asked_grammar};
use crate::api::generate::prompt::PreparedPrompt;
use crate::api::generate::refused::GENERATION;
use crate::api::generate::types::usage::Usage;
use crate::api::generate::{Call, Endpoint, OwnFields, SharedFields, generate};
use crate::api::http::body_fields::{BodyFields, names_of};
use crate::api::http::error::ApiError;
use crate::api::http::json_response::to_json;
use crate::api::http::state::AppState;
use crate::core::{TokenEvent, TokenId};
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
    type Echo = ();

    fn read(body: &str, model: &ServedModel) -> Result<Call<Self::Content>, ApiError> {
        let [sampling, scheduling, stream, labels] = SharedFields::names();
        let names = [
            names_of::<CompletionRequest>(),
            sampling,
            scheduling,
            stream,
            labels,
        ];
        let body = BodyFields::find(body, &names, &[REFUSED, GENERATION]);
        let fields: CompletionRequest = body.read()?;
        let shared = SharedFields::read(&body)?;
        body.check_refused()?;
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
        let echo = match fields.echo {
            Some(true) => Echo::Yes,
            Some(false) | None => Echo::No,
        };
        if echo == Echo::Yes {
            call.plan.echoed_logprobs = top_logprobs;
        }
        Ok(call.with(convert_prompts(fields.prompt, echo, model)?))
    }

    async fn prompts(
        _app: &AppState,
        _model: &Arc<ServedModel>,
        prompts: Vec<PreparedPrompt>,
    ) -> Result<Vec<PreparedPrompt>, ApiError> {
        Ok(prompts)
    }

    fn format(answering: Answering, (): ()) -> impl AnswerFormat {
        let num_answers = answering.prompts.len() * answering.plan.num_choices;
        CompletionFormat {
            answering,
            progress: vec![Progress::default(); num_answers],
            is_first: true,
        }
    }
}

/// Formats text completions as JSON.
struct CompletionFormat {
    answering: Answering,
    /// Progress of each answer.
    progress: Vec<Progress>,
    /// Whether no chunk has been sent yet.
    is_first: bool,
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
        let is_first = std::mem::replace(&mut self.is_first, false);
        let mut progress = self.progress[part.index];
        let index = part.index;
        let chunk = Completion {
            usage: self.answering.options.delivery.usage().on_the_way(usage),
            prompt_token_ids: self.only_prompt().filter(|_| is_first),
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
        let offset = &mut progress.offset;
        CompletionChoice {
            index: part.index,
            text: match echo {
                Some(echo) => Cow::Owned(format!("{}{}", echo.text, part.text)),
                None => Cow::Borrowed(part.text),
            },
            logprobs: logprobs::for_completion(echoed, part.tokens, tokenizer, offset),
            prompt_logprobs: (self.answering.plan.prompt_logprobs.zip(of_prompt)).map(
                |(num_top, of_prompt)| {
                    logprobs::for_prompt(&prompt.ids, of_prompt, num_top, tokenizer)
                },
            ),
            finish_reason: part.finish.as_ref().map(|finish| finish.reason.as_str()),
            stop_reason: part.finish.and_then(|finish| finish.stop_reason),
            prompt_token_ids: (returns_ids && is_first).then_some(prompt.ids.as_slice()),
            token_ids: returns_ids.then(|| part.tokens.iter().map(|event| event.token).collect()),
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
        if !text.is_empty() {
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
                usage: Some(Some(usage)),
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
            usage: Some(Some(usage)),
            prompt_token_ids: self.only_prompt(),
            ..self.completion(choices.collect())
        })
    }
}
