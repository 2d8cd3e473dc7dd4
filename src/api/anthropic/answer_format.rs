//! Formats an answer as Anthropic's JSON: as whole content blocks, or as events that open, fill and
//! close one block after another.

use serde_json::value::RawValue;

use super::partial_input::input;
use super::response::{
    BlockDelta, MessageEnd, MessageObject, MessageStop, MessagesEvent, MessagesInputDetails,
    MessagesOutputDetails, MessagesUsage, OutputBlock,
};
use crate::api::generate::answer::{Answer, AnswerFormat, StreamEvent};
use crate::api::generate::answering::Answering;
use crate::api::generate::generation::{AnswerDelta, Finish};
use crate::api::generate::types::stop_reason::StopReason;
use crate::api::generate::types::usage::Usage;
use crate::api::http::error::ApiError;
use crate::api::http::json_response::to_json;
use crate::api::http::random::random_id;
use crate::core::FinishReason;
use crate::text::AnswerPart;

/// Request data that the response needs besides the tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessagesEcho {
    /// The requested number, which can be larger than what the model has room for.
    pub(super) max_tokens: usize,
}

/// Formats one answer.
pub(super) struct MessagesFormat {
    answering: Answering,
    echo: MessagesEcho,
    /// Number of closed blocks.
    num_closed: usize,
    open: Option<Block>,
    has_called: bool,
    finish: Option<Finish>,
}

/// The type of a content block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    ToolUse,
}

impl MessagesFormat {
    pub(super) fn new(answering: Answering, echo: MessagesEcho) -> Self {
        Self {
            answering,
            echo,
            num_closed: 0,
            open: None,
            has_called: false,
            finish: None,
        }
    }

    fn message<'a>(
        &'a self,
        content: Vec<OutputBlock<'a>>,
        usage: MessagesUsage,
    ) -> MessageObject<'a> {
        MessageObject {
            id: &self.answering.identity.id,
            kind: "message",
            role: "assistant",
            model: &self.answering.identity.model,
            content,
            stop_reason: None,
            stop_sequence: None,
            usage,
            inputs: None,
        }
    }

    fn stop_reason(&self, finish: &Finish, usage: Usage, has_called: bool) -> MessageStop {
        match (finish.reason, &finish.stop_reason) {
            (FinishReason::Stop, Some(StopReason::Text(_))) => MessageStop::StopSequence,
            (FinishReason::Stop, _) if has_called => MessageStop::ToolUse,
            (FinishReason::Stop, _) => MessageStop::EndTurn,
            (FinishReason::Length, _) if usage.completion_tokens < self.echo.max_tokens => {
                MessageStop::ModelContextWindowExceeded
            }
            (FinishReason::Length, _) => MessageStop::MaxTokens,
        }
    }

    fn close(&mut self, events: &mut Vec<StreamEvent>) {
        if self.open.take().is_some() {
            events.push(event(&MessagesEvent::ContentBlockStop {
                index: self.num_closed,
            }));
            self.num_closed += 1;
        }
    }

    /// Opens a block of this type, unless one is already open.
    fn open(&mut self, block: Block, begin: OutputBlock<'_>, events: &mut Vec<StreamEvent>) {
        if self.open == Some(block) && block != Block::ToolUse {
            return;
        }
        self.close(events);
        self.open = Some(block);
        events.push(event(&MessagesEvent::ContentBlockStart {
            index: self.num_closed,
            content_block: begin,
        }));
    }

    fn fill(&self, delta: BlockDelta<'_>) -> StreamEvent {
        event(&MessagesEvent::ContentBlockDelta {
            index: self.num_closed,
            delta,
        })
    }
}

fn event(event: &MessagesEvent<'_>) -> StreamEvent {
    StreamEvent::named(event.name(), to_json(event))
}

fn usage_of(usage: Usage) -> MessagesUsage {
    let cached_tokens = usage.prompt_tokens_details.cached_tokens;
    MessagesUsage {
        input_tokens: usage.prompt_tokens - cached_tokens,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: cached_tokens,
        input_tokens_details: (usage.prompt_tokens_details.images)
            .map(|images| MessagesInputDetails { images }),
        output_tokens: usage.completion_tokens,
        output_tokens_details: MessagesOutputDetails {
            thinking_tokens: usage.completion_tokens_details.reasoning_tokens,
        },
    }
}

