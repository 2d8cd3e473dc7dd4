//! Lists models in the catalogue or the cache: abilities, memory needs, what is cached.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::catalog::{Catalog, CatalogEntry, HubModel};
use super::hub::{CachedModel, Completeness, HubCache, inventory};
use super::memory::{LeastMemory, least_memory};
use crate::backend::DeviceMemory;
use crate::config::{ByteSize, DtypeChoice, Limits, ModelsConfig};
use crate::core::{Dtype, Thinking};
use crate::error::Result;
use crate::model::config::ModelConfig;

/// Default length for memory estimates: a chat with a few images, or a long report.
const USUAL_LEN: usize = 8192;
/// bf16, as numbers are stored in files and kept in memory.
const WEIGHT_BYTES: u64 = 2;

/// Output of `medgemma models`; its `Display` is a table for people.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// Sequence length for the memory estimates, in tokens; limited by a model's context.
    max_model_len: usize,
    /// Device for the memory estimates: a GPU or the CPU.
    computed_on: ComputedOn,
    cache: CacheEntry,
    models: Vec<ModelEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum ComputedOn {
    Gpu,
    Cpu,
}

#[derive(Clone, Debug, Serialize)]
struct CacheEntry {
    directory: PathBuf,
    /// Total bytes of all models that this program can serve.
    bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
struct ModelEntry {
    /// `None` for a model that is only in the cache.
    name: Option<String>,
    /// `None` for a model that is part of the program.
    hub: Option<String>,
    /// These are unknown for models without a name that are not complete in the cache.
    parameters: Option<u64>,
    context: Option<usize>,
    images: Option<bool>,
    thinking: Option<&'static str>,
    memory: Option<MemoryEntry>,
    cached: CachedEntry,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct MemoryEntry {
    weights: u64,
    workspace: u64,
    kv_cache: u64,
    total: u64,
}

#[derive(Clone, Debug, Serialize)]
struct CachedEntry {
    state: CachedState,
    bytes: u64,
    revisions: Vec<RevisionEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum CachedState {
    BuiltIn,
    Absent,
    Partial,
    Complete,
}

#[derive(Clone, Debug, Serialize)]
struct RevisionEntry {
    commit: String,
    names: Vec<String>,
    directory: PathBuf,
    complete: bool,
}

impl Listing {
    /// Reads the catalogue and the cache.
    ///
    /// # Errors
    /// Returns `Checkpoint` for a catalogue that cannot be read.
    pub fn new(config: &ModelsConfig) -> Result<Self> {
        let catalog = Catalog::open(config.models_file.as_deref())?;
        let computed_on = match config.dtype {
            DtypeChoice::Only(Dtype::F32) => ComputedOn::Cpu,
            DtypeChoice::Auto | DtypeChoice::Only(Dtype::Bf16) => ComputedOn::Gpu,
        };
        let wanted = Wanted {
            limits: config.limits,
            computed_on,
        };
        let mut cached = inventory(&HubCache::new(&config.cache));
        let mut models: Vec<ModelEntry> = catalog
            .models()
            .map(|(name, entry)| match entry {
                CatalogEntry::BuiltIn { thinking } => built_in(name, *thinking),
                CatalogEntry::Hub(model) => {
                    let here = cached.iter().position(|own| own.repo.as_str() == model.hub);
                    let here = here.map(|position| cached.remove(position));
                    wanted.named(name, model, here.as_ref())
                }
            })
            .collect();
        // Other programs' models in the same cache that cannot be served are not listed.
        models.extend(cached.iter().filter_map(|here| wanted.unnamed(here)));
        Ok(Self {
            max_model_len: config.limits.max_model_len.unwrap_or(USUAL_LEN),
            computed_on,
            cache: CacheEntry {
                directory: config.cache.clone(),
                bytes: models.iter().map(|model| model.cached.bytes).sum(),
            },
            models,
        })
    }

    /// Returns one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("its keys are strings")
    }
}

/// Settings of the memory estimates.
struct Wanted {
    limits: Limits,
    computed_on: ComputedOn,
}

impl Wanted {
    fn named(&self, name: &str, model: &HubModel, here: Option<&CachedModel>) -> ModelEntry {
        ModelEntry {
            name: Some(name.to_owned()),
            hub: Some(model.hub.clone()),
            thinking: Some(model.thinking.as_str()),
            ..self.described(&model.config, cached_entry(here))
        }
    }

    /// Returns the entry of a cached model without a name; `None` if it cannot be served.
    fn unnamed(&self, here: &CachedModel) -> Option<ModelEntry> {
        let config = here.revisions.iter().find_map(|revision| {
            let file = revision.dir.join("config.json");
            ModelConfig::from_json(&file, &fs::read(&file).ok()?).ok()
        })?;
        Some(ModelEntry {
            hub: Some(here.repo.to_string()),
            ..self.described(&config, cached_entry(Some(here)))
        })
    }

