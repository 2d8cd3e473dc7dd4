//! Defines the options of all commands (clap).
//!
//! Each option of `serve` is also an environment variable, `MEDGEMMA_` and its name, and a key of
//! `--config`'s file; the command line overrides the file, and the file the environment.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand};

use super::api_key::api_key;
use super::batch::RunBatchArguments;
use super::bench::BenchArguments;
use super::cached::{ModelsArguments, PullArguments, RmArguments};
use super::compute::{SelfTestArguments, share};
use super::counts::{SequenceLength, at_least_one};
use super::hub::HubArguments;
use super::kernels::KernelsArguments;
use super::key_limits::KeyLimitArguments;
use super::network::NetworkArguments;
use super::probe::ReadyArguments;
use super::request_defaults::RequestDefaultArguments;
use super::seconds::{Seconds, any_seconds, some_seconds};
use super::setting_names::preparation_fields;
use super::{ApiKey, ByteSize, DeviceChoice, DtypeChoice, LoadFormat, LogFormat, LogLevel};
use crate::core::{ImageFit, PreparationFields, Thinking, ToolFormat};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// MedGemma and Gemma 3 behind an OpenAI-compatible API.
#[derive(Debug, Parser)]
#[command(
    name = "medgemma",
    version,
    styles = STYLES,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "Try: medgemma serve demo"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: CommandArguments,
}

#[derive(Debug, Subcommand)]
pub(super) enum CommandArguments {
    /// Serve a model over HTTP
    #[command(after_long_help = SERVE_EXAMPLES, after_help = "More: medgemma serve --help")]
    Serve(Box<ServeArguments>),
    /// Answer a file of requests, without a server
    #[command(after_long_help = super::batch::EXAMPLES, after_help = "More: medgemma run-batch --help")]
    RunBatch(Box<RunBatchArguments>),
    /// Check whether a server is ready, for a container's health check: exits with 0 if it is
    Ready(ReadyArguments),
    /// Compile the kernels for GPUs ahead of time, for a container image; needs no GPU
    Kernels(KernelsArguments),
    /// Run the fork server for grammar processes (internal)
    #[command(hide = true)]
    GrammarWorker,
    /// Render a chat template: what a server starts for itself
    #[command(hide = true)]
    TemplateWorker,
    /// Measure a model here, or any server over HTTP
    Bench(BenchArguments),
    /// Check that a GPU computes what the CPU does
    Selftest(SelfTestArguments),
    /// Download a model from the hub
    #[command(after_long_help = PULL_EXAMPLES, after_help = "More: medgemma pull --help")]
    Pull(PullArguments),
    /// List the named models, the memory each needs, and which are downloaded
    Models(ModelsArguments),
    /// Remove a downloaded model
    Rm(RmArguments),
}

const SERVE_EXAMPLES: &str = "\
Environment:
  Every option can be set by an environment variable, MEDGEMMA_ and the option's name in capitals:
  MEDGEMMA_PORT=9000, MEDGEMMA_MAX_MODEL_LEN=8192. MODEL is MEDGEMMA_MODEL. The command line takes
  precedence, then the file of --config; empty variables are ignored. Put keys into variables or a
  file (--api-key-file): other users of the machine can see the command line.

Coming from vLLM:
  Its flags are accepted, or rejected with the option to use instead; --max_model_len is read as
  --max-model-len, and `medgemma --model MODEL …` as `medgemma serve --model MODEL …`. If a flag is
  given twice, the last value counts, unless its help says that it may be repeated.

Exit codes:
  0   stopped on request, after finishing running requests
  2   invalid option or environment variable
  65  the checkpoint is damaged
  66  no such model, directory or file
  68  the hub cannot be reached
  69  the requested device cannot be used
  70  runtime fault; restart the server
  71  not enough memory
  73  cannot listen on the address
  74  a file cannot be written: disk full or not writable
  77  the hub requires a token, or acceptance of its terms
  78  a setting that is invalid for this model
  130 a second signal stopped it before it had finished
  1   anything else

Examples:
  Try it out, with a tiny model that is part of the program:
    medgemma serve demo

  A model from the hub, which is downloaded first:
    HF_TOKEN=… medgemma serve medgemma-4b-it

  A checkpoint in a local directory, with a key, for the whole network:
    MEDGEMMA_API_KEY=… medgemma serve ~/models/medgemma-4b-it --host 0.0.0.0

  A benchmark of this machine with random weights, without a download:
    medgemma serve gemma-3-270m --load-format dummy
";

const PULL_EXAMPLES: &str = "\
Models go where Python's huggingface_hub has them, so that each finds what the other downloaded.
An interrupted download resumes when the command is run again.

