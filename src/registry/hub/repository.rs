//! Names on the hub: repositories, revisions and commits.

use std::fmt;

/// Id of a repository, `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoId(String);

impl RepoId {
    /// Parses an id; `None` for names that the hub does not allow.
    pub fn parse(text: &str) -> Option<Self> {
        /// Maximum length of either part, by the hub's rules.
        const MAX_LEN: usize = 96;
        let (owner, name) = text.split_once('/')?;
        let is_part = |part: &str| {
            let fits = (1..=MAX_LEN).contains(&part.len());
            fits && part.bytes().all(is_plain)
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
                // Otherwise the folder's name would be ambiguous.
                && !part.contains("--")
                && !part.contains("..")
        };
        (is_part(owner) && is_part(name)).then(|| Self(text.to_owned()))
    }

    /// Name of its folder in the cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }

    /// Returns the repository of a cache folder.
    pub(super) fn of_folder(folder: &str) -> Option<Self> {
        let (owner, name) = folder.strip_prefix("models--")?.split_once("--")?;
        Self::parse(&format!("{owner}/{name}"))
    }

    /// The id as `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A revision: a branch, a tag or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Revision(String);

impl Revision {
    /// The default revision.
    pub(in crate::registry) fn main() -> Self {
        Self("main".to_owned())
    }

    /// Parses a revision; `None` for names that git does not allow. Names may contain slashes, but
    /// never lead out of a folder.
    pub(in crate::registry) fn parse(text: &str) -> Option<Self> {
        let is_part = |part: &str| {
            let plain = part
                .bytes()
                .all(|byte| is_plain(byte) || b"+@=%#".contains(&byte));
            !part.is_empty() && plain && !part.starts_with('.') && !part.contains("..")
        };
        let fits = text.len() <= 200;
        (fits && text.split('/').all(is_part)).then(|| Self(text.to_owned()))
    }

    /// Returns the commit, if this is a full commit hash.
    pub(super) fn as_commit(&self) -> Option<Commit> {
        let is_hash = self.0.len() == 40 && self.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| Commit(self.0.to_ascii_lowercase()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The hash of a commit, which is also the name of its snapshot folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::registry) struct Commit(String);

impl Commit {
    /// Parses a hash; `None` for what cannot be a folder name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        is_file_name(text).then(|| Self(text.to_owned()))
    }

    pub(in crate::registry) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Commit {
    /// Writes the hash shortened as by git.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get(..7).unwrap_or(&self.0))
    }
}

/// Whether `text` names a file within a folder, and nothing outside.
pub(super) fn is_file_name(text: &str) -> bool {
    (1..=200).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('.')
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_owner_and_name() {
        for text in ["google/medgemma-4b-it", "a/b", "A_b/c.d-1.5"] {
            let id = RepoId::parse(text).expect(text);
            assert_eq!(RepoId::of_folder(&id.folder()), Some(id));
        }
        for text in [
            "", "a", "/", "a/", "/b", "a/b/c", "../b", "a/..", "./b", "a/.b", "a b/c", "a/b\n",
            "a--b/c", "a/b--c", "ä/b", "-a/b", "a/b.", "a\\b/c",
        ] {
            assert_eq!(RepoId::parse(text), None, "{text}");
        }
        assert!(RepoId::parse(&format!("a/{}", "b".repeat(97))).is_none());
        for folder in [
            "models--a",
            "datasets--a--b",
            "a--b",
            "models--..--b",
            ".locks",
        ] {
            assert_eq!(RepoId::of_folder(folder), None, "{folder}");
        }
    }

    #[test]
    fn revisions_stay_within_their_folder() {
        for text in ["main", "refs/pr/3", "v1.0", "release+1", &"a".repeat(40)] {
            assert!(Revision::parse(text).is_some(), "{text}");
        }
        for text in [
            "", "/", "a/", "/a", "..", "a/../b", "a//b", ".a", "a\0", "a b", "a\\b",
        ] {
            assert_eq!(Revision::parse(text), None, "{text}");
        }
    }

    #[test]
    fn commits_are_told_from_names() {
        let commit = |text: &str| Revision::parse(text).unwrap().as_commit();
        assert_eq!(commit("main"), None);
        assert_eq!(commit(&"a".repeat(39)), None);
        assert_eq!(commit(&"g".repeat(40)), None);
        let full = commit(&"Ab".repeat(20)).unwrap();
        assert_eq!(full.as_str(), "ab".repeat(20));
        assert_eq!(full.to_string(), "abababa");
        assert_eq!(Commit::parse("../x"), None);
        assert_eq!(Commit::parse(" abc\n").unwrap().as_str(), "abc");
    }
}
