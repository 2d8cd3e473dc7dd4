//! Schemas, regular expressions and grammars, to what masks are made of: as the server does it, in
//! processes of the program that `MEDGEMMA` names, which may be killed.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use medgemma::text::{
    GrammarErrorKind, GrammarLimits, GrammarSource, GrammarVocabulary, Grammars, check_schema,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::server::{END_OF_TURN, tokenizer};

struct Place {
    runtime: Runtime,
    grammars: Grammars,
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let program = std::env::var_os("MEDGEMMA").expect("MEDGEMMA names the program");
    let tokenizer = tokenizer();
    let vocabulary = GrammarVocabulary::new(&tokenizer, tokenizer.vocab_size(), vec![END_OF_TURN]);
    let limits = GrammarLimits {
        max_processes: 4,
        num_turns: 1,
    };
    let grammars = Grammars::in_processes(&PathBuf::from(program), vocabulary, limits);
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    Place {
        runtime: runtime.expect("a runtime can be had"),
        grammars: grammars.expect("processes can be had"),
    }
});

/// Less than what the fuzzer takes for a hang. Some grammars have no end: then the process is killed,
/// and the next one must be compiled as if nothing had been.
const PATIENCE: Duration = Duration::from_secs(3);

fn compile(source: GrammarSource) {
    let Place { runtime, grammars } = &*PLACE;
    let compiled =
        runtime.block_on(async { timeout(PATIENCE, grammars.compile(source, None)).await });
    if let Ok(Err(error)) = compiled {
        assert!(!error.message.is_empty());
        assert_eq!(error.kind, GrammarErrorKind::Refused, "{error:?}");
    }
}

pub(super) fn schema(schema: &[u8]) {
    let Ok(schema) = std::str::from_utf8(schema) else {
        return;
    };
    if check_schema(schema).is_ok() {
        compile(GrammarSource::JsonSchema(schema.to_owned()));
    }
}

pub(super) fn regex(regex: &[u8]) {
    if let Ok(regex) = std::str::from_utf8(regex) {
        compile(GrammarSource::Regex(regex.to_owned()));
    }
}

pub(super) fn gbnf(grammar: &[u8]) {
    if let Ok(grammar) = std::str::from_utf8(grammar) {
        compile(GrammarSource::Gbnf(grammar.to_owned()));
    }
}

pub(super) fn lark(grammar: &[u8]) {
    if let Ok(grammar) = std::str::from_utf8(grammar) {
        compile(GrammarSource::Lark(grammar.to_owned()));
    }
}