Environment:
  HF_TOKEN        the token; gated models need one, after their terms were accepted on the hub
  HF_TOKEN_PATH   a file that holds it
  HF_HOME, HF_HUB_CACHE
                  where models are kept
  HF_ENDPOINT     a mirror of the hub
  HF_HUB_OFFLINE  1: use only the cache, no network
  HTTPS_PROXY, NO_PROXY
                  how the hub is reached
  SSL_CERT_FILE   certificates to trust in place of the system's

Examples:
  HF_TOKEN=… medgemma pull medgemma-4b-it
  medgemma serve \"$(medgemma pull google/medgemma-4b-it --revision main)\"
";

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// What to serve: a name that `medgemma models` lists, a hub id such as google/medgemma-4b-it,
    /// or a local directory with a checkpoint in the hub's layout. Models that are not in the cache
    /// are downloaded [default: demo]
    #[arg(value_name = "MODEL")]
    pub(super) model: Option<String>,

    /// The same as MODEL, as an option
    #[arg(
        id = "model_option",
        long = "model",
        value_name = "MODEL",
        env = "MEDGEMMA_MODEL"
    )]
    pub(super) model_option: Option<String>,

    /// A YAML file of options, one a line, with their names here or in vLLM. The command line
    /// overrides the file, and the file overrides the environment
    #[arg(long, value_name = "FILE", env = "MEDGEMMA_CONFIG")]
    pub(super) config: Option<PathBuf>,

    /// Names by which clients can request the model; may be repeated or separated by commas
    /// [default: MODEL's name]
    #[arg(
        long,
        value_name = "NAME",
        env = "MEDGEMMA_SERVED_MODEL_NAME",
        value_delimiter = ','
    )]
    pub(super) served_model_name: Vec<String>,

    /// A chat template in place of the checkpoint's own: a file, or the template itself
    #[arg(long, value_name = "TEMPLATE", env = "MEDGEMMA_CHAT_TEMPLATE")]
    pub(super) chat_template: Option<String>,

    /// Whether the model reasons before it answers; reasoning is returned separately: never,
    /// on-request (with reasoning_effort) or unasked [default: from models.toml, by the name of the
    /// model or directory; otherwise never]
    #[arg(
        long,
        value_name = "WHEN",
        env = "MEDGEMMA_THINKING",
        value_enum,
        hide_possible_values = true
    )]
    pub(super) thinking: Option<Thinking>,

    /// Format in which the prompt asks for tool calls: pythonic, [f(a=1)], or json, {"name": "f",
    /// "parameters": {"a": 1}}; answers are read in either format [default: from models.toml, by
    /// the name of the model or directory; otherwise pythonic]
    #[arg(
        long,
        value_name = "FORMAT",
        env = "MEDGEMMA_TOOL_FORMAT",
        value_enum,
        hide_possible_values = true
    )]
    pub(super) tool_format: Option<ToolFormat>,

    /// Reject chats whose roles do not alternate, user first. By default, consecutive messages of
    /// one role and several system messages are merged, and an empty user message is inserted
    /// before a leading assistant message
    #[arg(
        long,
        value_name = "BOOL",
        env = "MEDGEMMA_STRICT_ROLES",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = BoolishValueParser::new(),
        action = ArgAction::Set
    )]
    pub(super) strict_roles: bool,

    /// How an image that is not square is made square: squash, as transformers does, or pad with
    /// black, as MedGemma's own serving container does [default: as models.toml says, else squash]
    #[arg(
        long,
        value_name = "HOW",
        env = "MEDGEMMA_IMAGE_FIT",
        value_enum,
        hide_possible_values = true
    )]
    pub(super) image_fit: Option<ImageFit>,

    /// How images are prepared unless a request says otherwise: {"do_pan_and_scan": true}, "fit",
    /// "window", "frames" and the others of a request's mm_processor_kwargs
    #[arg(
        long,
        value_name = "JSON",
        env = "MEDGEMMA_MM_PROCESSOR_KWARGS",
        value_parser = preparation_fields
    )]
    pub(super) mm_processor_kwargs: Option<PreparationFields>,

    /// Source of the weights: auto (the checkpoint's files) or dummy (random values, for
    /// benchmarks)
    #[arg(
        long,
        value_name = "FORMAT",
        env = "MEDGEMMA_LOAD_FORMAT",
        default_value = "auto",
        value_enum
    )]
    pub(super) load_format: LoadFormat,

    /// A catalogue of models in place of the built-in models.toml, which explains the form
    #[arg(long, value_name = "FILE", env = "MEDGEMMA_MODELS")]
    pub(super) models: Option<PathBuf>,

    #[command(flatten)]
    pub(super) hub: HubArguments,

    /// Address to listen on; 0.0.0.0 for the whole network
    #[arg(
        long,
        env = "MEDGEMMA_HOST",
        default_value = "127.0.0.1",
        help_heading = "Network"
    )]
    pub(super) host: String,

    /// Port to listen on; 0 takes a free one
    #[arg(
        long,
        env = "MEDGEMMA_PORT",
        default_value_t = 8000,
        help_heading = "Network"
    )]
    pub(super) port: u16,

    /// API key that clients must send; may be repeated. Only the probes (/health, /livez, /ready)
    /// and the web pages need no key
    #[arg(
        long,
        value_name = "KEY",
        env = "MEDGEMMA_API_KEY",
        value_parser = api_key,
        help_heading = "Network"
    )]
    pub(super) api_key: Vec<ApiKey>,

    /// A file of API keys, one a line, such as a secret of Docker or Kubernetes
    #[arg(
        long,
        value_name = "FILE",
        env = "MEDGEMMA_API_KEY_FILE",
        help_heading = "Network"
    )]
    pub(super) api_key_file: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) key_limits: KeyLimitArguments,

    /// A file to write the server's URL into once it listens, for `medgemma ready` and scripts
    #[arg(
        long,
        value_name = "FILE",
        env = "MEDGEMMA_URL_FILE",
        help_heading = "Network"
    )]
    pub(super) url_file: Option<PathBuf>,

    #[command(flatten)]
    pub(super) network: NetworkArguments,

    /// Longest sequence, prompt and answer together, in tokens, such as 8192, 8k or auto [default:
    /// auto, the model's context, or what the KV cache can hold]
    #[arg(
        long,
        value_name = "TOKENS",
        env = "MEDGEMMA_MAX_MODEL_LEN",
        value_parser = str::parse::<SequenceLength>,
        allow_hyphen_values = true,
        help_heading = "Speed and memory"
    )]
    pub(super) max_model_len: Option<SequenceLength>,

    /// Maximum number of sequences computed at a time; others wait
    #[arg(
        long,
        value_name = "COUNT",
        env = "MEDGEMMA_MAX_NUM_SEQS",
        default_value = "32",
        value_parser = at_least_one,
        help_heading = "Speed and memory"
    )]
    pub(super) max_num_seqs: usize,

    /// Maximum number of tokens computed in one step, over all sequences; longer prompts take
    /// several steps. An image's tokens must fit into one
    #[arg(
        long,
        value_name = "TOKENS",
        env = "MEDGEMMA_MAX_NUM_BATCHED_TOKENS",
        default_value = "2048",
        value_parser = at_least_one,
        help_heading = "Speed and memory"
    )]
    pub(super) max_num_batched_tokens: usize,

    /// Memory for the KV cache, such as 4GiB or 512MB [default: enough for --max-num-seqs
    /// sequences of moderate length, within what is free]
    #[arg(
        long,
        alias = "kv-cache-memory-bytes",
        value_name = "SIZE",
        env = "MEDGEMMA_KV_CACHE_MEMORY",
        help_heading = "Speed and memory"
    )]
    pub(super) kv_cache_memory: Option<ByteSize>,

    /// Size of the cache of image embeddings, which are reused when the same image is sent again
    #[arg(
        long,
        value_name = "SIZE",
        env = "MEDGEMMA_ENCODER_CACHE_MEMORY",
        default_value = "512MiB",
        help_heading = "Speed and memory"
    )]
    pub(super) encoder_cache_memory: ByteSize,

    /// Reuse the KV cache of prompts with the same prefix; on by default
    #[arg(
        long,
        value_name = "BOOL",
        env = "MEDGEMMA_ENABLE_PREFIX_CACHING",
        default_value = "true",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        overrides_with = "no_enable_prefix_caching",
        help_heading = "Speed and memory"
    )]
    pub(super) enable_prefix_caching: bool,

    /// Do not reuse the KV cache of earlier prompts
    #[arg(
        long,
        visible_alias = "no-prefix-caching",
        env = "MEDGEMMA_NO_ENABLE_PREFIX_CACHING",
        value_parser = BoolishValueParser::new(),
        action = ArgAction::SetTrue,
        overrides_with = "enable_prefix_caching",
        help_heading = "Speed and memory"
    )]
    pub(super) no_enable_prefix_caching: bool,

    #[command(flatten)]
    pub(super) request_defaults: RequestDefaultArguments,

    /// Maximum number of waiting requests, besides the running ones; further requests get 429
    /// [default: four times --max-num-seqs, at least 256]
    #[arg(
        long,
        value_name = "COUNT",
        env = "MEDGEMMA_MAX_QUEUED_REQUESTS",
        value_parser = at_least_one,
        help_heading = "Requests"
    )]
    pub(super) max_queued_requests: Option<usize>,

    /// Memory limit for requests that the engine has not taken yet, such as 1GiB: bodies, parsed
    /// data, images. Requests over the limit get 503 [default: a quarter of what is free, at most
    /// 2GiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "MEDGEMMA_MAX_REQUEST_MEMORY",
        help_heading = "Requests"
    )]
    pub(super) max_request_memory: Option<ByteSize>,

    /// Memory in which the images of all requests are decoded, such as 1GiB; a decoder that finds it
    /// taken waits [default: a quarter of --max-request-memory]
    #[arg(
        long,
        value_name = "SIZE",
        env = "MEDGEMMA_IMAGE_MEMORY",
        help_heading = "Requests"
    )]
    pub(super) image_memory: Option<ByteSize>,

    /// Longest file of a request, such as 64MiB
    #[arg(
        long,
        value_name = "SIZE",
        env = "MEDGEMMA_MAX_FILE_BYTES",
        default_value = "256MiB",
        help_heading = "Requests"
    )]
    pub(super) max_file_bytes: ByteSize,

    /// Most pixels of an image or of a frame of a file
    #[arg(
        long,
        value_name = "NUMBER",
        env = "MEDGEMMA_MAX_IMAGE_PIXELS",
        default_value_t = 64 << 20,
        value_parser = clap::value_parser!(u64).range(1..=1 << 30),
        help_heading = "Requests"
    )]
    pub(super) max_image_pixels: u64,

    /// Maximum time for a request, waiting and running; then it ends with 504. A request can set a
    /// shorter time with its field timeout [default: none]
    #[arg(
        long,
        value_name = "SECONDS",
        env = "MEDGEMMA_REQUEST_TIMEOUT",
        value_parser = some_seconds,
        help_heading = "Requests"
    )]
    pub(super) request_timeout: Option<Seconds>,

    /// Maximum time after SIGTERM for running requests to finish; queued requests are rejected at
    /// once
    #[arg(
        long,
        value_name = "SECONDS",
        env = "MEDGEMMA_SHUTDOWN_TIMEOUT",
        default_value = "30",
        value_parser = any_seconds,
        help_heading = "Requests"
    )]
    pub(super) shutdown_timeout: Seconds,

    /// Maximum time for one model step. After that the device is considered hung: requests fail and
    /// the process exits with code 70, to be restarted; 0 means no limit
    #[arg(
        long,
        value_name = "SECONDS",
        env = "MEDGEMMA_STEP_TIMEOUT",
        default_value = "120",
        value_parser = any_seconds,
        help_heading = "Requests"
    )]
    pub(super) step_timeout: Seconds,

    /// Where to compute: auto (a GPU if one can be used, else the CPU), cpu, cuda or cuda:N
    #[arg(
        long,
        env = "MEDGEMMA_DEVICE",
        default_value = "auto",
        value_parser = str::parse::<DeviceChoice>,
        help_heading = "Speed and memory"
    )]
    pub(super) device: DeviceChoice,

    /// Number type for the computation: auto (bf16 on a GPU, f32 on the CPU), f32 or bf16
    #[arg(
        long,
        env = "MEDGEMMA_DTYPE",
        default_value = "auto",
        value_parser = str::parse::<DtypeChoice>,
        help_heading = "Speed and memory"
    )]
    pub(super) dtype: DtypeChoice,

    /// Fraction of the GPU's memory that may be used, by this server and other programs together;
    /// the KV cache takes what is left of it, unless --kv-cache-memory is set
    #[arg(
        long,
        alias = "device-memory-utilization",
        value_name = "SHARE",
        env = "MEDGEMMA_GPU_MEMORY_UTILIZATION",
        default_value = "0.9",
        value_parser = share,
        help_heading = "GPUs"
    )]
    pub(super) gpu_memory_utilization: f64,

    /// Directory of precompiled kernels, from `medgemma kernels --out DIR`; then no compiler is
    /// needed
    #[arg(
        long,
        value_name = "DIR",
        env = "MEDGEMMA_KERNELS",
        help_heading = "GPUs"
    )]
    pub(super) kernels: Option<PathBuf>,

    /// Directory for kernels that are compiled on this machine [default: medgemma/kernels in the
    /// user's cache]
    #[arg(
        long,
        value_name = "DIR",
        env = "MEDGEMMA_KERNEL_CACHE",
        help_heading = "GPUs"
    )]
    pub(super) kernel_cache: Option<PathBuf>,

    /// Format of the log, which goes to stderr and contains no prompts or answers: text or json
    #[arg(
        long,
        value_name = "FORMAT",
        env = "MEDGEMMA_LOG_FORMAT",
        default_value = "text",
        value_enum,
        help_heading = "Log"
    )]
    pub(super) log_format: LogFormat,

    /// Level of the log: error, warn, info, debug or trace
    #[arg(
        long,
        value_name = "LEVEL",
        env = "MEDGEMMA_LOG_LEVEL",
        default_value = "info",
        value_enum,
        ignore_case = true,
        help_heading = "Log"
    )]
    pub(super) log_level: LogLevel,
}
