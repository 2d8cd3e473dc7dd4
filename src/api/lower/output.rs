//! What an answer has to look like, and what is told apart in it.

use crate::text::GrammarSource;

/// Checked, and nothing is compiled yet.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct OutputPlan {
    /// What the answer keeps to, behind its thought.
    pub(in crate::api) grammar: Option<AskedGrammar>,
    /// Whether it may begin with a thought.
    pub(in crate::api) thought: ThoughtPlan,
}

/// A grammar and the field that asks for it.
#[derive(Clone, Debug)]
pub(in crate::api) struct AskedGrammar {
    /// Named when it cannot be compiled.
    pub(in crate::api) param: String,
    pub(in crate::api) source: GrammarSource,
}

/// Whether an answer may begin with a thought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::api) enum ThoughtPlan {
    /// The model has no thoughts: what marks one is text like any other.
    #[default]
    Unknown,
    /// It has, and must not begin one.
    Banned,
    /// It may, and the thought is closed after so many tokens.
    Allowed {
        /// `None` for as long as it likes.
        budget: Option<usize>,
    },
}
