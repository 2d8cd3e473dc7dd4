//! What the operator asked for: flags and environment, parsed raw and resolved once.
//!
//! Knows nothing of models: names and files are looked up by the registry.

mod arguments;
mod batch;
mod bench;
mod byte_size;
mod cached;
mod command_line;
mod compute;
mod hub;
mod key_file;
mod key_limits;
mod network;
mod probe;
mod request_defaults;
mod seconds;
mod variables;
mod vllm_flags;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, ValueEnum};

use arguments::{Arguments, CommandArguments, ServeArguments};
pub use batch::{BatchConfig, Place};
pub use bench::{
    Arrivals, Bench, BenchConfig, DecodePlan, Endpoint, PrefillPlan, ReportFormat, ServePlan,
};
pub use byte_size::ByteSize;
pub use cached::{Consent, ModelsConfig, PullConfig, RmConfig};
pub use compute::{ComputeConfig, DeviceChoice, Dtype};
use hub::Variables;
pub(crate) use hub::hub_token;
pub use hub::{HubAccess, HubConfig, HubToken, ProgressOutput, Retries, TokenChoice};
pub use key_limits::KeyLimits;
pub use network::NetworkConfig;
pub use probe::ProbeConfig;
pub use request_defaults::{RequestDefaults, SamplingSource};

/// What is served when nothing is named.
const DEFAULT_MODEL: &str = "demo";

/// What the program was called for.
#[derive(Debug)]
pub enum Command {
    /// `medgemma serve`
    Serve(Box<ServeConfig>),
    /// `medgemma ready`
    Ready(ProbeConfig),
    /// `medgemma kernels`
    Kernels(KernelsConfig),
    /// `medgemma grammar-worker`, which a server starts for itself.
    GrammarWorker,
    /// `medgemma bench`
    Bench(BenchConfig),
    /// `medgemma run-batch`
    RunBatch(Box<BatchConfig>),
    /// `medgemma selftest`, on this GPU.
    SelfTest(ComputeConfig),
    /// `medgemma pull`
    Pull(PullConfig),
    /// `medgemma models`
    Models(ModelsConfig),
    /// `medgemma rm`
    Rm(RmConfig),
}

/// What to compile ahead.
#[derive(Clone, Debug)]
pub struct KernelsConfig {
    /// Architectures as NVIDIA's tools name them: `sm_90a`.
    pub archs: Vec<String>,
    /// Where machine code goes; `None` only tries whether everything compiles.
    pub out: Option<PathBuf>,
    /// A catalogue in place of the built-in one: its models' kernels.
    pub models_file: Option<PathBuf>,
}

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The binary that is started once more for processes that work on grammars: this program's own.
    pub program: PathBuf,
    /// A registry name, a hub id or a local directory.
    pub model: String,
    /// Whether `model` was named, or is what is served otherwise.
    pub model_choice: ModelChoice,
    /// Where weights come from.
    pub load_format: LoadFormat,
    /// A catalogue in place of the built-in one.
    pub models_file: Option<PathBuf>,
    /// Where models come from that are not here.
    pub hub: HubConfig,
    /// What clients may call the model; empty: its own name.
    pub served_model_names: Vec<String>,
    /// A chat template in place of the checkpoint's: a file, or the template itself.
    pub chat_template: Option<String>,
    /// Whether the model thinks; `None` is for the registry to know.
    pub thinking: Option<Thinking>,
    /// How it writes calls of tools; `None` is for the registry to know.
    pub tool_format: Option<ToolFormat>,
    /// What is done with turns in an order that templates do not take.
    pub roles: Roles,
    /// How an image that is not square becomes one.
    pub image_fit: ImageFit,
    /// Host to listen on, a name or an address.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Any of these opens the server; none: it is open.
    pub api_keys: Vec<ApiKey>,
    /// Those of them whose requests may go before everybody else's.
    pub priority_api_keys: Vec<ApiKey>,
    /// What one of them may ask.
    pub key_limits: KeyLimits,
    /// Where to write the server's URL once it listens.
    pub url_file: Option<PathBuf>,
    /// Who may come in.
    pub network: NetworkConfig,
    /// What holds for requests that do not say it themselves.
    pub request_defaults: RequestDefaults,
    /// Lengths and memory.
    pub limits: Limits,
    /// Memory for what requests bring; `None` is for the registry to choose.
    pub max_request_memory: Option<ByteSize>,
    /// Whether prompts that begin alike are computed once.
    pub prefix_caching: PrefixCaching,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Where to compute.
    pub compute: ComputeConfig,
    /// What is logged.
    pub log: LogConfig,
    /// What the log says of the settings themselves: flags that need nothing, variables that set
    /// nothing.
    pub notes: Vec<String>,
}

