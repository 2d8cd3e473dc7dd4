//! A model's tokens as grammars see them.

use std::collections::HashSet;

use crate::core::TokenId;
use crate::text::Tokenizer;

/// The bytes of every token of a model, and which tokens end an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrammarVocabulary {
    /// Rows of the model's output; masks have a bit for each.
    pub(super) vocab_size: usize,
    /// Tokens that end an answer.
    pub(super) stop_ids: Vec<TokenId>,
    /// Each token's bytes; none for tokens that are no part of any text.
    pub(super) words: Vec<Vec<u8>>,
}

impl GrammarVocabulary {
    /// For a model of `vocab_size` rows whose answers end with one of `stop_ids`.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize, stop_ids: Vec<TokenId>) -> Self {
        let ids = || (0..vocab_size as u32).map(TokenId);
        let mut words: Vec<_> = ids().map(|id| tokenizer.plain_bytes(id)).collect();
        // A byte that is also a token's whole text is said with that token, as the tokenizer does.
        let is_byte: Vec<bool> = ids().map(|id| tokenizer.is_byte(id)).collect();
        let single: HashSet<u8> = words
            .iter()
            .zip(&is_byte)
            .filter(|(word, is_byte)| word.len() == 1 && !**is_byte)
            .map(|(word, _)| word[0])
            .collect();
        for (word, is_byte) in words.iter_mut().zip(is_byte) {
            let is_double = is_byte && word.first().is_some_and(|byte| single.contains(byte));
            // 0xFF is in no text, and marks control tokens to the library.
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
