//! OpenAI's endpoints, with vLLM's extensions.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod models;
pub(crate) mod responses;
pub(crate) mod tokenize;