/// How the model came to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelChoice {
    /// It was asked for.
    Named,
    /// Nothing was asked for.
    Default,
}

/// Bounds on what is computed and kept; `None` is for the registry to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest sequence, prompt and answer together, in tokens.
    pub max_model_len: Option<usize>,
    /// Sequences computed at a time.
    pub max_num_seqs: usize,
    /// Tokens computed in a step, over all sequences.
    pub max_num_batched_tokens: usize,
    /// Memory of the KV cache.
    pub kv_cache_memory: Option<ByteSize>,
    /// Memory of the images' features.
    pub encoder_cache_memory: ByteSize,
    /// Requests that wait, besides those that run.
    pub max_queued_requests: Option<usize>,
}

/// Whether what was computed of a prompt is kept for the next one that begins alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixCaching {
    /// It is.
    On,
    /// Every prompt is computed from its first token.
    Off,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A request, waiting and running; `None` is without limit.
    pub request: Option<Duration>,
    /// A step of the model before the device counts as stuck; `None` waits for ever.
    pub step: Option<Duration>,
    /// What runs when the server is asked to stop.
    pub shutdown: Duration,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// The least important that is written.
    pub level: LogLevel,
}

/// Where weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadFormat {
    /// The checkpoint's files
    #[value(alias = "safetensors")]
    Auto,
    /// Random numbers, for measuring
    Dummy,
}

/// When answers begin with a train of thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Thinking {
    /// The model was not trained to
    Never,
    /// When the request asks for it
    OnRequest,
    /// Also when nobody asked
    Unasked,
}

/// How a model writes calls of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ToolFormat {
    /// [f(a=1, b="x")]
    Pythonic,
    /// {"name": "f", "parameters": {"a": 1, "b": "x"}}
    Json,
}

/// What is done with turns in an order that templates do not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roles {
    /// They are merged into one that they take.
    Merge,
    /// They are refused.
    Strict,
}

/// How an image that is not square becomes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageFit {
    /// Each side is scaled for itself
    Squash,
    /// It is put in the middle of a black square
    Pad,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

/// The least important that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As tracing's filters call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A secret that opens the server.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(pub String);

impl fmt::Debug for ApiKey {
    // Settings are printed and logged; keys never.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl AsRef<str> for ApiKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Reads the command line and the environment.
///
/// # Errors
/// clap's, which is also how help and version come out; its `exit` prints it and ends the process
/// with the right code.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let matches = command().try_get_matches_from(command_line::written_out(arguments))?;
    let parsed = Arguments::from_arg_matches(&matches)?;
    match parsed.command {
        CommandArguments::GrammarWorker => Ok(Command::GrammarWorker),
        CommandArguments::Kernels(arguments) => Ok(Command::Kernels(KernelsConfig {
            archs: arguments.arch,
            out: arguments.out,
            models_file: arguments.models,
        })),
        CommandArguments::Ready(arguments) => Ok(Command::Ready(arguments.resolve())),
        CommandArguments::Pull(arguments) => {
            Ok(Command::Pull(arguments.resolve(&Variables::of_process())))
        }
        CommandArguments::Models(arguments) => {
            let limits = measured(Vec::new())?.limits;
            let config = arguments.resolve(&Variables::of_process(), limits);
            Ok(Command::Models(config))
        }
        CommandArguments::Rm(arguments) => {
            Ok(Command::Rm(arguments.resolve(&Variables::of_process())))
        }
        CommandArguments::Bench(arguments) => arguments.resolve(measured).map(Command::Bench),
        CommandArguments::Selftest(arguments) => Ok(Command::SelfTest(ComputeConfig {
            device: arguments.device,
            dtype: Dtype::Auto,
            gpu_memory_utilization: 1.0,
            kernels: arguments.kernels,
            kernel_cache: arguments.kernel_cache,
        })),
        CommandArguments::RunBatch(arguments) => {
            let matches = matches
                .subcommand_matches("run-batch")
                .expect("it was parsed as this subcommand");
            let config = arguments.resolve(matches)?;
            Ok(Command::RunBatch(Box::new(config)))
        }
        CommandArguments::Serve(arguments) => {
            let matches = matches
                .subcommand_matches("serve")
                .expect("it was parsed as this subcommand");
            resolve(*arguments, matches).map(|config| Command::Serve(Box::new(config)))
        }
    }
}

