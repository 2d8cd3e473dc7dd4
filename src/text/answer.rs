//! The pieces that an answer consists of, whatever marks them in the text.

/// A piece of an answer. Pieces of one kind that follow one another belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPart {
    /// Of the train of thought before the answer.
    Reasoning(String),
    /// Of the answer itself.
    Text(String),
    /// A tool is called. Its arguments follow before anything else does.
    CallBegins {
        /// Of the tool.
        name: String,
    },
    /// Of the arguments of the call that began last; together they are one JSON object.
    CallArguments(String),
}
