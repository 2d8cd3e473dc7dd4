//! A model's tokens in the form that grammars use.

use std::collections::HashSet;

use crate::core::TokenId;
use crate::text::Tokenizer;

/// The bytes of every token of a model, and the tokens that end an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrammarVocabulary {
    /// Number of rows of the model's output; a mask has one bit for each.
    pub(super) vocab_size: usize,
    /// Tokens that end an answer.
    pub(super) stop_ids: Vec<TokenId>,
    /// Each token's bytes; empty for tokens that are not part of any text.
    pub(super) words: Vec<Vec<u8>>,
}

impl GrammarVocabulary {
    /// Creates the vocabulary of a model with `vocab_size` rows whose answers end with one of
    /// `stop_ids`.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize, stop_ids: Vec<TokenId>) -> Self {
        let ids = || (0..vocab_size as u32).map(TokenId);
        let mut words: Vec<_> = ids().map(|id| tokenizer.plain_bytes(id)).collect();
        // If a byte is also the whole text of another token, only that token is used, as the
        // tokenizer does.
        let is_byte: Vec<bool> = ids().map(|id| tokenizer.is_byte(id)).collect();
        let single: HashSet<u8> = words
            .iter()
            .zip(&is_byte)
            .filter(|(word, is_byte)| word.len() == 1 && !**is_byte)
            .map(|(word, _)| word[0])
            .collect();
        for (word, is_byte) in words.iter_mut().zip(is_byte) {
            let is_double = is_byte && word.first().is_some_and(|byte| single.contains(byte));
            // 0xFF occurs in no text, and marks control tokens for the library.
            if is_double || word.first() == Some(&0xFF) {
                word.clear();
            }
        }
        Self {
            vocab_size,
            stop_ids,
            words,
        }
    }
}
