//! Compiles a grammar's source to a constraint over the model's own tokens.

use std::fmt;
use std::sync::{Arc, OnceLock};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gbnf;
use super::lark::check_lark;
use super::schema::{check_schema, json_grammar};
use super::schema_fault::{fault, reason};
use super::source::GrammarSource;
use super::state::{Grammar, shortened};
use super::tokens::Tokens;
use super::vocabulary::GrammarVocabulary;
use crate::core::Constraint;

/// The schema of any JSON object.
pub(super) const ANY_OBJECT: &str = r#"{"type":"object"}"#;

const MAX_REGEX: usize = 16 << 10;
const MAX_LARK: usize = 256 << 10;
const MAX_CHOICES: usize = 4096;
const MAX_CHOICE_BYTES: usize = 256 << 10;

/// The reason why a grammar cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrammarError {
    /// Who can fix the error.
    pub kind: GrammarErrorKind,
    /// Path in the source, relative to the field that contains it: `.properties.age`.
    pub path: String,
    /// Description of the error.
    pub message: String,
}

/// Who can fix a [`GrammarError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrammarErrorKind {
    /// The client: the grammar is invalid, or takes too much time or memory.
    Refused,
    /// Nobody: the server already compiles as many grammars as it can. The same request may succeed
    /// later.
    Busy,
    /// The operator: no grammar process can be started.
    Failed,
}

impl GrammarError {
    /// Creates an error about the source as a whole.
    pub(super) fn new(message: String) -> Self {
        Self::of_kind(GrammarErrorKind::Refused, message)
    }

    pub(super) fn of_kind(kind: GrammarErrorKind, message: String) -> Self {
        Self {
            kind,
            path: String::new(),
            message,
        }
    }

    pub(super) fn at(self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            ..self
        }
    }
}

/// Compiles grammars for one model on the calling thread, without a time limit. The server compiles
/// them in separate processes instead ([`Grammars`](super::Grammars)).
pub struct GrammarCompiler {
    vocabulary: GrammarVocabulary,
    /// Takes seconds for a vocabulary of 262k tokens, so it is created on first use.
    factory: OnceLock<Result<ParserFactory, String>>,
    tokens: Arc<Tokens>,
}

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    /// Creates a compiler for grammars over these tokens.
    pub fn new(vocabulary: GrammarVocabulary) -> Self {
        Self {
            tokens: Arc::new(Tokens::new(&vocabulary)),
            vocabulary,
            factory: OnceLock::new(),
        }
    }

    /// Compiles `source`. Hostile sources can take unbounded time and memory.
    ///
    /// # Errors
    /// What is wrong with the source, and where.
    pub fn compile(&self, source: &GrammarSource) -> Result<Arc<dyn Constraint>, GrammarError> {
        check(source)?;
        Ok(Arc::new(self.compile_unchecked(source)?))
    }

    /// Compiles a source that has passed [`check`].
    pub(super) fn compile_unchecked(
        &self,
        source: &GrammarSource,
    ) -> Result<Grammar, GrammarError> {
        let parser = self.factory()?.create_parser(grammar(source)?);
        let parser = parser.map_err(|error| self.told(source, &format!("{error:#}")))?;
        let mut matcher = Matcher::new(Ok(parser));
        // The first mask is the most expensive, and shows whether any output is possible at all.
        let first = matcher.compute_mask_or_eos();
        let nothing = || GrammarError::new("nothing that this model can say fits it".to_owned());
        let first = first.map_err(|error| match shortened(&error) {
            stop if stop.contains("NoExtension") => nothing(),
            error => GrammarError::new(error),
        })?;
        if first.is_zero() || matcher.is_stopped() {
            return Err(nothing());
        }
        let tokens = Arc::clone(&self.tokens);
        Grammar::new(source, matcher, &self.vocabulary, tokens)
    }

    /// Returns the library's error about `source` in the client's terms, at its place.
    fn told(&self, source: &GrammarSource, error: &str) -> GrammarError {
        let compile = |schema: &Value| {
            let grammar = json_grammar(&schema.to_string()).map_err(|error| error.message)?;
            let factory = self.factory().map_err(|error| error.message)?;
            let parser = factory.create_parser(TopLevelGrammar::from_json_schema(grammar));
            parser.map(drop).map_err(|error| format!("{error:#}"))
        };
        match source {
            GrammarSource::JsonSchema(schema) => match serde_json::from_str(schema) {
                Ok(schema) => fault(&schema, error, compile),
                Err(error) => GrammarError::new(error.to_string()),
            },
            GrammarSource::JsonObject => GrammarError::new(reason(error).to_owned()),
            GrammarSource::Calls(grammar) => {
                // The schemas of arguments are in it, each with the index of its tool.
                for line in grammar.lines() {
                    let schema = line.strip_prefix("arguments_");
                    let schema = schema.and_then(|line| line.split_once(": %json "));
                    let Some((tool_idx, schema)) = schema else {
                        continue;
                    };
                    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
                        continue;
                    };
                    let alone = TopLevelGrammar::from_json_schema(schema.clone());
                    let alone = self.factory().map(|factory| factory.create_parser(alone));
                    if let Ok(Err(error)) = alone {
                        let found = fault(&schema, &format!("{error:#}"), compile);
                        let path = format!("[{tool_idx}].function.parameters{}", found.path);
                        return found.at(&path);
                    }
                }
                GrammarError::new(reason(error).to_owned())
            }
            _ => GrammarError::new(self::error(source, &error)),
        }
    }

    /// Prepares the data that all grammars share, so that the first one need not wait for it.
    ///
    /// # Errors
    /// If no grammar works with the vocabulary.
    pub(super) fn factory(&self) -> Result<&ParserFactory, GrammarError> {
        let factory = self.factory.get_or_init(|| factory(&self.vocabulary));
        factory
            .as_ref()
            .map_err(|error| GrammarError::new(error.clone()))
    }
}

