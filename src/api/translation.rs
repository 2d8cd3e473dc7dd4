//! Shared code of the APIs that are translated into a chat: a chat together with the client's names
//! of its fields.

use std::sync::Arc;

use super::chat::prepare;
use super::convert::{Chat, PreparedPrompt};
use super::error::ApiError;
use super::names::{MessageNames, Names};
use super::state::AppState;
use super::types::{ChatMessage, JsonObject};
use crate::registry::ServedModel;

/// A chat's messages under construction, each with its names.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) messages: Vec<JsonObject<ChatMessage>>,
    pub(super) names: Vec<MessageNames>,
}

impl Turns {
    pub(super) fn add(&mut self, message: ChatMessage, names: MessageNames) {
        self.messages.push(JsonObject(message));
        self.names.push(names);
    }
}

/// A checked chat with the client's names.
#[derive(Debug)]
pub(super) struct NamedChat {
    pub(super) chat: Chat,
    pub(super) names: Names,
}

impl NamedChat {
    /// Builds the tokenized prompt, with its images.
    ///
    /// # Errors
    /// 400 for a prompt that does not fit the model and for invalid images.
    pub(super) async fn prepare(
        self,
        app: &AppState,
        model: &Arc<ServedModel>,
    ) -> Result<PreparedPrompt, ApiError> {
        let prompt = prepare(app, model, self.chat).await;
        prompt.map_err(|error| self.names.rename(error))
    }
}
