//! Layout of the cache: paths of a repository's files, revisions and locks.
//!
//! Links and refs are written atomically: concurrent readers see the old or the new one.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::disk;
use super::repository::{Commit, RepoId, Revision};
use crate::error::Result;

/// The folder of all repositories.
#[derive(Clone, Debug)]
pub(in crate::registry) struct HubCache {
    root: PathBuf,
}

/// A repository's part of the cache.
#[derive(Clone, Debug)]
pub(in crate::registry) struct RepoFolder {
    dir: PathBuf,
    locks: PathBuf,
}

impl HubCache {
    pub(in crate::registry) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn repo(&self, repo: &RepoId) -> RepoFolder {
        RepoFolder {
            dir: self.root.join(repo.folder()),
            locks: self.root.join(".locks").join(repo.folder()),
        }
    }
}

impl RepoFolder {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    /// Path of a file's complete bytes.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.blobs().join(etag)
    }

    /// Path of a partially downloaded file.
    pub(super) fn partial(&self, etag: &str) -> PathBuf {
        self.blobs().join(format!("{etag}.incomplete"))
    }

    pub(super) fn locks(&self) -> &Path {
        &self.locks
    }

    /// Path of the lock file that a process holds while it writes a file's bytes.
    pub(super) fn lock_file(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub(super) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.snapshots().join(commit.as_str())
    }

    pub(super) fn refs(&self) -> PathBuf {
        self.dir.join("refs")
    }

    /// Returns the commit to which a revision points in the cache.
    pub(super) fn commit_of(&self, revision: &Revision) -> Option<Commit> {
        revision.as_commit().or_else(|| {
            let text = fs::read_to_string(self.refs().join(revision.as_str())).ok()?;
            Commit::parse(&text)
        })
    }

    /// Creates the folders that a download writes to.
    ///
    /// # Errors
    /// Returns `Hub` for a cache that is not writable.
    pub(super) fn create(&self, commit: &Commit) -> Result<()> {
        for dir in [self.blobs(), self.snapshot(commit), self.locks.clone()] {
            fs::create_dir_all(&dir)
                .map_err(|error| disk::failed("cannot be created", &dir, &error))?;
        }
        Ok(())
    }

    /// Adds a downloaded file to a snapshot.
    ///
    /// # Errors
    /// Returns `Hub` for a cache that is not writable.
    pub(super) fn link(&self, commit: &Commit, name: &str, etag: &str) -> Result<()> {
        let link = self.snapshot(commit).join(name);
        let blob = self.blob(etag);
        // If a file system has no links, huggingface_hub stores the bytes in the snapshot only.
        let is_right = match (link.canonicalize(), blob.canonicalize()) {
            (Ok(link), Ok(blob)) => link == blob,
            (Ok(_), Err(_)) => true,
            (Err(_), _) => false,
        };
        if is_right {
            return Ok(());
        }
        let target = Path::new("..").join("..").join("blobs").join(etag);
        let made = replace(&link, |new| {
            // If the file system has no symbolic links, use a hard link, or else a copy.
            symlink(&target, new)
                .or_else(|_| fs::hard_link(&blob, new))
                .or_else(|_| fs::copy(&blob, new).map(|_| ()))
        });
        made.map_err(|error| disk::failed("cannot be linked", &link, &error))
    }

    /// Makes a revision point to a commit.
    ///
    /// # Errors
    /// Returns `Hub` for a cache that is not writable.
    pub(super) fn set_commit(&self, revision: &Revision, commit: &Commit) -> Result<()> {
        if self.commit_of(revision).as_ref() == Some(commit) {
            return Ok(());
        }
        let file = self.refs().join(revision.as_str());
        let parent = file.parent().unwrap_or(&file);
        fs::create_dir_all(parent)
            .and_then(|()| replace(&file, |new| fs::write(new, commit.as_str())))
            .map_err(|error| disk::failed("cannot be written", &file, &error))
    }
}

/// Creates `path` atomically, replacing an existing one.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    // Two threads of one process never create the same path: each file is downloaded once.
    new.push(format!(".{}.tmp", std::process::id()));
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make(&new)?;
    fs::rename(&new, path)
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_target: &Path, _link: &Path) -> io::Result<()> {
    // Symbolic links exist there, but need a privilege.
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(letter: &str) -> Commit {
        Commit::parse(&letter.repeat(40)).unwrap()
    }

    #[test]
    fn links_lead_to_blobs_and_revisions_to_commits() {
        let root = tempfile::tempdir().unwrap();
        let cache = HubCache::new(root.path());
        let folder = cache.repo(&RepoId::parse("a/b").unwrap());
        let first = commit("1");
        folder.create(&first).unwrap();
        fs::write(folder.blob("x"), "old").unwrap();
        fs::write(folder.blob("y"), "new").unwrap();
        for etag in ["x", "x", "y"] {
            folder.link(&first, "config.json", etag).unwrap();
        }
        let link = folder.snapshot(&first).join("config.json");
        assert_eq!(fs::read_to_string(&link).unwrap(), "new");
        #[cfg(unix)]
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("../../blobs/y"));
        // No other file is left.
        assert_eq!(fs::read_dir(folder.snapshot(&first)).unwrap().count(), 1);

        let revision = Revision::parse("refs/pr/3").unwrap();
        assert_eq!(folder.commit_of(&revision), None);
        for letter in ["1", "2"] {
            folder.set_commit(&revision, &commit(letter)).unwrap();
            assert_eq!(folder.commit_of(&revision), Some(commit(letter)));
        }
        let full = Revision::parse(&"3".repeat(40)).unwrap();
        folder.set_commit(&full, &commit("3")).unwrap();
        assert!(!folder.refs().join(full.as_str()).exists());
    }
}
