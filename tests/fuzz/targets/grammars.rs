//! Schemas, regular expressions and grammars, to what masks are made of.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use medgemma::text::{GrammarSource, Grammars, check_schema};
use serde_json::Value;

use super::server::{END_OF_TURN, tokenizer};

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let tokenizer = tokenizer();
    let vocab_size = tokenizer.vocab_size();
    Grammars::new(tokenizer, vocab_size, vec![END_OF_TURN])
});

/// What compiles for longer is the library's business and is stopped by the server.
const LIMIT: Duration = Duration::from_secs(10);

fn compile(source: &GrammarSource) {
    let begun = Instant::now();
    if let Err(error) = GRAMMARS.compile(source) {
        assert!(!error.message.is_empty());
    }
    assert!(begun.elapsed() < LIMIT, "compiled for {:?}", begun.elapsed());
}

pub(super) fn schema(schema: &[u8]) {
    let Ok(schema) = serde_json::from_slice::<Value>(schema) else {
        return;
    };
    if check_schema(&schema).is_ok() {
        compile(&GrammarSource::JsonSchema(schema));
    }
}

pub(super) fn regex(regex: &[u8]) {
    if let Ok(regex) = std::str::from_utf8(regex) {
        compile(&GrammarSource::Regex(regex.to_owned()));
    }
}

pub(super) fn lark(grammar: &[u8]) {
    if let Ok(grammar) = std::str::from_utf8(grammar) {
        compile(&GrammarSource::Lark(grammar.to_owned()));
    }
}
