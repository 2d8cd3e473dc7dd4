//! From a checkpoint that was found to a model that answers.
//!
//! Owns the order of loading: small files first, then the forecast of memory, then the weights.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::memory;
use super::model_files::ModelFiles;
use super::served_model::{ImageSupport, ServedModel};
use super::source::{ModelSource, resolve};
use crate::backend::cpu::CpuBackend;
use crate::config::{ByteSize, ServeConfig};
use crate::engine::{self, EngineThread, Runner};
use crate::error::{Error, Result};
use crate::image::{ImageLimits, ImageProcessor, Resize};
use crate::model::Model;
use crate::model::config::VisionConfig;
use crate::model::tensor_names::EMBEDDING;
use crate::model::weights::Weights;
use crate::text::{ChatTemplate, ImageTokens, NamedTokens, Tokenizer};

/// Unexpected tensors that the log names; the rest are counted.
const MAX_NAMED_TENSORS: usize = 8;

/// A model and the thread that computes it.
#[derive(Debug)]
pub struct Loaded {
    /// What the HTTP side serves.
    pub model: ServedModel,
    /// Ends when the engine was drained, or by a fault.
    pub engine: EngineThread,
}

/// Finds and loads the model that the settings name. Takes seconds to minutes of a thread.
///
/// # Errors
/// `Config`, `Checkpoint`, `Tokenizer`, `Template` and `OutOfMemory`, each with what to do or
/// which file and tensor is at fault.
pub fn load(settings: &ServeConfig) -> Result<Loaded> {
    let started = Instant::now();
    let mut source = resolve(settings)?;
    let tokenizer = Arc::new(tokenizer(&source.files)?);
    let template = template(&source.files, settings, &tokenizer)?;
    if template.is_none() {
        tracing::warn!("the checkpoint has no chat template: it only continues text");
    }
    check_shapes(&source)?;
    let images = match &source.config.vision {
        Some(vision) => Some(image_support(&source, vision, &tokenizer)?),
        None => None,
    };

    let weights = source.weights()?;
    // The embedding's rows, which the config of a text-only checkpoint may not know.
    if let Some(&[rows, _]) = weights.shape(EMBEDDING).as_deref()
        && rows > 0
    {
        source.config.text.vocab_size = rows;
    }
    let available = memory::available_memory();
    let plan = memory::plan(
        &source.name,
        &source.config,
        weights.num_bytes(source.config.num_parameters()),
        &settings.limits,
        available,
    )?;
    match available {
        Some(available) => {
            tracing::info!(model = source.name, available = %ByteSize(available), "memory: {plan}");
        }
        None => tracing::info!(model = source.name, "memory: {plan}"),
    }

    let model = Model::load(CpuBackend, &source.config, &weights)?;
    warn_of_unexpected(&weights);
    drop(weights);
    let blocks = plan.scheduler.num_blocks;
    let runner = Runner::new(model, blocks.global, blocks.sliding)?;
    let max_in_flight = max_in_flight(plan.scheduler.max_num_seqs);
    let (engine, thread) = engine::start(runner, plan.scheduler, max_in_flight)?;
    tracing::info!(
        model = source.name,
        max_model_len = plan.scheduler.max_model_len,
        max_num_seqs = plan.scheduler.max_num_seqs,
        max_num_batched_tokens = plan.scheduler.max_num_batched_tokens,
        kv_blocks_global = blocks.global,
        kv_blocks_sliding = blocks.sliding,
        seconds = started.elapsed().as_secs_f32(),
        "loaded"
    );
    let names = match settings.served_model_names.as_slice() {
        [] => vec![source.name],
        names => names.to_vec(),
    };
    let model = ServedModel {
        names,
        created: unix_seconds(),
        engine,
        tokenizer,
        template,
        images,
        max_model_len: plan.scheduler.max_model_len,
        vocab_size: source.config.text.vocab_size,
        sampling_defaults: source.sampling,
        eos_token_ids: source.eos_token_ids,
    };
    Ok(Loaded {
        model,
        engine: thread,
    })
}

