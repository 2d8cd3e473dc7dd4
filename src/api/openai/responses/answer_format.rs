//! Formats an answer as JSON: as whole items, or as events that announce, fill and finish one item
//! after another.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;

use super::event::{NumberedEvent, OutputPlace, ResponsesEvent};
use super::items::{Item, ItemBody};
use super::request::RepeatedFields;
use super::response::{
    IncompleteDetails, InputTokensDetails, OutputTokensDetails, ResponseFault, ResponseObject,
    ResponseStatus, ResponsesUsage,
};
use crate::api::generate::answer::{Answer, AnswerFormat, StreamEvent};
use crate::api::generate::answering::Answering;
use crate::api::generate::generation::AnswerDelta;
use crate::api::generate::types::logprobs::TokenLogprob;
use crate::api::generate::types::usage::Usage;
use crate::api::http::error::ApiError;
use crate::api::http::json_response::to_json;
use crate::core::{FinishReason, TokenEvent};
use crate::text::{AnswerPart, CallKind};

/// Formats one answer.
pub(super) struct ResponsesFormat {
    answering: Answering,
    repeated: RepeatedFields,
    defaults: Defaults,
    /// Number of stream events sent so far.
    num_events: usize,
    /// The items of the stream; all but the last are complete.
    items: Vec<Item>,
    status: ResponseStatus,
}

/// Values that the response has for fields that the request does not set.
struct Defaults {
    object: Box<RawValue>,
    list: Box<RawValue>,
    text: Box<RawValue>,
    reasoning: Box<RawValue>,
    tool_choice: Box<RawValue>,
}

impl Defaults {
    fn new() -> Self {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).expect("it is JSON");
        Self {
            object: raw("{}"),
            list: raw("[]"),
            text: raw(r#"{"format":{"type":"text"}}"#),
            reasoning: raw(r#"{"effort":null,"summary":null}"#),
            tool_choice: raw(r#""auto""#),
        }
    }
}

impl ResponsesFormat {
    pub(super) fn new(answering: Answering, repeated: RepeatedFields) -> Self {
        Self {
            answering,
            repeated,
            defaults: Defaults::new(),
            num_events: 0,
            items: Vec::new(),
            status: ResponseStatus::InProgress,
        }
    }

    /// Returns the response as far as it is known.
    fn response(&self, usage: Option<Usage>) -> ResponseObject<'_> {
        let Self {
            answering,
            repeated,
            defaults,
            ..
        } = self;
        let sampling = &answering.model.sampling_defaults;
        let now = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(0, |since| since.as_secs())
        };
        ResponseObject {
            id: &answering.identity.id,
            object: "response",
            created_at: answering.identity.created,
            completed_at: (self.status == ResponseStatus::Completed).then(now),
            status: self.status,
            error: None,
            incomplete_details: (self.status == ResponseStatus::Incomplete).then_some(
                IncompleteDetails {
                    reason: "max_output_tokens",
                },
            ),
            model: &answering.identity.model,
            output: self.items.iter().map(Item::show).collect(),
            usage: usage.map(usage_of),
            instructions: repeated.instructions.as_deref(),
            max_output_tokens: repeated.max_output_tokens,
            metadata: repeated.metadata.as_deref().unwrap_or(&defaults.object),
            parallel_tool_calls: repeated.parallel_tool_calls.unwrap_or(true),
            reasoning: (repeated.reasoning.as_deref()).unwrap_or(&defaults.reasoning),
            text: repeated.text.as_deref().unwrap_or(&defaults.text),
            tool_choice: (repeated.tool_choice.as_deref()).unwrap_or(&defaults.tool_choice),
            tools: repeated.tools.as_deref().unwrap_or(&defaults.list),
            temperature: (repeated.temperature).unwrap_or(sampling.temperature.into()),
            top_p: repeated.top_p.unwrap_or(sampling.top_p.into()),
            top_logprobs: repeated.top_logprobs.unwrap_or(0),
            safety_identifier: repeated.safety_identifier.as_deref(),
            prompt_cache_key: repeated.prompt_cache_key.as_deref(),
            user: repeated.user.as_deref(),
            service_tier: "default",
            background: false,
            store: false,
            truncation: "disabled",
            max_tool_calls: None,
            previous_response_id: None,
            inputs: answering.inputs().filter(|_| usage.is_some()),
        }
    }

    fn logprobs(&self, tokens: &[TokenEvent]) -> Vec<TokenLogprob> {
        let logprobs = self.answering.logprob_writer().for_chat(tokens);
        logprobs.map_or_else(Vec::new, |logprobs| logprobs.content)
    }

