//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use tracing::Span;

use super::answer::{self, Answer, AnswerFormat, finish_name, to_json};
use super::error::ApiError;
use super::extract::{json_body, parse};
use super::generation::{AnswerDelta, Generation};
use super::identity::Identity;
use super::images::decode_all;
use super::logprobs;
use super::lower::{
    AnswerOptions, Chat, Delivery, PreparedPrompt, SamplingPlan, StreamUsage, TokenIds,
    chat_logprobs, check_length, check_model, check_size, delivery, encode_chat, least_tokens,
    lower_messages,
};
use super::refused_fields::{self, refuse};
use super::request_log::RequestLog;
use super::state::AppState;
use super::types::{
    AssistantMessage, ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatRequest, Delta,
    SamplingFields, StreamFields, Usage,
};
use crate::core::{TokenEvent, TokenId};
use crate::registry::ServedModel;

/// Answers a conversation.
///
/// # Errors
/// 400 for what the request says, 404 for another model, 429 and 503 for the engine's state.
pub(super) async fn chat_completions(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let log = RequestLog::begin();
    let body = json_body(request).await?;
    let (model, ticket) = app.admit()?;

    let call = {
        let num_bytes = body.len();
        let model = Arc::clone(&model);
        let work = move || ChatCall::read(&body, &model);
        app.workers().run_sized(num_bytes, work).await??
    };
    Span::current().record("model", call.model_name.as_str());

    let prompt = prepare(&app, &model, call.chat).await?;
    let prompt_ids = prompt.ids.clone();
    let generation = Generation::start(&model, &[prompt], call.plan.clone(), log, ticket)?;
    let format = ChatFormat {
        identity: Identity::new("chatcmpl-", call.model_name, &model),
        model,
        options: call.options,
        num_choices: call.plan.num_choices,
        prompt_ids,
    };
    answer::respond(generation, format, call.options.delivery).await
}

/// A checked request.
struct ChatCall {
    model_name: String,
    chat: Chat,
    plan: SamplingPlan,
    options: AnswerOptions,
}

impl ChatCall {
    fn read(body: &str, model: &ServedModel) -> Result<Self, ApiError> {
        let fields: ChatRequest = parse(body)?;
        let sampling: SamplingFields = parse(body)?;
        let stream: StreamFields = parse(body)?;
        refuse(body, &[refused_fields::CHAT, refused_fields::GENERATION])?;

        let model_name = check_model(fields.model, model)?;
        let top_logprobs = chat_logprobs(fields.logprobs, fields.top_logprobs)?;
        let token_ids = TokenIds::from_field(sampling.return_token_ids);
        let plan = SamplingPlan::new(sampling, top_logprobs, model)?;
        let delivery = delivery(stream)?;
        let chat = lower_messages(fields.messages)?;
        check_chat(&chat, model, model.max_model_len)?;
        Ok(Self {
            model_name,
            chat,
            plan,
            options: AnswerOptions {
                delivery,
                token_ids,
            },
        })
    }
}

/// What can be said of a conversation before its template is rendered.
///
/// # Errors
/// 400 for pictures to a model that takes none, and for what certainly exceeds `max_tokens`.
pub(super) fn check_chat(
    chat: &Chat,
    model: &ServedModel,
    max_tokens: usize,
) -> Result<(), ApiError> {
    let image_tokens = match (&model.images, chat.images.first()) {
        (Some(images), _) => chat.images.len() * images.tokens.tokens_per_image,
        (None, None) => 0,
        (None, Some(image)) => {
            let message = format!(
                "The model '{}' takes text only. Remove the images, or use a model that takes \
                 them, such as medgemma-4b-it.",
                model.names[0]
            );
            return Err(ApiError::invalid_value(image.param.clone(), message));
        }
    };
    let least = least_tokens(chat.text_bytes, chat.messages.len(), image_tokens);
    check_size(least, max_tokens).map_err(|error| error.at("messages"))
}

/// Tokens first, pictures second: a prompt that is too long costs no decoding.
async fn prepare(
    app: &AppState,
    model: &Arc<ServedModel>,
    chat: Chat,
) -> Result<PreparedPrompt, ApiError> {
    let Chat {
        messages,
        images,
        text_bytes,
    } = chat;
    let encode = {
        let model = Arc::clone(model);
        move || encode_chat(&model, &messages)
    };
    let prompt = app.workers().run_sized(text_bytes, encode).await??;
    check_length(prompt.ids.len(), model.max_model_len).map_err(|error| error.at("messages"))?;
    let (pixels, tokens_per_image) = match &model.images {
        Some(support) => (
            decode_all(images, &support.processor, app.workers()).await?,
            support.tokens.tokens_per_image,
        ),
        None => (Vec::new(), 0),
    };
    Ok(PreparedPrompt::new(prompt, pixels, tokens_per_image))
}

