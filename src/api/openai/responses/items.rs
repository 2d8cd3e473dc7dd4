//! The output items of an answer.

use super::response::{OutputItem, OutputPart, ResponseStatus};
use crate::api::generate::types::logprobs::TokenLogprob;
use crate::api::http::random::random_id;
use crate::text::CallKind;

/// One item, possibly incomplete.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) status: ResponseStatus,
    pub(super) body: ItemBody,
}

/// The content of an item.
#[derive(Debug)]
pub(super) enum ItemBody {
    Reasoning {
        text: String,
    },
    Message {
        text: String,
        logprobs: Vec<TokenLogprob>,
    },
    Call {
        call_id: String,
        name: String,
        kind: CallKind,
        /// A JSON object, or a custom tool's text.
        arguments: String,
    },
}

impl Item {
    fn new(prefix: &str, body: ItemBody) -> Self {
        Self {
            id: random_id(prefix),
            status: ResponseStatus::InProgress,
            body,
        }
    }

    pub(super) fn reasoning() -> Self {
        let text = String::new();
        Self::new("rs_", ItemBody::Reasoning { text })
    }

    pub(super) fn message() -> Self {
        let (text, logprobs) = Default::default();
        Self::new("msg_", ItemBody::Message { text, logprobs })
    }

    pub(super) fn call(name: String, kind: CallKind) -> Self {
        let body = ItemBody::Call {
            call_id: random_id("call_"),
            name,
            kind,
            arguments: String::new(),
        };
        let prefix = match kind {
            CallKind::Function => "fc_",
            CallKind::Custom => "ctc_",
        };
        Self::new(prefix, body)
    }

    /// Returns the item in the response format.
    pub(super) fn show(&self) -> OutputItem<'_> {
        let content = || self.part().into_iter().collect();
        match &self.body {
            ItemBody::Reasoning { .. } => OutputItem::Reasoning {
                id: &self.id,
                summary: [],
                content: content(),
                encrypted_content: None,
                status: self.status,
            },
            ItemBody::Message { .. } => OutputItem::Message {
                id: &self.id,
                role: "assistant",
                status: self.status,
                content: content(),
            },
            ItemBody::Call {
                call_id,
                name,
                kind: CallKind::Function,
                arguments,
            } => OutputItem::FunctionCall {
                id: &self.id,
                call_id,
                name,
                arguments,
                status: self.status,
            },
            ItemBody::Call {
                call_id,
                name,
                kind: CallKind::Custom,
                arguments,
            } => OutputItem::CustomToolCall {
                id: &self.id,
                call_id,
                name,
                input: arguments,
                status: self.status,
            },
        }
    }

    /// Returns its only part; a call has none.
    pub(super) fn part(&self) -> Option<OutputPart<'_>> {
        match &self.body {
            ItemBody::Reasoning { text } => Some(OutputPart::ReasoningText { text }),
            ItemBody::Message { text, logprobs } => Some(OutputPart::OutputText {
                text,
                annotations: [],
                logprobs,
            }),
            ItemBody::Call { .. } => None,
        }
    }

    /// Returns the item as it is announced: without its content.
    pub(super) fn announce(&self) -> OutputItem<'_> {
        let mut item = self.show();
        match &mut item {
            OutputItem::Reasoning { content, .. } | OutputItem::Message { content, .. } => {
                content.clear();
            }
            OutputItem::FunctionCall { arguments, .. } => *arguments = "",
            OutputItem::CustomToolCall { input, .. } => *input = "",
        }
        item
    }
}