/// The options of `serve` that a measurement in process takes.
///
/// # Errors
/// clap's, and options that only a server has.
fn measured(options: Vec<OsString>) -> Result<ServeConfig, clap::Error> {
    const OF_SERVERS: [&str; 17] = [
        "host",
        "port",
        "api_key",
        "api_key_file",
        "url_file",
        "generation_config",
        "seed",
        "limit_mm_per_prompt",
        "served_model_name",
        "chat_template",
        "thinking",
        "tool_format",
        "strict_roles",
        "image_fit",
        "max_request_memory",
        "request_timeout",
        "shutdown_timeout",
    ];
    let line = ["medgemma", "serve"].map(OsString::from);
    let line = line.into_iter().chain(command_line::with_dashes(options));
    let matches = command().try_get_matches_from(line)?;
    let matches = matches
        .subcommand_matches("serve")
        .expect("the line says so");
    let without_meaning = (OF_SERVERS.into_iter())
        .chain(network::OPTIONS)
        .find(|name| matches.value_source(name) == Some(ValueSource::CommandLine));
    if let Some(name) = without_meaning {
        let name = name.replace('_', "-");
        return Err(clap::Error::raw(
            ErrorKind::ArgumentConflict,
            format!("--{name} is for servers: a measurement in process has none\n"),
        ));
    }
    resolve(ServeArguments::from_arg_matches(matches)?, matches)
}

