//! `POST /v1/chat/completions`.
//!
//! The model's reasoning is returned beside the content, as `reasoning_content` and, under its
//! newer name, `reasoning`. `logprobs.content`, `token_ids` and `completion_tokens` cover every
//! token of an answer, including reasoning, its markers and tool calls, as vLLM's do. A stop string
//! ends the content or a call, never the reasoning. An answer that stops by itself after a call has
//! the finish reason `tool_calls`.

pub(crate) mod call;
pub(crate) mod convert;
pub(crate) mod message;
mod operation;
mod parts;
pub(crate) mod past_calls;
pub(crate) mod prompting;
mod refused;
pub(crate) mod render;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod thinking;
pub(crate) mod tool_types;
pub(crate) mod tools;
pub(crate) mod translation;
pub(crate) mod turns;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use self::call::{chat_call, prepare};
use self::convert::Chat;
use self::message::Content;
pub(crate) use self::operation::OPERATION;
use self::refused::REFUSED;
use self::request::ChatRequest;
use self::response::{
    AssistantMessage, ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, Delta,
};
use self::tool_types::{
    AnswerCustom, AnswerFunction, AnswerToolCall, DeltaCustom, DeltaFunction, DeltaToolCall,
};
use crate::api::generate::answer::{Answer, AnswerFormat, StreamEvent, ToolCall};
use crate::api::generate::answering::Answering;
use crate::api::generate::generation::AnswerDelta;
use crate::api::generate::logprobs;
use crate::api::generate::metadata::ServiceTier;
use crate::api::generate::options::{StreamUsage, TokenIds};
use crate::api::generate::prompt::PreparedPrompt;
use crate::api::generate::refused::GENERATION;
use crate::api::generate::types::usage::Usage;
use crate::api::generate::{Call, Endpoint, SharedFields, generate};
use crate::api::http::body_fields::{BodyFields, names_of};
use crate::api::http::error::ApiError;
use crate::api::http::json_response::to_json;
use crate::api::http::object::JsonObject;
use crate::api::http::random::random_id;
use crate::api::http::state::AppState;
use crate::core::{FinishReason, TokenEvent};
use crate::registry::ServedModel;
use crate::text::{AnswerPart, CallKind};

/// Prefix of answers' ids.
const ID_PREFIX: &str = "chatcmpl-";
/// Prefix of tool call ids.
const CALL_PREFIX: &str = "call_";

/// Handles a chat completion request.
///
/// # Errors
/// The errors of [`generate`].
pub(crate) async fn chat_completions(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    generate::<Chats>(app, request).await
}

struct Chats;

impl Endpoint for Chats {
    const ID_PREFIX: &'static str = ID_PREFIX;
    type Content = Chat;
    /// The text that each answer begins with.
    type Echo = String;

    fn read(body: &str, model: &ServedModel) -> Result<Call<Chat, String>, ApiError> {
        let [sampling, scheduling, stream, labels, media] = SharedFields::names();
        let names = [
            names_of::<ChatRequest>(),
            sampling,
            scheduling,
            stream,
            labels,
            media,
        ];
        let body = BodyFields::find(body, &names, &[REFUSED, GENERATION]);
        let fields: ChatRequest = body.read()?;
        let mut shared = SharedFields::read(&body)?;
        body.check_refused()?;
        let mut echoed = String::new();
        if fields.echo == Some(true) {
            echoed = last_text(&fields);
            // As on vLLM, whose streams do not have them either.
            if shared.stream.stream != Some(true) {
                let asked = &mut shared.sampling.prompt_logprobs;
                *asked = asked.or(fields.top_logprobs);
            }
        }
        Ok(chat_call(fields, shared, model)?.through(|chat| chat, echoed))
    }

    async fn prompts(
        app: &AppState,
        model: &Arc<ServedModel>,
        chat: Chat,
    ) -> Result<Vec<PreparedPrompt>, ApiError> {
        Ok(vec![prepare(app, model, chat).await?])
    }

    fn format(answering: Answering, echoed: String) -> impl AnswerFormat {
        ChatFormat {
            echoed,
            num_calls: vec![0; answering.plan.num_choices],
            num_open: answering.plan.num_choices,
            call_kind: CallKind::Function,
            answering,
        }
    }
}

/// Returns the text of the last message if an answer to `fields` is in its role, as vLLM decides it:
/// an assistant's, or any if no turn of the assistant is begun.
fn last_text(fields: &ChatRequest) -> String {
    let Some(JsonObject(last)) = fields.messages.last() else {
        return String::new();
    };
    if last.role != "assistant" && fields.add_generation_prompt != Some(false) {
        return String::new();
    }
    match &last.content {
        None => String::new(),
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Parts(parts)) => {
            let texts = parts.iter().filter_map(|part| part.text.as_deref());
            texts.collect::<Vec<_>>().join("\n")
        }
    }
}

