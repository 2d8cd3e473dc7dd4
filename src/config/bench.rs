//! Options of `medgemma bench`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::seconds::{Seconds, some_seconds};
use super::{ApiKey, ServeConfig};

/// What is measured.
#[derive(Clone, Debug)]
pub struct BenchConfig {
    /// The measurement.
    pub what: Bench,
    /// Output format.
    pub format: ReportFormat,
}

/// One kind of measurement.
#[derive(Clone, Debug)]
pub enum Bench {
    /// New tokens a second, in process.
    Decode(Box<ServeConfig>, DecodePlan),
    /// Prompt tokens a second, in process.
    Prefill(Box<ServeConfig>, PrefillPlan),
    /// Seconds until the model answers.
    Load(Box<ServeConfig>),
    /// Any server, over HTTP.
    Serve(Box<ServePlan>),
}

/// How figures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// A table.
    Text,
    /// One JSON object.
    Json,
}

/// How decoding is measured.
#[derive(Clone, Debug)]
pub struct DecodePlan {
    /// Sequences at a time, one measurement each.
    pub batches: Vec<usize>,
    /// Tokens that each sequence has before it decodes.
    pub prompt_len: usize,
    /// Tokens that each sequence decodes.
    pub output_len: usize,
    /// Measurements of each kind.
    pub runs: usize,
}

/// How prefill is measured.
#[derive(Clone, Debug)]
pub struct PrefillPlan {
    /// Tokens of a prompt, one measurement each.
    pub prompt_lens: Vec<usize>,
    /// Measurements of each kind.
    pub runs: usize,
}

/// What is sent, where and how fast.
#[derive(Clone, Debug)]
pub struct ServePlan {
    /// `http://HOST:PORT`, with or without `/v1`.
    pub base_url: String,
    /// The model's name on the server; `None` takes the first that it lists.
    pub model: Option<String>,
    /// Sent as a bearer token.
    pub api_key: Option<ApiKey>,
    /// Which route.
    pub endpoint: Endpoint,
    /// Requests in all.
    pub num_requests: usize,
    /// When they are sent.
    pub arrivals: Arrivals,
    /// Tokens of a prompt, about: words are counted, and a first request tells their tokens.
    pub input_len: usize,
    /// Tokens of an answer; servers that know `ignore_eos` reach them.
    pub output_len: usize,
    /// Images in each request, all different.
    pub num_images: usize,
    /// Seed of the prompts, images and arrival times.
    pub seed: u64,
    /// A request that takes longer has failed.
    pub timeout: Duration,
}

/// Which route is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Endpoint {
    /// /v1/chat/completions
    Chat,
    /// /v1/completions
    Completions,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Always this many at a time.
    Concurrency(usize),
    /// This many a second on average, at random (Poisson), however slow the answers.
    Rate(f64),
}

#[derive(Debug, Args)]
pub(super) struct BenchArguments {
    /// Write the figures as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,

    #[command(subcommand)]
    pub(super) what: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Decoding speed in tokens per second, and its share of the memory bandwidth's limit
    Decode(DecodeArguments),
    /// Prompt tokens a second
    Prefill(PrefillArguments),
    /// Seconds until a model answers
    Load(LoadArguments),
    /// A server of the OpenAI API, ours or another's, over HTTP
    Serve(ServeBenchArguments),
}

const SERVE_OPTIONS: &str = "Options of `medgemma serve`: a model, --load-format dummy, --device, \
                             --max-num-seqs …";

