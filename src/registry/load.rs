//! Loads a checkpoint and starts its engine.
//!
//! The order is: small files first, then the memory estimate, then the weights.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{JoinHandle, available_parallelism};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::available_memory::available_memory;
use super::load_progress::LoadProgress;
use super::memory::{self, MemoryPlan};
use super::model_files::ModelFiles;
use super::request_seeds::RequestSeeds;
use super::served_model::{ImageSupport, ServedModel, ThinkingSupport};
use super::source::{ModelSource, resolve};
use crate::backend::{self, Backend, BackendUser, Processor};
use crate::config::{ByteSize, ServeConfig};
use crate::core::{Thinking, TokenId};
use crate::engine::{
    self, EngineConfig, EngineHandle, EngineLimits, EngineThread, Runner, Stepping,
};
use crate::error::{Error, Result};
use crate::files::{damaged, shown};
use crate::image::{ImageLimits, ImageProcessor};
use crate::model::config::VisionConfig;
use crate::model::expected_tensors;
use crate::model::tensor_names::EMBEDDING;
use crate::model::weights::Weights;
use crate::model::{Model, WarmUpImages};
use crate::scheduler::SchedulerConfig;
use crate::text::{
    ChatTemplate, GrammarLimits, GrammarVocabulary, Grammars, ImageTokens, NamedTokens,
    ReasoningMarkers, Tokenizer,
};

/// Maximum number of unexpected tensors that the log names; the rest are counted.
const MAX_NAMED_TENSORS: usize = 8;

/// Number of tokens of the step that checks that the model's outputs are finite. Few, since each
/// costs a CPU the time of a token.
pub(super) const WARM_UP_TOKENS: usize = 4;

/// A model and the thread that runs its engine.
#[derive(Debug)]
pub struct Loaded {
    /// The model for the HTTP side.
    pub model: ServedModel,
    /// The engine's thread; it ends after a drain, or because of a fault.
    pub engine: EngineThread,
    /// Processor that computes the model.
    pub processor: Processor,
}