fn stop_sequence(finish: &Finish) -> Option<&str> {
    match &finish.stop_reason {
        Some(StopReason::Text(text)) => Some(text),
        _ => None,
    }
}

fn no_input() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("it is JSON")
}

fn failure(error: &ApiError) -> Vec<StreamEvent> {
    vec![StreamEvent::named("error", error.to_anthropic_json(None))]
}

impl AnswerFormat for MessagesFormat {
    fn opening(&mut self) -> Vec<StreamEvent> {
        // The number of cached prompt tokens is not known yet; the last event has it.
        let usage = usage_of(
            Usage::new(self.answering.prompts[0].ids.len(), 0, 0, 0)
                .with_images(self.answering.num_images()),
        );
        let message = self.message(Vec::new(), usage);
        vec![
            event(&MessagesEvent::MessageStart { message }),
            event(&MessagesEvent::Ping),
        ]
    }

    fn delta(&mut self, delta: AnswerDelta, _usage: Usage) -> Vec<StreamEvent> {
        let mut events = Vec::new();
        for part in &delta.parts {
            match part {
                AnswerPart::Reasoning(thinking) => {
                    let begin = OutputBlock::Thinking {
                        thinking: "",
                        signature: "",
                    };
                    self.open(Block::Thinking, begin, &mut events);
                    events.push(self.fill(BlockDelta::Thinking { thinking }));
                }
                AnswerPart::Text(text) => {
                    let begin = OutputBlock::Text { text: "" };
                    self.open(Block::Text, begin, &mut events);
                    events.push(self.fill(BlockDelta::Text { text }));
                }
                AnswerPart::CallBegins { name, .. } => {
                    let begin = OutputBlock::ToolUse {
                        id: &random_id("toolu_"),
                        name,
                        input: &no_input(),
                    };
                    self.open(Block::ToolUse, begin, &mut events);
                    self.has_called = true;
                }
                AnswerPart::CallArguments(partial_json) => {
                    events.push(self.fill(BlockDelta::InputJson { partial_json }));
                }
            }
        }
        if delta.finish.is_some() {
            self.close(&mut events);
            self.finish = delta.finish;
        }
        events
    }

    fn closing(&mut self, usage: Usage) -> Vec<StreamEvent> {
        let finish = (self.finish.as_ref()).expect("an answer's last delta says how it ended");
        let delta = MessageEnd {
            stop_reason: self.stop_reason(finish, usage, self.has_called),
            stop_sequence: stop_sequence(finish),
        };
        let usage = usage_of(usage);
        vec![
            event(&MessagesEvent::MessageDelta {
                delta,
                usage,
                inputs: self.answering.inputs(),
            }),
            event(&MessagesEvent::MessageStop),
        ]
    }

    fn failed(&mut self, error: &ApiError) -> Vec<StreamEvent> {
        failure(error)
    }

    fn broken(error: &ApiError) -> Vec<StreamEvent> {
        failure(error)
    }

    fn whole(&mut self, mut answers: Vec<Answer>, usage: Usage) -> String {
        let answer = answers.pop().expect("one answer was asked for");
        let calls: Vec<_> = (answer.calls.iter())
            .map(|call| (random_id("toolu_"), &call.name, input(&call.arguments)))
            .collect();
        let mut content = Vec::with_capacity(2 + calls.len());
        if !answer.reasoning.is_empty() {
            content.push(OutputBlock::Thinking {
                thinking: &answer.reasoning,
                signature: "",
            });
        }
        if !answer.text.is_empty() {
            content.push(OutputBlock::Text { text: &answer.text });
        }
        content.extend(
            (calls.iter()).map(|(id, name, input)| OutputBlock::ToolUse { id, name, input }),
        );
        to_json(&MessageObject {
            stop_reason: Some(self.stop_reason(&answer.finish, usage, !calls.is_empty())),
            stop_sequence: stop_sequence(&answer.finish),
            inputs: self.answering.inputs(),
            ..self.message(content, usage_of(usage))
        })
    }
}