#[derive(Debug, Args)]
pub(super) struct DecodeArguments {
    /// Sequences at a time; one measurement for each number
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_values_t = [1, 8], value_parser = count)]
    batch: Vec<usize>,
    /// Tokens that each sequence has before it decodes
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = count)]
    prompt_len: usize,
    /// Tokens that each sequence decodes
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = count)]
    output_len: usize,
    /// Measurements of each kind; the median counts
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = count)]
    runs: usize,
    #[arg(last = true, value_name = "SERVE OPTIONS", help = SERVE_OPTIONS)]
    serve: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct PrefillArguments {
    /// Tokens of a prompt; one measurement for each number
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_values_t = [512, 2048], value_parser = count)]
    prompt_len: Vec<usize>,
    /// Measurements of each kind; the median counts
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = count)]
    runs: usize,
    #[arg(last = true, value_name = "SERVE OPTIONS", help = SERVE_OPTIONS)]
    serve: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct LoadArguments {
    #[arg(last = true, value_name = "SERVE OPTIONS", help = SERVE_OPTIONS)]
    serve: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct ServeBenchArguments {
    /// URL of the server, with or without /v1
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    base_url: String,
    /// The model, as the server calls it [default: the first that it lists]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// API key to send
    #[arg(
        long,
        value_name = "KEY",
        env = "MEDGEMMA_BENCH_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
    /// Endpoint to request
    #[arg(long, value_enum, default_value = "chat")]
    endpoint: Endpoint,
    /// Requests in all
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = count)]
    num_requests: usize,
    /// Number of concurrent requests
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = count)]
    concurrency: usize,
    /// Requests per second at random times, instead of a fixed concurrency
    #[arg(long, value_name = "PER SECOND", conflicts_with = "concurrency", value_parser = rate)]
    rate: Option<f64>,
    /// Tokens of a prompt, about
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = count)]
    input_len: usize,
    /// Tokens of an answer
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = count)]
    output_len: usize,
    /// Images in each request, all different
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    images: usize,
    /// Seed of the prompts, images and arrival times
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Maximum time for a request
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = some_seconds)]
    timeout: Seconds,
}

impl BenchArguments {
    /// `serve` reads the options that a measurement has in common with the server.
    pub(super) fn resolve(
        self,
        serve: impl Fn(Vec<OsString>) -> Result<ServeConfig, clap::Error>,
    ) -> Result<BenchConfig, clap::Error> {
        let what = match self.what {
            BenchCommand::Decode(arguments) => Bench::Decode(
                Box::new(serve(arguments.serve)?),
                DecodePlan {
                    batches: arguments.batch,
                    prompt_len: arguments.prompt_len,
                    output_len: arguments.output_len,
                    runs: arguments.runs,
                },
            ),
            BenchCommand::Prefill(arguments) => Bench::Prefill(
                Box::new(serve(arguments.serve)?),
                PrefillPlan {
                    prompt_lens: arguments.prompt_len,
                    runs: arguments.runs,
                },
            ),
            BenchCommand::Load(arguments) => Bench::Load(Box::new(serve(arguments.serve)?)),
            BenchCommand::Serve(arguments) => Bench::Serve(Box::new(arguments.plan()?)),
        };
        let format = if self.json {
            ReportFormat::Json
        } else {
            ReportFormat::Text
        };
        Ok(BenchConfig { what, format })
    }
}

impl ServeBenchArguments {
    fn plan(self) -> Result<ServePlan, clap::Error> {
        if self.images > 0 && self.endpoint == Endpoint::Completions {
            return Err(clap::Error::raw(
                clap::error::ErrorKind::ArgumentConflict,
                "--images needs --endpoint chat: /v1/completions takes no images\n",
            ));
        }
        Ok(ServePlan {
            base_url: self.base_url,
            model: self.model,
            api_key: self.api_key.map(ApiKey),
            endpoint: self.endpoint,
            num_requests: self.num_requests,
            arrivals: match self.rate {
                Some(rate) => Arrivals::Rate(rate),
                None => Arrivals::Concurrency(self.concurrency),
            },
            input_len: self.input_len,
            output_len: self.output_len,
            num_images: self.images,
            seed: self.seed,
            timeout: self.timeout.0,
        })
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a whole number of at least 1".to_owned()),
        Ok(count) => Ok(count),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("it must be a number above 0".to_owned()),
    }
}