/// Finds and loads the model that the settings name. Blocks the thread for seconds to minutes.
///
/// # Errors
/// Returns `Config`, `Checkpoint`, `Tokenizer`, `Template` or `OutOfMemory`, each with what to do
/// or with the file and tensor that caused it.
pub fn load(settings: &ServeConfig) -> Result<Loaded> {
    let started = Instant::now();
    let mut source = resolve(settings)?;
    let tokenizer = Arc::new(tokenizer(&source.files)?);
    let named_tokens = named_tokens(&source.files, &tokenizer)?;
    let template = template(&source.files, settings, &named_tokens, &tokenizer)?;
    if template.is_none() {
        tracing::warn!("the checkpoint has no chat template: it only continues text");
    }
    let thinking = thinking(&source, &tokenizer)?;
    let device = backend::open(&settings.compute)?;
    device
        .check_shape(&source.config.shape())
        .map_err(|message| Error::Checkpoint {
            file: source.files.path("config.json"),
            message,
        })?;
    let images = match &source.config.vision {
        Some(vision) => Some(image_support(settings, &source, vision, &tokenizer)?),
        None => None,
    };

    let weights = source.weights()?;
    // Number of rows of the embedding, which a text-only checkpoint's config may lack.
    if let Some(&[rows, _]) = weights.shape(EMBEDDING).as_deref()
        && rows > 0
    {
        source.config.text.vocab_size = rows;
    }
    expected_tensors::check(&source.config, &weights)?;
    check_token_ids(&source, &tokenizer)?;
    let grammars = start_grammars(settings, &source, &tokenizer);
    let gpu_share = settings.compute.gpu_memory_utilization;
    let memory = device.memory(gpu_share, available_memory())?;
    let mut weight_bytes = weights.num_bytes(source.config.num_parameters());
    if device.processor() == Processor::Cpu {
        weight_bytes += weights.num_f16_bytes();
    }
    let mut plan = memory::plan(
        &source.name,
        &source.config,
        weight_bytes,
        &settings.limits,
        memory,
    )?;
    plan.scheduler.prefix_caching = settings.prefix_caching;
    match memory.available.map(ByteSize) {
        Some(available) => tracing::info!(model = source.name, %available, "memory: {plan}"),
        None => tracing::info!(model = source.name, "memory: {plan}"),
    }
    let processor = device.processor();
    let start = Start {
        settings,
        source: &source,
        processor,
        // If the CPU is the device, planning ahead would only make new requests wait a step longer.
        stepping: if device.is_asynchronous() {
            Stepping::Ahead
        } else {
            Stepping::Alternating
        },
        weights,
        plan: &plan,
    };
    let shape = source.config.shape();
    let (engine, thread) = device.start(&shape, &plan.step_limits(), start)?;
    tracing::info!(
        model = source.name,
        max_model_len = plan.scheduler.max_model_len,
        max_num_seqs = plan.scheduler.max_num_seqs,
        max_num_batched_tokens = plan.scheduler.max_num_batched_tokens,
        kv_blocks = plan.scheduler.describe_blocks(),
        seconds = (started.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        "loaded"
    );
    let names = match settings.served_model_names.as_slice() {
        [] => vec![source.name],
        names => names.to_vec(),
    };
    let vocab_size = source.config.text.vocab_size;
    let grammars = grammars
        .join()
        .map_err(|_| Error::Config("preparing grammars failed".to_owned()))??;
    let model = ServedModel {
        grammars: Arc::new(grammars),
        names,
        created: unix_seconds(),
        engine,
        tokenizer,
        template,
        named_tokens,
        images,
        max_model_len: plan.scheduler.max_model_len,
        vocab_size,
        sampling_defaults: source.sampling,
        seeds: RequestSeeds::new(settings.request_defaults.seed),
        thinking,
        tool_format: source.tool_format,
        roles: settings.roles,
        eos_token_ids: source.eos_token_ids,
    };
    Ok(Loaded {
        model,
        engine: thread,
        processor,
    })
}

/// Starts preparing grammars, in parallel with loading.
fn start_grammars(
    settings: &ServeConfig,
    source: &ModelSource,
    tokenizer: &Arc<Tokenizer>,
) -> JoinHandle<Result<Grammars>> {
    let program = settings.program.clone();
    let tokenizer = Arc::clone(tokenizer);
    let vocab_size = source.config.text.vocab_size;
    let stop_ids = source.eos_token_ids.clone();
    std::thread::spawn(move || {
        let vocabulary = GrammarVocabulary::new(&tokenizer, vocab_size, stop_ids);
        Grammars::in_processes(&program, vocabulary, grammar_limits())
    })
}

/// Returns how many grammars may be processed at a time.
fn grammar_limits() -> GrammarLimits {
    /// Approximate maximum memory of a grammar's process.
    const PROCESS_BYTES: u64 = 192 << 20;
    let num_cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let memory = super::available_memory().unwrap_or(u64::MAX);
    let most = usize::try_from(memory / 2 / PROCESS_BYTES).unwrap_or(usize::MAX);
    GrammarLimits {
        max_processes: most.clamp(8, 64),
        // At least half of the cores are left for other work.
        num_turns: (num_cores / 2).max(1),
    }
}

/// Inputs for starting a model on any backend.
struct Start<'a> {
    settings: &'a ServeConfig,
    source: &'a ModelSource,
    processor: Processor,
    stepping: Stepping,
    weights: Weights,
    plan: &'a MemoryPlan,
}