fn factory(vocabulary: &GrammarVocabulary) -> Result<ParserFactory, String> {
    let stop_ids: Vec<u32> = vocabulary.stop_ids.iter().map(|id| id.0).collect();
    let Some(first) = stop_ids.first() else {
        return Err("the model has no token that ends an answer".to_owned());
    };
    let info = TokRxInfo::new(vocabulary.vocab_size as u32, *first);
    let trie = TokTrie::from(&info, &vocabulary.words).with_eos_tokens(&stop_ids);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let factory = ParserFactory::new_simple(&env);
    let mut factory = factory.map_err(|error| shortened(&error))?;
    factory.quiet();
    let limits = factory.limits_mut();
    // The library's own limits bound most of its work. Its verbose reports would include the
    // answer's text.
    limits.verbose_errors = false;
    limits.max_lexer_states = 50_000;
    Ok(factory)
}

/// Checks a grammar without compiling it.
///
/// # Errors
/// What is wrong and where: a size, a depth, or an unsupported keyword.
pub(super) fn check(source: &GrammarSource) -> Result<(), GrammarError> {
    let too_long = |what: &str, most: usize| {
        Err(GrammarError::new(format!(
            "{what} is too long: at most {most} bytes are taken"
        )))
    };
    match source {
        GrammarSource::JsonObject => Ok(()),
        GrammarSource::JsonSchema(schema) => check_schema(schema),
        GrammarSource::Regex(regex) if regex.len() > MAX_REGEX => {
            too_long("the regular expression", MAX_REGEX)
        }
        GrammarSource::Regex(_) => Ok(()),
        GrammarSource::Choice(choices) => {
            if choices.is_empty() || choices.iter().any(String::is_empty) {
                let message = "there must be a choice, and none may be empty";
                return Err(GrammarError::new(message.to_owned()));
            }
            if choices.len() > MAX_CHOICES {
                return Err(GrammarError::new(format!(
                    "there are {} choices; at most {MAX_CHOICES} are taken",
                    choices.len()
                )));
            }
            if choices.iter().map(String::len).sum::<usize>() > MAX_CHOICE_BYTES {
                return too_long("the list of choices", MAX_CHOICE_BYTES);
            }
            Ok(())
        }
        GrammarSource::Lark(grammar) | GrammarSource::Calls(grammar) => {
            if grammar.len() > MAX_LARK {
                return too_long("the grammar", MAX_LARK);
            }
            check_lark(grammar)
        }
        GrammarSource::Gbnf(grammar) if grammar.len() > MAX_LARK => {
            too_long("the grammar", MAX_LARK)
        }
        GrammarSource::Gbnf(grammar) => check_lark(&gbnf::to_lark(grammar)?),
    }
}

/// Converts the source to the library's type.
fn grammar(source: &GrammarSource) -> Result<TopLevelGrammar, GrammarError> {
    Ok(match source {
        GrammarSource::JsonObject => TopLevelGrammar::from_json_schema(json_grammar(ANY_OBJECT)?),
        GrammarSource::JsonSchema(schema) => {
            TopLevelGrammar::from_json_schema(json_grammar(schema)?)
        }
        GrammarSource::Regex(regex) => TopLevelGrammar::from_regex(regex),
        GrammarSource::Choice(choices) => {
            // Lark's string literals have JSON's syntax.
            let choices = choices.iter().cloned().map(Value::from);
            let choices: Vec<_> = choices.map(|choice| choice.to_string()).collect();
            TopLevelGrammar::from_lark(format!("start: {}", choices.join(" | ")))
        }
        GrammarSource::Lark(grammar) | GrammarSource::Calls(grammar) => {
            TopLevelGrammar::from_lark(grammar.clone())
        }
        GrammarSource::Gbnf(grammar) => TopLevelGrammar::from_lark(gbnf::to_lark(grammar)?),
    })
}

/// Describes the library's error.
fn error(source: &GrammarSource, error: &impl fmt::Display) -> String {
    match source {
        // Some clients mean the other notation.
        GrammarSource::Lark(_) => {
            format!(
                "it was read as Lark, since no rule has '::=': {}",
                whole_message(error)
            )
        }
        // What was written is not what the library read, so its places mean nothing.
        GrammarSource::Gbnf(_) => {
            let told = format!("{error:#}");
            let told = told.lines().next().unwrap_or_default();
            let cause = match told.strip_prefix("at ") {
                Some(placed) => placed.split_once(": ").map_or(placed, |(_, cause)| cause),
                None => told,
            };
            format!(
                "it is sound GBNF, but cannot be compiled: {}",
                shortened(&cause)
            )
        }
        _ => whole_message(error),
    }
}

/// Returns the library's error message, from the outermost cause to the innermost.
fn whole_message(error: &impl fmt::Display) -> String {
    shortened(&format!("{error:#}").replace('\n', " "))
}
