//! Text in, text out: chat templates, tokens, and the way back.
//!
//! ```text
//! messages ─ ChatTemplate::render ─▶ RenderedPrompt ─ encode_prompt ─▶ token ids + image spans
//! raw text ─ Tokenizer::encode_raw ───────────────────────────────────▶ token ids
//! token ids ─ Detokenizer::push ─▶ text that is safe to send now
//! ```
//!
//! Owns what a checkpoint's `tokenizer.json` and chat template mean. Must not know HTTP, images'
//! pixels, the engine, or what a request looks like on the wire.
//!
//! Invariant: a control token in a chat prompt was written by the template. What users wrote is
//! told apart before rendering ([`ControlTokens`]), so no user text, alone or joined with its
//! neighbours, becomes one.

mod answer;
mod chat_template;
mod control;
mod decoder;
mod detokenizer;
mod grammar;
mod jinja;
mod message;
mod placeholder;
mod prompt;
mod stop_strings;
mod strftime;
mod template_files;
mod tokenizer;
mod tokenizer_file;
mod vocabulary;

pub use answer::AnswerPart;
pub use chat_template::ChatTemplate;
pub use control::{ControlSpan, ControlToken, ControlTokens};
pub use detokenizer::{Detokenizer, Piece};
pub use grammar::{
    GrammarError, GrammarSource, Grammars, ThoughtMarkers, ThoughtRule, check_schema, json_grammar,
    with_thought,
};
pub use message::{Content, Message, Part, Role};
pub use placeholder::{EncodedPrompt, ImageTokens, encode_prompt};
pub use prompt::RenderedPrompt;
pub use template_files::NamedTokens;
pub use tokenizer::{AddSpecialTokens, SpecialTokens, Tokenizer};
