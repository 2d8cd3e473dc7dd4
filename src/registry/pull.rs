//! What operators do to the cache by a model's name: bring it in, take it out.

use std::path::PathBuf;

use super::catalog::Catalog;
use super::hub::{Removal, find_removal};
use super::source::{fetch, repository, suggest};
use crate::config::{PullConfig, RmConfig};
use crate::error::Result;

/// A model that is in the cache now.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Its directory, in the hub's layout.
    pub dir: PathBuf,
    /// `owner/name`.
    pub repo: String,
    /// As git shortens it.
    pub commit: String,
}

/// Downloads a model, as far as the cache does not have it. Takes as long as it takes of a thread.
///
/// # Errors
/// `Config` for names that lead nowhere; `Hub` for what cannot be downloaded, with what to do;
/// `Checkpoint` for what is not a model that could be served.
pub fn pull(config: &PullConfig) -> Result<Pulled> {
    let catalog = Catalog::open(config.models_file.as_deref())?;
    let repo = repository(&config.model, &catalog)?;
    let snapshot =
        fetch(&config.hub, &repo).map_err(|error| suggest(error, &config.model, &catalog))?;
    Ok(Pulled {
        dir: snapshot.dir,
        repo: repo.to_string(),
        commit: snapshot.commit.to_string(),
    })
}

/// Finds what is to be removed; nothing goes before [`Removal::run`].
///
/// # Errors
/// `Config` for names that lead nowhere; `Hub` for what the cache does not have.
pub fn removal(config: &RmConfig) -> Result<Removal> {
    let catalog = Catalog::open(config.models_file.as_deref())?;
    let repo = repository(&config.model, &catalog)?;
    find_removal(&config.cache, &repo, config.revision.as_deref())
}