    /// Finishes the open item, if there is one.
    fn finish_item(&mut self, status: ResponseStatus, events: &mut Events) {
        let Some(item) = self.items.last_mut() else {
            return;
        };
        if item.status != ResponseStatus::InProgress {
            return;
        }
        item.status = status;
        let output_index = self.items.len() - 1;
        let item = &self.items[output_index];
        let place = place(item, output_index);
        match &item.body {
            ItemBody::Reasoning { text } => {
                events.push(ResponsesEvent::ReasoningDone { place, text });
            }
            ItemBody::Message { text, logprobs } => events.push(ResponsesEvent::TextDone {
                place,
                text,
                logprobs,
            }),
            ItemBody::Call {
                kind: CallKind::Function,
                name,
                arguments,
                ..
            } => events.push(ResponsesEvent::ArgumentsDone {
                item_id: &item.id,
                output_index,
                name,
                arguments,
            }),
            ItemBody::Call {
                kind: CallKind::Custom,
                arguments,
                ..
            } => events.push(ResponsesEvent::InputDone {
                item_id: &item.id,
                output_index,
                input: arguments,
            }),
        }
        if let Some(part) = item.part() {
            events.push(ResponsesEvent::PartDone { place, part });
        }
        events.push(ResponsesEvent::ItemDone {
            output_index,
            item: item.show(),
        });
    }

    /// Announces an item, after finishing the previous one.
    fn begin_item(&mut self, item: Item, events: &mut Events) {
        self.finish_item(ResponseStatus::Completed, events);
        let output_index = self.items.len();
        events.push(ResponsesEvent::ItemAdded {
            output_index,
            item: item.announce(),
        });
        if let Some(part) = item.part() {
            events.push(ResponsesEvent::PartAdded {
                place: place(&item, output_index),
                part,
            });
        }
        self.items.push(item);
    }

    fn open_body(&mut self) -> Option<&mut ItemBody> {
        let item = self.items.last_mut()?;
        (item.status == ResponseStatus::InProgress).then_some(&mut item.body)
    }

    fn reason(&mut self, piece: &str, events: &mut Events) {
        if !matches!(self.open_body(), Some(ItemBody::Reasoning { .. })) {
            self.begin_item(Item::reasoning(), events);
        }
        if let Some(ItemBody::Reasoning { text }) = self.open_body() {
            text.push_str(piece);
        }
        events.push(ResponsesEvent::ReasoningDelta {
            place: self.open_place(),
            delta: piece,
        });
    }

    fn say(&mut self, piece: &str, piece_logprobs: &[TokenLogprob], events: &mut Events) {
        if !matches!(self.open_body(), Some(ItemBody::Message { .. })) {
            self.begin_item(Item::message(), events);
        }
        if let Some(ItemBody::Message { text, logprobs }) = self.open_body() {
            text.push_str(piece);
            logprobs.extend_from_slice(piece_logprobs);
        }
        events.push(ResponsesEvent::TextDelta {
            place: self.open_place(),
            delta: piece,
            logprobs: piece_logprobs,
        });
    }

    fn argue(&mut self, piece: &str, events: &mut Events) {
        let mut of_kind = CallKind::Function;
        if let Some(ItemBody::Call {
            arguments, kind, ..
        }) = self.open_body()
        {
            arguments.push_str(piece);
            of_kind = *kind;
        }
        let OutputPlace {
            item_id,
            output_index,
            ..
        } = self.open_place();
        events.push(match of_kind {
            CallKind::Function => ResponsesEvent::ArgumentsDelta {
                item_id,
                output_index,
                delta: piece,
            },
            CallKind::Custom => ResponsesEvent::InputDelta {
                item_id,
                output_index,
                delta: piece,
            },
        });
    }

    fn open_place(&self) -> OutputPlace<'_> {
        let output_index = self.items.len() - 1;
        place(&self.items[output_index], output_index)
    }
}

/// Events of one call, numbered in sequence.
struct Events {
    next: usize,
    events: Vec<StreamEvent>,
}

impl Events {
    fn push(&mut self, event: ResponsesEvent<'_>) {
        let name = event.name();
        let event = NumberedEvent {
            event,
            sequence_number: self.next,
        };
        self.next += 1;
        self.events.push(StreamEvent::named(name, to_json(&event)));
    }
}

impl ResponsesFormat {
    /// Creates events with the next sequence numbers.
    fn events(&mut self, make: impl FnOnce(&mut Self, &mut Events)) -> Vec<StreamEvent> {
        let mut events = Events {
            next: self.num_events,
            events: Vec::new(),
        };
        make(self, &mut events);
        self.num_events = events.next;
        events.events
    }
}

fn place(item: &Item, output_index: usize) -> OutputPlace<'_> {
    OutputPlace {
        item_id: &item.id,
        output_index,
        content_index: 0,
    }
}

