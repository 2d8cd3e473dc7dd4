//! Finds and loads a model by name.
//!
//! ```text
//! name or directory ─ source ─▶ files + config ─ memory ─▶ limits ─ load ─▶ ServedModel
//!          catalog (models.toml)   generation_config, processor_config
//! ```
//!
//! Determines how a model is found and the order of loading. Knows nothing of requests.

mod available_memory;
mod catalog;
mod generation_config;
mod hub;
mod kernels;
mod kv_plan;
mod listing;
mod load;
mod load_progress;
mod memory;
mod model_files;
mod processor_config;
mod pull;
mod request_seeds;
mod served_model;
mod source;
mod toml_document;

pub use available_memory::{available_memory, request_memory};
pub use catalog::{Catalog, CatalogEntry, HubModel};
pub use generation_config::GenerationConfig;
pub use hub::{Removal, RepoId, find_removal};
pub use kernels::compile_kernels;
pub use listing::Listing;
pub use load::{Loaded, load};
pub use memory::{LeastMemory, MemoryPlan, least_memory, plan};
pub use model_files::ModelFiles;
pub use processor_config::check_processor_config;
pub use pull::{Pulled, pull, removal};
pub use request_seeds::RequestSeeds;
pub use served_model::{ImageSupport, SamplingDefaults, ServedModel, ThinkingSupport};
pub use source::{ModelSource, resolve};

/// Entry point of `medgemma grammar-worker`, which forks processes for grammars.
pub use crate::text::run_fork_server as run_grammar_processes;
/// Entry point of `medgemma template-worker`, which renders one chat template.
pub use crate::text::run_template_worker as run_template_process;