impl BackendUser for Start<'_> {
    type Output = (EngineHandle, EngineThread);

    /// Loads the weights and starts the threads that compute with them.
    fn with<B: Backend + 'static>(self, backend: B) -> Result<Self::Output> {
        let Self {
            settings,
            source,
            processor,
            stepping,
            weights,
            plan,
        } = self;
        let progress = LoadProgress::new(plan.weights);
        let weights = weights.watched(move |bytes| progress.advance(bytes));
        // The host reads every number to convert it, so it can check them. A GPU is loaded by
        // copies without reading the numbers, but it encodes an image very fast.
        let (weights, images) = match processor {
            Processor::Cpu => (weights.checked(), WarmUpImages::None),
            Processor::Gpu => (weights, WarmUpImages::One),
        };
        let model = Model::load(backend, &source.config, &weights)?;
        warn_of_unexpected(&weights);
        warn_of_rounding(&weights, processor);
        let blocks = plan.scheduler.num_blocks;
        let encoder_cache = usize::try_from(plan.features).unwrap_or(usize::MAX);
        let mut runner = Runner::new(model, blocks)?.with_encoder_cache(encoder_cache);
        let num_tokens = WARM_UP_TOKENS.min(plan.scheduler.max_num_batched_tokens);
        if !runner.computes_finite_numbers(num_tokens, images)? {
            return Err(not_finite(source, &weights));
        }
        drop(weights);
        if let Some(memory) = runner.model().backend().memory() {
            tracing::info!(model = source.name, "memory of the GPU: {memory}");
        }
        let config = EngineConfig {
            limits: EngineLimits {
                max_queued_per_tenant: settings.key_limits.max_waiting,
                ..engine_limits(plan.scheduler, settings.limits.max_queued_requests)
            },
            stepping,
            step_timeout: settings.timeouts.step,
            shutdown_timeout: settings.timeouts.shutdown,
        };
        engine::start(runner, config)
    }
}

/// Creates the error for a checkpoint whose outputs are not finite.
fn not_finite(source: &ModelSource, weights: &Weights) -> Error {
    match weights.check_numbers() {
        Err(error) => error,
        Ok(()) => Error::Checkpoint {
            file: source.files.path("config.json"),
            message: "what the model computes is not finite (NaN or infinity), though all of its \
                      weights are: they and config.json do not belong together, or the device is \
                      damaged (medgemma selftest)"
                .to_owned(),
        },
    }
}

/// Limits for requests in flight: the running ones, and a queue of useful length.
fn engine_limits(scheduler: SchedulerConfig, max_queued: Option<usize>) -> EngineLimits {
    const LEAST_QUEUED: usize = 256;
    /// Maximum size of the waiting prompts, in multiples of the largest step.
    const QUEUED_STEPS: usize = 256;
    let running = scheduler.max_num_seqs;
    let max_queued = max_queued.unwrap_or(running.saturating_mul(4).max(LEAST_QUEUED));
    let queued_tokens = scheduler
        .max_num_batched_tokens
        .saturating_mul(QUEUED_STEPS);
    EngineLimits {
        max_in_flight: running.saturating_add(max_queued),
        max_queued_tokens: queued_tokens.max(scheduler.max_model_len.saturating_mul(4)),
        max_queued_per_tenant: None,
        scheduler,
    }
}

fn tokenizer(files: &ModelFiles) -> Result<Tokenizer> {
    const TOKENIZER: &str = "tokenizer.json";
    match files {
        ModelFiles::Directory(dir) => Tokenizer::from_file(&dir.join(TOKENIZER)),
        ModelFiles::Demo => Tokenizer::from_bytes(&files.require(TOKENIZER)?),
    }
}

/// Checks for token ids without a row in the embedding: text must not produce one, and no answer
/// may end with one. Control tokens may lack a row (a text-only checkpoint may have one for images,
/// which it cannot see); requests that contain them are refused individually.
fn check_token_ids(source: &ModelSource, tokenizer: &Tokenizer) -> Result<()> {
    let rows = source.config.text.vocab_size;
    let refused = |file, message| {
        Err(Error::Checkpoint {
            file: source.files.path(file),
            message,
        })
    };
    let control = tokenizer.control_tokens().tokens();
    for id in (rows..tokenizer.vocab_size()).map(|id| TokenId(id as u32)) {
        if let Some(token) = tokenizer.vocabulary_entry(id)
            && control.iter().all(|control| control.id != id)
        {
            return refused(
                "tokenizer.json",
                format!(
                    "token {:?} has the id {}, but the embedding has {rows} rows: they belong to \
                     different checkpoints",
                    shown(&token),
                    id.0
                ),
            );
        }
    }
    match source.eos_token_ids.iter().find(|id| id.0 as usize >= rows) {
        Some(id) => {
            let of_config = source.config.eos_token_ids.contains(&id.0);
            let file = if of_config {
                "config.json"
            } else {
                "generation_config.json"
            };
            refused(
                file,
                format!(
                    "eos_token_id is {}, but the embedding has {rows} rows",
                    id.0
                ),
            )
        }
        None => Ok(()),
    }
}

