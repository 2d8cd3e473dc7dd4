//! Options of `medgemma run-batch`.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::arguments::ServeArguments;
use super::serve::resolve;
use super::{LogLevel, ServeConfig, network};

/// Options of `serve` that mean nothing where there is no server.
const OF_SERVERS: [&str; 10] = [
    "host",
    "port",
    "api_key",
    "api_key_file",
    "priority_api_key",
    "max_requests_per_key",
    "max_waiting_per_key",
    "max_tokens_per_minute_per_key",
    "url_file",
    "shutdown_timeout",
];

fn of_servers() -> impl Iterator<Item = &'static str> {
    OF_SERVERS.into_iter().chain(network::OPTIONS)
}

/// A file of requests to answer.
#[derive(Clone, Debug)]
pub struct BatchConfig {
    /// The requests.
    pub input: Place,
    /// Their answers.
    pub output: Place,
    /// The model, and how it runs.
    pub serve: ServeConfig,
}

/// Where lines come from or go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// stdin or stdout.
    Pipe,
    /// This file.
    File(PathBuf),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "-" => Self::Pipe,
            path => Self::File(path.into()),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipe => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

pub(super) const EXAMPLES: &str = "\
A line of the input, in OpenAI's batch format:
  {\"custom_id\": \"1\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\",
   \"body\": {\"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}}
  url is /v1/chat/completions, /v1/completions, /v1/responses or /v1/messages.

A line of the output, in order of completion:
  {\"id\": \"batch_req_…\", \"custom_id\": \"1\", \"response\": {\"status_code\": 200,
   \"request_id\": \"req-…\", \"body\": {…}}, \"error\": null}
  A rejected request has its status and error there; an invalid line has an error instead of a
  response. The other lines are not affected.

An interrupted run resumes when the command is run again.

Exit codes:
  0   all lines succeeded
  3   every line has a result, some of them errors
  1   the batch could not start or continue
  70  the model failed
  130 interrupted
";

#[derive(Debug, Args)]
pub(super) struct RunBatchArguments {
    /// The requests, one on a line; - for stdin
    #[arg(short, long, value_name = "FILE", value_parser = str::parse::<Place>)]
    pub(super) input_file: Place,

    /// Output file. Requests that already have a result there are skipped. - for stdout, which
    /// starts from the beginning
    #[arg(short, long, value_name = "FILE", value_parser = str::parse::<Place>)]
    pub(super) output_file: Place,

    #[command(flatten)]
    pub(super) serve: ServeArguments,
}

impl RunBatchArguments {
    /// # Errors
    /// clap's, and options that only a server has.
    pub(super) fn resolve(self, matches: &ArgMatches) -> Result<BatchConfig, clap::Error> {
        let is_given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        if let Some(name) = of_servers().find(|name| is_given(name)) {
            return Err(clap::Error::raw(
                ErrorKind::ArgumentConflict,
                format!(
                    "--{} is for servers: a batch runs without one\n",
                    name.replace('_', "-")
                ),
            ));
        }
        let mut serve = resolve(self.serve, matches)?;
        // A line for each of a million requests is nothing to read beside a progress bar.
        if matches.value_source("log_level") == Some(ValueSource::DefaultValue) {
            serve.log.level = LogLevel::Warn;
        }
        Ok(BatchConfig {
            input: self.input_file,
            output: self.output_file,
            serve,
        })
    }
}

/// The command without the options that it does not take.
pub(super) fn without_servers(command: Command) -> Command {
    of_servers().fold(command, |command, name| {
        command.mut_arg(name, |argument| argument.hide(true))
    })
}
