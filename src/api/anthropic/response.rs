//! `POST /v1/messages`: Anthropic's response, whole and as events.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::generate::types::inputs::InputReport;

/// The whole response; in a stream, its initial state.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MessageObject<'a> {
    pub(crate) id: &'a str,
    /// `message`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// `assistant`.
    pub(crate) role: &'static str,
    pub(crate) model: &'a str,
    pub(crate) content: Vec<OutputBlock<'a>>,
    pub(crate) stop_reason: Option<MessageStop>,
    /// The string of `stop_sequences` that ended the answer.
    pub(crate) stop_sequence: Option<&'a str>,
    pub(crate) usage: MessagesUsage,
    /// This server's: what became of each file; with `return_inputs`, in a whole response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inputs: Option<Vec<InputReport<'a>>>,
}

/// One content block of an answer.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputBlock<'a> {
    Thinking {
        thinking: &'a str,
        /// Always empty: earlier thinking is not part of the prompt, so it needs no signature.
        signature: &'static str,
    },
    Text {
        text: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        /// The arguments, an object; empty in a stream, where they follow in deltas.
        input: &'a RawValue,
    },
}

/// Reason why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageStop {
    /// The model ended its turn.
    EndTurn,
    /// The requested maximum number of tokens was reached.
    MaxTokens,
    /// A stop string of the client was generated.
    StopSequence,
    /// The model calls tools.
    ToolUse,
    /// The model's maximum sequence length was reached.
    ModelContextWindowExceeded,
}

/// Token usage of a request. `input_tokens` does not include cached tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct MessagesUsage {
    pub(crate) input_tokens: usize,
    /// Always 0: writing to the cache is not counted.
    pub(crate) cache_creation_input_tokens: usize,
    pub(crate) cache_read_input_tokens: usize,
    /// This server's: what the input is made of; absent without images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input_tokens_details: Option<MessagesInputDetails>,
    pub(crate) output_tokens: usize,
    pub(crate) output_tokens_details: MessagesOutputDetails,
}

/// Details of the input's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct MessagesInputDetails {
    /// Number of images that the model saw, crops included.
    pub(crate) images: NonZeroUsize,
}

/// Details of `output_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct MessagesOutputDetails {
    pub(crate) thinking_tokens: usize,
}

/// One event of a stream; its name is its type.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum MessagesEvent<'a> {
    MessageStart {
        message: MessageObject<'a>,
    },
    ContentBlockStart {
        index: usize,
        content_block: OutputBlock<'a>,
    },
    ContentBlockDelta {
        index: usize,
        delta: BlockDelta<'a>,
    },
    ContentBlockStop {
        index: usize,
    },
    MessageDelta {
        delta: MessageEnd<'a>,
        usage: MessagesUsage,
        /// With `return_inputs`: what became of each file.
        #[serde(skip_serializing_if = "Option::is_none")]
        inputs: Option<Vec<InputReport<'a>>>,
    },
    MessageStop,
    Ping,
}

impl MessagesEvent<'_> {
    /// Returns the value of the `event:` line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
        }
    }
}

/// What an event adds to a block.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub(crate) enum BlockDelta<'a> {
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

/// How a message ended.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MessageEnd<'a> {
    pub(crate) stop_reason: MessageStop,
    pub(crate) stop_sequence: Option<&'a str>,
}

/// The response of `/v1/messages/count_tokens`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenCount {
    pub(crate) input_tokens: usize,
}
