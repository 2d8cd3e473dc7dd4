//! From a grammar's source to a constraint, over the model's own tokens.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::schema::{check_schema, json_grammar};
use super::source::GrammarSource;
use super::state::{Grammar, shared, shortened};
use crate::core::{Constraint, TokenId};
use crate::text::Tokenizer;

/// Compiled grammars that are kept: an application sends the same few again and again.
const MAX_KEPT: usize = 64;

const MAX_REGEX: usize = 16 << 10;
const MAX_LARK: usize = 256 << 10;
const MAX_CHOICES: usize = 4096;
const MAX_CHOICE_BYTES: usize = 256 << 10;

/// Why a grammar cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrammarError {
    /// Where in the source, behind the field that holds it: `.properties.age`.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl GrammarError {
    /// About the source as a whole.
    pub(super) fn new(message: String) -> Self {
        Self {
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

/// What was compiled, under its source's digest.
type Kept = ([u8; 32], Arc<dyn Constraint>);

/// Compiles grammars for one model, and keeps those of late.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    vocab_size: usize,
    stop_ids: Vec<TokenId>,
    /// Half a second of work for a vocabulary of 262k, so only for those who need it.
    factory: OnceLock<Result<ParserFactory, String>>,
    kept: Mutex<VecDeque<Kept>>,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl Grammars {
    /// For a model of `vocab_size` rows whose answers end with one of `stop_ids`.
    pub fn new(tokenizer: Arc<Tokenizer>, vocab_size: usize, stop_ids: Vec<TokenId>) -> Self {
        Self {
            tokenizer,
            vocab_size,
            stop_ids,
            factory: OnceLock::new(),
            kept: Mutex::default(),
        }
    }

    /// Compiles `source`, or finds what was compiled of it. Takes up to seconds of a thread.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(&self, source: &GrammarSource) -> Result<Arc<dyn Constraint>, GrammarError> {
        let digest = source.digest();
        if let Some(found) = self.kept(&digest) {
            return Ok(found);
        }
        let grammar = grammar(source)?;
        let factory = self.factory.get_or_init(|| self.factory());
        let factory = factory
            .as_ref()
            .map_err(|error| GrammarError::new(error.clone()))?;
        let parser = factory.create_parser(grammar);
        let parser = parser.map_err(|error| GrammarError::new(reason(&error)))?;
        let mut matcher = Matcher::new(Ok(parser));
        // The first mask is the dearest, and says whether anything can be said at all.
        let first = matcher.compute_mask_or_eos();
        let first = first.map_err(|error| GrammarError::new(shortened(&error)))?;
        if first.is_zero() || matcher.is_stopped() {
            let nothing = "nothing that this model can say fits it";
            return Err(GrammarError::new(nothing.to_owned()));
        }
        let compiled = shared(Grammar::new(matcher, self.vocab_size, &self.stop_ids));
        self.keep(digest, &compiled);
        Ok(compiled)
    }

    fn kept(&self, digest: &[u8; 32]) -> Option<Arc<dyn Constraint>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(known, _)| known == digest)?;
        let found = kept.remove(place)?;
        let constraint = Arc::clone(&found.1);
        kept.push_back(found);
        Some(constraint)
    }

    fn keep(&self, digest: [u8; 32], constraint: &Arc<dyn Constraint>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back((digest, Arc::clone(constraint)));
    }

    fn factory(&self) -> Result<ParserFactory, String> {
        let stop_ids: Vec<u32> = self.stop_ids.iter().map(|id| id.0).collect();
        let Some(first) = stop_ids.first() else {
            return Err("the model has no token that ends an answer".to_owned());
        };
        let info = TokRxInfo::new(self.vocab_size as u32, *first);
        let trie = TokTrie::from(&info, &self.words()).with_eos_tokens(&stop_ids);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new_simple(&env);
        let mut factory = factory.map_err(|error| shortened(&error))?;
        factory.quiet();
        let limits = factory.limits_mut();
        // The library's own limits bound time and memory; its reports would repeat the answer.
        limits.verbose_errors = false;
        limits.max_lexer_states = 50_000;
        Ok(factory)
    }

    /// Each token's bytes; none for tokens that are no part of any text.
    fn words(&self) -> Vec<Vec<u8>> {
        let mut words: Vec<_> = (0..self.vocab_size as u32)
            .map(|id| self.tokenizer.plain_bytes(TokenId(id)))
            .collect();
        // A byte that is also a token's whole text is said with that token, as the tokenizer does.
        let texts: HashSet<Vec<u8>> = (0..self.vocab_size as u32)
            .filter(|id| !self.tokenizer.is_byte(TokenId(*id)))
            .map(|id| words[id as usize].clone())
            .collect();
        for id in 0..self.vocab_size as u32 {
            let word = &mut words[id as usize];
            // 0xFF is in no text, and marks control tokens to the library.
            let is_double = self.tokenizer.is_byte(TokenId(id)) && texts.contains(word);
            if is_double || word.first() == Some(&0xFF) {
                word.clear();
            }
        }
        words
    }
}

fn grammar(source: &GrammarSource) -> Result<TopLevelGrammar, GrammarError> {
    let too_long = |what: &str, most: usize| {
        Err(GrammarError::new(format!(
            "{what} is too long: at most {most} bytes are taken"
        )))
    };
    Ok(match source {
        GrammarSource::JsonObject => {
            TopLevelGrammar::from_json_schema(json_grammar(&json!({"type": "object"})))
        }
        GrammarSource::JsonSchema(schema) => {
            check_schema(schema)?;
            TopLevelGrammar::from_json_schema(json_grammar(schema))
        }
        GrammarSource::Regex(regex) if regex.len() > MAX_REGEX => {
            return too_long("the regular expression", MAX_REGEX);
        }
        GrammarSource::Regex(regex) => TopLevelGrammar::from_regex(regex),
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
            // Lark's strings are written as JSON's.
            let choices = choices.iter().cloned().map(Value::from);
            let choices: Vec<_> = choices.map(|choice| choice.to_string()).collect();
            TopLevelGrammar::from_lark(format!("start: {}", choices.join(" | ")))
        }
        GrammarSource::Lark(grammar) if grammar.len() > MAX_LARK => {
            return too_long("the grammar", MAX_LARK);
        }
        GrammarSource::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
    })
}

/// What the library says, from the outermost cause to the innermost.
fn reason(error: &impl fmt::Display) -> String {
    shortened(&format!("{error:#}").replace('\n', " "))
}