/// The command, without variables that are set to nothing, since a compose file's empty default
/// means that nothing was chosen, and without what Kubernetes means by one.
fn command() -> clap::Command {
    let hide = |arg: clap::Arg| {
        let arg = arg.hide_env(true);
        let sets = arg.get_env().is_some_and(|name| match std::env::var(name) {
            Ok(value) => {
                !value.is_empty() && !variables::is_service_link(&name.to_string_lossy(), &value)
            }
            // Nothing to hide; or not UTF-8, which is for clap to refuse.
            Err(_) => true,
        });
        match sets {
            true => arg,
            false => arg.env(None::<&'static str>),
        }
    };
    Arguments::command()
        .mut_subcommand("serve", |serve| vllm_flags::known_to(serve).mut_args(hide))
        .mut_subcommand("run-batch", |batch| {
            batch::without_servers(vllm_flags::known_to(batch).mut_args(hide))
        })
        .mut_subcommand("ready", |ready| ready.mut_args(hide))
        .mut_subcommand("kernels", |kernels| kernels.mut_args(hide))
        .mut_subcommand("selftest", |selftest| selftest.mut_args(hide))
        .mut_subcommand("pull", |pull| pull.mut_args(hide))
        .mut_subcommand("models", |models| models.mut_args(hide))
        .mut_subcommand("rm", |rm| rm.mut_args(hide))
}

/// The file of this program, also when another one has been put in its place since it started.
fn this_program() -> PathBuf {
    if cfg!(target_os = "linux") {
        return "/proc/self/exe".into();
    }
    // Without it, what needs it will say so.
    std::env::current_exe().unwrap_or_default()
}

fn resolve(arguments: ServeArguments, matches: &ArgMatches) -> Result<ServeConfig, clap::Error> {
    let on_command_line = matches.value_source("model_option") == Some(ValueSource::CommandLine);
    let prefix_caching = prefix_caching(&arguments, matches);
    let mut notes = vllm_flags::read(matches)?;
    notes.extend(variables::strays(&command()));
    notes.extend(weak_keys("api_key", &arguments.api_key, matches));
    notes.extend(weak_keys(
        "metrics_key",
        &arguments.network.metrics_key,
        matches,
    ));
    let mut api_keys = arguments.api_key;
    for file in &arguments.api_key_file {
        let keys = key_file::read_keys(file, &mut notes);
        let keys = keys
            .map_err(|wrong| clap::Error::raw(ErrorKind::ValueValidation, format!("{wrong}\n")))?;
        api_keys.extend(keys);
    }
    let priority_api_keys = arguments.key_limits.priority_api_key.clone();
    api_keys.extend(priority_api_keys.iter().cloned());
    let (model, model_choice) = match (arguments.model, arguments.model_option) {
        (Some(model), Some(option)) if on_command_line && model != option => {
            let mut command = command();
            command.build();
            let serve = command.find_subcommand_mut("serve");
            let serve = serve.expect("its arguments were just parsed");
            return Err(serve.error(
                ErrorKind::ArgumentConflict,
                format!("MODEL is {model}, but --model is {option}: give one of them"),
            ));
        }
        (Some(model), _) | (None, Some(model)) => (model, ModelChoice::Named),
        (None, None) => (DEFAULT_MODEL.to_owned(), ModelChoice::Default),
    };
    let mut served_model_names: Vec<String> = Vec::new();
    for name in arguments.served_model_name {
        let name = name.trim();
        if !name.is_empty() && !served_model_names.iter().any(|known| known == name) {
            served_model_names.push(name.to_owned());
        }
    }
    Ok(ServeConfig {
        program: this_program(),
        model,
        model_choice,
        load_format: arguments.load_format,
        models_file: arguments.models,
        hub: arguments.hub.resolve(
            &Variables::of_process(),
            match arguments.log_format {
                LogFormat::Text => ProgressOutput::Log,
                // Programs that read it expect nothing but JSON objects.
                LogFormat::Json => ProgressOutput::LogOnly,
            },
        ),
        served_model_names,
        chat_template: arguments.chat_template,
        thinking: arguments.thinking,
        tool_format: arguments.tool_format,
        roles: match arguments.strict_roles {
            true => Roles::Strict,
            false => Roles::Merge,
        },
        image_fit: arguments.image_fit,
        host: arguments.host,
        port: arguments.port,
        api_keys,
        priority_api_keys,
        key_limits: arguments.key_limits.limits(),
        url_file: arguments.url_file,
        network: arguments.network.resolve(),
        request_defaults: arguments.request_defaults.resolve(),
        limits: Limits {
            max_model_len: arguments.max_model_len,
            max_num_seqs: arguments.max_num_seqs,
            max_num_batched_tokens: arguments.max_num_batched_tokens,
            kv_cache_memory: arguments.kv_cache_memory,
            encoder_cache_memory: arguments.encoder_cache_memory,
            max_queued_requests: arguments.max_queued_requests,
        },
        max_request_memory: arguments.max_request_memory,
        prefix_caching,
        timeouts: Timeouts {
            request: arguments.request_timeout.map(|seconds| seconds.0),
            step: Some(arguments.step_timeout.0).filter(|time| !time.is_zero()),
            shutdown: arguments.shutdown_timeout.0,
        },
        compute: ComputeConfig {
            device: arguments.device,
            dtype: arguments.dtype,
            gpu_memory_utilization: arguments.gpu_memory_utilization,
            kernels: arguments.kernels,
            kernel_cache: arguments.kernel_cache,
        },
        log: LogConfig {
            format: arguments.log_format,
            level: arguments.log_level,
        },
        notes,
    })
}

/// What the log says of an option's keys that can be guessed.
fn weak_keys(option: &str, keys: &[ApiKey], matches: &ArgMatches) -> Vec<String> {
    let place = match matches.value_source(option) {
        Some(ValueSource::EnvVariable) => format!("MEDGEMMA_{}", option.to_uppercase()),
        _ => format!("--{}", option.replace('_', "-")),
    };
    let weaknesses = keys.iter().enumerate().filter_map(|(key_idx, key)| {
        let place = match keys.len() {
            1 => place.clone(),
            _ => format!("{place} number {}", key_idx + 1),
        };
        key_file::weakness(&place, key)
    });
    weaknesses.collect()
}

/// Resolves the two flags: one on the command line overrides the environment, and the later of two
/// on the command line counts (clap drops the other). In the environment either can turn it off.
fn prefix_caching(arguments: &ServeArguments, matches: &ArgMatches) -> PrefixCaching {
    let is_flag = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
    let is_on = if is_flag("no_enable_prefix_caching") {
        false
    } else if is_flag("enable_prefix_caching") {
        arguments.enable_prefix_caching
    } else {
        arguments.enable_prefix_caching && !arguments.no_enable_prefix_caching
    };
    if is_on {
        PrefixCaching::On
    } else {
        PrefixCaching::Off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &[&str]) -> ServeConfig {
        let arguments = [&["medgemma", "serve"], arguments].concat();
        match parse(arguments.into_iter().map(Into::into)) {
            Ok(Command::Serve(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_word_on_prefix_caching_counts() {
        for (arguments, caching) in [
            (&[][..], PrefixCaching::On),
            (&["--no-prefix-caching"], PrefixCaching::Off),
            (&["--no-enable-prefix-caching"], PrefixCaching::Off),
            (&["--enable-prefix-caching"], PrefixCaching::On),
            (&["--enable-prefix-caching=false"], PrefixCaching::Off),
            (
                &["--no-prefix-caching", "--enable-prefix-caching"],
                PrefixCaching::On,
            ),
            (
                &["--enable-prefix-caching", "--no-prefix-caching"],
                PrefixCaching::Off,
            ),
        ] {
            assert_eq!(serve(arguments).prefix_caching, caching, "{arguments:?}");
        }
        // The flag takes no value from what follows it.
        let config = serve(&["--enable-prefix-caching", "demo"]);
        assert_eq!(config.model, "demo");
    }

    #[test]
    fn times_are_seconds_and_some_may_be_none() {
        let timeouts = serve(&[]).timeouts;
        assert_eq!(timeouts.request, None);
        assert_eq!(timeouts.step, Some(Duration::from_secs(120)));
        assert_eq!(timeouts.shutdown, Duration::from_secs(30));
        let timeouts = serve(&[
            "--request-timeout=1.5",
            "--step-timeout=0",
            "--shutdown-timeout=0",
        ])
        .timeouts;
        assert_eq!(timeouts.request, Some(Duration::from_millis(1500)));
        assert_eq!(timeouts.step, None);
        assert_eq!(timeouts.shutdown, Duration::ZERO);
    }

    #[test]
    fn the_arguments_are_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_option_of_serve_is_a_variable_of_its_name() {
        let arguments = Arguments::command();
        let serve = arguments.find_subcommand("serve").unwrap();
        let mut num_options = 0;
        for argument in serve.get_arguments() {
            let Some(name) = argument.get_long() else {
                continue;
            };
            let variable = format!("MEDGEMMA_{}", name.to_uppercase().replace('-', "_"));
            let env = argument.get_env().and_then(|env| env.to_str());
            assert_eq!(env, Some(variable.as_str()), "--{name}");
            num_options += 1;
        }
        assert!(num_options >= 19);
    }

    #[test]
    fn keys_do_not_show() {
        let arguments = ["medgemma", "serve", "--api-key", "sesame"];
        let command = parse(arguments.map(Into::into)).unwrap();
        assert!(!format!("{command:?}").contains("sesame"));
    }

    #[test]
    fn keys_that_can_be_guessed_are_told_of_by_their_place() {
        let strong = "a-key-of-16-char";
        let notes = serve(&["--api-key", strong, "--api-key", "sesame"]).notes;
        assert_eq!(notes.len(), 1, "{notes:?}");
        let [place, length, way] = ["--api-key number 2", "6 characters", "openssl rand"];
        assert!(notes[0].contains(place) && notes[0].contains(length) && notes[0].contains(way));
        assert!(!notes[0].contains("sesame"), "{notes:?}");
        let notes = serve(&["--metrics-key", "sesame"]).notes;
        assert!(
            notes[0].starts_with("--metrics-key is a key of 6"),
            "{notes:?}"
        );
        assert_eq!(serve(&["--api-key", strong]).notes, [""; 0]);
    }
}
