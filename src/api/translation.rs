//! What the APIs that are translated into a chat have in common: a chat with the client's names
//! for what is in it.

use std::sync::Arc;

use super::chat::prepare;
use super::convert::{Chat, PreparedPrompt};
use super::error::ApiError;
use super::names::{MessageNames, Names};
use super::state::AppState;
use super::types::{ChatMessage, JsonObject};
use crate::registry::ServedModel;

/// A chat's messages as they are put together, each with its names.
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

/// A checked chat.
#[derive(Debug)]
pub(super) struct NamedChat {
    pub(super) chat: Chat,
    pub(super) names: Names,
}

impl NamedChat {
    /// The prompt in tokens, with its images.
    ///
    /// # Errors
    /// 400 for what does not fit the model and for images that cannot be taken.
    pub(super) async fn prepare(
        self,
        app: &AppState,
        model: &Arc<ServedModel>,
    ) -> Result<PreparedPrompt, ApiError> {
        let prompt = prepare(app, model, self.chat).await;
        prompt.map_err(|error| self.names.rename(error))
    }
}
