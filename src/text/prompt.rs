//! A rendered chat, with the template's control tokens separate from users' text.

use super::control::ControlSpan;

/// The output of a chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedPrompt {
    /// The whole text.
    pub text: String,
    /// The control tokens that the template wrote, in order. Any other text that reads like one
    /// came from a user and is plain text.
    pub control: Vec<ControlSpan>,
    /// Number of images in the messages.
    pub num_images: usize,
}
