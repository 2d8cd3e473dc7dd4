//! Finds the checkpoint that the operator named: its files, config and sampling defaults.
//!
//! Loads no tensors.

use std::path::{Path, PathBuf};

use super::catalog::{Catalog, CatalogEntry, HubModel};
use super::generation_config::GenerationConfig;
use super::hub::{self, RepoId, Snapshot};
use super::model_files::ModelFiles;
use super::{SamplingDefaults, processor_config};
use crate::config::{HubConfig, LoadFormat, SamplingSource, ServeConfig};
use crate::core::{PreparationFields, Thinking, TokenId, ToolFormat};
use crate::error::{Error, HubProblem, Result};
use crate::files::{self, MAX_CONFIG_BYTES, shown};
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;

/// Seed of dummy weights; fixed, so that they are the same each time.
const DUMMY_SEED: u64 = 0;

/// What peft writes beside an adapter's weights.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// A checkpoint that was found and can be loaded.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// The model's own name: the requested name in the catalogue or on the hub, or its directory's.
    pub name: String,
    /// Architecture of the model.
    pub config: ModelConfig,
    /// Tokenizer, template and tensors.
    pub files: ModelFiles,
    /// Whether the files' tensors are loaded, or random ones.
    pub load_format: LoadFormat,
    /// Sampling defaults for requests that do not specify them.
    pub sampling: SamplingDefaults,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<TokenId>,
    /// Whether the model thinks before it answers.
    pub thinking: Thinking,
    /// Format in which the model writes tool calls.
    pub tool_format: ToolFormat,
    /// How images are prepared unless the settings or a request say otherwise.
    pub preparation: PreparationFields,
}

impl ModelSource {
    /// Opens the tensors, without reading them yet.
    ///
    /// # Errors
    /// Returns `Checkpoint` when a file is missing or damaged.
    pub fn weights(&self) -> Result<Weights> {
        match self.load_format {
            LoadFormat::Auto => self.files.weights(),
            LoadFormat::Dummy => Ok(Weights::dummy(DUMMY_SEED)),
        }
    }
}

/// Finds the model that the settings name: a local directory, a name of the catalogue, or a hub id.
/// A model on the hub that is not in the cache is downloaded, which may block the thread for an
/// hour.
///
/// # Errors
/// Returns `NotFound` for unknown names, with what to do; `Hub` for failed downloads; `Checkpoint`
/// for invalid files.
pub fn resolve(settings: &ServeConfig) -> Result<ModelSource> {
    let catalog = Catalog::open(settings.models_file.as_deref())?;
    let mut source = find(settings, &catalog)?;
    // A directory with the name of a model in the catalogue is treated as that model.
    match catalog.get(&source.name) {
        Some((_, CatalogEntry::Hub(model))) => {
            source.thinking = model.thinking;
            source.tool_format = model.tool_format;
            source.preparation = model.preparation.clone().or(&source.preparation);
        }
        Some((_, CatalogEntry::BuiltIn { thinking })) => source.thinking = *thinking,
        None => {}
    }
    source.thinking = settings.thinking.unwrap_or(source.thinking);
    source.sampling = match settings.request_defaults.sampling {
        SamplingSource::Checkpoint => source.sampling,
        SamplingSource::Neutral => SamplingDefaults::NEUTRAL,
    };
    source.tool_format = settings.tool_format.unwrap_or(source.tool_format);
    Ok(source)
}

fn find(settings: &ServeConfig, catalog: &Catalog) -> Result<ModelSource> {
    let wanted = settings.model.as_str();
    let dir = Path::new(wanted);
    if dir.is_dir() {
        check_revision(settings)?;
        tracing::info!(directory = wanted, "serving a local directory");
        return from_files(
            directory_name(dir)?,
            ModelFiles::Directory(dir.to_owned()),
            settings.load_format,
        );
    }
    if let Some((name, CatalogEntry::BuiltIn { .. })) = catalog.get(wanted) {
        check_revision(settings)?;
        return from_files(name.to_owned(), ModelFiles::Demo, settings.load_format);
    }
    match (settings.load_format, catalog.get(wanted)) {
        (LoadFormat::Dummy, Some((_, CatalogEntry::Hub(model)))) => {
            check_revision(settings)?;
            dummy(wanted, model)
        }
        (LoadFormat::Dummy, _) => Err(unknown(wanted, catalog)),
        (LoadFormat::Auto, _) => {
            let repo = repository(wanted, catalog)?;
            from_hub(settings, &repo).map_err(|error| suggest(error, wanted, catalog))
        }
    }
}