/// Returns how the model thinks, if it does.
fn thinking(source: &ModelSource, tokenizer: &Tokenizer) -> Result<Option<ThinkingSupport>> {
    Ok(match source.thinking {
        Thinking::Never => None,
        when => Some(ThinkingSupport {
            when,
            markers: ReasoningMarkers::new(tokenizer)
                .map_err(|error| damaged(&source.files.path("tokenizer.json"), error))?,
        }),
    })
}

/// Returns the operator's template, or else the checkpoint's own.
fn template(
    files: &ModelFiles,
    settings: &ServeConfig,
    tokens: &NamedTokens,
    tokenizer: &Tokenizer,
) -> Result<Option<ChatTemplate>> {
    if let Some(given) = &settings.chat_template {
        return ChatTemplate::from_flag(given, tokens, tokenizer, &settings.program).map(Some);
    }
    match files {
        ModelFiles::Directory(dir) => ChatTemplate::from_dir(dir, tokenizer, &settings.program),
        ModelFiles::Demo => {
            let config = demos_tokenizer_config(files)?;
            let source = config["chat_template"].as_str();
            let source = source.expect("the program's own files are complete");
            ChatTemplate::new(source, tokens, tokenizer, &settings.program).map(Some)
        }
    }
}

/// Returns the tokens that the checkpoint names.
fn named_tokens(files: &ModelFiles, tokenizer: &Tokenizer) -> Result<NamedTokens> {
    let config = match files {
        ModelFiles::Directory(dir) => return NamedTokens::from_dir(dir, tokenizer),
        ModelFiles::Demo => demos_tokenizer_config(files)?,
    };
    let fields = config.as_object().into_iter().flatten();
    let tokens = fields
        .filter(|(name, _)| name.ends_with("_token"))
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    Ok(NamedTokens(tokens.collect()))
}

fn demos_tokenizer_config(files: &ModelFiles) -> Result<Value> {
    let bytes = files.require("tokenizer_config.json")?;
    Ok(serde_json::from_slice(&bytes).expect("the program's own files are valid"))
}

fn image_support(
    settings: &ServeConfig,
    source: &ModelSource,
    vision: &VisionConfig,
    tokenizer: &Tokenizer,
) -> Result<ImageSupport> {
    let tokens = ImageTokens::new(tokenizer, vision.mm_tokens_per_image)
        .map_err(|error| damaged(&source.files.path("tokenizer.json"), error))?;
    let preparation = settings.preparation.clone().or(&source.preparation);
    preparation
        .check_size(vision.image_size)
        .map_err(|error| Error::Config(format!("--mm-processor-kwargs: {error}")))?;
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
                resize: preparation.clone().resolve().fit,
                limits: ImageLimits {
                    max_bytes: usize::try_from(settings.max_file_bytes.0).unwrap_or(usize::MAX),
                    max_pixels: settings.max_image_pixels,
                    ..ImageLimits::default()
                },
            },
            preparation,
            tokens,
            max_per_prompt: settings.request_defaults.max_images,
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
    let named = unexpected.iter().take(MAX_NAMED_TENSORS);
    let named: Vec<String> = named.map(|name| shown(name)).collect();
    tracing::warn!(
        "the checkpoint has tensors that the architecture does not use: {}{more}",
        named.join(", ")
    );
}

/// Says once what becomes of F16 weights that bf16 does not hold exactly.
fn warn_of_rounding(weights: &Weights, processor: Processor) {
    if weights.num_finer_than_bf16() == 0 {
        return;
    }
    let fate = match processor {
        Processor::Cpu => "they are kept in f32, which takes twice the memory",
        Processor::Gpu => "they are rounded to bf16, as in vLLM",
    };
    tracing::warn!("the checkpoint's F16 weights have numbers finer than bf16's: {fate}");
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
