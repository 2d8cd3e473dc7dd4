//! Keys that open the server, from an option, a variable or a file.
//!
//! A file holds one key on each line: orchestrators hand secrets to a container in this way.

use std::path::Path;
use std::{fmt, fs};

use clap::ArgMatches;
use clap::parser::ValueSource;

/// A shorter key can be guessed.
const MIN_STRONG: usize = 16;

/// What some editors put in front of a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A secret that opens the server.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(pub String);

impl fmt::Debug for ApiKey {
    // Settings are printed and logged; keys never.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl AsRef<str> for ApiKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

pub(super) fn api_key(text: &str) -> Result<ApiKey, String> {
    match text {
        "" => Err("an empty key would give access to everyone".to_owned()),
        // What cannot stand in a header could never be sent.
        key if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(ApiKey(key.to_owned())),
        _ => Err("it must be of visible ASCII characters, without spaces".to_owned()),
    }
}

/// What the log says of a key that can be guessed: where it stands and what to do, never what it is.
pub(super) fn weakness(place: &str, key: &ApiKey) -> Option<String> {
    let len = key.0.len();
    (len < MIN_STRONG).then(|| {
        format!(
            "{place} is a key of {len} characters, which can be guessed: use one of at least \
             {MIN_STRONG}, such as `openssl rand -hex 32` prints"
        )
    })
}

/// What the log says of an option's keys that can be guessed.
pub(super) fn weak_keys(option: &str, keys: &[ApiKey], matches: &ArgMatches) -> Vec<String> {
    let place = match matches.value_source(option) {
        Some(ValueSource::EnvVariable) => format!("MEDGEMMA_{}", option.to_uppercase()),
        _ => format!("--{}", option.replace('_', "-")),
    };
    let weaknesses = keys.iter().enumerate().filter_map(|(key_idx, key)| {
        let place = match keys.len() {
            1 => place.clone(),
            _ => format!("{place} number {}", key_idx + 1),
        };
        weakness(&place, key)
    });
    weaknesses.collect()
}

/// The file's keys. Empty lines count as none. `notes` gets what the log says of them.
///
/// # Errors
/// What is wrong with the file, never with what stands in it.
pub(super) fn read_keys(path: &Path, notes: &mut Vec<String>) -> Result<Vec<ApiKey>, String> {
    let file = format!("--api-key-file {}", path.display());
    let wrong = |what: String| format!("{file}: {what}");
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let mut keys = Vec::new();
    for (line_idx, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() {
            let place = format!("line {}", line_idx + 1);
            let key = key_alone(line).map_err(|what| wrong(format!("{place}: {what}")))?;
            notes.extend(weakness(&format!("{file}: {place}"), &key));
            keys.push(key);
        }
    }
    if keys.is_empty() {
        // An open server is not what a file for keys asks for.
        return Err(wrong("it holds no key; write one on a line".to_owned()));
    }
    Ok(keys)
}

/// A key, and not what other programs' files of keys have in their lines.
fn key_alone(line: &str) -> Result<ApiKey, String> {
    if line.starts_with('#') {
        return Err("it begins with #, but comments are not read: take it out".to_owned());
    }
    if line.contains(':') {
        return Err(
            "it holds a colon, but names are not read: write the key alone. (A key that has a \
             colon can be given by --api-key.)"
                .to_owned(),
        );
    }
    api_key(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let strong = "a-key-of-16-char";
        for start in ["", "\u{feff}"] {
            fs::write(&path, format!("{start}one\n\n  {strong} \r\n")).unwrap();
            let mut notes = Vec::new();
            let keys = read_keys(&path, &mut notes).unwrap();
            assert_eq!(keys, ["one", strong].map(|key| ApiKey(key.to_owned())));
            assert_eq!(notes.len(), 1, "{notes:?}");
            assert!(
                notes[0].contains("line 1 is a key of 3 characters"),
                "{notes:?}"
            );
            assert!(!notes[0].contains("one,"), "{notes:?}");
        }
        for (text, says) in [
            ("", "holds no key"),
            ("\n \n", "holds no key"),
            ("fine\nnot fine\n", "line 2"),
            ("#not fine\n", "line 1: it begins with #"),
            ("fine\nfor:not fine\n", "line 2: it holds a colon"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read_keys(&path, &mut Vec::new()).unwrap_err();
            assert!(error.contains(says) && error.contains("keys"), "{error}");
            assert!(!error.contains("not fine"), "{error}");
        }
        assert!(read_keys(&dir.path().join("none"), &mut Vec::new()).is_err());
    }
}
