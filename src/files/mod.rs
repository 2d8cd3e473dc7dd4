//! Reads checkpoint files safely: regular files only, size limits, JSON without duplicate keys.
//!
//! Owns what is opened and how much of it is read. Knows nothing of what the files mean.

mod json;
pub mod json_fields;
mod plain_file;

use std::fmt::Display;
use std::path::Path;

use serde_json::Value;

pub use json::ShortJson;
pub use plain_file::{open, read, read_text};

use crate::error::{Error, Result};

/// Bytes of a config: those of the family have 1 to 5 kB.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Bytes of an index of shards: 27B's has 130 kB.
pub const MAX_INDEX_BYTES: u64 = 8 << 20;
/// Bytes of a tokenizer.json: one of 262 thousand tokens has 33 MB.
pub const MAX_TOKENIZER_BYTES: u64 = 96 << 20;
/// Bytes of a tokenizer_config.json: one that lists 6,242 tokens has 1.2 MB.
pub const MAX_TOKENIZER_CONFIG_BYTES: u64 = 8 << 20;
/// Bytes of a chat template: long ones, with tools, have 20 kB.
pub const MAX_TEMPLATE_BYTES: u64 = 256 << 10;

/// The JSON of `text`. Unlike in serde_json, a duplicate field is an error, since readers would not
/// agree on which one counts.
///
/// # Errors
/// `Checkpoint` that names `file`, and the field or the place.
pub fn json(file: &Path, text: &[u8]) -> Result<Value> {
    json::parse(text).map_err(|error| damaged(file, format_args!("not valid JSON: {error}")))
}

/// An error about `file`. What it quotes of the file is kept to one line of bounded length.
pub fn damaged(file: &Path, message: impl Display) -> Error {
    const MAX_CHARS: usize = 600;
    Error::Checkpoint {
        file: file.to_owned(),
        message: one_line(&message.to_string(), MAX_CHARS),
    }
}

/// A name from a file, escaped for a message.
pub fn shown(name: &str) -> String {
    const MAX_CHARS: usize = 160;
    one_line(name, MAX_CHARS)
}

/// `text` with escapes for what would move a terminal's cursor, cut where it is too long.
fn one_line(text: &str, max_chars: usize) -> String {
    let mut line = String::with_capacity(text.len().min(4 * max_chars));
    for (idx, c) in text.chars().enumerate() {
        if idx == max_chars {
            line.push('…');
            break;
        }
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_for_something_stays_on_one_line() {
        assert_eq!(shown("model.layers.0.µ"), "model.layers.0.µ");
        assert_eq!(shown("a\n\u{1b}[31mb"), "a\\n\\u{1b}[31mb");
        let long = shown(&"x".repeat(1000));
        assert!(long.ends_with("x…") && long.chars().count() < 200, "{long}");
        let error = damaged(Path::new("config.json"), "a\nb".repeat(1000)).to_string();
        assert!(error.starts_with("config.json: a\\nba\\nb"), "{error}");
        assert!(error.len() < 1000, "{error}");
    }
}
