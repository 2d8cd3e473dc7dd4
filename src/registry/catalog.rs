//! The catalogue of named models, models.toml.
//!
//! Holds what is known about a checkpoint before any of its files is available. Knows nothing of
//! where files are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::generation_config::sampling_defaults;
use super::{SamplingDefaults, toml_document};
use crate::core::{PreparationFields, Thinking, ToolFormat};
use crate::error::{Error, Result};
use crate::files::json_fields::Fields;
use crate::model::config::{DEFAULT_IMAGE_TOKEN_ID, ModelConfig, TextConfig, VisionConfig};

const BUILT_IN: &str = include_str!("../../models.toml");
/// Name of the embedded file in messages.
const BUILT_IN_NAME: &str = "models.toml";

/// The catalogue: models by name.
#[derive(Clone, Debug)]
pub struct Catalog {
    file: PathBuf,
    models: BTreeMap<String, CatalogEntry>,
}

/// Entry of a named model.
#[derive(Clone, Debug, PartialEq)]
pub enum CatalogEntry {
    /// A model whose files are part of the program.
    BuiltIn {
        /// Whether it thinks before it answers.
        thinking: Thinking,
    },
    /// A model whose files are on the hub.
    Hub(Box<HubModel>),
}

/// A checkpoint on the hub.
#[derive(Clone, Debug, PartialEq)]
pub struct HubModel {
    /// Repository id, `owner/name`.
    pub hub: String,
    /// Contents of its config.json.
    pub config: ModelConfig,
    /// Whether it thinks before it answers.
    pub thinking: Thinking,
    /// Format in which it writes tool calls.
    pub tool_format: ToolFormat,
    /// Sampling defaults from its generation_config.json.
    pub sampling: SamplingDefaults,
    /// How images are prepared unless the settings or a request say otherwise.
    pub preparation: PreparationFields,
}

impl Catalog {
    /// Opens the embedded catalogue, or the one in `file` instead.
    ///
    /// # Errors
    /// Returns `NotFound` when it cannot be read; `Checkpoint` with the invalid line.
    pub fn open(file: Option<&Path>) -> Result<Self> {
        match file {
            None => Self::parse(Path::new(BUILT_IN_NAME), BUILT_IN),
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    let file = file.display();
                    Error::NotFound(format!("{file}: cannot be read: {error}"))
                })?;
                Self::parse(file, &text)
            }
        }
    }

    /// Parses a catalogue; `file` is named in errors.
    ///
    /// # Errors
    /// Returns `Checkpoint` with the invalid line.
    pub fn parse(file: &Path, text: &str) -> Result<Self> {
        let (value, lines) = toml_document::parse(file, text)?;
        let root = Fields::new(file, &value)?.with_lines(lines);
        let sections = Sections::read(&root)?;
        let models = each(&root, "models", |name, model| {
            if name.contains('/') {
                return Err(model.error("hub", "belongs in the section; a name has no slash"));
            }
            sections.entry(model)
        })?;
        root.refuse_unasked()?;
        Ok(Self {
            file: file.to_owned(),
            models,
        })
    }

    /// Returns the model with this name or hub id.
    pub fn get(&self, name: &str) -> Option<(&str, &CatalogEntry)> {
        self.models
            .iter()
            .find(|(own, entry)| {
                *own == name || matches!(entry, CatalogEntry::Hub(model) if model.hub == name)
            })
            .map(|(own, entry)| (own.as_str(), entry))
    }

    /// Returns all models, by name.
    pub fn models(&self) -> impl Iterator<Item = (&str, &CatalogEntry)> {
        self.models
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }

    /// Returns the file of the catalogue.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the known name most similar to `name`, if it is similar enough.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let wanted = name.rsplit('/').next().unwrap_or(name).to_lowercase();
        let distance = |known: &str| strsim::levenshtein(&wanted, known);
        let (nearest, distance) = self
            .models
            .keys()
            .map(|known| (known, distance(known)))
            .min_by_key(|(_, distance)| *distance)?;
        // Up to a third of the letters may be wrong.
        (distance * 3 <= nearest.len()).then_some(nearest)
    }
}

/// The shared sections that models refer to.
struct Sections {
    text: BTreeMap<String, TextConfig>,
    vision: BTreeMap<String, VisionConfig>,
    sampling: BTreeMap<String, SamplingDefaults>,
}

