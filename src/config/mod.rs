//! Configuration from the command line, the environment and `--config`'s file.
//!
//! Knows nothing of models: names and files are looked up by the registry.
//!
//! An option of `serve` is defined in `arguments` (or in `network`, `cors`, `key_limits`,
//! `request_defaults`, `hub`), resolved in `serve`, listed in `batch` (or `network::OPTIONS`) if a batch
//! cannot have it, and removed from `vllm_flags/table.rs` if vLLM has it too.

mod api_key;
mod arguments;
mod batch;
mod bench;
mod byte_size;
mod cached;
mod command_line;
mod compute;
mod config_file;
mod cors;
mod counts;
mod hub;
mod kernels;
mod key_limits;
mod log;
mod network;
mod probe;
mod request_defaults;
mod seconds;
mod serve;
mod setting_names;
mod unknown_variables;
mod vllm_flags;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};

use arguments::{Arguments, CommandArguments};
use hub::Variables;
use serve::measured;

pub use api_key::ApiKey;
pub use batch::{BatchConfig, Place};
pub use bench::{
    Arrivals, Bench, BenchConfig, DecodePlan, Endpoint, PrefillPlan, ReportFormat, ServePlan,
};
pub use byte_size::ByteSize;
pub use cached::{Consent, ModelsConfig, PullConfig, RmConfig};
pub use compute::{ComputeConfig, DeviceChoice, DtypeChoice};
pub use cors::CorsConfig;
pub(crate) use hub::hub_token;
pub use hub::{HubAccess, HubConfig, HubToken, ProgressOutput, Retries, TokenChoice};
pub use kernels::KernelsConfig;
pub use key_limits::KeyLimits;
pub use log::{LogConfig, LogFormat, LogLevel};
pub use network::NetworkConfig;
pub use probe::ProbeConfig;
pub use request_defaults::{RequestDefaults, SamplingSource};
pub use serve::{Limits, LoadFormat, ModelChoice, ServeConfig, Timeouts};

/// The command to run.
#[derive(Debug)]
pub enum Command {
    /// `medgemma serve`
    Serve(Box<ServeConfig>),
    /// `medgemma ready`
    Ready(ProbeConfig),
    /// `medgemma kernels`
    Kernels(KernelsConfig),
    /// `medgemma grammar-worker`, which a server starts internally.
    GrammarWorker,
    /// `medgemma template-worker`, which a server starts for itself.
    TemplateWorker,
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

/// Reads the command line and the environment.
///
/// # Errors
/// clap's, which is also how help and version come out; its `exit` prints it and ends the process
/// with the right code.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let line = command_line::written_out(arguments);
    let matches = command().try_get_matches_from(&line)?;
    let matches = config_file::heeded(line, matches)?;
    let parsed = Arguments::from_arg_matches(&matches)?;
    match parsed.command {
        CommandArguments::GrammarWorker => Ok(Command::GrammarWorker),
        CommandArguments::TemplateWorker => Ok(Command::TemplateWorker),
        CommandArguments::Kernels(arguments) => Ok(Command::Kernels(arguments.resolve())),
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
        CommandArguments::Selftest(arguments) => Ok(Command::SelfTest(arguments.resolve())),
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
            serve::resolve(*arguments, matches).map(|config| Command::Serve(Box::new(config)))
        }
    }
}

/// The command, where of an option that is given twice the last counts, as on vLLM.
fn with_last_word(command: clap::Command) -> clap::Command {
    command.args_override_self(true)
}

/// The command, without variables that are set to nothing, since a compose file's empty default
/// means that nothing was chosen, and without what Kubernetes means by one.
fn command() -> clap::Command {
    let hide = |arg: clap::Arg| {
        let arg = arg.hide_env(true);
        let sets = arg.get_env().is_some_and(|name| match std::env::var(name) {
            Ok(value) => {
                !value.is_empty()
                    && !unknown_variables::is_service_link(&name.to_string_lossy(), &value)
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
        .mut_subcommand("serve", |serve| {
            with_last_word(vllm_flags::known_to(serve)).mut_args(hide)
        })
        .mut_subcommand("run-batch", |batch| {
            batch::without_servers(with_last_word(vllm_flags::known_to(batch)).mut_args(hide))
        })
        .mut_subcommand("ready", |ready| ready.mut_args(hide))
        .mut_subcommand("kernels", |kernels| kernels.mut_args(hide))
        .mut_subcommand("selftest", |selftest| selftest.mut_args(hide))
        .mut_subcommand("pull", |pull| pull.mut_args(hide))
        .mut_subcommand("models", |models| models.mut_args(hide))
        .mut_subcommand("rm", |rm| rm.mut_args(hide))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
