//! `POST /v1/completions`: continues text as it stands, without a chat template.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use tracing::Span;

use super::answer::{self, Answer, AnswerFormat, finish_name, to_json};
use super::error::ApiError;
use super::extract::{json_body, parse};
use super::generation::{AnswerDelta, Finish, Generation};
use super::identity::Identity;
use super::logprobs;
use super::lower::{
    AnswerOptions, Delivery, PreparedPrompt, SamplingPlan, StreamUsage, TokenIds, check_model,
    completion_logprobs, delivery, lower_prompts,
};
use super::refused_fields::{self, refuse};
use super::request_log::RequestLog;
use super::state::AppState;
use super::types::{
    Completion, CompletionChoice, CompletionRequest, SamplingFields, StreamFields, Usage,
};
use crate::core::{TokenEvent, TokenId};
use crate::registry::ServedModel;

/// OpenAI's default for this endpoint, and vLLM's.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Continues one prompt or several.
///
/// # Errors
/// 400 for what the request says, 404 for another model, 429 and 503 for the engine's state.
pub(super) async fn completions(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let log = RequestLog::begin();
    let body = json_body(request).await?;
    let (model, ticket) = app.admit()?;

    let call = {
        let num_bytes = body.len();
        let model = Arc::clone(&model);
        let work = move || CompletionCall::read(&body, &model);
        app.workers().run_sized(num_bytes, work).await??
    };
    Span::current().record("model", call.model_name.as_str());

    let generation = Generation::start(&model, &call.prompts, call.plan.clone(), log, ticket)?;
    let num_answers = call.prompts.len() * call.plan.num_choices;
    let format = CompletionFormat {
        identity: Identity::new("cmpl-", call.model_name, &model),
        model,
        options: call.options,
        num_choices: call.plan.num_choices,
        prompts: call.prompts.into_iter().map(|prompt| prompt.ids).collect(),
        progress: vec![Progress::default(); num_answers],
        is_first: true,
    };
    answer::respond(generation, format, call.options.delivery).await
}

/// A checked request.
struct CompletionCall {
    model_name: String,
    prompts: Vec<PreparedPrompt>,
    plan: SamplingPlan,
    options: AnswerOptions,
}

impl CompletionCall {
    fn read(body: &str, model: &ServedModel) -> Result<Self, ApiError> {
        let fields: CompletionRequest = parse(body)?;
        let sampling: SamplingFields = parse(body)?;
        let stream: StreamFields = parse(body)?;
        refuse(
            body,
            &[refused_fields::COMPLETION, refused_fields::GENERATION],
        )?;

        let model_name = check_model(fields.model, model)?;
        let top_logprobs = completion_logprobs(fields.logprobs)?;
        let token_ids = TokenIds::from_field(sampling.return_token_ids);
        let plan = SamplingPlan::new(sampling, top_logprobs, model)?;
        let delivery = delivery(stream)?;
        let prompts = lower_prompts(fields.prompt, model)?;
        Ok(Self {
            model_name,
            prompts,
            plan: plan.or_max_tokens(DEFAULT_MAX_TOKENS),
            options: AnswerOptions {
                delivery,
                token_ids,
            },
        })
    }
}

/// The text completion's JSON.
struct CompletionFormat {
    identity: Identity,
    model: Arc<ServedModel>,
    options: AnswerOptions,
    /// Answers to each prompt.
    num_choices: usize,
    prompts: Vec<Vec<TokenId>>,
    /// Of each answer.
    progress: Vec<Progress>,
    /// No chunk has been made yet.
    is_first: bool,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Characters of the tokens so far.
    offset: usize,
    has_begun: bool,
}

/// A piece of an answer, as one choice of the wire shows it.
struct Part<'a> {
    index: usize,
    text: &'a str,
    tokens: &'a [TokenEvent],
    finish: Option<Finish>,
}

impl CompletionFormat {
    fn chunk(&mut self, part: Part<'_>) -> String {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let includes_usage = self.options.delivery == Delivery::Stream(StreamUsage::Include);
        let mut progress = self.progress[part.index];
        let index = part.index;
        let chunk = Completion {
            usage: includes_usage.then_some(None),
            prompt_token_ids: self.only_prompt().filter(|_| is_first),
            ..self.completion(vec![self.choice(part, &mut progress)])
        };
        let json = to_json(&chunk);
        self.progress[index] = progress;
        json
    }

    fn completion<'a>(&'a self, choices: Vec<CompletionChoice<'a>>) -> Completion<'a> {
        Completion {
            id: &self.identity.id,
            object: "text_completion",
            created: self.identity.created,
            model: &self.identity.model,
            choices,
            usage: None,
            system_fingerprint: &self.identity.system_fingerprint,
            prompt_token_ids: None,
        }
    }

    fn choice<'a>(&'a self, part: Part<'a>, progress: &mut Progress) -> CompletionChoice<'a> {
        let is_first = !std::mem::replace(&mut progress.has_begun, true);
        let returns_ids = self.options.token_ids == TokenIds::Return;
        let prompt = self.prompts[part.index / self.num_choices].as_slice();
        let tokenizer = &self.model.tokenizer;
        CompletionChoice {
            index: part.index,
            text: part.text,
            logprobs: logprobs::for_completion(part.tokens, tokenizer, &mut progress.offset),
            finish_reason: part
                .finish
                .as_ref()
                .map(|finish| finish_name(finish.reason)),
            stop_reason: part.finish.and_then(|finish| finish.stop_reason),
            prompt_token_ids: (returns_ids && is_first).then_some(prompt),
            token_ids: returns_ids.then(|| part.tokens.iter().map(|event| event.token).collect()),
        }
    }

    /// The prompt's ids, if they are wanted and there is one prompt.
    fn only_prompt(&self) -> Option<&[TokenId]> {
        match (self.options.token_ids, self.prompts.as_slice()) {
            (TokenIds::Return, [prompt]) => Some(prompt),
            _ => None,
        }
    }
}

impl AnswerFormat for CompletionFormat {
    fn opening(&self) -> Vec<String> {
        Vec::new()
    }

    fn delta(&mut self, delta: AnswerDelta) -> Vec<String> {
        let index = delta.index;
        let mut chunks = Vec::with_capacity(2);
        let mut tokens = delta.tokens.as_slice();
        if !delta.text.is_empty() {
            chunks.push(self.chunk(Part {
                index,
                text: &delta.text,
                tokens,
                finish: None,
            }));
            tokens = &[];
        }
        if delta.finish.is_some() {
            chunks.push(self.chunk(Part {
                index,
                text: "",
                tokens,
                finish: delta.finish,
            }));
        }
        chunks
    }

    fn usage(&self, usage: Usage) -> String {
        to_json(&Completion {
            usage: Some(Some(usage)),
            ..self.completion(Vec::new())
        })
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
