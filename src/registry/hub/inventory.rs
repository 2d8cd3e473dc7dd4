//! Lists the contents of the cache.
//!
//! Reads names and sizes; follows no link out of a repository's folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{HubCache, RepoFolder};
use super::needed_files;
use super::repository::{Commit, RepoId};

/// A repository in the cache.
#[derive(Clone, Debug)]
pub(in crate::registry) struct CachedModel {
    pub(in crate::registry) repo: RepoId,
    /// Total bytes of its files, complete or not; each counts once.
    pub(in crate::registry) num_bytes: u64,
    pub(in crate::registry) completeness: Completeness,
    pub(in crate::registry) revisions: Vec<CachedRevision>,
}

/// A commit in the cache.
#[derive(Clone, Debug)]
pub(in crate::registry) struct CachedRevision {
    pub(in crate::registry) commit: Commit,
    /// Branches and tags that point to it.
    pub(in crate::registry) names: Vec<String>,
    pub(in crate::registry) dir: PathBuf,
    pub(in crate::registry) completeness: Completeness,
}

/// Whether a model can be served as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::registry) enum Completeness {
    /// Files are missing.
    Partial,
    /// All files are present.
    Complete,
}

/// Returns all model repositories, by name; none if there is no cache.
pub(in crate::registry) fn inventory(cache: &HubCache) -> Vec<CachedModel> {
    let mut models: Vec<CachedModel> = names(cache.root())
        .iter()
        .filter_map(|name| RepoId::of_folder(name))
        .filter_map(|repo| {
            let folder = cache.repo(&repo);
            let num_bytes = sum(&folder, size_of_target);
            let revisions = revisions(&folder);
            let most = revisions.iter().map(|revision| revision.completeness).max();
            (num_bytes > 0).then_some(CachedModel {
                repo,
                num_bytes,
                completeness: most.unwrap_or(Completeness::Partial),
                revisions,
            })
        })
        .collect();
    models.sort_by(|a, b| a.repo.cmp(&b.repo));
    models
}

/// Returns a repository's commits.
pub(super) fn revisions(folder: &RepoFolder) -> Vec<CachedRevision> {
    let mut meant: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, file) in refs(folder) {
        if let Ok(commit) = fs::read_to_string(file) {
            meant
                .entry(commit.trim().to_owned())
                .or_default()
                .push(name);
        }
    }
    let commits = names(&folder.snapshots());
    let commits = commits.iter().filter_map(|name| Commit::parse(name));
    commits
        .map(|commit| {
            let dir = folder.snapshot(&commit);
            CachedRevision {
                names: meant.remove(commit.as_str()).unwrap_or_default(),
                completeness: match needed_files::is_complete(&dir) {
                    true => Completeness::Complete,
                    false => Completeness::Partial,
                },
                dir,
                commit,
            }
        })
        .collect()
}

/// Returns the names of revisions and their files, including those in subfolders.
pub(super) fn refs(folder: &RepoFolder) -> Vec<(String, PathBuf)> {
    /// refs/pr/3 is the deepest that the hub creates.
    const MAX_DEPTH: usize = 4;
    fn walk(dir: &Path, prefix: &str, depth: usize, found: &mut Vec<(String, PathBuf)>) {
        for name in names(dir) {
            let path = dir.join(&name);
            let name = format!("{prefix}{name}");
            match path.symlink_metadata() {
                Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => {
                    walk(&path, &format!("{name}/"), depth + 1, found);
                }
                Ok(kind) if kind.is_file() => found.push((name, path)),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&folder.refs(), "", 0, &mut found);
    found
}

/// Total bytes of a repository's own files.
pub(super) fn num_bytes(folder: &RepoFolder) -> u64 {
    sum(folder, |path, _| size(path))
}

/// Sums up blobs, and snapshots if the file system has no links.
fn sum(folder: &RepoFolder, size: fn(&Path, Of) -> u64) -> u64 {
    let in_dir = |dir: PathBuf, of: Of| -> u64 {
        let paths = names(&dir).into_iter().map(|name| dir.join(name));
        paths.map(|path| size(&path, of)).sum()
    };
    let snapshots = names(&folder.snapshots()).into_iter();
    let in_snapshots: u64 = snapshots
        .map(|name| in_dir(folder.snapshots().join(name), Of::Snapshot))
        .sum();
    in_dir(folder.blobs(), Of::Blob) + in_snapshots
}

/// Kind of folder to which a file belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Blob,
    Snapshot,
}

/// Like [`size`]; a blob that is stored elsewhere for several models counts for each.
fn size_of_target(path: &Path, of: Of) -> u64 {
    match of {
        Of::Blob => path.metadata().map_or(0, |file| file.len()),
        Of::Snapshot => size(path),
    }
}

/// Number of bytes of a file; 0 for a link.
pub(super) fn size(path: &Path) -> u64 {
    match path.symlink_metadata() {
        Ok(file) if file.is_file() => file.len(),
        _ => 0,
    }
}

/// Returns the names in a folder; none if it cannot be read.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
