//! Removes a model from the cache.
//!
//! Only files in the repository's own folder are removed, and no link is followed: what
//! huggingface_hub stores for several models at once stays, for its own `hf cache prune`. Lock
//! files also stay: they are empty, and another process may be waiting for one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::blob::BlobLock;
use super::cache::{HubCache, RepoFolder};
use super::disk;
use super::inventory::{names, num_bytes, refs, revisions, size};
use super::repository::{Commit, RepoId, Revision};
use crate::error::{Error, HubProblem, Result};

/// A planned removal.
#[derive(Debug)]
pub struct Removal {
    repo: RepoId,
    folder: RepoFolder,
    /// Revision to remove; `None` removes all.
    commit: Option<Commit>,
    /// Number of bytes that are freed.
    pub num_bytes: u64,
    /// Number of files, not counting links.
    pub num_files: usize,
    paths: Vec<PathBuf>,
}

impl Removal {
    /// Name of what is removed, for display.
    pub fn name(&self) -> String {
        match &self.commit {
            None => self.repo.to_string(),
            Some(commit) => format!("{} at {commit}", self.repo),
        }
    }

    /// Folder of the repository.
    pub fn dir(&self) -> &Path {
        self.folder.dir()
    }

    /// Performs the removal.
    ///
    /// # Errors
    /// Returns `Hub` while another process downloads the model, and for a cache that is not
    /// writable.
    pub fn run(self) -> Result<()> {
        // Held until everything is removed.
        let _locks: Vec<BlobLock> = names(self.folder.locks())
            .iter()
            .map(|name| {
                let lock = BlobLock::take(&self.folder.locks().join(name))?;
                lock.ok_or_else(|| Error::Hub {
                    problem: HubProblem::Disk,
                    message: format!(
                        "{} is being downloaded by another process: stop that first",
                        self.repo
                    ),
                })
            })
            .collect::<Result<_>>()?;
        for path in &self.paths {
            remove(path).map_err(|error| disk::failed("cannot be removed", path, &error))?;
        }
        Ok(())
    }
}

/// Plans a removal: the whole repository, or one revision and the files that no other revision
/// needs.
///
/// # Errors
/// Returns `Hub` for a model that is not in the cache, and for a folder that is a link to somewhere
/// else; `Config` for an invalid revision name.
pub fn find_removal(cache: &Path, repo: &RepoId, revision: Option<&str>) -> Result<Removal> {
    let cache = HubCache::new(cache);
    let folder = cache.repo(repo);
    let not_here = |what: String| Error::Hub {
        problem: HubProblem::NotFound,
        message: format!("{what} is not in {}", cache.root().display()),
    };
    match folder.dir().symlink_metadata() {
        Err(_) => return Err(not_here(repo.to_string())),
        Ok(kind) if !kind.is_dir() => {
            return Err(Error::Hub {
                problem: HubProblem::Disk,
                message: format!(
                    "{} is a link or a file, not a folder of the cache: it is not removed",
                    folder.dir().display()
                ),
            });
        }
        Ok(_) => {}
    }
    let whole = |folder: RepoFolder| Removal {
        repo: repo.clone(),
        commit: None,
        num_bytes: num_bytes(&folder),
        num_files: names(&folder.blobs()).len(),
        // Names first, so that a half-removed model is not found.
        paths: vec![folder.refs(), folder.snapshots(), folder.dir().to_owned()],
        folder,
    };
    let Some(text) = revision else {
        return Ok(whole(folder));
    };
    let revision = Revision::parse(text)
        .ok_or_else(|| Error::Config(format!("--revision is {text}: it cannot be one")))?;
    let all = revisions(&folder);
    let commit = folder
        .commit_of(&revision)
        .filter(|commit| all.iter().any(|own| own.commit == *commit))
        .ok_or_else(|| not_here(format!("revision {revision} of {repo}")))?;
    if all.len() == 1 {
        return Ok(whole(folder));
    }
    let used_by = |commit: &Commit| -> BTreeSet<String> {
        let snapshot = folder.snapshot(commit);
        let links = names(&snapshot).into_iter();
        links
            .filter_map(|name| fs::read_link(snapshot.join(name)).ok())
            .filter_map(|blob| Some(blob.file_name()?.to_str()?.to_owned()))
            .collect()
    };
    let others = all.iter().filter(|own| own.commit != commit);
    let kept: BTreeSet<String> = others.flat_map(|own| used_by(&own.commit)).collect();
    let here = names(&folder.blobs());
    let goes = used_by(&commit);
    let blobs: Vec<PathBuf> = here
        .iter()
        .filter(|name| goes.contains(*name) && !kept.contains(*name))
        .map(|name| folder.blob(name))
        .collect();
    let refs = refs(&folder).into_iter().filter(|(_, file)| {
        fs::read_to_string(file).is_ok_and(|text| text.trim() == commit.as_str())
    });
    let snapshot = folder.snapshot(&commit);
    let in_snapshot = names(&snapshot);
    let in_snapshot = in_snapshot.iter().map(|name| size(&snapshot.join(name)));
    let blob_bytes: u64 = blobs.iter().map(|blob| size(blob)).sum();
    Ok(Removal {
        repo: repo.clone(),
        num_bytes: blob_bytes + in_snapshot.sum::<u64>(),
        num_files: blobs.len(),
        paths: refs
            .map(|(_, file)| file)
            .chain([snapshot.clone()])
            .chain(blobs)
            .collect(),
        commit: Some(commit),
        folder,
    })
}

/// Removes a file, a link, or a folder with its contents; never the target of a link.
fn remove(path: &Path) -> std::io::Result<()> {
    match path.symlink_metadata() {
        Ok(kind) if kind.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        // Another process was faster.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