    fn described(&self, config: &ModelConfig, cached: CachedEntry) -> ModelEntry {
        let context = config.text.max_position_embeddings;
        let weights = WEIGHT_BYTES * config.num_parameters();
        let limits = Limits {
            max_model_len: Some(match self.limits.max_model_len {
                None => USUAL_LEN.min(context),
                Some(wanted) => wanted,
            }),
            ..self.limits
        };
        let device = match self.computed_on {
            ComputedOn::Cpu => DeviceMemory::of_host(None),
            ComputedOn::Gpu => DeviceMemory::of_gpu(u64::MAX),
        };
        // None if the length exceeds the context.
        let memory = least_memory(config, weights, &limits, device).ok();
        ModelEntry {
            name: None,
            hub: None,
            parameters: Some(config.num_parameters()),
            context: Some(context),
            images: Some(config.vision.is_some()),
            thinking: None,
            memory: memory.map(Into::into),
            cached,
        }
    }
}

impl From<LeastMemory> for MemoryEntry {
    fn from(least: LeastMemory) -> Self {
        let LeastMemory {
            weights,
            workspace,
            kv_cache,
        } = least;
        Self {
            weights,
            workspace,
            kv_cache,
            total: least.total(),
        }
    }
}

fn built_in(name: &str, thinking: Thinking) -> ModelEntry {
    ModelEntry {
        name: Some(name.to_owned()),
        hub: None,
        parameters: None,
        context: None,
        images: Some(true),
        thinking: Some(thinking.as_str()),
        memory: None,
        cached: CachedEntry {
            state: CachedState::BuiltIn,
            bytes: 0,
            revisions: Vec::new(),
        },
    }
}

fn cached_entry(here: Option<&CachedModel>) -> CachedEntry {
    let Some(here) = here else {
        return CachedEntry {
            state: CachedState::Absent,
            bytes: 0,
            revisions: Vec::new(),
        };
    };
    let revisions = here.revisions.iter().map(|revision| RevisionEntry {
        commit: revision.commit.as_str().to_owned(),
        names: revision.names.clone(),
        directory: revision.dir.clone(),
        complete: revision.completeness == Completeness::Complete,
    });
    CachedEntry {
        state: match here.completeness {
            Completeness::Complete => CachedState::Complete,
            Completeness::Partial => CachedState::Partial,
        },
        bytes: here.num_bytes,
        revisions: revisions.collect(),
    }
}

impl fmt::Display for Listing {
    /// Writes a table of at most 80 columns, as far as names allow.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = [
            "NAME", "SIZE", "CONTEXT", "IMAGES", "THINKS", "MEMORY", "CACHED",
        ];
        let mut rows = vec![title.map(str::to_owned)];
        rows.extend(self.models.iter().map(ModelEntry::row));
        let mut widths = [0; 7];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        let place = match self.computed_on {
            ComputedOn::Gpu => "of a GPU, in bf16 (--dtype f32: the CPU's)",
            ComputedOn::Cpu => "of the machine, in f32 on the CPU (--dtype bf16: a GPU's)",
        };
        writeln!(f)?;
        writeln!(f, "MEMORY is {place},")?;
        writeln!(
            f,
            "for one request at a time, of up to {} tokens (--max-model-len).",
            self.max_model_len
        )?;
        for line in self.hub_ids() {
            writeln!(f, "{line}")?;
        }
        writeln!(
            f,
            "{} in {}",
            ByteSize(self.cache.bytes),
            self.cache.directory.display()
        )
    }
}

impl Listing {
    /// Returns how names and hub ids correspond: usually only the owner has to be mentioned.
    fn hub_ids(&self) -> Vec<String> {
        let pairs = self.models.iter().filter_map(|model| {
            let (owner, name) = model.hub.as_deref()?.split_once('/')?;
            Some((model.name.as_deref()?, owner, name))
        });
        let mut lines: Vec<String> = Vec::new();
        for (own, owner, name) in pairs {
            let line = if own == name {
                format!("On the hub: {owner}/NAME")
            } else {
                format!("{own} is {owner}/{name}")
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }
}

impl ModelEntry {
    fn row(&self) -> [String; 7] {
        let unknown = || "-".to_owned();
        let name = self.name.as_ref().or(self.hub.as_ref());
        [
            name.cloned().unwrap_or_else(unknown),
            match self.parameters {
                Some(count) => parameters(count),
                None => "tiny".to_owned(),
            },
            self.context.map_or_else(unknown, |len| len.to_string()),
            match self.images {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => unknown(),
            },
            self.thinking.map_or_else(unknown, str::to_owned),
            self.memory
                .map_or_else(unknown, |memory| ByteSize(memory.total).to_string()),
            match self.cached.state {
                CachedState::BuiltIn => "built in".to_owned(),
                CachedState::Absent => unknown(),
                CachedState::Partial => "partly".to_owned(),
                CachedState::Complete => ByteSize(self.cached.bytes).to_string(),
            },
        ]
    }
}

/// Formats a count: 4300079472 as 4.3 B, 268098176 as 268 M.
fn parameters(count: u64) -> String {
    if count < 950_000_000 {
        return format!("{} M", (count + 500_000) / 1_000_000);
    }
    format!("{:.1} B", count as f64 / 1e9)
}
