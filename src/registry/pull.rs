//! Downloads models into the cache and removes them, by name.

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
    /// Repository id, `owner/name`.
    pub repo: String,
    /// Commit, shortened as by git.
    pub commit: String,
}

/// Downloads the parts of a model that the cache does not have. Blocks the thread until done.
///
/// # Errors
/// Returns `Config` for unknown names; `Hub` for failed downloads, with what to do; `Checkpoint`
/// for models that cannot be served.
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

/// Plans a removal; nothing is removed before [`Removal::run`].
///
/// # Errors
/// Returns `Config` for unknown names; `Hub` for a model that is not in the cache.
pub fn removal(config: &RmConfig) -> Result<Removal> {
    let catalog = Catalog::open(config.models_file.as_deref())?;
    let repo = repository(&config.model, &catalog)?;
    find_removal(&config.cache, &repo, config.revision.as_deref())
}
