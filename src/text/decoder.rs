//! Converts a vocabulary entry to readable text: `tokenizer.json`'s "decoder".
//!
//! Only decoders that work on one token at a time are supported (Gemma's: `▁` is a space, `<0xE2>`
//! is a byte), so that detokenization reads each token once and never the whole text again.

use serde_json::Value;

use super::tokenizer_steps::{Replacement, check_growth, steps};

/// The output of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Text.
    Text(String),
    /// One byte of a character that has no token of its own.
    Byte(u8),
}

/// A decoder that works on one token at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenDecoder {
    /// Replacements, in order of application.
    replacements: Vec<Replacement>,
    /// Whether `<0xNN>` is a byte.
    byte_fallback: bool,
}

impl TokenDecoder {
    /// Parses `tokenizer.json`'s "decoder". The error names the unsupported part.
    pub(super) fn from_json(decoder: &Value) -> Result<Self, String> {
        if decoder.is_null() {
            return Err("none is not supported: Gemma's is Replace, ByteFallback, Fuse".to_owned());
        }
        let steps = steps(decoder, "decoders")?;
        let mut parsed = Self {
            replacements: Vec::new(),
            byte_fallback: false,
        };
        let mut fused = false;
        for step in steps {
            let kind = step["type"].as_str();
            match kind {
                Some("Replace") if !parsed.byte_fallback && !fused => {
                    parsed.replacements.push(Replacement::from_json(step)?);
                }
                Some("ByteFallback") if !fused => parsed.byte_fallback = true,
                Some("Fuse") => fused = true,
                _ => {
                    return Err(format!(
                        "the step {step} is not supported: Gemma's are Replace, ByteFallback, Fuse"
                    ));
                }
            }
        }
        check_growth(&parsed.replacements)?;
        Ok(parsed)
    }

    /// Decodes the vocabulary entry `content`.
    pub(super) fn decode(&self, content: &str) -> Decoded {
        let mut text = content.to_owned();
        for Replacement { pattern, content } in &self.replacements {
            if text.contains(pattern) {
                text = text.replace(pattern, content);
            }
        }
        match parse_byte(&text) {
            Some(byte) if self.byte_fallback => Decoded::Byte(byte),
            _ => Decoded::Text(text),
        }
    }
}

/// Parses `<0x41>` as the byte 0x41, like `tokenizers`' `decoders/byte_fallback.rs`.
fn parse_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// A run of byte tokens. Its text is known only when it ends: if the run is not UTF-8 as a whole,
/// each byte becomes one U+FFFD, as in `tokenizers`' `decoders/byte_fallback.rs`.
#[derive(Clone, Debug, Default)]
pub(super) struct ByteRun {
    bytes: Vec<u8>,
}

impl ByteRun {
    /// Adds a byte to the run.
    pub(super) fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Ends the run and adds its text to `out`.
    pub(super) fn end(&mut self, out: &mut String) {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => out.push_str(text),
            Err(_) => out.extend(std::iter::repeat_n('\u{fffd}', self.bytes.len())),
        }
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gemma() -> Value {
        json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]})
    }

    #[test]
    fn gemmas_decoder_looks_at_one_token_at_a_time() {
        let decoder = TokenDecoder::from_json(&gemma()).unwrap();
        for (token, expected) in [
            ("▁the▁", Decoded::Text(" the ".into())),
            ("<0x0A>", Decoded::Byte(10)),
            ("<0xfF>", Decoded::Byte(255)),
            ("<0x+F>", Decoded::Text("<0x+F>".into())),
            ("<0xéé>", Decoded::Text("<0xéé>".into())),
            ("<0xABC>", Decoded::Text("<0xABC>".into())),
            ("", Decoded::Text(String::new())),
        ] {
            assert_eq!(decoder.decode(token), expected, "{token}");
        }
    }

    #[test]
    fn other_decoders_are_refused_by_name() {
        for decoder in [
            json!(null),
            json!({"type": "ByteLevel", "add_prefix_space": true}),
            json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " "}]}),
            json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}),
            json!({"type": "Sequence", "decoders": [
                {"type": "ByteFallback"}, {"type": "Replace", "pattern": {"String": "a"}, "content": ""},
            ]}),
        ] {
            let error = TokenDecoder::from_json(&decoder).unwrap_err();
            assert!(error.contains("not supported"), "{error}");
        }
    }

    #[test]
    fn a_run_of_bytes_is_text_or_one_mark_a_byte() {
        for (bytes, expected) in [
            (&[0xE2, 0x82, 0xAC][..], "€"),
            (
                &[0xE2, 0x82, 0xAC, 0xFF],
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            ),
            (&[0xE2], "\u{fffd}"),
            (&[], ""),
        ] {
            let mut run = ByteRun::default();
            bytes.iter().for_each(|byte| run.push(*byte));
            let mut out = String::new();
            run.end(&mut out);
            run.end(&mut out);
            assert_eq!(out, expected);
        }
    }
}