/// Refuses a revision for a model that is not on the hub.
fn check_revision(settings: &ServeConfig) -> Result<()> {
    match &settings.hub.revision {
        None => Ok(()),
        Some(revision) => Err(Error::Config(format!(
            "--revision {revision} is for models from the hub, and {} is not one",
            settings.model
        ))),
    }
}

/// Returns the repository for a name of the catalogue or a hub id.
///
/// # Errors
/// Returns `Config` for other names, with what to do.
pub(super) fn repository(wanted: &str, catalog: &Catalog) -> Result<RepoId> {
    let id = match catalog.get(wanted) {
        Some((_, CatalogEntry::Hub(model))) => model.hub.as_str(),
        Some((_, CatalogEntry::BuiltIn { .. })) => {
            return Err(Error::Config(format!(
                "{wanted} is part of the program: it is neither downloaded nor removed"
            )));
        }
        None => wanted,
    };
    let is_path = wanted.starts_with(['.', '/', '~', '\\']);
    match RepoId::parse(id) {
        Some(repo) if !is_path => Ok(repo),
        _ => Err(unknown(wanted, catalog)),
    }
}

/// Finds a hub model. A cached one is served as it is: a server starts without the hub, and serves
/// the same version as before. `medgemma pull` downloads updates.
fn from_hub(settings: &ServeConfig, repo: &RepoId) -> Result<ModelSource> {
    let snapshot = match hub::cached(&settings.hub, repo)? {
        Some(snapshot) => snapshot,
        None => fetch(&settings.hub, repo)?,
    };
    tracing::info!(
        model = %repo,
        commit = %snapshot.commit,
        directory = %snapshot.dir.display(),
        "serving from the cache"
    );
    from_files(
        settings.model.clone(),
        ModelFiles::Directory(snapshot.dir),
        settings.load_format,
    )
}

/// Downloads a model. A model that cannot be loaded is refused before its weights are downloaded.
///
/// # Errors
/// Returns `Hub` for failed downloads; `Checkpoint` for an unknown kind of model.
pub(super) fn fetch(config: &HubConfig, repo: &RepoId) -> Result<Snapshot> {
    hub::fetch(config, repo, &|dir| {
        let files = ModelFiles::Directory(dir.to_owned());
        from_files(repo.to_string(), files, LoadFormat::Auto).map(|_| ())
    })
}

/// Adds the most similar known name to the error.
pub(super) fn suggest(error: Error, wanted: &str, catalog: &Catalog) -> Error {
    match (error, catalog.get(wanted), catalog.nearest(wanted)) {
        (
            Error::Hub {
                problem: problem @ HubProblem::NotFound,
                message,
            },
            None,
            Some(name),
        ) => Error::Hub {
            problem,
            message: format!("{message} Did you mean {name}?"),
        },
        (error, _, _) => error,
    }
}

/// Returns a directory's own name, even if it was given as "." or "..".
fn directory_name(dir: &Path) -> Result<String> {
    let failed = |error: std::io::Error| Error::Checkpoint {
        file: dir.to_owned(),
        message: format!("cannot be read: {error}"),
    };
    let full: PathBuf = dir.canonicalize().map_err(failed)?;
    let name = full.file_name().unwrap_or(full.as_os_str());
    Ok(name.to_string_lossy().into_owned())
}

