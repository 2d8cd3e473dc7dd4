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
    },
    /// A piece of the arguments of the latest call. All pieces together are one JSON object, which is
    /// complete: a call that breaks off is text.
    CallArguments(String),
}