fn usage_of(usage: Usage) -> ResponsesUsage {
    ResponsesUsage {
        input_tokens: usage.prompt_tokens,
        input_tokens_details: InputTokensDetails {
            cached_tokens: usage.prompt_tokens_details.cached_tokens,
            images: usage.prompt_tokens_details.images,
            cache_write_tokens: 0,
        },
        output_tokens: usage.completion_tokens,
        output_tokens_details: OutputTokensDetails {
            reasoning_tokens: usage.completion_tokens_details.reasoning_tokens,
        },
        total_tokens: usage.total_tokens,
    }
}

fn status_of(reason: FinishReason) -> ResponseStatus {
    match reason {
        FinishReason::Stop => ResponseStatus::Completed,
        FinishReason::Length => ResponseStatus::Incomplete,
    }
}

fn error_event(error: &ApiError) -> ResponsesEvent<'_> {
    let public = error.public();
    ResponsesEvent::Error {
        code: public.code,
        message: public.message,
        param: public.param,
    }
}

impl AnswerFormat for ResponsesFormat {
    fn opening(&mut self) -> Vec<StreamEvent> {
        self.events(|format, events| {
            let response = format.response(None);
            events.push(ResponsesEvent::Created { response });
            let response = format.response(None);
            events.push(ResponsesEvent::InProgress { response });
        })
    }

    fn delta(&mut self, delta: AnswerDelta, _usage: Usage) -> Vec<StreamEvent> {
        self.events(|format, events| {
            let mut logprobs = format.logprobs(&delta.tokens);
            for part in delta.parts {
                match part {
                    AnswerPart::Reasoning(piece) => format.reason(&piece, events),
                    AnswerPart::Text(piece) => {
                        format.say(&piece, &std::mem::take(&mut logprobs), events);
                    }
                    AnswerPart::CallBegins { name, kind } => {
                        format.begin_item(Item::call(name, kind), events);
                    }
                    AnswerPart::CallArguments(piece) => format.argue(&piece, events),
                }
            }
            let Some(finish) = delta.finish else {
                return;
            };
            if format.items.is_empty() {
                format.begin_item(Item::message(), events);
            }
            // Log-probabilities of tokens without text, such as the one that ends the turn.
            if let Some(ItemBody::Message { logprobs: all, .. }) = format.open_body() {
                all.append(&mut logprobs);
            }
            let status = status_of(finish.reason);
            format.finish_item(status, events);
            format.status = status;
        })
    }

    fn closing(&mut self, usage: Usage) -> Vec<StreamEvent> {
        self.events(|format, events| {
            let response = format.response(Some(usage));
            events.push(match format.status {
                ResponseStatus::Incomplete => ResponsesEvent::Incomplete { response },
                _ => ResponsesEvent::Completed { response },
            });
        })
    }

    fn failed(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        self.status = ResponseStatus::Failed;
        self.events(|format, events| {
            events.push(error_event(error));
            let fault = ResponseFault {
                code: "server_error",
                message: error.public().message,
            };
            let response = ResponseObject {
                error: Some(fault),
                ..format.response(None)
            };
            events.push(ResponsesEvent::Failed { response });
        })
    }

    fn broken(error: &ApiError) -> Vec<StreamEvent> {
        // The number of earlier events is lost with the formatter.
        let mut events = Events {
            next: 0,
            events: Vec::new(),
        };
        events.push(error_event(error));
        events.events
    }

    fn whole(&mut self, mut answers: Vec<Answer>, usage: Usage) -> String {
        let answer = answers.pop().expect("one answer was asked for");
        // The reasoning comes first; the log-probabilities belong to the message.
        let num_reasoning = usage.completion_tokens_details.reasoning_tokens;
        let said = answer.tokens.get(num_reasoning..).unwrap_or_default();
        let logprobs = self.logprobs(said);
        self.status = status_of(answer.finish.reason);
        if !answer.reasoning.is_empty() {
            let mut item = Item::reasoning();
            item.body = ItemBody::Reasoning {
                text: answer.reasoning,
            };
            self.items.push(item);
        }
        if !answer.text.is_empty() || (self.items.is_empty() && answer.calls.is_empty()) {
            let mut item = Item::message();
            item.body = ItemBody::Message {
                text: answer.text,
                logprobs,
            };
            self.items.push(item);
        }
        for call in answer.calls {
            let mut item = Item::call(call.name, call.kind);
            if let ItemBody::Call { arguments, .. } = &mut item.body {
                *arguments = call.arguments;
            }
            self.items.push(item);
        }
        for item in &mut self.items {
            item.status = ResponseStatus::Completed;
        }
        if let Some(last) = self.items.last_mut() {
            last.status = self.status;
        }
        to_json(&self.response(Some(usage)))
    }
}
