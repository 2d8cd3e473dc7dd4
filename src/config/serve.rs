//! `medgemma serve`: the settings of a server, resolved from its arguments.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches, ValueEnum};

use super::api_key::{read_keys, weak_keys};
use super::arguments::ServeArguments;
use super::hub::Variables;
use super::{
    ApiKey, ByteSize, ComputeConfig, HubConfig, KeyLimits, LogConfig, LogFormat, NetworkConfig,
    ProgressOutput, RequestDefaults, command, command_line, config_file, network,
    unknown_variables, vllm_flags,
};
use crate::core::{ImageFit, PrefixCaching, PreparationFields, RolePolicy, Thinking, ToolFormat};

/// The default model.
const DEFAULT_MODEL: &str = "demo";

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The executable to start for grammar processes: this program.
    pub program: PathBuf,
    /// A registry name, a hub id or a local directory.
    pub model: String,
    /// Whether `model` was given, or is the default.
    pub model_choice: ModelChoice,
    /// Source of the weights.
    pub load_format: LoadFormat,
    /// A catalogue in place of the built-in one.
    pub models_file: Option<PathBuf>,
    /// Hub settings, for models that are not local.
    pub hub: HubConfig,
    /// Names by which clients can request the model; empty means its own name.
    pub served_model_names: Vec<String>,
    /// A chat template in place of the checkpoint's: a file, or the template itself.
    pub chat_template: Option<String>,
    /// Whether the model reasons; with `None` the registry decides.
    pub thinking: Option<Thinking>,
    /// Format of tool calls in prompts; with `None` the registry decides.
    pub tool_format: Option<ToolFormat>,
    /// How to handle messages whose roles do not alternate.
    pub roles: RolePolicy,
    /// How images are prepared unless a request says otherwise; what is not given, the registry
    /// decides.
    pub preparation: PreparationFields,
    /// Host to listen on, a name or an address.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Accepted API keys; empty disables authentication.
    pub api_keys: Vec<ApiKey>,
    /// The keys whose requests may use priorities below 0.
    pub priority_api_keys: Vec<ApiKey>,
    /// Limits for each key.
    pub key_limits: KeyLimits,
    /// Where to write the server's URL once it listens.
    pub url_file: Option<PathBuf>,
    /// Network access settings.
    pub network: NetworkConfig,
    /// Defaults for fields that a request does not set.
    pub request_defaults: RequestDefaults,
    /// Limits of lengths and memory.
    pub limits: Limits,
    /// Memory limit for requests that the engine has not taken yet; with `None` the registry
    /// chooses.
    pub max_request_memory: Option<ByteSize>,
    /// Memory in which images are decoded; `None` is a part of the memory of requests.
    pub image_memory: Option<ByteSize>,
    /// Longest file of a request.
    pub max_file_bytes: ByteSize,
    /// Most pixels of an image or of a frame of a file.
    pub max_image_pixels: u64,
    /// Whether the KV cache of a common prefix is reused.
    pub prefix_caching: PrefixCaching,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Where to compute.
    pub compute: ComputeConfig,
    /// Log settings.
    pub log: LogConfig,
    /// Notes about the settings for the log: ignored flags and unknown variables.
    pub notes: Vec<String>,
}

/// Whether the model was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelChoice {
    /// It was given by the operator.
    Named,
    /// It is the default.
    Default,
}

/// Limits of lengths and memory; with `None` the registry chooses.
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
    /// Memory of the cache of image embeddings.
    pub encoder_cache_memory: ByteSize,
    /// Requests that wait, besides those that run.
    pub max_queued_requests: Option<usize>,
}

/// Time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Maximum time of a request, waiting and running; `None` means no limit.
    pub request: Option<Duration>,
    /// Maximum time of a model step before the device is considered hung; `None` means no limit.
    pub step: Option<Duration>,
    /// Maximum time for running requests to finish at shutdown.
    pub shutdown: Duration,
}

/// Source of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadFormat {
    /// The checkpoint's files
    #[value(alias = "safetensors")]
    Auto,
    /// Random values, for benchmarks
    Dummy,
}

