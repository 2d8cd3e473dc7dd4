//! The contents of `tokenizer.json`.
//!
//! It is parsed here because the `tokenizers` crate would read a 33 MB model twice through a tree
//! of JSON values (1.8 s and 330 MB for Gemma's; 0.9 s and 140 MB this way), and would panic on
//! some damaged files. The crate still implements the parts.

use std::collections::hash_map::Entry;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, Tokenizer};

use super::decoder::TokenDecoder;
use super::tokenizer_steps::{normalizer, post_processor, pre_tokenizer};
use super::vocabulary::{ListedToken, TokenKind, Vocabulary};
use crate::files::{ShortJson, shown};

/// The parts of `tokenizer.json`. "truncation" and "padding" are ignored: transformers sets both
/// from its caller's arguments, never from the file.
#[derive(Deserialize)]
pub(super) struct TokenizerFile {
    version: Option<String>,
    #[serde(default)]
    added_tokens: Vec<ListedAddedToken>,
    #[serde(default)]
    normalizer: ShortJson,
    #[serde(default)]
    pre_tokenizer: ShortJson,
    #[serde(default)]
    post_processor: ShortJson,
    #[serde(default)]
    decoder: ShortJson,
    model: BpeModel,
}

#[derive(Deserialize)]
struct ListedAddedToken {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct BpeModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: TokenIds,
    merges: Vec<Merge>,
}

/// Map from tokens to ids, without duplicate tokens.
struct TokenIds(Vocab);

impl<'de> Deserialize<'de> for TokenIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TokenIdsVisitor;
        impl<'de> Visitor<'de> for TokenIdsVisitor {
            type Value = TokenIds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of ids by token")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut listed: A) -> Result<TokenIds, A::Error> {
                let mut ids = Vocab::new();
                while let Some(token) = listed.next_key::<String>()? {
                    let id = listed.next_value().map_err(|error: A::Error| {
                        de::Error::custom(format_args!("token {:?}: {error}", shown(&token)))
                    })?;
                    match ids.entry(token) {
                        Entry::Vacant(entry) => entry.insert(id),
                        Entry::Occupied(entry) => {
                            let token = shown(entry.key());
                            return Err(de::Error::custom(format_args!(
                                "token {token:?} is there twice"
                            )));
                        }
                    };
                }
                Ok(TokenIds(ids))
            }
        }
        deserializer.deserialize_map(TokenIdsVisitor)
    }
}

/// `["a", "b"]`, or `"a b"` before tokenizers 0.20.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    // Implemented by hand: serde's untagged enums take three times as long, and there are 500,000
    // merges.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: [\"a\", \"b\"] or \"a b\"")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Merge, A::Error> {
                let left = pair.next_element()?;
                let right = pair.next_element()?;
                let (Some(left), Some(right)) = (left, right) else {
                    return Err(de::Error::custom("a merge needs two tokens"));
                };
                Ok(Merge(left, right))
            }

            fn visit_str<E: de::Error>(self, joined: &str) -> Result<Merge, E> {
                match joined.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => {
                        Ok(Merge(left.to_owned(), right.to_owned()))
                    }
                    _ => Err(E::custom(format!("{joined:?} is not two tokens"))),
                }
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}

/// The tokenizer parts that are built from a file.
pub(super) struct Parts {
    /// Converts text to ids; treats all control tokens as plain text.
    pub(super) encoder: Tokenizer,
    /// Converts ids to text.
    pub(super) vocabulary: Vocabulary,
    /// The special tokens and their ids.
    pub(super) special: Vec<(String, u32)>,
}

