//! The command line and the environment, as they are written.
//!
//! Each option of `serve` is also an environment variable, `MEDGEMMA_` and its name; the command
//! line wins. What contradicts itself or is not supported is refused here, by name.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};

use super::{ApiKey, ByteSize, LoadFormat, LogFormat, LogLevel};

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
    /// List the models that have a name
    Models(ModelsArguments),
}

const SERVE_EXAMPLES: &str = "\
Environment:
  Every option can be set by a variable, MEDGEMMA_ and the option's name in capitals:
  MEDGEMMA_PORT=9000, MEDGEMMA_MAX_MODEL_LEN=8192. MODEL is MEDGEMMA_MODEL. The command line wins,
  and an empty variable counts as none. Keys belong here rather than on a command line, which other
  users of the machine can see.

Examples:
  Try it out, with a tiny model that is part of the program:
    medgemma serve demo

  A checkpoint in a local directory, with a key, for the whole network:
    MEDGEMMA_API_KEY=… medgemma serve ~/models/medgemma-4b-it --host 0.0.0.0

  How fast would it be here? Random weights need no download:
    medgemma serve gemma-3-270m --load-format dummy
";

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// What to serve: a name that `medgemma models` lists, or a local directory with a checkpoint
    /// in the hub's layout [default: demo]
    #[arg(value_name = "MODEL")]
    pub(super) model: Option<String>,

    /// The same as MODEL, for those who write it this way
    #[arg(
        id = "model_option",
        long = "model",
        value_name = "MODEL",
        env = "MEDGEMMA_MODEL"
    )]
    pub(super) model_option: Option<String>,

    /// What clients may call the model; repeat it, or separate names by commas, for several
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

    /// Where weights come from: the checkpoint's files (auto) or nowhere (dummy: random numbers,
    /// for measuring)
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

    /// Key that clients must send; repeat it for several. Only /health and /ready need none
    #[arg(
        long,
        value_name = "KEY",
        env = "MEDGEMMA_API_KEY",
        value_parser = api_key,
        help_heading = "Network"
    )]
    pub(super) api_key: Vec<ApiKey>,

    /// Longest sequence, prompt and answer together, in tokens [default: the model's context, or
    /// what the KV cache can hold]
    #[arg(
        long,
        value_name = "TOKENS",
        env = "MEDGEMMA_MAX_MODEL_LEN",
        value_parser = at_least_one,
        help_heading = "Speed and memory"
    )]
    pub(super) max_model_len: Option<usize>,

    /// Most sequences to compute at a time; others wait
    #[arg(
        long,
        value_name = "COUNT",
        env = "MEDGEMMA_MAX_NUM_SEQS",
        default_value = "32",
        value_parser = at_least_one,
        help_heading = "Speed and memory"
    )]
    pub(super) max_num_seqs: usize,

    /// Most tokens to compute in one step, over all sequences; longer prompts take several steps.
    /// An image's tokens must fit into one
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
        value_name = "SIZE",
        env = "MEDGEMMA_KV_CACHE_MEMORY",
        help_heading = "Speed and memory"
    )]
    pub(super) kv_cache_memory: Option<ByteSize>,

    /// Where to compute: auto or cpu
    #[arg(
        long,
        env = "MEDGEMMA_DEVICE",
        default_value = "auto",
        value_parser = device,
        help_heading = "Speed and memory"
    )]
    pub(super) device: Device,

    /// Type of the numbers to compute with: auto or f32
    #[arg(
        long,
        env = "MEDGEMMA_DTYPE",
        default_value = "auto",
        value_parser = dtype,
        help_heading = "Speed and memory"
    )]
    pub(super) dtype: Dtype,

    /// How to write the log, which goes to stderr and holds no prompts or answers: text or json
    #[arg(
        long,
        value_name = "FORMAT",
        env = "MEDGEMMA_LOG_FORMAT",
        default_value = "text",
        value_enum,
        help_heading = "Log"
    )]
    pub(super) log_format: LogFormat,

    /// What to write: error, warn, info, debug or trace
    #[arg(
        long,
        value_name = "LEVEL",
        env = "MEDGEMMA_LOG_LEVEL",
        default_value = "info",
        value_enum,
        help_heading = "Log"
    )]
    pub(super) log_level: LogLevel,
}

#[derive(Debug, Args)]
pub(super) struct ModelsArguments {
    /// A catalogue of models in place of the built-in models.toml
    #[arg(long, value_name = "FILE", env = "MEDGEMMA_MODELS")]
    pub(super) models: Option<PathBuf>,
}

/// Where to compute. One place so far, so nothing further depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device;

fn device(name: &str) -> Result<Device, String> {
    match name {
        "auto" | "cpu" => Ok(Device),
        "cuda" | "gpu" => Err("this version computes on the CPU only; use auto or cpu".to_owned()),
        _ => Err("it must be auto or cpu".to_owned()),
    }
}

/// What to compute with. One type so far, so nothing further depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dtype;

fn dtype(name: &str) -> Result<Dtype, String> {
    match name {
        "auto" | "f32" | "float32" | "float" => Ok(Dtype),
        "f16" | "fp16" | "float16" | "half" => {
            Err("Gemma 3 overflows in half precision; use auto or f32".to_owned())
        }
        _ => Err("on the CPU it must be auto or f32".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    // Far above what any machine can do, low enough that products of it are exact.
    const MAX: usize = 1 << 24;
    match text.parse() {
        Ok(number @ 1..=MAX) => Ok(number),
        Ok(_) => Err(format!("it must be between 1 and {MAX}")),
        Err(_) => Err("it must be a whole number".to_owned()),
    }
}

fn api_key(text: &str) -> Result<ApiKey, String> {
    match text {
        "" => Err("an empty key would keep nobody out".to_owned()),
        // What cannot stand in a header could never be sent.
        key if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(ApiKey(key.to_owned())),
        _ => Err("it must be of visible ASCII characters, without spaces".to_owned()),
    }
}
