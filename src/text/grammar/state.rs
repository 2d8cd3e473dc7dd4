//! A compiled grammar, and its state for one answer.

use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::Matcher;
use llguidance::api::StopReason;
use llguidance::toktrie::TokEnv;

use super::closing::shortest_end;
use super::compiler::GrammarError;
use super::growth::{growth_bytes, least_bytes};
use super::json_cursor::JsonCursor;
use super::source::GrammarSource;
use super::tokens::Tokens;
use super::vocabulary::GrammarVocabulary;
use crate::core::{Constraint, ConstraintState, NextMask, TokenId, TokenMask, Urgency};
use crate::error::{Error, Result};

/// Maximum length of the library's message in an error.
const MAX_REASON: usize = 300;
/// Bytes of a token of JSON's punctuation and names, at least on average, where it is not known.
const BYTES_PER_TOKEN: usize = 2;
/// Some of the bytes that a string may go on with.
const LETTERS: &[u8] = b"a0Z -";
/// The bytes that a number may go on with.
const DIGITS: &[u8] = b"0123456789";
/// Bytes of a call without its arguments, but for a long name.
const CALL_BYTES: usize = 64;

/// A grammar that can be started any number of times.
pub(super) struct Grammar {
    /// The state before the first token. Locked while an answer copies it.
    fresh: Mutex<Matcher>,
    shared: Arc<Shared>,
    /// Number of tokens of the shortest answer; `None` if none was found.
    least_tokens: Option<usize>,
}

/// What the answers of a grammar share.
struct Shared {
    source: GrammarSource,
    vocab_size: usize,
    stop_ids: Arc<[TokenId]>,
    tokens: Arc<Tokens>,
    env: TokEnv,
    /// Number of tokens by which one token can make the shortest end longer.
    growth: usize,
}

impl Grammar {
    /// Creates the grammar, and searches for its shortest answer.
    ///
    /// # Errors
    /// If the library cannot continue.
    pub(super) fn new(
        source: &GrammarSource,
        mut fresh: Matcher,
        vocabulary: &GrammarVocabulary,
        tokens: Arc<Tokens>,
    ) -> std::result::Result<Self, GrammarError> {
        let env = fresh.tok_env();
        let env = env.map_err(|error| GrammarError::new(shortened(&error)))?;
        let is_json = source.is_json_after(b'{');
        let cursor = is_json.then(JsonCursor::default);
        let end = shortest_end(&mut fresh, &tokens, cursor.as_ref());
        let schemas = source.schemas();
        let in_schemas = schemas.iter().map(growth_bytes).max().unwrap_or(0);
        let growth = match source {
            // One more call.
            GrammarSource::Calls(_) => {
                let arguments = schemas.iter().map(least_bytes).max().unwrap_or(0);
                in_schemas.max(CALL_BYTES + arguments)
            }
            _ => in_schemas,
        };
        let tokens_of = |end: &[u8]| env.tok_trie().greedy_tokenize(end).len();
        // As many bytes for a token as in the shortest answer.
        let growth = match &end {
            Some(end) if end.len() >= BYTES_PER_TOKEN => {
                (growth * tokens_of(end)).div_ceil(end.len())
            }
            _ => growth / BYTES_PER_TOKEN,
        };
        Ok(Self {
            least_tokens: end.as_deref().map(tokens_of),
            fresh: Mutex::new(fresh),
            shared: Arc::new(Shared {
                source: source.clone(),
                vocab_size: vocabulary.vocab_size,
                stop_ids: vocabulary.stop_ids.as_slice().into(),
                tokens,
                env,
                growth: growth + 1,
            }),
        })
    }

    /// Number of tokens of the shortest answer, as far as it is known; else 0.
    pub(super) fn least_tokens(&self) -> usize {
        self.least_tokens.unwrap_or(0)
    }

    /// Creates the state for a new answer.
    pub(super) fn begin(&self) -> GrammarState {
        // A shallow copy would share data with the original behind a lock, so that answers would
        // wait for one another. A deep copy shares nothing.
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        GrammarState {
            matcher: fresh.deep_clone(),
            shared: Arc::clone(&self.shared),
            cursor: Cursor::Start,
            num_tokens: 0,
            plan: match self.least_tokens {
                Some(least) => EndPlan::Needs(least),
                None => EndPlan::Unknown,
            },
        }
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Constraint for Grammar {
    fn start(&self) -> Result<Box<dyn ConstraintState>> {
        Ok(Box::new(self.begin()))
    }

    fn least_tokens(&self) -> usize {
        self.least_tokens()
    }
}

/// The state of a [`Grammar`] for one answer.
pub(super) struct GrammarState {
    matcher: Matcher,
    shared: Arc<Shared>,
    cursor: Cursor,
    num_tokens: usize,
    plan: EndPlan,
}

/// The position of an answer in its text.
enum Cursor {
    /// Before its first byte.
    Start,
    /// In JSON.
    Json(JsonCursor),
    /// In other text.
    Other,
}

/// What is known of the shortest end.
#[derive(Clone, Copy)]
enum EndPlan {
    /// It needs so many tokens, from here.
    Needs(usize),
    /// It is searched once so many tokens are left.
    At(usize),
    /// It is not looked for: the search fails for this grammar.
    Unknown,
}

impl fmt::Debug for GrammarState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarState")
            .field("num_tokens", &self.num_tokens)
            .finish_non_exhaustive()
    }
}

