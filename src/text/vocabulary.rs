//! The text of every token by id, decoded once at the start, for fast detokenization.
//!
//! Knows nothing of how text becomes tokens.

use crate::core::TokenId;

use super::decoder::{Decoded, TokenDecoder};
use crate::files::shown;

/// Ids from this one on are treated as file damage, whatever the file's size (Gemma 3's end at
/// 262144).
const MAX_TOKENS: usize = 1 << 24;
/// Number of unused ids that a vocabulary of any size may have, besides as many as it has tokens.
const MIN_UNUSED_IDS: usize = 1024;
/// Maximum size of one token in bytes. Gemma's longest has 93. Grammars accept no token longer than
/// 1024.
const MAX_TOKEN_BYTES: usize = 512;
/// Maximum size of all tokens in bytes. Gemma's have 2 MB. Grammars accept no more than 4 million.
const MAX_TEXT_BYTES: usize = (1 << 22) - 1024;

/// A token as `tokenizer.json` lists it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListedToken<'a> {
    pub(super) content: &'a str,
    pub(super) id: u32,
    pub(super) kind: TokenKind,
}

/// Whether a token is text or a control token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A text token.
    Ordinary,
    /// A control token, which is left out of readable text.
    Special,
}

/// The text of a token id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenText<'a> {
    /// No token has this id (the model's vocabulary is larger than the tokenizer's).
    Unknown,
    /// Plain text.
    Ordinary(&'a str),
    /// The text of a control token, which is shown only on request.
    Special(&'a str),
    /// One byte of a character.
    Byte(u8),
}

/// All tokens. Their text is stored in one string.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    text: String,
    /// Indexed by token id.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Unknown,
    Byte(u8),
    Text {
        kind: TokenKind,
        start: u32,
        len: u32,
    },
}

impl Vocabulary {
    /// Builds the vocabulary. Two tokens may not share an id, but the same token may be listed
    /// twice; then the last `kind` counts. The error names the invalid token.
    pub(super) fn new<'a>(
        tokens: impl Iterator<Item = ListedToken<'a>> + Clone,
        decoder: &TokenDecoder,
    ) -> Result<Self, String> {
        let num_tokens = tokens.clone().count();
        // The memory depends on the highest id, so the number of tokens in the file must bound it.
        let max_ids = (2 * num_tokens + MIN_UNUSED_IDS).min(MAX_TOKENS);
        let mut by_id: Vec<Option<ListedToken<'a>>> = Vec::new();
        for token in tokens {
            let idx = token.id as usize;
            if idx >= max_ids {
                return Err(format!(
                    "token {:?} has the id {idx}; with {num_tokens} tokens, ids are expected to be \
                     below {max_ids}",
                    shown(token.content)
                ));
            }
            if idx >= by_id.len() {
                by_id.resize(idx + 1, None);
            }
            let earlier = by_id[idx].replace(token);
            if let Some(earlier) = earlier.filter(|earlier| earlier.content != token.content) {
                return Err(format!(
                    "tokens {:?} and {:?} have the same id {}",
                    shown(earlier.content),
                    shown(token.content),
                    token.id
                ));
            }
        }
        if by_id.is_empty() {
            return Err("the vocabulary is empty".to_owned());
        }
        let mut text = String::new();
        let mut entries = Vec::with_capacity(by_id.len());
        for token in by_id {
            let Some(token) = token else {
                entries.push(Entry::Unknown);
                continue;
            };
            entries.push(match decoder.decode(token.content) {
                Decoded::Byte(byte) => Entry::Byte(byte),
                Decoded::Text(decoded) => {
                    if decoded.len() > MAX_TOKEN_BYTES {
                        return Err(format!(
                            "token {:?} has {} bytes; at most {MAX_TOKEN_BYTES} are taken",
                            shown(token.content),
                            decoded.len()
                        ));
                    }
                    let start = text.len() as u32;
                    text.push_str(&decoded);
                    if text.len() > MAX_TEXT_BYTES {
                        return Err(format!(
                            "its tokens have more than {MAX_TEXT_BYTES} bytes together"
                        ));
                    }
                    Entry::Text {
                        kind: token.kind,
                        start,
                        len: decoded.len() as u32,
                    }
                }
            });
        }
        Ok(Self { text, entries })
    }

    /// Returns the highest id + 1.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the text of `id`. Any id is allowed.
    pub(super) fn get(&self, id: TokenId) -> TokenText<'_> {
        match self.entries.get(id.0 as usize) {
            None | Some(Entry::Unknown) => TokenText::Unknown,
            Some(Entry::Byte(byte)) => TokenText::Byte(*byte),
            Some(Entry::Text { kind, start, len }) => {
                let text = &self.text[*start as usize..][..*len as usize];
                match kind {
                    TokenKind::Ordinary => TokenText::Ordinary(text),
                    TokenKind::Special => TokenText::Special(text),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vocabulary(tokens: &[(&str, u32, TokenKind)]) -> Result<Vocabulary, String> {
        let decoder = TokenDecoder::from_json(&json!({"type": "ByteFallback"})).unwrap();
        let tokens = tokens.iter().map(|(content, id, kind)| ListedToken {
            content,
            id: *id,
            kind: *kind,
        });
        Vocabulary::new(tokens, &decoder)
    }

    #[test]
    fn ids_without_a_token_are_unknown() {
        let vocabulary = vocabulary(&[
            ("a", 0, TokenKind::Ordinary),
            ("<0x80>", 3, TokenKind::Ordinary),
            ("<eos>", 4, TokenKind::Ordinary),
            ("<eos>", 4, TokenKind::Special),
        ])
        .unwrap();
        let all: Vec<_> = [0, 1, 3, 4, 5, u32::MAX]
            .map(|id| vocabulary.get(TokenId(id)))
            .into();
        assert_eq!(
            all,
            [
                TokenText::Ordinary("a"),
                TokenText::Unknown,
                TokenText::Byte(0x80),
                TokenText::Special("<eos>"),
                TokenText::Unknown,
                TokenText::Unknown,
            ]
        );
        assert_eq!(vocabulary.len(), 5);
    }

    #[test]
    fn damage_is_named() {
        for (tokens, expected) in [
            (&[][..], "the vocabulary is empty"),
            (
                &[("a", 1, TokenKind::Ordinary), ("b", 1, TokenKind::Ordinary)],
                "tokens \"a\" and \"b\" have the same id 1",
            ),
            (
                &[("a", u32::MAX, TokenKind::Ordinary)],
                "token \"a\" has the id 4294967295; with 1 tokens, ids are expected to be below 1026",
            ),
        ] {
            assert_eq!(vocabulary(tokens).unwrap_err(), expected);
        }
        let long = "x".repeat(513);
        let error = vocabulary(&[(&long, 0, TokenKind::Ordinary)]).unwrap_err();
        assert!(error.contains("has 513 bytes"), "{error}");
        let word = "x".repeat(512);
        let many: Vec<_> = (0..8192)
            .map(|id| (word.as_str(), id, TokenKind::Ordinary))
            .collect();
        let error = vocabulary(&many).unwrap_err();
        assert!(error.contains("bytes together"), "{error}");
        assert!(vocabulary(&many[..8189]).is_ok());
    }
}
