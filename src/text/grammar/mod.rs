//! What an answer's text must keep to: from what clients say to masks over the vocabulary.
//!
//! ```text
//! GrammarSource ─ schema: caps, keywords ─▶ Grammars::compile ─▶ Constraint ─▶ one state an answer
//!                                            │ trie over the tokenizer's own tokens (llguidance)
//!                                            └ thought: a grammar begins behind the thought
//! ```
//!
//! Owns limits on what is compiled, white space in JSON, and thoughts. Knows nothing of the wire's
//! fields and nothing of the engine, which only sees masks.

mod compiler;
mod schema;
mod source;
mod state;
mod thought;

pub use compiler::{GrammarError, Grammars};
pub use schema::{check_schema, json_grammar};
pub use source::GrammarSource;
pub use thought::{ThoughtRule, with_thought};
