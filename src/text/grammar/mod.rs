//! What an answer's text must keep to: from what clients say to masks over the vocabulary.
//!
//! ```text
//! GrammarSource ─ check: sizes, depths, keywords ─> Grammars::compile ─> Constraint ─> a state an answer
//!                                                    │ process: a worker for each grammar, with limits
//!                                                    │ compiler: trie over the tokenizer's own tokens
//!                                                    │           (llguidance)
//!                                                    └ thought: a grammar begins behind the thought
//! ```
//!
//! Owns limits on what is compiled, the processes that do it, white space in JSON, and thoughts. Knows
//! nothing of the wire's fields and nothing of the engine, which only sees masks.

mod compiler;
mod depth;
mod grammars;
mod lark;
mod process;
mod schema;
mod schema_graph;
mod source;
mod state;
mod thought;
mod vocabulary;

pub use compiler::{GrammarCompiler, GrammarError, GrammarErrorKind};
pub use grammars::{GrammarLimits, Grammars};
pub use process::run_fork_server;
pub use schema::{check_schema, json_grammar};
pub use source::GrammarSource;
pub use thought::{ThoughtRule, with_thought};
pub use vocabulary::GrammarVocabulary;
