//! What an answer has to look like, and what is told apart in it.

/// Checked, and nothing is compiled yet.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct OutputPlan {}