/// The options of `serve` that also apply to an in-process benchmark.
///
/// # Errors
/// clap's, and options that only a server has.
pub(super) fn measured(options: Vec<OsString>) -> Result<ServeConfig, clap::Error> {
    const OF_SERVERS: [&str; 21] = [
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
        "mm_processor_kwargs",
        "max_request_memory",
        "image_memory",
        "max_file_bytes",
        "max_image_pixels",
        "request_timeout",
        "shutdown_timeout",
    ];
    let line = ["medgemma", "serve"].map(OsString::from);
    let options = command_line::with_dashes(options);
    let line: Vec<OsString> = line.into_iter().chain(options).collect();
    let matches = command().try_get_matches_from(&line)?;
    let matches = config_file::heeded(line, matches)?;
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

/// The file of this program, also when another one has been put in its place since it started.
fn this_program() -> PathBuf {
    if cfg!(target_os = "linux") {
        return "/proc/self/exe".into();
    }
    // Without it, what needs it will say so.
    std::env::current_exe().unwrap_or_default()
}

/// Joins the two options about images.
///
/// # Errors
/// clap's, if they contradict each other.
fn preparation(
    fit: Option<ImageFit>,
    fields: Option<PreparationFields>,
) -> Result<PreparationFields, clap::Error> {
    let mut fields = fields.unwrap_or_default();
    match (fit, fields.fit) {
        (Some(fit), Some(other)) if fit != other => Err(clap::Error::raw(
            ErrorKind::ArgumentConflict,
            "--image-fit and the \"fit\" of --mm-processor-kwargs differ: give one of them\n",
        )),
        (fit, other) => {
            fields.fit = fit.or(other);
            Ok(fields)
        }
    }
}

/// Resolves the arguments of `serve`; `matches` tells where each value came from.
///
/// # Errors
/// clap's, for arguments that contradict each other and for unreadable key files.
pub(super) fn resolve(
    arguments: ServeArguments,
    matches: &ArgMatches,
) -> Result<ServeConfig, clap::Error> {
    let on_command_line = matches.value_source("model_option") == Some(ValueSource::CommandLine);
    let prefix_caching = prefix_caching(&arguments, matches);
    let mut notes = vllm_flags::read(matches)?;
    notes.extend(unknown_variables::strays(&command()));
    notes.extend(weak_keys("api_key", &arguments.api_key, matches));
    notes.extend(weak_keys(
        "metrics_key",
        &arguments.network.metrics_key,
        matches,
    ));
    let mut api_keys = arguments.api_key;
    for file in &arguments.api_key_file {
        let keys = read_keys(file, &mut notes);
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
            true => RolePolicy::Strict,
            false => RolePolicy::Merge,
        },
        preparation: preparation(arguments.image_fit, arguments.mm_processor_kwargs)?,
        host: arguments.host,
        port: arguments.port,
        api_keys,
        priority_api_keys,
        key_limits: arguments.key_limits.limits(),
        url_file: arguments.url_file,
        network: arguments.network.resolve(),
        request_defaults: arguments.request_defaults.resolve(),
        limits: Limits {
            max_model_len: arguments.max_model_len.and_then(|length| length.0),
            max_num_seqs: arguments.max_num_seqs,
            max_num_batched_tokens: arguments.max_num_batched_tokens,
            kv_cache_memory: arguments.kv_cache_memory,
            encoder_cache_memory: arguments.encoder_cache_memory,
            max_queued_requests: arguments.max_queued_requests,
        },
        max_request_memory: arguments.max_request_memory,
        image_memory: arguments.image_memory,
        max_file_bytes: arguments.max_file_bytes,
        max_image_pixels: arguments.max_image_pixels,
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
    use super::super::{Command, parse};
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
    fn images_are_prepared_as_both_options_say() {
        let kwargs = "--mm-processor-kwargs";
        for (arguments, fit, crops) in [
            (&[][..], None, false),
            (&["--image-fit", "pad"], Some(ImageFit::Pad), false),
            (&[kwargs, "{\"fit\": \"pad\"}"], Some(ImageFit::Pad), false),
            (
                &["--image-fit=squash", kwargs, "{\"do_pan_and_scan\": true}"],
                Some(ImageFit::Squash),
                true,
            ),
            (
                &["--mm-processor-kwargs.do_pan_and_scan", "true"],
                None,
                true,
            ),
            (&[kwargs, "None"], None, false),
        ] {
            let preparation = serve(arguments).preparation;
            assert_eq!(preparation.fit, fit, "{arguments:?}");
            assert_eq!(preparation.resolve().pan_and_scan.is_some(), crops);
        }
        for (arguments, said) in [
            (
                &["--image-fit=squash", kwargs, "{\"fit\": \"pad\"}"][..],
                "differ",
            ),
            (&[kwargs, "{\"do_pan\": true}"], "'do_pan' is not a setting"),
            (&[kwargs, "{\"frames\": [0]}"], "'frames' must be even"),
            (&[kwargs, "true"], "must be an object"),
        ] {
            let line = [&["medgemma", "serve"], arguments].concat();
            let error = parse(line.into_iter().map(Into::into)).expect_err(said);
            let error = error.to_string();
            assert!(error.contains(said), "{error}");
        }
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
