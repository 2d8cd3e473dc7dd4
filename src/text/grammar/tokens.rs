//! Tables over a model's tokens that all of its grammars share.

use super::vocabulary::GrammarVocabulary;
use crate::core::TokenId;

/// Which tokens are what.
#[derive(Debug)]
pub(super) struct Tokens {
    /// For each byte, the token that is this byte alone.
    bytes: Vec<Option<TokenId>>,
    /// Tokens that begin with digits, and the number of these.
    digits: Vec<(TokenId, usize)>,
    /// Tokens that stay within a string of JSON and leave nothing unfinished in it: whole characters,
    /// without quotation marks, backslashes and control characters.
    plain: Vec<u32>,
    /// Tokens with quotation marks, and the number of these.
    quoting: Vec<(TokenId, usize)>,
}

impl Tokens {
    pub(super) fn new(vocabulary: &GrammarVocabulary) -> Self {
        let mut tokens = Self {
            bytes: vec![None; 256],
            digits: Vec::new(),
            plain: vec![0; vocabulary.vocab_size.div_ceil(32)],
            quoting: Vec::new(),
        };
        for (id, word) in vocabulary.words.iter().enumerate() {
            let token = TokenId(id as u32);
            if let [byte] = word.as_slice() {
                tokens.bytes[usize::from(*byte)].get_or_insert(token);
            }
            let num_digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if num_digits > 0 {
                tokens.digits.push((token, num_digits));
            }
            let num_quotes = word.iter().filter(|byte| **byte == b'"').count();
            if num_quotes > 0 {
                tokens.quoting.push((token, num_quotes));
            }
            let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
            let is_whole = std::str::from_utf8(word).is_ok();
            if !word.is_empty() && is_whole && !word.iter().any(ends) {
                tokens.plain[id / 32] |= 1 << (id % 32);
            }
        }
        tokens
    }

    /// Returns the token that is this byte alone.
    pub(super) fn of_byte(&self, byte: u8) -> Option<TokenId> {
        self.bytes[usize::from(byte)]
    }

    /// Returns the tokens that begin with more than `num_digits` digits.
    pub(super) fn with_more_digits(&self, num_digits: usize) -> impl Iterator<Item = TokenId> {
        let digits = self.digits.iter();
        digits
            .filter(move |(_, num)| *num > num_digits)
            .map(|(token, _)| *token)
    }

    /// Returns the tokens with at least `least` quotation marks.
    pub(super) fn with_quotes(&self, least: usize) -> impl Iterator<Item = TokenId> {
        let quoting = self.quoting.iter();
        quoting
            .filter(move |(_, num)| *num >= least)
            .map(|(token, _)| *token)
    }

    /// The tokens that stay within a string of JSON, as the words of a mask.
    pub(super) fn plain(&self) -> &[u32] {
        &self.plain
    }
}
