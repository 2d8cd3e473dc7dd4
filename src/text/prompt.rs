//! A chat after its template, with the template's control tokens told apart from users' text.

use super::control::ControlSpan;

/// What a chat template made of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedPrompt {
    /// The whole text, as the template wrote it.
    pub text: String,
    /// The control tokens that the template wrote, in order; any other text that reads like one
    /// came from a user and is plain.
    pub control: Vec<ControlSpan>,
    /// How many images the messages showed.
    pub num_images: usize,
}