impl GrammarState {
    /// Accepts the sampled tokens and computes the mask of the next, which is the first of
    /// `num_left`, on this thread.
    ///
    /// # Errors
    /// If the grammar does not allow the tokens or cannot continue.
    pub(super) fn next(&mut self, sampled: &[TokenId], num_left: usize) -> Result<TokenMask> {
        for token in sampled {
            self.accept(*token)?;
        }
        let mut mask = self.mask()?;
        if !self.matcher.is_stopped() {
            self.bound_number(&mut mask);
            self.keep_names_apart(&mut mask);
            self.bound_length(&mut mask, num_left)?;
        }
        Ok(mask)
    }

    fn mask(&mut self) -> Result<TokenMask> {
        let allowed = self.matcher.compute_mask_or_eos();
        let allowed = allowed.map_err(|error| self.failed(&error))?;
        let vocab_size = self.shared.vocab_size;
        let mut mask = TokenMask::none(vocab_size);
        for (word, allowed) in mask.words_mut().iter_mut().zip(allowed.as_slice()) {
            *word = *allowed;
        }
        // The library's sets may extend past the end of the vocabulary.
        let behind = vocab_size % 32;
        if behind > 0
            && let Some(last) = mask.words_mut().last_mut()
        {
            *last &= (1 << behind) - 1;
        }
        Ok(mask)
    }

    /// Ends a number of too many digits: at once, or as soon as the grammar lets it.
    fn bound_number(&mut self, mask: &mut TokenMask) {
        let Cursor::Json(cursor) = &self.cursor else {
            return;
        };
        let Some(num_digits) = cursor.digits_left() else {
            return;
        };
        let mut bounded = mask.clone();
        for token in self.shared.tokens.with_more_digits(num_digits) {
            bounded.forbid(token);
        }
        if bounded.is_empty() {
            let cursor = cursor.clone();
            let end = shortest_end(&mut self.matcher, &self.shared.tokens, Some(&cursor));
            let first = end.and_then(|end| self.shared.tokens.of_byte(*end.first()?));
            if let Some(first) = first.filter(|first| mask.contains(*first)) {
                bounded.allow(first);
            }
        }
        if !bounded.is_empty() {
            *mask = bounded;
        }
    }

    /// Forbids tokens that would give an object a name that it has, unless the grammar demands it.
    fn keep_names_apart(&self, mask: &mut TokenMask) {
        let Cursor::Json(cursor) = &self.cursor else {
            return;
        };
        if !cursor.has_names() {
            return;
        }
        // Outside of a name, a token that has a whole one begins and ends it.
        let least_quotes = if cursor.is_in_name() { 1 } else { 2 };
        let mut apart = mask.clone();
        for token in self.shared.tokens.with_quotes(least_quotes) {
            if mask.contains(token)
                && cursor.repeats_behind(self.shared.env.tok_trie().token(token.0))
            {
                apart.forbid(token);
            }
        }
        if !apart.is_empty() {
            *mask = apart;
        }
    }