/// Formats chat completions as JSON.
struct ChatFormat {
    answering: Answering,
    /// For each answer, the number of tool calls begun so far.
    num_calls: Vec<usize>,
    /// Number of answers that have not ended.
    num_open: usize,
    /// The kind of the latest call, whose arguments follow it at once.
    call_kind: CallKind,
    /// Text that each answer's content begins with (`echo`).
    echoed: String,
}

impl ChatFormat {
    fn chunk(&self, choices: Vec<ChatChunkChoice<'_>>, kind: Chunk) -> String {
        let chunk = ChatChunk {
            id: &self.answering.identity.id,
            object: "chat.completion.chunk",
            created: self.answering.identity.created,
            model: &self.answering.identity.model,
            system_fingerprint: &self.answering.identity.system_fingerprint,
            choices,
            usage: match kind {
                Chunk::Usage(usage) => Some(Some(usage)),
                Chunk::First(usage) | Chunk::Later(usage) | Chunk::Last(usage) => {
                    self.answering.options.delivery.usage().on_the_way(usage)
                }
            },
            service_tier: self.answering.options.service_tier.map(ServiceTier::name),
            prompt_token_ids: match kind {
                Chunk::First(_) => self.when_returned(|| self.answering.prompts[0].ids.as_slice()),
                Chunk::Later(_) | Chunk::Last(_) | Chunk::Usage(_) => None,
            },
            inputs: match kind {
                Chunk::Last(_) => self.answering.inputs(),
                Chunk::First(_) | Chunk::Later(_) | Chunk::Usage(_) => None,
            },
        };
        to_json(&chunk)
    }

    fn when_returned<T>(&self, ids: impl FnOnce() -> T) -> Option<T> {
        (self.answering.options.token_ids == TokenIds::Return).then(ids)
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
            logprobs: self.answering.logprob_writer().for_chat(tokens),
            finish_reason: None,
            stop_reason: None,
            token_ids: self.when_returned(|| tokens.iter().map(|event| event.token).collect()),
        }
    }
}

/// Returns the delta for one part. `num_calls` counts the answer's calls so far, including this
/// one, whose kind is `kind`.
fn part_delta(part: &AnswerPart, num_calls: usize, kind: CallKind) -> Delta<'_> {
    let call = |id: Option<String>, name, text| {
        let is_function = kind == CallKind::Function;
        Some([DeltaToolCall {
            index: num_calls - 1,
            kind: id.is_some().then(|| kind_name(kind)),
            id,
            function: is_function.then_some(DeltaFunction {
                name,
                arguments: text,
            }),
            custom: (!is_function).then_some(DeltaCustom { name, input: text }),
        }])
    };
    match part {
        AnswerPart::Reasoning(text) => Delta {
            reasoning_content: Some(text),
            reasoning: Some(text),
            ..Delta::default()
        },
        AnswerPart::Text(text) => Delta {
            content: Some(text),
            ..Delta::default()
        },
        AnswerPart::CallBegins { name, .. } => Delta {
            tool_calls: call(Some(random_id(CALL_PREFIX)), Some(name.as_str()), ""),
            ..Delta::default()
        },
        AnswerPart::CallArguments(text) => Delta {
            tool_calls: call(None, None, text),
            ..Delta::default()
        },
    }
}

/// Returns the message of a complete answer.
fn message(reasoning: String, text: String, calls: Vec<ToolCall>) -> AssistantMessage {
    let reasoning = Some(reasoning).filter(|reasoning| !reasoning.is_empty());
    let calls: Vec<_> = calls.into_iter().map(answer_call).collect();
    AssistantMessage {
        role: "assistant",
        content: (calls.is_empty() || !text.is_empty()).then_some(text),
        reasoning_content: reasoning.clone(),
        reasoning,
        tool_calls: Some(calls).filter(|calls| !calls.is_empty()),
        refusal: None,
    }
}

fn answer_call(call: ToolCall) -> AnswerToolCall {
    let ToolCall {
        name,
        kind,
        arguments,
    } = call;
    let (function, custom) = match kind {
        CallKind::Function => (Some(AnswerFunction { name, arguments }), None),
        CallKind::Custom => {
            let input = arguments;
            (None, Some(AnswerCustom { name, input }))
        }
    };
    AnswerToolCall {
        id: random_id(CALL_PREFIX),
        kind: kind_name(kind),
        function,
        custom,
    }
}

fn kind_name(kind: CallKind) -> &'static str {
    match kind {
        CallKind::Function => "function",
        CallKind::Custom => "custom",
    }
}

