//! Options of `medgemma pull`, `models` and `rm`, which manage the cache.

use std::path::PathBuf;

use clap::Args;

use super::counts::at_least_one;
use super::hub::{CacheArguments, HubArguments, Variables};
use super::{DtypeChoice, HubConfig, Limits, ProgressOutput, ReportFormat};

/// A model to download.
#[derive(Clone, Debug)]
pub struct PullConfig {
    /// A registry name or a hub id.
    pub model: String,
    /// A catalogue in place of the built-in one.
    pub models_file: Option<PathBuf>,
    /// The hub, its cache and credentials.
    pub hub: HubConfig,
}

/// How models are listed.
#[derive(Clone, Debug)]
pub struct ModelsConfig {
    /// A catalogue in place of the built-in one.
    pub models_file: Option<PathBuf>,
    /// The folder of all models.
    pub cache: PathBuf,
    /// Settings of the memory estimate, as for `serve`; no length means a typical one.
    pub limits: Limits,
    /// The numbers that are computed with.
    pub dtype: DtypeChoice,
    /// For people or for machines.
    pub format: ReportFormat,
}

/// A model to remove.
#[derive(Clone, Debug)]
pub struct RmConfig {
    /// A registry name or a hub id.
    pub model: String,
    /// A catalogue in place of the built-in one.
    pub models_file: Option<PathBuf>,
    /// The folder of all models.
    pub cache: PathBuf,
    /// Only this version; `None` is all of it.
    pub revision: Option<String>,
    /// Whether a person is asked first.
    pub consent: Consent,
}

/// Whether a person is asked before something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// If there is one: on a terminal.
    Ask,
    /// It was given.
    Given,
}

#[derive(Args, Debug)]
pub(super) struct PullArguments {
    /// What to download: a name that `medgemma models` lists, or a hub id such as
    /// google/medgemma-4b-it
    #[arg(value_name = "MODEL")]
    model: String,

    #[command(flatten)]
    hub: HubArguments,

    /// A catalogue of models in place of the built-in models.toml
    #[arg(long, value_name = "FILE", env = "MEDGEMMA_MODELS")]
    models: Option<PathBuf>,
}

impl PullArguments {
    pub(super) fn resolve(self, variables: &Variables<'_>) -> PullConfig {
        PullConfig {
            model: self.model,
            models_file: self.models,
            hub: self.hub.resolve(variables, ProgressOutput::Stderr),
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct ModelsArguments {
    /// Sequence length for the memory estimate, prompt and answer together, in tokens [default:
    /// 8192, or the model's context if that is less]
    #[arg(
        long,
        value_name = "TOKENS",
        env = "MEDGEMMA_MAX_MODEL_LEN",
        value_parser = at_least_one
    )]
    max_model_len: Option<usize>,

    /// Number type for the memory estimate: auto or bf16 (on a GPU), or f32 (on the CPU)
    #[arg(
        long,
        env = "MEDGEMMA_DTYPE",
        default_value = "auto",
        value_parser = str::parse::<DtypeChoice>
    )]
    dtype: DtypeChoice,

    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    cache: CacheArguments,

    /// A catalogue of models in place of the built-in models.toml
    #[arg(long, value_name = "FILE", env = "MEDGEMMA_MODELS")]
    models: Option<PathBuf>,
}

impl ModelsArguments {
    /// `limits` are those of a server.
    pub(super) fn resolve(self, variables: &Variables<'_>, limits: Limits) -> ModelsConfig {
        ModelsConfig {
            models_file: self.models,
            cache: self.cache.resolve(variables),
            limits: Limits {
                max_model_len: self.max_model_len,
                ..limits
            },
            dtype: self.dtype,
            format: match self.json {
                true => ReportFormat::Json,
                false => ReportFormat::Text,
            },
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct RmArguments {
    /// What to remove from the cache: a name that `medgemma models` lists, or a hub id
    #[arg(value_name = "MODEL")]
    model: String,

    /// Remove only this version: a branch, a tag or a commit
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,

    /// Do not ask for confirmation; without a terminal there is none
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    cache: CacheArguments,

    /// A catalogue of models in place of the built-in models.toml
    #[arg(long, value_name = "FILE", env = "MEDGEMMA_MODELS")]
    models: Option<PathBuf>,
}

impl RmArguments {
    pub(super) fn resolve(self, variables: &Variables<'_>) -> RmConfig {
        RmConfig {
            model: self.model,
            models_file: self.models,
            cache: self.cache.resolve(variables),
            revision: self.revision,
            consent: match self.yes {
                true => Consent::Given,
                false => Consent::Ask,
            },
        }
    }
}