/// Requests that may be in the house: those that run, and a queue that is worth waiting in.
fn max_in_flight(max_num_seqs: usize) -> usize {
    const LEAST: usize = 256;
    max_num_seqs.saturating_mul(4).max(LEAST)
}

/// What the architecture allows and the CPU's kernels do not.
fn check_shapes(source: &ModelSource) -> Result<()> {
    const STEP: usize = 16;
    let head_dim = source.config.text.head_dim;
    if head_dim.is_multiple_of(STEP) {
        return Ok(());
    }
    Err(Error::Checkpoint {
        file: source.files.path("config.json"),
        message: format!("head_dim is {head_dim}; on the CPU it must be a multiple of {STEP}"),
    })
}

fn tokenizer(files: &ModelFiles) -> Result<Tokenizer> {
    const TOKENIZER: &str = "tokenizer.json";
    match files {
        ModelFiles::Directory(dir) => Tokenizer::from_file(&dir.join(TOKENIZER)),
        ModelFiles::Demo => Tokenizer::from_bytes(&files.require(TOKENIZER)?),
    }
}

/// The operator's template, else the checkpoint's own.
fn template(
    files: &ModelFiles,
    settings: &ServeConfig,
    tokenizer: &Tokenizer,
) -> Result<Option<ChatTemplate>> {
    let given = settings.chat_template.as_deref();
    match files {
        ModelFiles::Directory(dir) => match given {
            Some(given) => {
                ChatTemplate::from_flag(given, &NamedTokens::from_dir(dir)?, tokenizer).map(Some)
            }
            None => ChatTemplate::from_dir(dir, tokenizer),
        },
        ModelFiles::Demo => {
            let config: Value = serde_json::from_slice(&files.require("tokenizer_config.json")?)
                .expect("the program's own files are valid");
            let tokens = named_tokens(&config);
            match given {
                Some(given) => ChatTemplate::from_flag(given, &tokens, tokenizer).map(Some),
                None => {
                    let source = config["chat_template"].as_str();
                    let source = source.expect("the program's own files are complete");
                    ChatTemplate::new(source, &tokens, tokenizer).map(Some)
                }
            }
        }
    }
}

/// The tokens that tokenizer_config.json names.
fn named_tokens(config: &Value) -> NamedTokens {
    let fields = config.as_object().into_iter().flatten();
    let tokens = fields
        .filter(|(name, _)| name.ends_with("_token"))
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    NamedTokens(tokens.collect())
}

fn image_support(
    source: &ModelSource,
    vision: &VisionConfig,
    tokenizer: &Tokenizer,
) -> Result<ImageSupport> {
    let tokens = ImageTokens::new(tokenizer, vision.mm_tokens_per_image)?;
    match source.config.image_token_id {
        Some(id) if id != tokens.soft_token.0 => Err(Error::Checkpoint {
            file: source.files.path("tokenizer.json"),
            message: format!(
                "has <image_soft_token> as {}, but config.json's image_token_index is {id}: they \
                 belong to different checkpoints",
                tokens.soft_token.0
            ),
        }),
        _ => Ok(ImageSupport {
            processor: ImageProcessor {
                size: vision.image_size,
                resize: Resize::default(),
                limits: ImageLimits::default(),
            },
            tokens,
        }),
    }
}

fn warn_of_unexpected(weights: &Weights) {
    let unexpected = weights.unexpected();
    if unexpected.is_empty() {
        return;
    }
    let more = match unexpected.len().saturating_sub(MAX_NAMED_TENSORS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = &unexpected[..unexpected.len().min(MAX_NAMED_TENSORS)];
    tracing::warn!(
        "the checkpoint has tensors that the architecture does not use: {}{more}",
        named.join(", ")
    );
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
