//! Keys in a file, one on a line: how orchestrators hand secrets to a container.

use std::fs;
use std::path::Path;

use super::ApiKey;
use super::arguments::api_key;

/// The file's keys. Empty lines count as none.
///
/// # Errors
/// What is wrong with the file, never with what stands in it.
pub(super) fn read_keys(path: &Path) -> Result<Vec<ApiKey>, String> {
    let wrong = |what: String| format!("--api-key-file {}: {what}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut keys = Vec::new();
    for (line_idx, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() {
            let key =
                api_key(line).map_err(|what| wrong(format!("line {}: {what}", line_idx + 1)))?;
            keys.push(key);
        }
    }
    if keys.is_empty() {
        // An open server is not what a file for keys asks for.
        return Err(wrong("it holds no key; write one on a line".to_owned()));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, "one\n\n  two \r\n").unwrap();
        let keys = read_keys(&path).unwrap();
        assert_eq!(keys, ["one", "two"].map(|key| ApiKey(key.to_owned())));
        for (text, says) in [
            ("", "holds no key"),
            ("\n \n", "holds no key"),
            ("fine\nnot fine\n", "line 2"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read_keys(&path).unwrap_err();
            assert!(error.contains(says) && error.contains("keys"), "{error}");
            assert!(!error.contains("not fine"), "{error}");
        }
        assert!(read_keys(&dir.path().join("none")).is_err());
    }
}