/// Returns the finish reason. An answer with calls that stopped by itself has `tool_calls`.
fn chat_finish_name(reason: FinishReason, num_calls: usize) -> &'static str {
    match reason {
        FinishReason::Stop if num_calls > 0 => "tool_calls",
        reason => reason.as_str(),
    }
}

/// The kind of a stream chunk.
#[derive(Clone, Copy)]
enum Chunk {
    First(Usage),
    Later(Usage),
    /// The last chunk with a choice.
    Last(Usage),
    /// The last chunk, which has only the usage.
    Usage(Usage),
}

impl AnswerFormat for ChatFormat {
    fn opening(&mut self) -> Vec<StreamEvent> {
        let prompt_len = self.answering.prompts[0].ids.len();
        let usage = Usage::new(prompt_len, 0, 0, 0).with_images(self.answering.num_images());
        let chunk = |index| {
            let delta = Delta {
                role: Some("assistant"),
                content: Some(""),
                ..Delta::default()
            };
            let kind = if index == 0 {
                Chunk::First(usage)
            } else {
                Chunk::Later(usage)
            };
            StreamEvent::data(self.chunk(vec![self.choice(index, delta, &[])], kind))
        };
        let num_choices = self.answering.plan.num_choices;
        let mut events: Vec<_> = (0..num_choices).map(chunk).collect();
        if !self.echoed.is_empty() {
            events.extend((0..num_choices).map(|index| {
                let delta = Delta {
                    content: Some(&self.echoed),
                    ..Delta::default()
                };
                let choice = self.choice(index, delta, &[]);
                StreamEvent::data(self.chunk(vec![choice], Chunk::Later(usage)))
            }));
        }
        events
    }

    fn delta(&mut self, delta: AnswerDelta, usage: Usage) -> Vec<StreamEvent> {
        let mut chunks = Vec::with_capacity(2);
        let mut tokens = delta.tokens.as_slice();
        for part in &delta.parts {
            if let AnswerPart::CallBegins { kind, .. } = part {
                self.num_calls[delta.index] += 1;
                self.call_kind = *kind;
            }
            let content = part_delta(part, self.num_calls[delta.index], self.call_kind);
            let choice = self.choice(delta.index, content, tokens);
            chunks.push(self.chunk(vec![choice], Chunk::Later(usage)));
            tokens = &[];
        }
        if let Some(finish) = delta.finish {
            let num_calls = self.num_calls[delta.index];
            let choice = ChatChunkChoice {
                finish_reason: Some(chat_finish_name(finish.reason, num_calls)),
                stop_reason: finish.stop_reason,
                ..self.choice(delta.index, Delta::default(), tokens)
            };
            let kind = match self.num_open - 1 {
                0 => Chunk::Last(usage),
                _ => Chunk::Later(usage),
            };
            chunks.push(self.chunk(vec![choice], kind));
            self.num_open -= 1;
        }
        chunks.into_iter().map(StreamEvent::data).collect()
    }

    fn closing(&mut self, usage: Usage) -> Vec<StreamEvent> {
        let mut events = Vec::with_capacity(2);
        if self.answering.options.delivery.usage() != StreamUsage::Omit {
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
        // All answers have the same prompt.
        let of_prompt = answers.first().and_then(|answer| answer.tokens.first());
        let of_prompt = of_prompt.and_then(|event| event.prompt_logprobs.clone());
        let of_prompt = self.answering.plan.prompt_logprobs.zip(of_prompt);
        let prompt_logprobs = of_prompt.map(|(num_top, of_prompt)| {
            let tokenizer = &self.answering.model.tokenizer;
            logprobs::for_prompt(
                &self.answering.prompts[0].ids,
                &of_prompt,
                num_top,
                tokenizer,
            )
        });
        let echoed = &self.echoed;
        let choices = answers.into_iter().enumerate();
        let choices = choices.map(|(index, answer)| ChatChoice {
            index,
            finish_reason: chat_finish_name(answer.finish.reason, answer.calls.len()),
            message: message(
                answer.reasoning,
                format!("{echoed}{}", answer.text),
                answer.calls,
            ),
            logprobs: self.answering.logprob_writer().for_chat(&answer.tokens),
            stop_reason: answer.finish.stop_reason,
            token_ids: self
                .when_returned(|| answer.tokens.iter().map(|event| event.token).collect()),
        });
        to_json(&ChatCompletion {
            id: &self.answering.identity.id,
            object: "chat.completion",
            created: self.answering.identity.created,
            model: &self.answering.identity.model,
            choices: choices.collect(),
            usage,
            service_tier: self.answering.options.service_tier.map(ServiceTier::name),
            system_fingerprint: &self.answering.identity.system_fingerprint,
            prompt_logprobs,
            prompt_token_ids: self.when_returned(|| self.answering.prompts[0].ids.as_slice()),
            kv_transfer_params: None,
            inputs: self.answering.inputs(),
        })
    }
}
