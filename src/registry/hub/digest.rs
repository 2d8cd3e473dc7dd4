//! Expected hashes of files.

use std::fmt::Write;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// The kind of hash that a file's ETag on the hub is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// SHA-256 of a large file.
    Sha256(String),
    /// Git's hash of a small file.
    GitBlob(String),
    /// Not a known hash, such as a mirror's own ETag; only the size can be checked.
    Unknown,
}

impl Expected {
    /// Derives the expected hash from an ETag.
    pub(super) fn of_etag(etag: &str) -> Self {
        let is_hex = etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        match etag.len() {
            64 if is_hex => Self::Sha256(etag.to_ascii_lowercase()),
            40 if is_hex => Self::GitBlob(etag.to_ascii_lowercase()),
            _ => Self::Unknown,
        }
    }
}

/// An incremental hash of a file.
#[derive(Clone)]
pub(super) struct Hasher {
    expected: Expected,
    context: Option<Context>,
}

impl Hasher {
    /// Creates a hasher for a file of `size` bytes.
    pub(super) fn new(expected: &Expected, size: u64) -> Self {
        let context = match expected {
            Expected::Sha256(_) => Some(Context::new(&SHA256)),
            Expected::GitBlob(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                Some(context)
            }
            Expected::Unknown => None,
        };
        Self {
            expected: expected.clone(),
            context,
        }
    }

    /// Adds the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(context) = &mut self.context {
            context.update(bytes);
        }
    }

    /// # Errors
    /// Returns the actual and the expected hash, if they differ.
    pub(super) fn check(self) -> Result<(), Mismatch> {
        let (Expected::Sha256(expected) | Expected::GitBlob(expected)) = self.expected else {
            return Ok(());
        };
        let digest = self.context.expect("it is hashed").finish();
        let mut found = String::new();
        for byte in digest.as_ref() {
            write!(found, "{byte:02x}").expect("strings take all that is written");
        }
        if found == expected {
            Ok(())
        } else {
            Err(Mismatch { found, expected })
        }
    }
}

/// An actual and an expected hash that differ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) found: String,
    pub(super) expected: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(etag: &str, bytes: &[u8]) -> Result<(), Mismatch> {
        let mut hasher = Hasher::new(&Expected::of_etag(etag), bytes.len() as u64);
        for part in bytes.chunks(2) {
            hasher.update(part);
        }
        hasher.check()
    }

    #[test]
    fn etags_are_hashes() {
        // Results of `git hash-object` and `sha256sum`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for etag in [git, sha, &sha.to_uppercase(), "\"own\"", ""] {
            assert_eq!(check(etag, b"hello\n"), Ok(()), "{etag}");
        }
        for etag in [git, sha] {
            let mismatch = check(etag, b"hello?").unwrap_err();
            assert_eq!(mismatch.expected, etag);
            assert_eq!(mismatch.found.len(), etag.len());
            assert_ne!(mismatch.found, etag);
        }
    }
}
