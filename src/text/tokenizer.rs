//! The checkpoint's tokenizer: text to token ids and back.
//!
//! Knows nothing of templates or images. In rendered prompts, the control tokens are already
//! marked.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokenizers::Tokenizer as Encoder;

use crate::core::TokenId;
use crate::error::{Error, Result};
use crate::files::{self, MAX_TOKENIZER_BYTES, damaged};

use super::control::{ControlSpan, ControlToken, ControlTokens};
use super::decoder::ByteRun;
use super::prompt::RenderedPrompt;
use super::safe_cuts::SafeCuts;
use super::tokenizer_file::{Parts, TokenizerFile};
use super::vocabulary::{TokenText, Vocabulary};

/// Maximum number of distinct first characters of special tokens (Gemma's have two, `<` and `[`).
/// Each needs a stand-in while a template is rendered, and there are 32 stand-ins.
const MAX_FIRST_CHARACTERS: usize = 16;

/// Approximate size in bytes of the parts in which texts are encoded, where they can be cut.
const PART_BYTES: usize = 16 << 10;
/// Parts longer than this are encoded one at a time over all threads, because they need much
/// memory.
const LONG_PART_BYTES: usize = 128 << 10;
/// Maximum length of a part; it needs about 150 MB.
const MAX_PART_BYTES: usize = 1 << 20;

/// Whether a raw prompt gets the tokens that the tokenizer adds around a text (Gemma's: `<bos>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddSpecialTokens {
    /// Add what the tokenizer's post-processor adds.
    Yes,
    /// Encode only the text itself.
    No,
}

/// Whether control tokens appear in decoded text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialTokens {
    /// They appear as text.
    Keep,
    /// They are left out.
    #[default]
    Skip,
}