impl TokenizerFile {
    /// Parses and checks the file. The error says what is wrong in it.
    pub(super) fn parse(json: &[u8]) -> Result<Parts, String> {
        let file: Self = serde_json::from_slice(json).map_err(|error| located(json, &error))?;
        if let Some(version) = file.version.as_ref().filter(|version| *version != "1.0") {
            return Err(format!("version {version:?} is not known; 1.0 is"));
        }
        let of = |part: &'static str| move |error: String| format!("{part}: {error}");
        let decoder = TokenDecoder::from_json(&file.decoder.0).map_err(of("decoder"))?;
        let normalizer = normalizer(file.normalizer.0).map_err(of("normalizer"))?;
        let pre_tokenizer = pre_tokenizer(file.pre_tokenizer.0).map_err(of("pre_tokenizer"))?;
        let post_processor = post_processor(file.post_processor.0).map_err(of("post_processor"))?;
        let listed = listed_tokens(&file.model, &file.added_tokens);
        let vocabulary = Vocabulary::new(listed, &decoder)?;
        let special = special_tokens(&file.added_tokens)?;

        let mut encoder = Tokenizer::new(file.model.build()?);
        encoder
            .with_normalizer(normalizer)
            .map_err(|error| format!("the normalizer does not work: {error}"))?
            .with_pre_tokenizer(pre_tokenizer)
            .with_post_processor(post_processor);
        let ids: Vec<u32> = file.added_tokens.iter().map(|listed| listed.id).collect();
        let added: Vec<AddedToken> = file.added_tokens.into_iter().map(|l| l.token).collect();
        encoder
            .add_tokens(added.iter().cloned())
            .map_err(|error| format!("the added tokens do not work: {error}"))?;
        // The crate assigns ids to added tokens itself, so they are checked.
        for (token, id) in added.iter().zip(ids) {
            let given = encoder.token_to_id(&token.content);
            if given != Some(id) {
                return Err(format!(
                    "added token {:?} has the id {id}, but follows others as {given:?}",
                    token.content
                ));
            }
        }
        encoder.set_encode_special_tokens(true);
        Ok(Parts {
            encoder,
            vocabulary,
            special,
        })
    }
}

/// Adds the path of the invalid field to the error. This parses the file again, because tracking
/// the path costs time.
fn located(json: &[u8], error: &serde_json::Error) -> String {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let again: Result<TokenizerFile, _> = serde_path_to_error::deserialize(&mut deserializer);
    match again {
        Err(again) if again.path().iter().next().is_some() => {
            format!("{}: {}", again.path(), again.inner())
        }
        _ => error.to_string(),
    }
}

fn listed_tokens<'a>(
    model: &'a BpeModel,
    added: &'a [ListedAddedToken],
) -> impl Iterator<Item = ListedToken<'a>> + Clone {
    let model = model.vocab.0.iter().map(|(content, id)| ListedToken {
        content,
        id: *id,
        kind: TokenKind::Ordinary,
    });
    let added = added.iter().map(|listed| ListedToken {
        content: &listed.token.content,
        id: listed.id,
        kind: match listed.token.special {
            true => TokenKind::Special,
            false => TokenKind::Ordinary,
        },
    });
    model.chain(added)
}

impl BpeModel {
    /// Builds the model. It checks what the `tokenizers` crate assumes without a check.
    fn build(self) -> Result<BPE, String> {
        if let Some(kind) = self.kind.as_ref().filter(|kind| *kind != "BPE") {
            return Err(format!("a {kind} model is not supported; BPE is"));
        }
        if self.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err("dropout makes tokens random and is not supported".to_owned());
        }
        for affix in [self.continuing_subword_prefix, self.end_of_word_suffix] {
            if let Some(affix) = affix.filter(|affix| !affix.is_empty()) {
                return Err(format!("the subword affix {affix:?} is not supported"));
            }
        }
        let longest = self.vocab.0.keys().map(String::len).max().unwrap_or(0);
        for Merge(left, right) in &self.merges {
            if left.len() + right.len() > longest {
                return Err(format!(
                    "the merge of {left:?} and {right:?} is not a token"
                ));
            }
        }
        let mut builder = BPE::builder()
            .fuse_unk(self.fuse_unk)
            .byte_fallback(self.byte_fallback)
            .ignore_merges(self.ignore_merges)
            // A cache of users' words would grow in every thread and outlive their requests.
            // Gemma's model treats whole lines of text as words, which rarely repeat.
            .cache_capacity(0);
        if let Some(unk_token) = self.unk_token {
            if !self.vocab.0.contains_key(&unk_token) {
                return Err(format!("the unknown token {unk_token:?} is not a token"));
            }
            builder = builder.unk_token(unk_token);
        }
        let merges = self.merges.into_iter().map(|Merge(l, r)| (l, r)).collect();
        let built = builder.vocab_and_merges(self.vocab.0, merges).build();
        built.map_err(|error| format!("the model's merges do not work: {error}"))
    }
}

fn special_tokens(added: &[ListedAddedToken]) -> Result<Vec<(String, u32)>, String> {
    let special = added.iter().filter(|listed| listed.token.special);
    special
        .map(|listed| {
            let token = &listed.token;
            if token.lstrip || token.rstrip || token.single_word {
                return Err(format!(
                    "special token {:?} swallows spaces or wants to stand alone (lstrip, rstrip, \
                     single_word), which is not supported",
                    token.content
                ));
            }
            Ok((token.content.clone(), listed.id))
        })
        .collect()
}