fn from_files(name: String, files: ModelFiles, load_format: LoadFormat) -> Result<ModelSource> {
    const CONFIG: &str = "config.json";
    const GENERATION_CONFIG: &str = "generation_config.json";
    let Some(text) = files.read(CONFIG)? else {
        return Err(no_checkpoint(&files));
    };
    let config = ModelConfig::from_json(&files.path(CONFIG), &text)?;
    let generation = match files.read(GENERATION_CONFIG)? {
        Some(text) => GenerationConfig::from_json(&files.path(GENERATION_CONFIG), &text)?,
        None => GenerationConfig::default(),
    };
    for field in &generation.ignored {
        tracing::warn!(field, "generation_config.json has unsupported settings");
    }
    let preparation = match &config.vision {
        Some(vision) => processor_config::check(&files, vision)?,
        None => PreparationFields::default(),
    };
    let eos_token_ids = match generation.eos_token_ids.as_slice() {
        [] => &config.eos_token_ids,
        named => named,
    };
    let eos_token_ids = eos_token_ids.iter().copied().map(TokenId).collect();
    Ok(ModelSource {
        name,
        files,
        load_format,
        sampling: generation.sampling,
        eos_token_ids,
        thinking: Thinking::Never,
        tool_format: ToolFormat::Pythonic,
        preparation,
        config,
    })
}

/// Creates the error for a directory without a checkpoint, which is probably next to or below it.
fn no_checkpoint(files: &ModelFiles) -> Error {
    let dir = files.path("");
    if let Some(what) = adapter(&dir) {
        return Error::NotFound(what);
    }
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.join("config.json").is_file())
        .collect();
    below.sort();
    let hint = match below.first() {
        Some(path) => format!("did you mean {}?", path.display()),
        None => "name the directory that holds config.json, tokenizer.json and the safetensors"
            .to_owned(),
    };
    let dir = dir.display().to_string();
    Error::NotFound(format!(
        "{} has no config.json: {hint}",
        dir.trim_end_matches('/')
    ))
}

/// Returns what to do with a directory that holds an adapter.
fn adapter(dir: &Path) -> Option<String> {
    let path = dir.join(ADAPTER_CONFIG);
    let text = files::read(&path, MAX_CONFIG_BYTES).ok()??;
    let config = files::json(&path, &text).unwrap_or_default();
    let base = match config["base_model_name_or_path"].as_str() {
        Some(base) => shown(base),
        None => "its base model".to_owned(),
    };
    let dir = dir.display().to_string();
    Some(format!(
        "{} holds an adapter ({ADAPTER_CONFIG}), not a whole model: merge it into {base} (with peft: \
         merge_and_unload, then save_pretrained), put {base}'s tokenizer files beside the result, \
         and serve that directory",
        dir.trim_end_matches('/')
    ))
}

/// A named architecture with dummy weights and the demo's tokenizer, whose control tokens apply.
fn dummy(name: &str, model: &HubModel) -> Result<ModelSource> {
    tracing::warn!(
        model = name,
        "random weights and the demo's small tokenizer: for benchmarks only, the output is noise"
    );
    let demo = from_files(name.to_owned(), ModelFiles::Demo, LoadFormat::Dummy)?;
    Ok(ModelSource {
        config: ModelConfig {
            eos_token_ids: demo.config.eos_token_ids,
            image_token_id: model.config.image_token_id.and(demo.config.image_token_id),
            ..model.config.clone()
        },
        sampling: model.sampling,
        ..demo
    })
}

fn unknown(wanted: &str, catalog: &Catalog) -> Error {
    let path = Path::new(wanted);
    if path.is_file() {
        return Error::NotFound(format!(
            "{wanted} is a file; name the directory that holds config.json, tokenizer.json and \
             the safetensors"
        ));
    }
    if path.is_absolute() || wanted.starts_with('.') || wanted.starts_with('~') {
        return Error::NotFound(format!("there is no directory {wanted}"));
    }
    let names: Vec<&str> = catalog.models().map(|(name, _)| name).collect();
    let nearest = catalog
        .nearest(wanted)
        .map_or(String::new(), |name| format!(" Did you mean {name}?"));
    let what = "is neither a model of the catalogue, nor a local directory, nor an id of the hub \
                (owner/name)";
    Error::NotFound(format!(
        "{wanted} {what}.{nearest} {} knows: {}",
        catalog.file().display(),
        names.join(", ")
    ))
}