    /// Leaves only the shortest end where the tokens that are left are just enough for it.
    fn bound_length(&mut self, mask: &mut TokenMask, num_left: usize) -> Result<()> {
        let plan = self.plan;
        let is_enough = match plan {
            EndPlan::Unknown => true,
            EndPlan::At(at) => num_left > at,
            EndPlan::Needs(least) => self.is_enough(least, num_left),
        };
        if is_enough {
            return Ok(());
        }
        let cursor = match &self.cursor {
            Cursor::Start if self.shared.source.is_json_after(b'{') => Some(JsonCursor::default()),
            Cursor::Json(cursor) => Some(cursor.clone()),
            Cursor::Start | Cursor::Other => None,
        };
        let end = shortest_end(&mut self.matcher, &self.shared.tokens, cursor.as_ref());
        if self.matcher.is_error() {
            return Err(self.failed(&self.matcher.get_error().unwrap_or_default()));
        }
        let Some(end) = end else {
            self.plan = EndPlan::At(num_left / 2);
            return Ok(());
        };
        if end.is_empty() && matches!(self.cursor, Cursor::Other) {
            // Prose may end anywhere.
            self.plan = EndPlan::At(num_left.saturating_sub(1));
            return Ok(());
        }
        let tokens = self.shared.env.tok_trie().greedy_tokenize(&end);
        if self.is_enough(tokens.len(), num_left) {
            return Ok(());
        }
        self.plan = EndPlan::At(num_left);
        let mut ending = TokenMask::none(self.shared.vocab_size);
        match tokens.first() {
            Some(token) => ending.allow(TokenId(*token)),
            None => {
                for token in self.shared.stop_ids.iter() {
                    ending.allow(*token);
                }
            }
        }
        // The stop token counts too.
        if num_left > tokens.len() + 1
            && let Some(cursor) = cursor
        {
            if cursor.is_in_string()
                && end.first() == Some(&b'"')
                && self.ends_behind(LETTERS, &end)
            {
                for (word, plain) in ending
                    .words_mut()
                    .iter_mut()
                    .zip(self.shared.tokens.plain())
                {
                    *word |= plain;
                }
            }
            if cursor.digits_left().is_some() && self.ends_behind(DIGITS, &end) {
                for token in self.shared.tokens.with_more_digits(0) {
                    ending.allow(token);
                }
            }
        }
        for (word, allowed) in ending.words_mut().iter_mut().zip(mask.words()) {
            *word &= allowed;
        }
        if !ending.is_empty() {
            *mask = ending;
        }
        Ok(())
    }

    /// Whether the text can end in the same way behind any of `bytes`, as far as they may come.
    fn ends_behind(&mut self, bytes: &[u8], end: &[u8]) -> bool {
        let tokens = Arc::clone(&self.shared.tokens);
        let allows = |matcher: &mut Matcher, byte: u8| {
            let token = tokens.of_byte(byte)?;
            let num_valid = matcher.validate_tokens(&[token.0]).ok()?;
            (num_valid == 1).then_some(token.0)
        };
        for byte in bytes {
            let Some(token) = allows(&mut self.matcher, *byte) else {
                continue;
            };
            if self.matcher.consume_token(token).is_err() {
                return false;
            }
            let ends = match end.first() {
                Some(first) => allows(&mut self.matcher, *first).is_some(),
                None => self.matcher.is_accepting().unwrap_or(false),
            };
            if self.matcher.rollback(1).is_err() || !ends {
                return false;
            }
        }
        true
    }

    /// Whether an end of `least` tokens can wait: also behind any token that may come next, there
    /// are enough left. Then the end is searched again before there may be too few.
    fn is_enough(&mut self, least: usize, num_left: usize) -> bool {
        let growth = self.shared.growth;
        // With the next token and the stop token.
        let needed = least + 2 + growth;
        let is_enough = num_left >= needed;
        if is_enough {
            let num_free = (num_left - needed) / (growth + 1);
            self.plan = EndPlan::At(num_left - 1 - num_free);
        }
        is_enough
    }

    fn accept(&mut self, token: TokenId) -> Result<()> {
        // If nothing can follow, the grammar is complete before the stop token is sampled.
        if self.matcher.stop_reason() == StopReason::NoExtension
            && self.shared.stop_ids.contains(&token)
        {
            return Ok(());
        }
        let accepted = self.matcher.consume_token(token.0);
        accepted.map_err(|error| self.failed(&error))?;
        self.num_tokens += 1;
        for byte in self.shared.env.tok_trie().token(token.0) {
            if let Cursor::Start = self.cursor {
                if byte.is_ascii_whitespace() {
                    continue;
                }
                self.cursor = match self.shared.source.is_json_after(*byte) {
                    true => Cursor::Json(JsonCursor::default()),
                    false => Cursor::Other,
                };
            }
            if let Cursor::Json(cursor) = &mut self.cursor {
                cursor.push(*byte);
            }
        }
        Ok(())
    }

    fn failed(&self, reason: &impl fmt::Display) -> Error {
        Error::Constraint {
            num_tokens: self.num_tokens,
            reason: shortened(reason),
        }
    }
}

impl ConstraintState for GrammarState {
    fn next_mask<'a>(
        &'a mut self,
        sampled: &'a [TokenId],
        num_left: usize,
        _: Urgency,
    ) -> NextMask<'a> {
        Box::pin(ready(self.next(sampled, num_left).map(Some)))
    }
}

/// Returns the first line of the library's message.
pub(super) fn shortened(reason: &impl fmt::Display) -> String {
    let reason = reason.to_string();
    let line = reason.lines().next().unwrap_or_default();
    line.chars().take(MAX_REASON).collect()
}