/// A tokenizer, created once and shared by all requests.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    /// Treats control tokens as plain text; `control` finds those that count.
    encoder: Encoder,
    vocabulary: Vocabulary,
    control: ControlTokens,
    /// Tokens that the post-processor adds before a text.
    prefix: Vec<TokenId>,
    /// Tokens that the post-processor adds after a text.
    suffix: Vec<TokenId>,
    /// Computed for the first long text.
    safe_cuts: Arc<OnceLock<Option<SafeCuts>>>,
    /// Locked while a long part is encoded.
    long_part: Arc<Mutex<()>>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] that names the file and the problem.
    pub fn from_file(path: &Path) -> Result<Self> {
        let Some(json) = files::read(path, MAX_TOKENIZER_BYTES)? else {
            return Err(damaged(path, "there is no such file"));
        };
        Self::parse(&json).map_err(|message| damaged(path, message))
    }

    /// Parses the contents of `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] that says what is wrong.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        Self::parse(json).map_err(Error::Tokenizer)
    }

    fn parse(json: &[u8]) -> std::result::Result<Self, String> {
        let Parts {
            encoder,
            vocabulary,
            special,
        } = TokenizerFile::parse(json)?;
        let control = special.into_iter().map(|(content, id)| ControlToken {
            content,
            id: TokenId(id),
        });
        let control = ControlTokens::new(control.collect());
        let num_firsts = control.first_characters().len();
        if num_firsts > MAX_FIRST_CHARACTERS {
            return Err(format!(
                "its special tokens begin with {num_firsts} different characters; at most \
                 {MAX_FIRST_CHARACTERS} are taken"
            ));
        }
        let (prefix, suffix) = surroundings(&encoder)?;
        let tokenizer = Self {
            control,
            encoder,
            vocabulary,
            prefix,
            suffix,
            safe_cuts: Arc::default(),
            long_part: Arc::default(),
        };
        tokenizer.check_plain_text_is_harmless()?;
        Ok(tokenizer)
    }

    /// Checks that the model's merges cannot turn plain text into a control token. If a control
    /// token's text alone does not become one, it does not between other text either: adjacent text
    /// could only take characters away from it.
    fn check_plain_text_is_harmless(&self) -> std::result::Result<(), String> {
        for token in self.control.tokens() {
            let mut ids = Vec::new();
            let encoded = self.encode_plain(&token.content, &mut ids);
            encoded.map_err(|error| error.to_string())?;
            if ids == [token.id] {
                return Err(format!(
                    "special token {:?} can be made from plain text, so users could write it",
                    token.content
                ));
            }
        }
        Ok(())
    }

    /// Encodes a raw prompt. Control tokens in the text count.
    ///
    /// [`AddSpecialTokens::Yes`] adds what the post-processor adds around a text, but no second
    /// `<bos>` to a text that begins with it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer has no ids for the text.
    pub fn encode_raw(&self, text: &str, add: AddSpecialTokens) -> Result<Vec<TokenId>> {
        let mut ids = self.encode_spans(text, &self.control.find(text))?;
        if add == AddSpecialTokens::Yes {
            if !ids.starts_with(&self.prefix) {
                ids.splice(0..0, self.prefix.iter().copied());
            }
            ids.extend(&self.suffix);
        }
        Ok(ids)
    }

    /// Returns the tokens that are added before a text: Gemma's `<bos>`.
    pub fn prefix(&self) -> &[TokenId] {
        &self.prefix
    }

    /// Encodes a rendered chat. Control tokens that the template wrote count; those in users' text
    /// are plain text. Nothing is added, because templates write `<bos>` themselves.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer has no ids for the text.
    pub fn encode_rendered(&self, prompt: &RenderedPrompt) -> Result<Vec<TokenId>> {
        self.encode_spans(&prompt.text, &prompt.control)
    }

    fn encode_spans(&self, text: &str, control: &[ControlSpan]) -> Result<Vec<TokenId>> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut done = 0;
        for span in control {
            self.encode_plain(&text[done..span.range.start], &mut ids)?;
            ids.push(span.id);
            done = span.range.end;
        }
        self.encode_plain(&text[done..], &mut ids)?;
        Ok(ids)
    }

    /// Appends the ids of a text in which no control token counts.
    ///
    /// # Errors
    /// [`Error::UnbrokenText`] and [`Error::Tokenizer`].
    pub(super) fn encode_plain(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<()> {
        self.encode_in_parts(text, PART_BYTES, ids)
    }

    fn encode_in_parts(&self, text: &str, most: usize, ids: &mut Vec<TokenId>) -> Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let len = match rest.len() > most {
                true => self.first_part(rest, most),
                false => rest.len(),
            };
            let (part, after) = rest.split_at(len);
            self.encode_part(part, ids)?;
            rest = after;
        }
        Ok(())
    }

    fn first_part(&self, text: &str, most: usize) -> usize {
        let cuts = self.safe_cuts.get_or_init(|| SafeCuts::of(&self.encoder));
        cuts.as_ref()
            .map_or(text.len(), |cuts| cuts.first_part(text, most))
    }

    fn encode_part(&self, part: &str, ids: &mut Vec<TokenId>) -> Result<()> {
        if part.len() > MAX_PART_BYTES {
            return Err(Error::UnbrokenText {
                bytes: part.len(),
                max_bytes: MAX_PART_BYTES,
            });
        }
        let is_long = part.len() > LONG_PART_BYTES;
        let _alone = is_long.then(|| {
            self.long_part
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        });
        let encoding = self
            .encoder
            .encode_fast(part, false)
            .map_err(|error| Error::Tokenizer(error.to_string()))?;
        ids.extend(encoding.get_ids().iter().copied().map(TokenId));
        Ok(())
    }

    /// Decodes `ids`, like `tokenizers`' `decode`. Ids without a token add nothing.
    pub fn decode(&self, ids: &[TokenId], special: SpecialTokens) -> String {
        let mut text = String::new();
        let mut run = ByteRun::default();
        for id in ids {
            match self.vocabulary.get(*id) {
                TokenText::Byte(byte) => run.push(byte),
                TokenText::Ordinary(token) => {
                    run.end(&mut text);
                    text.push_str(token);
                }
                TokenText::Special(token) if special == SpecialTokens::Keep => {
                    run.end(&mut text);
                    text.push_str(token);
                }
                TokenText::Special(_) | TokenText::Unknown => {}
            }
        }
        run.end(&mut text);
        text
    }

    /// Returns a token's own text, control tokens included: U+FFFD for a byte that is not a
    /// character by itself, nothing for an id without a token.
    pub fn token_text(&self, id: TokenId) -> String {
        String::from_utf8_lossy(&self.token_bytes(id)).into_owned()
    }

    /// Returns a token's own bytes, control tokens included; empty for an id without a token.
    pub fn token_bytes(&self, id: TokenId) -> Vec<u8> {
        match self.vocabulary.get(id) {
            TokenText::Byte(byte) => vec![byte],
            TokenText::Ordinary(text) | TokenText::Special(text) => text.as_bytes().to_vec(),
            TokenText::Unknown => Vec::new(),
        }
    }

    /// Returns the bytes that a token adds to a decoded text.
    pub fn text_bytes(&self, id: TokenId, special: SpecialTokens) -> Vec<u8> {
        match (self.vocabulary.get(id), special) {
            (TokenText::Special(_), SpecialTokens::Skip) => Vec::new(),
            _ => self.token_bytes(id),
        }
    }

    /// Returns a token's bytes if they are plain text: empty for control tokens and for those that
    /// the vocabulary reserves (`<unused17>`).
    pub(super) fn plain_bytes(&self, id: TokenId) -> Vec<u8> {
        match self.vocabulary.get(id) {
            TokenText::Byte(byte) => vec![byte],
            TokenText::Ordinary(text) if !text.starts_with("<unused") => text.as_bytes().to_vec(),
            TokenText::Ordinary(_) | TokenText::Special(_) | TokenText::Unknown => Vec::new(),
        }
    }

    /// Whether a token represents a single byte (byte fallback).
    pub(super) fn is_byte(&self, id: TokenId) -> bool {
        matches!(self.vocabulary.get(id), TokenText::Byte(_))
    }

    /// Returns a token as the vocabulary spells it (`▁the`, `<0xE2>`), or `None` for an id without
    /// one.
    pub fn vocabulary_entry(&self, id: TokenId) -> Option<String> {
        self.encoder.id_to_token(id.0)
    }

    /// Returns the id of the token that the vocabulary spells `content`.
    pub fn token_id(&self, content: &str) -> Option<TokenId> {
        self.encoder.token_to_id(content).map(TokenId)
    }

    /// Returns the highest id + 1. A model's vocabulary can be larger.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Returns the tokens that control the model.
    pub fn control_tokens(&self) -> &ControlTokens {
        &self.control
    }

    pub(super) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