impl Sections {
    fn read(root: &Fields<'_>) -> Result<Self> {
        Ok(Self {
            text: each(root, "text", |_, fields| TextConfig::from_fields(fields))?,
            vision: each(root, "vision", |_, fields| {
                VisionConfig::from_fields(fields, fields)
            })?,
            sampling: each(root, "sampling", |_, fields| sampling_defaults(fields))?,
        })
    }

    fn entry(&self, model: &Fields<'_>) -> Result<CatalogEntry> {
        let hub = model.text("hub")?;
        if model.flag("built_in")? == Some(true) {
            return match hub {
                None => Ok(CatalogEntry::BuiltIn {
                    thinking: thinking(model)?,
                }),
                Some(_) => Err(model.error("hub", "contradicts built_in")),
            };
        }
        let Some(hub) = hub else {
            return Err(model.error("hub", "is missing"));
        };
        if hub.split('/').count() != 2 || hub.split('/').any(str::is_empty) {
            return Err(model.error("hub", format_args!("is \"{hub}\"; it must be owner/name")));
        }
        let mut text = refer(model, "text", &self.text)?
            .ok_or_else(|| model.error("text", "is missing"))?
            .clone();
        text.vocab_size = model.count("vocab_size", Some(text.vocab_size), 1 << 24)?;
        let vision = refer(model, "vision", &self.vision)?.cloned();
        let tool_format = match model.text("tool_format")? {
            None | Some("pythonic") => ToolFormat::Pythonic,
            Some("json") => ToolFormat::Json,
            Some(other) => {
                return Err(model.error(
                    "tool_format",
                    format_args!("is \"{other}\"; it must be \"pythonic\" or \"json\""),
                ));
            }
        };
        let sampling = *refer(model, "sampling", &self.sampling)?
            .ok_or_else(|| model.error("sampling", "is missing"))?;
        Ok(CatalogEntry::Hub(Box::new(HubModel {
            hub: hub.to_owned(),
            config: ModelConfig {
                text,
                image_token_id: vision.as_ref().map(|_| DEFAULT_IMAGE_TOKEN_ID),
                vision,
                eos_token_ids: vec![1, 106],
                tie_word_embeddings: true,
            },
            thinking: thinking(model)?,
            tool_format,
            sampling,
            preparation: preparation(model)?,
        })))
    }
}

fn preparation(model: &Fields<'_>) -> Result<PreparationFields> {
    let Some(section) = model.section("preparation")? else {
        return Ok(PreparationFields::default());
    };
    let settings = section.names().filter_map(|name| {
        let value = section.raw(name)?.clone();
        Some((name.to_owned(), value))
    });
    PreparationFields::read(&settings.collect())
        .map_err(|error| section.error(&error.name, error.message))
}

fn thinking(model: &Fields<'_>) -> Result<Thinking> {
    match model.text("thinking")? {
        Some("never") => Ok(Thinking::Never),
        Some("on_request") => Ok(Thinking::OnRequest),
        Some("unasked") => Ok(Thinking::Unasked),
        other => {
            let found = other.map_or("is missing".to_owned(), |t| format!("is \"{t}\""));
            Err(model.error(
                "thinking",
                format_args!("{found}; it must be \"never\", \"on_request\" or \"unasked\""),
            ))
        }
    }
}

/// Reads each section within `name` with `read`.
fn each<T>(
    root: &Fields<'_>,
    name: &str,
    read: impl Fn(&str, &Fields<'_>) -> Result<T>,
) -> Result<BTreeMap<String, T>> {
    let mut sections = BTreeMap::new();
    if let Some(all) = root.section(name)? {
        for name in all.names() {
            let section = all
                .section(name)?
                .ok_or_else(|| all.error(name, "must be a section"))?;
            sections.insert(name.to_owned(), read(name, &section)?);
        }
    }
    Ok(sections)
}

/// Returns the section that the model's field names.
fn refer<'s, T>(
    model: &Fields<'_>,
    field: &str,
    sections: &'s BTreeMap<String, T>,
) -> Result<Option<&'s T>> {
    let Some(name) = model.text(field)? else {
        return Ok(None);
    };
    sections.get(name).map(Some).ok_or_else(|| {
        model.error(
            field,
            format_args!("is \"{name}\", but there is no [{field}.{name}]"),
        )
    })
}
