//! Constraints on an answer's text: from clients' grammars to masks over the vocabulary.
//!
//! ```text
//! GrammarSource ─ check: size, keywords ─> Grammars::compile ─> Constraint ─> a state per answer
//!                                           │ process: a worker for each grammar, with limits
//!                                           │ compiler: trie over the tokenizer's own tokens
//!                                           │           (llguidance)
//!                                           └ reasoning_rule: a grammar applies after the reasoning
//! ```
//!
//! Owns the limits on grammars, the processes that compile them, the white space in JSON, and the
//! rules for reasoning. Knows nothing of the API's fields and nothing of the engine, which sees
//! only masks.

mod closed_objects;
mod closing;
mod compiler;
mod depth;
mod gbnf;
mod grammars;
mod growth;
mod json_cursor;
mod lark;
mod normalized_schema;
mod object_keywords;
mod object_names;
mod process;
mod reasoning_rule;
mod schema;
mod schema_fault;
mod schema_graph;
mod schema_values;
mod source;
mod state;
mod token_limits;
mod tokens;
mod unique_items;
mod vocabulary;

pub use compiler::{GrammarCompiler, GrammarError, GrammarErrorKind};
pub use grammars::{GrammarLimits, Grammars};
pub use process::run_fork_server;
pub use reasoning_rule::{ReasoningRule, with_reasoning};
pub use schema::{check_schema, check_schema_size, json_grammar};
pub use source::GrammarSource;
pub use token_limits::{TokenLimits, with_limits};
pub use vocabulary::GrammarVocabulary;