/// Returns the tokens that the post-processor adds before and after a text.
fn surroundings(encoder: &Encoder) -> std::result::Result<(Vec<TokenId>, Vec<TokenId>), String> {
    let encode = |add_special_tokens| {
        let encoding = encoder.encode_fast("a", add_special_tokens);
        let ids = encoding.map(|encoding| encoding.get_ids().to_vec());
        ids.map_err(|error| format!("the tokenizer cannot encode \"a\": {error}"))
    };
    let (bare, full) = (encode(false)?, encode(true)?);
    let at = (0..full.len()).find(|at| !bare.is_empty() && full[*at..].starts_with(&bare));
    let Some(at) = at else {
        return Err(format!(
            "the post-processor does not keep a text's ids: {bare:?} became {full:?}"
        ));
    };
    let ids = |ids: &[u32]| ids.iter().copied().map(TokenId).collect();
    Ok((ids(&full[..at]), ids(&full[at + bare.len()..])))
}

#[cfg(test)]
impl Tokenizer {
    /// Creates a tiny tokenizer with Gemma 3's pipeline and special tokens.
    pub(super) fn for_test() -> Self {
        Self::from_bytes(TINY).expect("it is whole")
    }
}

#[cfg(test)]
const TINY: &[u8] = include_bytes!("../../tests/golden/tokenizer/tokenizer.json");

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use std::fs;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    #[test]
    fn control_tokens_count_in_a_raw_prompt() {
        let tokenizer = Tokenizer::for_test();
        let encode = |text: &str, add| tokenizer.encode_raw(text, add).unwrap();
        let (yes, no) = (AddSpecialTokens::Yes, AddSpecialTokens::No);
        let turn = "<start_of_turn>user\n<end_of_turn>";
        let user = encode("user", no);
        let turn_ids = [ids(&[7]), user.clone(), ids(&[9, 8])].concat();
        assert_eq!(encode(turn, no), turn_ids);
        assert_eq!(encode(turn, yes), [ids(&[2]), turn_ids.clone()].concat());
        // No second `<bos>`.
        assert_eq!(
            encode(&format!("<bos>{turn}"), yes),
            [ids(&[2]), turn_ids].concat()
        );
        assert_eq!(encode("", yes), ids(&[2]));
        assert_eq!(encode("", no), []);
        assert_eq!(
            encode("<start_of_image><image_soft_token>", no),
            ids(&[766, 768])
        );
        assert_eq!(encode("<unused94>", no), ids(&[5]));
    }

    #[test]
    fn only_the_spans_of_a_rendered_prompt_control() {
        let tokenizer = Tokenizer::for_test();
        let text = "<bos><bos>";
        let whole = RenderedPrompt {
            text: text.to_owned(),
            control: tokenizer.control_tokens().find(text),
            num_images: 0,
        };
        let mut first_only = whole.clone();
        first_only.control.truncate(1);
        assert_eq!(tokenizer.encode_rendered(&whole).unwrap(), ids(&[2, 2]));
        let encoded = tokenizer.encode_rendered(&first_only).unwrap();
        assert_eq!(encoded[0], TokenId(2));
        assert!(!encoded[1..].contains(&TokenId(2)), "{encoded:?}");
        assert_eq!(tokenizer.decode(&encoded, SpecialTokens::Skip), "<bos>");
        assert_eq!(tokenizer.decode(&encoded, SpecialTokens::Keep), text);
    }

    #[test]
    fn a_token_shows_its_own_text() {
        let tokenizer = Tokenizer::for_test();
        let id = |content: &str| tokenizer.token_id(content).expect(content);
        for (id, entry, text, bytes) in [
            (id("▁the"), Some("▁the"), " the", " the".as_bytes()),
            (id("<0x41>"), Some("<0x41>"), "A", b"A"),
            (id("<0xE2>"), Some("<0xE2>"), "\u{fffd}", &[0xE2]),
            (
                id("<end_of_turn>"),
                Some("<end_of_turn>"),
                "<end_of_turn>",
                b"<end_of_turn>",
            ),
            (id("\n\n"), Some("\n\n"), "\n\n", b"\n\n"),
            (TokenId(769), None, "", b""),
            (TokenId(u32::MAX), None, "", b""),
        ] {
            assert_eq!(tokenizer.vocabulary_entry(id).as_deref(), entry);
            assert_eq!(tokenizer.token_text(id), text);
            assert_eq!(tokenizer.token_bytes(id), bytes);
        }
        assert_eq!(tokenizer.token_id("no such token"), None);
        assert_eq!(tokenizer.vocab_size(), 769);
    }

    fn changed(path: &str, value: Value) -> Vec<u8> {
        let mut file: Value = serde_json::from_slice(TINY).unwrap();
        *file.pointer_mut(path).expect(path) = value;
        serde_json::to_vec(&file).unwrap()
    }

    #[test]
    fn a_damaged_file_says_what_is_wrong() {
        let text = std::str::from_utf8(TINY).unwrap();
        let twice = text.replace("\"vocab\":{", "\"vocab\":{\"▁the\":5,");
        let mut crowded: Value = serde_json::from_slice(TINY).unwrap();
        for (idx, first) in ('\u{3041}'..'\u{3052}').enumerate() {
            let mut token = crowded["added_tokens"][28].clone();
            token["id"] = json!(769 + idx);
            token["content"] = json!(format!("{first}x"));
            crowded["added_tokens"].as_array_mut().unwrap().push(token);
        }
        for (json, expected) in [
            (twice.into_bytes(), "token \"▁the\" is there twice"),
            (
                serde_json::to_vec(&crowded).unwrap(),
                "begin with 18 different characters",
            ),
            (TINY[..TINY.len() / 2].to_vec(), "EOF"),
            (b"{}".to_vec(), "missing field `model`"),
            (b"\xff".to_vec(), "expected value"),
            (
                changed("/version", json!("2.0")),
                "version \"2.0\" is not known",
            ),
            (
                changed("/model/type", json!("Unigram")),
                "a Unigram model is not supported",
            ),
            (
                changed("/model/merges", json!([["▁", "nowhere"]])),
                "nowhere",
            ),
            (
                changed("/model/merges", json!([["x".repeat(99), "y"]])),
                "is not a token",
            ),
            (
                changed("/model/merges", json!([["t"]])),
                "a merge needs two tokens",
            ),
            (
                changed("/model/merges", json!(["t h e"])),
                "\"t h e\" is not two tokens",
            ),
            (
                changed("/model/unk_token", json!("<what>")),
                "\"<what>\" is not a token",
            ),
            (changed("/model/dropout", json!(0.1)), "dropout"),
            (changed("/model/vocab", json!({})), "is not a token"),
            (changed("/decoder", json!({"type": "ByteLevel"})), "decoder"),
            (changed("/added_tokens/0/id", json!(3)), "the same id 3"),
            (changed("/added_tokens/28/id", json!(999)), "has the id 999"),
            (
                changed("/model/ignore_merges", json!(true)),
                "from plain text",
            ),
            (changed("/added_tokens/0/rstrip", json!(true)), "<pad>"),
        ] {
            match Tokenizer::from_bytes(&json) {
                Err(Error::Tokenizer(message)) => {
                    assert!(message.contains(expected), "{expected}: {message}");
                }
                other => panic!("{expected}: {:?}", other.map(|_| "taken")),
            }
        }
    }

    #[test]
    fn a_damaged_or_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        for contents in [None, Some("[")] {
            if let Some(contents) = contents {
                fs::write(&path, contents).unwrap();
            }
            match Tokenizer::from_file(&path) {
                Err(Error::Checkpoint { file, .. }) => assert_eq!(file, path),
                other => panic!("{:?}", other.map(|_| "taken")),
            }
        }
        fs::write(&path, TINY).unwrap();
        assert!(Tokenizer::from_file(&path).is_ok());
    }

    #[test]
    fn merges_may_be_written_in_either_form() {
        let file: Value = serde_json::from_slice(TINY).unwrap();
        let merges = file["model"]["merges"].as_array().unwrap().iter();
        let joined =
            merges.map(|m| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()));
        let old = Tokenizer::from_bytes(&changed("/model/merges", joined.collect())).unwrap();
        let text = "The patient is a man of 64 years.";
        let encode = |tokenizer: &Tokenizer| tokenizer.encode_raw(text, AddSpecialTokens::No);
        assert_eq!(
            encode(&old).unwrap(),
            encode(&Tokenizer::for_test()).unwrap()
        );
    }

    #[test]
    fn what_the_post_processor_puts_around_a_text_is_added() {
        let eos = json!({"SpecialToken": {"id": "<eos>", "type_id": 0}});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let with_eos = json!({
            "type": "TemplateProcessing", "single": [text, eos], "pair": [text, eos],
            "special_tokens": {"<eos>": {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}},
        });
        for (processor, expected) in [(with_eos, ids(&[1])), (Value::Null, vec![])] {
            let tokenizer = Tokenizer::from_bytes(&changed("/post_processor", processor)).unwrap();
            assert_eq!(
                tokenizer.encode_raw("", AddSpecialTokens::Yes).unwrap(),
                expected
            );
        }
    }

    /// The reference is the crate's own encoder, with its own search for added tokens.
    #[test]
    fn raw_prompts_are_as_the_tokenizers_crate_encodes_them() {
        let reference = Encoder::from_bytes(TINY).unwrap();
        let tokenizer = Tokenizer::for_test();
        let pieces = prop_oneof![
            "<(bos|eos|unused94|start_of_(turn|image)|image_soft_token|b|table)>",
            "[ \n\t▁]{1,5}",
            "[a-z<>_ ]{0,9}",
            "\\PC{0,5}",
        ];
        proptest!(|(pieces in proptest::collection::vec(pieces, 0..12))| {
            let text = pieces.concat();
            for (add, flag) in [(AddSpecialTokens::Yes, true), (AddSpecialTokens::No, false)] {
                let encoding = reference.encode(text.as_str(), flag).unwrap();
                let mut expected = ids(encoding.get_ids());
                if flag && expected.get(1) == Some(&TokenId(2)) {
                    expected.remove(0);
                }
                prop_assert_eq!(tokenizer.encode_raw(&text, add).unwrap(), expected);
            }
        });
    }

    #[test]
    fn a_text_in_parts_is_encoded_as_the_whole_is() {
        let reference = Encoder::from_bytes(TINY).unwrap();
        let tokenizer = Tokenizer::for_test();
        let pieces = prop_oneof![
            "[ \n\t▁]{1,5}",
            "[a-z<>_ ]{0,9}",
            "the |heart|, |lungs|\\.",
            "\\PC{0,5}",
        ];
        let num_parts = Cell::new(0);
        proptest!(|(pieces in proptest::collection::vec(pieces, 0..30), most in 1_usize..20)| {
            let text = pieces.concat();
            let encoding = reference.encode_fast(text.as_str(), false).unwrap();
            let mut in_parts = Vec::new();
            tokenizer.encode_in_parts(&text, most, &mut in_parts).unwrap();
            prop_assert_eq!(in_parts, ids(encoding.get_ids()));
            if text.len() > most && tokenizer.first_part(&text, most) < text.len() {
                num_parts.set(num_parts.get() + 1);
            }
        });
        assert!(num_parts.get() > 100, "only {num_parts:?} texts were cut");
    }

    #[test]
    fn a_text_that_cannot_be_cut_has_a_limit() {
        let tokenizer = Tokenizer::for_test();
        let error = tokenizer.encode_raw(&"e".repeat(MAX_PART_BYTES + 1), AddSpecialTokens::No);
        assert!(
            matches!(error, Err(Error::UnbrokenText { .. })),
            "{error:?}"
        );
        let broken = "e, ".repeat(MAX_PART_BYTES / 2);
        let encoded = tokenizer.encode_raw(&broken, AddSpecialTokens::No);
        assert!(encoded.is_ok(), "{encoded:?}");
    }

    #[test]
    fn any_ids_decode_as_the_tokenizers_crate_decodes_them() {
        let reference = Encoder::from_bytes(TINY).unwrap();
        let tokenizer = Tokenizer::for_test();
        let tokens = prop_oneof![0_u32..900, 26_u32..282];
        proptest!(|(tokens in proptest::collection::vec(tokens, 0..40))| {
            for (special, skip) in [(SpecialTokens::Skip, true), (SpecialTokens::Keep, false)] {
                let expected = reference.decode(&tokens, skip).unwrap();
                prop_assert_eq!(tokenizer.decode(&ids(&tokens), special), expected);
            }
        });
    }
}
