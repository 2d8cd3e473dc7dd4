//! Text input and output: chat templates, tokenization and detokenization.
//!
//! ```text
//! messages ─ ChatTemplate::render ─▶ RenderedPrompt ─ encode_prompt ─▶ token ids + image spans
//! raw text ─ Tokenizer::encode_raw ───────────────────────────────────▶ token ids
//! token ids ─ AnswerReader::push ─▶ reasoning, text and calls that are final
//!                 Detokenizer, CallParser
//! ```
//!
//! Owns the meaning of a checkpoint's `tokenizer.json` and chat template. Must not know HTTP, image
//! pixels, the engine, or the format of requests.
//!
//! Invariant: the template wrote every control token in a chat prompt. Users' text is disguised
//! before rendering ([`ControlTokens`]), so no user text, alone or joined with adjacent text,
//! becomes a control token.

mod answer;
mod answer_reader;
mod chat_template;
mod child_process;
mod control;
mod decoder;
mod detokenizer;
mod grammar;
mod image_tokens;
mod jinja;
mod json_size;
mod message;
mod prompt;
mod reasoning_markers;
mod rendering_failure;
mod safe_cuts;
mod stock_templates;
mod stop_strings;
mod template_files;
mod template_process;
mod tokenizer;
mod tokenizer_file;
mod tokenizer_steps;
mod tool_calls;
mod tool_prompt;
mod vocabulary;

pub use answer::{AnswerPart, CallKind};
pub use answer_reader::{
    AnswerReader, AnswerSyntax, Read, ReadEnd, ReasoningSyntax, ReasoningText, StopRule,
};
pub use chat_template::{ChatTemplate, PromptEnd};
pub use control::{ControlSpan, ControlToken, ControlTokens};
pub use detokenizer::{Detokenizer, Piece, StopText, TextRule};
pub use grammar::{
    GrammarCompiler, GrammarError, GrammarErrorKind, GrammarLimits, GrammarSource,
    GrammarVocabulary, Grammars, ReasoningRule, TokenLimits, check_schema, check_schema_size,
    json_grammar, run_fork_server, with_limits, with_reasoning,
};
pub use image_tokens::{EncodedPrompt, ImageTokens, encode_prompt, encode_prompt_with_crops};
pub use message::{Content, Message, Part, Role};
pub use prompt::RenderedPrompt;
pub use reasoning_markers::{
    ReasoningMarkers, THINKING_INSTRUCTION, THINKING_PHRASE, without_reasoning,
};
pub use template_files::NamedTokens;
pub use template_process::run_template_worker;
pub use tokenizer::{AddSpecialTokens, SpecialTokens, Tokenizer};
pub use tool_calls::{CallForm, CallLimit, CallParser, CallPlace, CallSyntax, Tool};
pub use tool_prompt::{PastCall, ToolResult, tool_results};
