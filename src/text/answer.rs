//! The parts of an answer, independent of the markers that separate them in the output.

/// A part of an answer. Adjacent parts of the same kind belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPart {
    /// A piece of the reasoning before the answer.
    Reasoning(String),
    /// A piece of the answer's text.
    Text(String),
    /// The beginning of a tool call. Its arguments follow before any other part.
    CallBegins {
        /// Name of the tool.
        name: String,
        /// What its arguments are.
        kind: CallKind,
    },
    /// A piece of the arguments of the latest call. All pieces together are complete: a call that
    /// breaks off is text.
    CallArguments(String),
}

/// What the arguments of a call are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// A JSON object.
    Function,
    /// Any text, as it is.
    Custom,
}