/// The chat's JSON.
struct ChatFormat {
    identity: Identity,
    model: Arc<ServedModel>,
    options: AnswerOptions,
    num_choices: usize,
    prompt_ids: Vec<TokenId>,
}

impl ChatFormat {
    fn chunk(&self, choices: Vec<ChatChunkChoice<'_>>, kind: Chunk) -> String {
        let includes_usage = self.options.delivery == Delivery::Stream(StreamUsage::Include);
        let chunk = ChatChunk {
            id: &self.identity.id,
            object: "chat.completion.chunk",
            created: self.identity.created,
            model: &self.identity.model,
            system_fingerprint: &self.identity.system_fingerprint,
            choices,
            usage: match kind {
                Chunk::Usage(usage) => Some(Some(usage)),
                Chunk::First | Chunk::Later => includes_usage.then_some(None),
            },
            prompt_token_ids: match kind {
                Chunk::First => self.when_returned(|| self.prompt_ids.as_slice()),
                Chunk::Later | Chunk::Usage(_) => None,
            },
        };
        to_json(&chunk)
    }

    fn when_returned<T>(&self, ids: impl FnOnce() -> T) -> Option<T> {
        (self.options.token_ids == TokenIds::Return).then(ids)
    }

    fn choice<'a>(
        &self,
        index: usize,
        delta: Delta<'a>,
        tokens: &[TokenEvent],
    ) -> ChatChunkChoice<'a> {
        ChatChunkChoice {
            index,
            delta,
            logprobs: logprobs::for_chat(tokens, &self.model.tokenizer),
            finish_reason: None,
            stop_reason: None,
            token_ids: self.when_returned(|| tokens.iter().map(|event| event.token).collect()),
        }
    }
}

/// A chunk's place in the stream.
#[derive(Clone, Copy)]
enum Chunk {
    First,
    Later,
    Usage(Usage),
}

impl AnswerFormat for ChatFormat {
    fn opening(&self) -> Vec<String> {
        let chunk = |index| {
            let delta = Delta {
                role: Some("assistant"),
                content: Some(""),
            };
            let kind = if index == 0 {
                Chunk::First
            } else {
                Chunk::Later
            };
            self.chunk(vec![self.choice(index, delta, &[])], kind)
        };
        (0..self.num_choices).map(chunk).collect()
    }

    fn delta(&mut self, delta: AnswerDelta) -> Vec<String> {
        let mut chunks = Vec::with_capacity(2);
        let mut tokens = delta.tokens.as_slice();
        if !delta.text.is_empty() {
            let content = Delta {
                role: None,
                content: Some(&delta.text),
            };
            let choice = self.choice(delta.index, content, tokens);
            chunks.push(self.chunk(vec![choice], Chunk::Later));
            tokens = &[];
        }
        if let Some(finish) = delta.finish {
            let choice = ChatChunkChoice {
                finish_reason: Some(finish_name(finish.reason)),
                stop_reason: finish.stop_reason,
                ..self.choice(delta.index, Delta::default(), tokens)
            };
            chunks.push(self.chunk(vec![choice], Chunk::Later));
        }
        chunks
    }

    fn usage(&self, usage: Usage) -> String {
        self.chunk(Vec::new(), Chunk::Usage(usage))
    }

    fn whole(&mut self, answers: Vec<Answer>, usage: Usage) -> String {
        let choices = answers.into_iter().enumerate();
        let choices = choices.map(|(index, answer)| ChatChoice {
            index,
            message: AssistantMessage {
                role: "assistant",
                content: answer.text,
                refusal: None,
            },
            logprobs: logprobs::for_chat(&answer.tokens, &self.model.tokenizer),
            finish_reason: finish_name(answer.finish.reason),
            stop_reason: answer.finish.stop_reason,
            token_ids: self
                .when_returned(|| answer.tokens.iter().map(|event| event.token).collect()),
        });
        to_json(&ChatCompletion {
            id: &self.identity.id,
            object: "chat.completion",
            created: self.identity.created,
            model: &self.identity.model,
            choices: choices.collect(),
            usage,
            system_fingerprint: &self.identity.system_fingerprint,
            prompt_token_ids: self.when_returned(|| self.prompt_ids.as_slice()),
        })
    }
}
