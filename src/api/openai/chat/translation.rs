//! Shared code of the APIs that are translated into a chat: a chat together with the client's names
//! of its fields.

use std::sync::Arc;

use super::call::prepare;
use super::convert::Chat;
use super::message::ChatMessage;
use crate::api::generate::field_names::{MessageNames, Names};
use crate::api::generate::prompt::PreparedPrompt;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::api::http::state::AppState;
use crate::registry::ServedModel;

/// A chat's messages under construction, each with its names.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pub(crate) messages: Vec<JsonObject<ChatMessage>>,
    pub(crate) names: Vec<MessageNames>,
}

impl Turns {
    pub(crate) fn add(&mut self, message: ChatMessage, names: MessageNames) {
        self.messages.push(JsonObject(message));
        self.names.push(names);
    }
}

/// A checked chat with the client's names.
#[derive(Debug)]
pub(crate) struct NamedChat {
    pub(crate) chat: Chat,
    pub(crate) names: Names,
}

impl NamedChat {
    /// Builds the tokenized prompt, with its images.
    ///
    /// # Errors
    /// 400 for a prompt that does not fit the model and for invalid images.
    pub(crate) async fn prepare(
        self,
        app: &AppState,
        model: &Arc<ServedModel>,
    ) -> Result<PreparedPrompt, ApiError> {
        let prompt = prepare(app, model, self.chat).await;
        let mut prompt = prompt.map_err(|error| self.names.rename(error))?;
        for input in &mut prompt.inputs {
            if let Some(name) = self.names.of(&input.param) {
                input.param = name;
            }
        }
        Ok(prompt)
    }
}
