//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::answer::{Answer, AnswerFormat, StreamEvent, finish_name, to_json};
use super::error::ApiError;
use super::extract::parse;
use super::generate::{Answering, Call, Endpoint, OwnFields, SharedFields, generate};
use super::generation::AnswerDelta;
use super::images::decode_all;
use super::logprobs;
use super::lower::{
    Chat, OutputPlan, PreparedPrompt, ServiceTier, StreamUsage, TokenIds, chat_logprobs,
    check_length, check_size, encode_chat, least_tokens, lower_messages,
};
use super::refused_fields::{self, refuse};
use super::state::AppState;
use super::types::{
    AssistantMessage, ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatRequest, Delta,
    Usage,
};
use crate::core::TokenEvent;
use crate::registry::ServedModel;
use crate::text::AnswerPart;

/// Answers a conversation.
///
/// # Errors
/// Those of [`generate`].
pub(super) async fn chat_completions(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    generate::<Chats>(app, request).await
}

struct Chats;

impl Endpoint for Chats {
    const ID_PREFIX: &'static str = "chatcmpl-";
    type Content = Chat;
    type Echo = ();

    fn read(body: &str, model: &ServedModel) -> Result<Call<Chat>, ApiError> {
        let fields = parse(body)?;
        let shared = SharedFields::parse(body)?;
        refuse(body, &[refused_fields::CHAT, refused_fields::GENERATION])?;
        chat_call(fields, shared, model)
    }

    async fn prompts(
        app: &AppState,
        model: &Arc<ServedModel>,
        chat: Chat,
    ) -> Result<Vec<PreparedPrompt>, ApiError> {
        Ok(vec![prepare(app, model, chat).await?])
    }

    fn format(answering: Answering, (): ()) -> impl AnswerFormat {
        ChatFormat(answering)
    }
}

/// Checks a chat, however it was written on the wire.
///
/// # Errors
/// 400 for what the fields say, 404 for another model.
pub(super) fn chat_call(
    fields: ChatRequest,
    shared: SharedFields,
    model: &ServedModel,
) -> Result<Call<Chat>, ApiError> {
    let own = OwnFields {
        model: fields.model,
        top_logprobs: chat_logprobs(fields.logprobs, fields.top_logprobs)?,
        output: OutputPlan::default(),
    };
    let call = Call::new(shared, own, model)?;
    let chat = lower_messages(fields.messages)?;
    check_chat(&chat, model, model.max_model_len)?;
    Ok(call.with(chat))
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
///
/// # Errors
/// 400 for what does not fit the model and for pictures that cannot be taken.
pub(super) async fn prepare(
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
            decode_all(images, &support.processor, app.workers(), app.metrics()).await?,
            support.tokens.tokens_per_image,
        ),
        None => (Vec::new(), 0),
    };
    Ok(PreparedPrompt::new(prompt, pixels, tokens_per_image))
}

/// The chat's JSON.
struct ChatFormat(Answering);

impl ChatFormat {
    fn chunk(&self, choices: Vec<ChatChunkChoice<'_>>, kind: Chunk) -> String {
        let chunk = ChatChunk {
            id: &self.0.identity.id,
            object: "chat.completion.chunk",
            created: self.0.identity.created,
            model: &self.0.identity.model,
            system_fingerprint: &self.0.identity.system_fingerprint,
            choices,
            usage: match kind {
                Chunk::Usage(usage) => Some(Some(usage)),
                Chunk::First(usage) | Chunk::Later(usage) => {
                    self.0.options.delivery.usage().on_the_way(usage)
                }
            },
            service_tier: self.0.options.service_tier.map(ServiceTier::name),
            prompt_token_ids: match kind {
                Chunk::First(_) => self.when_returned(|| self.0.prompts[0].as_slice()),
                Chunk::Later(_) | Chunk::Usage(_) => None,
            },
        };
        to_json(&chunk)
    }

    fn when_returned<T>(&self, ids: impl FnOnce() -> T) -> Option<T> {
        (self.0.options.token_ids == TokenIds::Return).then(ids)
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
            logprobs: logprobs::for_chat(tokens, &self.0.model.tokenizer),
            finish_reason: None,
            stop_reason: None,
            token_ids: self.when_returned(|| tokens.iter().map(|event| event.token).collect()),
        }
    }
}

/// A chunk's place in the stream.
#[derive(Clone, Copy)]
enum Chunk {
    First(Usage),
    Later(Usage),
    /// The last.
    Usage(Usage),
}

impl AnswerFormat for ChatFormat {
    fn opening(&mut self) -> Vec<StreamEvent> {
        let prompt_len = self.0.prompts[0].len();
        let usage = Usage::new(prompt_len, 0, 0);
        let chunk = |index| {
            let delta = Delta {
                role: Some("assistant"),
                content: Some(""),
            };
            let kind = if index == 0 {
                Chunk::First(usage)
            } else {
                Chunk::Later(usage)
            };
            StreamEvent::data(self.chunk(vec![self.choice(index, delta, &[])], kind))
        };
        (0..self.0.num_choices).map(chunk).collect()
    }

    fn delta(&mut self, delta: AnswerDelta, usage: Usage) -> Vec<StreamEvent> {
        let mut chunks = Vec::with_capacity(2);
        let mut tokens = delta.tokens.as_slice();
        for part in &delta.parts {
            let AnswerPart::Text(text) = part else {
                continue;
            };
            let content = Delta {
                role: None,
                content: Some(text),
            };
            let choice = self.choice(delta.index, content, tokens);
            chunks.push(self.chunk(vec![choice], Chunk::Later(usage)));
            tokens = &[];
        }
        if let Some(finish) = delta.finish {
            let choice = ChatChunkChoice {
                finish_reason: Some(finish_name(finish.reason)),
                stop_reason: finish.stop_reason,
                ..self.choice(delta.index, Delta::default(), tokens)
            };
            chunks.push(self.chunk(vec![choice], Chunk::Later(usage)));
        }
        chunks.into_iter().map(StreamEvent::data).collect()
    }

    fn closing(&mut self, usage: Usage) -> Vec<StreamEvent> {
        let mut events = Vec::with_capacity(2);
        if self.0.options.delivery.usage() != StreamUsage::Omit {
            let chunk = self.chunk(Vec::new(), Chunk::Usage(usage));
            events.push(StreamEvent::data(chunk));
        }
        events.push(StreamEvent::done());
        events
    }

    fn failed(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        vec![StreamEvent::data(error.to_json()), StreamEvent::done()]
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
            logprobs: logprobs::for_chat(&answer.tokens, &self.0.model.tokenizer),
            finish_reason: finish_name(answer.finish.reason),
            stop_reason: answer.finish.stop_reason,
            token_ids: self
                .when_returned(|| answer.tokens.iter().map(|event| event.token).collect()),
        });
        to_json(&ChatCompletion {
            id: &self.0.identity.id,
            object: "chat.completion",
            created: self.0.identity.created,
            model: &self.0.identity.model,
            choices: choices.collect(),
            usage,
            service_tier: self.0.options.service_tier.map(ServiceTier::name),
            system_fingerprint: &self.0.identity.system_fingerprint,
            prompt_token_ids: self.when_returned(|| self.0.prompts[0].as_slice()),
        })
    }
}
